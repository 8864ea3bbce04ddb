"""Settings from the environment: what is taken, what is refused under its name, what is hidden."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from pydantic_settings import SettingsError

from reviewmesh.settings import SET_BY_THE_MESH, KafkaSettings, RegistrySettings, Settings
from reviewmesh_kit import settings as kit
from reviewmesh_kit.environment import unknown_settings, with_secrets_of_files
from reviewmesh_worker.serving.settings import Settings as WorkerProcessSettings

SECRET = "hunter2-s3cret"
Environment = Callable[..., Settings]


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Environment:
    """Settings of an environment that holds just these, written without REVIEWMESH_."""

    def settings_of(**variables: str) -> Settings:
        for name, value in variables.items():
            monkeypatch.setenv(f"REVIEWMESH_{name}", value)
        return Settings()

    return settings_of


def problems(environment: Environment, **variables: str) -> str:
    with pytest.raises((ValidationError, SettingsError)) as caught:
        environment(**variables)
    assert isinstance(caught.value, ValidationError | SettingsError)
    return "\n".join(kit.problems(caught.value))


# -- what is taken ---------------------------------------------------------------------------


def test_defaults_need_no_environment(environment: Environment) -> None:
    found = environment()
    assert found.kafka.as_librdkafka() == {"bootstrap.servers": "127.0.0.1:9092"}
    assert found.registry.ssl_context() is True
    assert found.slot


def test_sasl_and_tls_options_go_to_librdkafka_under_its_names(environment: Environment) -> None:
    found = environment(
        KAFKA__BOOTSTRAP_SERVERS="a:1,b:2",
        KAFKA__SECURITY_PROTOCOL="SASL_SSL",
        KAFKA__SASL_MECHANISM="SCRAM-SHA-512",
        KAFKA__SASL_USERNAME="mesh",
        KAFKA__SASL_PASSWORD=SECRET,
        KAFKA__SSL_CA_LOCATION="/etc/ca.pem",
        KAFKA__SSL_KEY_PASSWORD=SECRET,
    )
    assert found.kafka.as_librdkafka() == {
        "bootstrap.servers": "a:1,b:2",
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "mesh",
        "sasl.password": SECRET,
        "ssl.ca.location": "/etc/ca.pem",
        "ssl.key.password": SECRET,
    }


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("name", ["KAFKA__SASL_PASSWORD", "REGISTRY__PASSWORD"])
def test_a_password_is_taken_as_it_is(environment: Environment, name: str, value: str) -> None:
    """Also where it looks like a number, JSON or a boolean."""
    found = environment(**{name: value})
    if name.startswith("KAFKA"):
        assert found.kafka.as_librdkafka()["sasl.password"] == value
    else:
        assert found.registry.password is not None
        assert found.registry.password.get_secret_value() == value


@pytest.mark.parametrize("value", ["123", "true", "null", '"x"', "[1]", '{"a": 1}', " x ", "a__b"])
def test_a_password_that_looks_like_something_else(environment: Environment, value: str) -> None:
    assert environment(KAFKA__SASL_PASSWORD=value).kafka.as_librdkafka()["sasl.password"] == value


@pytest.mark.parametrize("value", ["email, phone", '["email", "phone"]', "email,phone,"])
def test_a_list_is_json_or_separated_by_commas(environment: Environment, value: str) -> None:
    assert environment(INTAKE__DROP_ATTRIBUTES=value).intake.drop_attributes == ("email", "phone")


def test_a_user_in_the_registrys_address_is_taken_out_of_it(environment: Environment) -> None:
    registry = environment(REGISTRY__URL="https://us%40er:p%2Fw@registry:8443/ccompat").registry
    assert registry.url == "https://registry:8443/ccompat"
    assert registry.username == "us@er"
    assert registry.password is not None
    assert registry.password.get_secret_value() == "p/w"


def test_a_password_of_its_own_goes_before_the_one_in_the_address() -> None:
    values: dict[str, Any] = {"url": "http://u:in-url@registry/", "password": "own"}
    registry = RegistrySettings(**values)
    assert registry.password is not None
    assert registry.password.get_secret_value() == "own"


# -- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GRACE_S", "soon"),
        ("GRACE_S", "0"),
        ("GRACE_S", "inf"),
        ("SLOT", ""),
        ("SLOT", "a/b"),
        ("PREFIX", "my prefix "),
        ("LOG__LEVEL", "LOUD"),
        ("LOG__FORMAT", "xml"),
        ("HTTP__PORT", "99999"),
        ("HTTP__PORT", "http"),
        ("WORKERS__NER", " "),
        ("JOIN__MAX_WAIT_S", "-1"),
        ("JOIN__MAX_WAIT", "60"),
        ("INTAKE__DEDUPE_IDS", "1.5"),
        ("INTAKE__DEDUPE_WINDOW_S", "nan"),
        ("KAFKA__BOOTSTRAP_SERVERS", ""),
        ("KAFKA__SASL__PASSWORD", SECRET),
        ("REGISTRY__URL", "registry:8081"),
        ("REGISTRY__URL", f"ftp://user:{SECRET}@registry"),
        ("REGISTRY__URL", f"http://user:{SECRET}@[registry"),
        ("REGISTRY__SSL_CA_LOCATION", "/nowhere/ca.pem"),
        ("REGISTRY", SECRET),
        ("KAFKA", SECRET),
    ],
)
def test_a_bad_value_is_refused_under_its_name(
    environment: Environment, name: str, value: str
) -> None:
    said = problems(environment, **{name: value})
    # A section within a section is refused under the name of the outer one.
    expected = "REVIEWMESH_" + ("KAFKA__SASL" if name == "KAFKA__SASL__PASSWORD" else name)
    assert expected in said
    assert SECRET not in said


def test_every_problem_has_a_line(environment: Environment) -> None:
    said = problems(environment, GRACE_S="x", HTTP__PORT="y").splitlines()
    assert [line.split(":")[0] for line in said] == ["REVIEWMESH_HTTP__PORT", "REVIEWMESH_GRACE_S"]


@pytest.mark.parametrize("name", sorted(SET_BY_THE_MESH))
def test_what_exactly_once_rests_on_cannot_be_set(environment: Environment, name: str) -> None:
    variable = f"KAFKA__{name.upper()}"
    assert f"REVIEWMESH_{variable}" in problems(environment, **{variable: "true"})


def test_tls_files_that_cannot_be_loaded_are_refused(
    environment: Environment, tmp_path: Path
) -> None:
    file = tmp_path / "ca.pem"
    file.write_text(SECRET)
    said = problems(environment, REGISTRY__SSL_CA_LOCATION=str(file))
    assert "REVIEWMESH_REGISTRY" in said
    assert SECRET not in said


# -- what is hidden --------------------------------------------------------------------------


def test_no_way_of_showing_settings_shows_a_secret() -> None:
    kafka: dict[str, Any] = {
        "sasl_password": SECRET,
        "ssl_key_password": SECRET,
        "ssl_key_pem": SECRET,
        "sasl_oauthbearer_client_secret": SECRET,
        "an_option_of_tomorrow": SECRET,
    }
    registry: dict[str, Any] = {
        "url": f"http://user:{SECRET}@registry/",
        "ssl_key_password": SECRET,
    }
    found = Settings(kafka=KafkaSettings(**kafka), registry=RegistrySettings(**registry))
    shown = [
        *(repr(found), str(found), f"{found.kafka}", f"{found.registry}"),
        *(repr(found.kafka.__dict__), repr(found.kafka.model_extra), repr(dict(found.kafka))),
        *(repr(found.model_dump()), found.model_dump_json(), repr(found.registry.model_dump())),
    ]
    for text in shown:
        assert SECRET not in text


def test_an_error_holds_no_value() -> None:
    values: dict[str, Any] = {"sasl_password": {"nested": SECRET}, "group_id": SECRET}
    with pytest.raises(ValidationError) as caught:
        KafkaSettings(**values)
    assert SECRET not in str(caught.value)


# -- fallbacks -------------------------------------------------------------------------------


def test_fallback_workers_are_told_apart_by_region(environment: Environment) -> None:
    found = environment(FALLBACKS__TOPIC="eu@a:1, us@[::1]:2,eu@b:3").fallbacks
    assert found.by_region("topic") == {"eu": ("a:1", "b:3"), "us": ("[::1]:2",)}
    assert found.by_region("ner") == {}


@pytest.mark.parametrize("value", ["a:1", "eu@a", "@a:1", "EU@a:1", "eu@:1 eu@b:1"])
def test_a_fallback_worker_without_its_region_is_refused(
    environment: Environment, value: str
) -> None:
    told = problems(environment, FALLBACKS__TOPIC=value)
    assert told.startswith("REVIEWMESH_FALLBACKS__TOPIC: expected REGION@HOST:PORT")


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_known_to_all_processes(name: str) -> None:
    annotation = Settings.model_fields[name].annotation
    nested = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    assert unknown_settings([kit.variable(name, "x") if nested else kit.variable(name)]) == []


# -- secrets in files ------------------------------------------------------------------------------


def secret_settings() -> list[str]:
    """Every declared secret, as SECTION__NAME; librdkafka's are not declared."""
    found = ["KAFKA__SASL_PASSWORD", "KAFKA__SSL_KEY_PEM", "KAFKA__SASL_OAUTHBEARER_CLIENT_SECRET"]
    for settings_class in (Settings, WorkerProcessSettings):
        for section, field in settings_class.model_fields.items():
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                found += [
                    f"{section}__{name}".upper()
                    for name, inner in field.annotation.model_fields.items()
                    if "SecretStr" in str(inner.annotation)
                ]
    return sorted(set(found))


def test_every_secret_can_lie_in_a_file() -> None:
    names = secret_settings()
    assert "REGISTRY__PASSWORD" in names
    assert "OPENAI__API_KEY" in names
    for name in names:
        variables: dict[str, str | None] = {f"reviewmesh_{name}_file".lower(): "/etc/hostname"}
        # The worker reads this one itself, so that it may be replaced while the worker runs.
        declared = name == "OPENAI__API_KEY"
        expected = f"reviewmesh_{name}{'_file' if declared else ''}".lower()
        assert list(with_secrets_of_files(variables)) == [expected]


def test_a_secret_comes_from_its_file(environment: Environment, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(f" {SECRET}\r\n")
    found = environment(KAFKA__SASL_PASSWORD_FILE=str(file), REGISTRY__PASSWORD_FILE=str(file))
    assert found.kafka.as_librdkafka()["sasl.password"] == f" {SECRET}"
    assert found.kafka.secrets() == [f" {SECRET}"]
    assert found.registry.password is not None
    assert found.registry.password.get_secret_value() == f" {SECRET}"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "got none"),
        (b"\n", "got none"),
        (b"\xff\xfe", "not UTF-8"),
        (b"a" * 70_000, "got more"),
    ],
)
def test_a_file_without_a_usable_secret_is_refused_under_its_name(
    environment: Environment, tmp_path: Path, content: bytes, expected: str
) -> None:
    file = tmp_path / "password"
    file.write_bytes(content)
    found = problems(environment, REGISTRY__PASSWORD_FILE=str(file))
    assert found.startswith("REVIEWMESH_REGISTRY__PASSWORD_FILE: expected")
    assert expected in found


def test_a_missing_file_and_two_sources_of_a_secret_are_refused(
    environment: Environment, tmp_path: Path
) -> None:
    missing = problems(environment, KAFKA__SASL_PASSWORD_FILE=str(tmp_path / "none"))
    assert "REVIEWMESH_KAFKA__SASL_PASSWORD_FILE: expected a file" in missing
    both = problems(environment, KAFKA__SASL_PASSWORD=SECRET)
    assert both == (
        "expected REVIEWMESH_KAFKA__SASL_PASSWORD_FILE or REVIEWMESH_KAFKA__SASL_PASSWORD, got both"
    )


def test_a_setting_that_holds_no_secret_has_no_file(environment: Environment) -> None:
    found = problems(environment, REGISTRY__URL_FILE="/etc/hostname")
    assert found == "REVIEWMESH_REGISTRY__URL_FILE: there is no such setting"
