"""What of the Helm chart is made from the code: `python -m tests.contract.chart_values`, or
`make reference`.

The names of settings in values.schema.json, and the README with all values, their defaults and
meanings.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, SecretStr

from reviewmesh.settings import SET_BY_THE_MESH
from reviewmesh.settings import Settings as ServiceSettings
from reviewmesh_kit.environment import SECRET_WORDS
from reviewmesh_schemas.names import TASKS
from reviewmesh_worker.serving.settings import Settings as WorkerSettings

CHART = Path(__file__).parents[2] / "deploy/helm/reviewmesh"
SCHEMA = CHART / "values.schema.json"
README = CHART / "README.md"
ROUTES = {f"{section}__{task.upper()}" for section in ("CANDIDATES", "FALLBACKS") for task in TASKS}
# Those that the chart sets itself, from values of their own.
OF_THE_CHART = {
    "BUDGETS",
    "GRACE_S",
    "OPENAI__API_KEY_FILE",
    "POLICY",
    "PREFIX",
    "SLOT",
    "TRACES__ENDPOINT",
    "WORKER__ALIAS",
    "WORKER__ALLOWED_CLIENTS",
    "WORKER__ENGINE",
    "WORKER__GRACE_S",
    "WORKER__HOST",
    "WORKER__MODEL_REGISTRY",
    "WORKER__PORT",
    "WORKER__TASKS",
    *ROUTES,
}
SECTIONS_OF_THE_CHART = {"HTTP", "KAFKA", "REGISTRY", "TLS", "WORKERS"}
INTRODUCTION = """\
# The chart reviewmesh

<!-- Made from values.yaml and its schema by `make reference`. Changes here are lost. -->

How to install and scale the mesh with it: [Kubernetes](../../../docs/kubernetes.md). Names that
are not below are refused. Examples, each a file for `--values`: [minimal](examples/minimal.yaml),
[production](examples/production.yaml) with Strimzi, cert-manager, KEDA and GPUs of two kinds,
[fallback](examples/fallback.yaml) with a provider's model.

`files/` holds links to the rules, dashboards and topics of the project. Helm follows them and says
so on stderr; `make chart-package` makes an archive with what they lead to.
"""


def main() -> None:
    schema = with_settings(json.loads(SCHEMA.read_text()))
    SCHEMA.write_text(json.dumps(schema, indent=1, ensure_ascii=False) + "\n")
    README.write_text(readme())


# -- settings --------------------------------------------------------------------------------


def with_settings(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with the names of settings as the code has them now."""
    made = copy.deepcopy(schema)
    names = {"settings": _names(ServiceSettings), "workerSettings": _names(WorkerSettings)}
    for definition, known in names.items():
        made["$defs"][definition]["propertyNames"]["enum"] = sorted(known)
    options = made["properties"]["kafka"]["properties"]["options"]
    secret = "|".join(SECRET_WORDS)
    options["propertyNames"]["not"] = {
        "anyOf": [{"enum": sorted(SET_BY_THE_MESH | {"bootstrap_servers"})}, {"pattern": secret}]
    }
    return made


def _names(model: type[BaseModel]) -> set[str]:
    """Those that the values may hold: no secrets, and not those that the chart sets itself."""
    return set(_settings(model)) - OF_THE_CHART


def _settings(model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        section = field.annotation
        if not isinstance(section, type) or not issubclass(section, BaseModel):
            yield name.upper()
        elif name.upper() not in SECTIONS_OF_THE_CHART:
            for own, inner in section.model_fields.items():
                if SecretStr.__name__ not in str(inner.annotation):
                    yield f"{name}__{own}".upper()


# -- the README ------------------------------------------------------------------------------


def readme() -> str:
    schema = json.loads(SCHEMA.read_text())
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    parts = [INTRODUCTION]
    for name, part in schema["properties"].items():
        if name == "global":
            continue
        rows = list(_rows(schema, name, part, defaults[name]))
        said = "" if rows[0][0] == f"`{name}`" else f"{_described(schema, part)}\n\n"
        parts.append(f"## {name}\n\n{said}{_table(rows)}\n")
    return "\n".join(parts)


def _rows(
    schema: dict[str, Any], path: str, part: dict[str, Any], default: Any
) -> Iterator[tuple[str, str, str]]:
    found = resolved(schema, part)
    inner = found.get("properties")
    if not inner or not _all_described(schema, inner) or _is_whole(path, part):
        yield f"`{path}`", _shown(default), _described(schema, part)
        return
    given = default if isinstance(default, dict) else {}
    of_all = schema["$defs"]["service"]["properties"] if path.startswith("services.") else {}
    for name, field in inner.items():
        if name not in of_all:
            yield from _rows(schema, f"{path}.{name}", field, given.get(name))


def _all_described(schema: dict[str, Any], inner: dict[str, Any]) -> bool:
    return all("description" in resolved(schema, field) for field in inner.values())


def _is_whole(path: str, part: dict[str, Any]) -> bool:
    """Whether it is one row: a part of Kubernetes, or one that has its rows under the defaults."""
    kind = part.get("$ref", "").rpartition("/")[2]
    whole = ("addresses", "image", "resources", "secretKey", "volume")
    return kind in whole or ("." in path and kind in ("service", "worker"))


def resolved(schema: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    """A part of the schema with what it refers to."""
    if "$ref" not in part:
        return part
    return {**schema["$defs"][part["$ref"].rpartition("/")[2]], **part}


def _described(schema: dict[str, Any], part: dict[str, Any]) -> str:
    text = str(resolved(schema, part)["description"])
    choices = resolved(schema, part).get("enum")
    if choices and not any(str(choice) in text for choice in choices if choice):
        text += " One of " + ", ".join(f"`{choice}`" for choice in choices) + "."
    return text.replace("|", "\\|")


def _shown(default: Any) -> str:
    if default in (None, "", [], {}):
        return ""
    text = default
    if not isinstance(default, str):
        text = yaml.safe_dump(default, default_flow_style=True, sort_keys=False, width=10_000)
    return f"`{text.removesuffix(chr(10)).removesuffix('...').strip()}`"


def _table(rows: Iterable[tuple[str, str, str]]) -> str:
    lines = ["| value | default | meaning |", "| --- | --- | --- |"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


# Parts whose fields are Kubernetes' or the user's, and have no defaults.
OPEN = {"addresses", "labels", "peers", "resources", "settings", "volume", "workerSettings"}
WITHOUT_DEFAULT = {"global", "kafka.auth.secrets", "kafka.auth.users"}


def compare(schema: dict[str, Any], defaults: dict[str, Any]) -> None:
    """Raises AssertionError for a value without a default, a meaning, or a place in the schema."""
    _compare(schema, schema, defaults, "")


def _compare(schema: dict[str, Any], part: dict[str, Any], given: Any, path: str) -> None:
    inner = resolved(schema, part).get("properties")
    kind = part.get("$ref", "").rpartition("/")[2]
    if inner is None or kind in OPEN or path in WITHOUT_DEFAULT:
        return
    assert given.keys() <= inner.keys(), f"{path}: {given.keys() - inner.keys()} not in the schema"
    # Services take what they do not say from serviceDefaults; a group's tasks are its own.
    partial = path.startswith("services.") or path.endswith("reviewsPerSecond")
    for name, field in inner.items():
        where = f"{path}.{name}".lstrip(".")
        assert resolved(schema, field).get("description"), f"{where} has no description"
        if name in given:
            _compare(schema, field, given[name], where)
        elif where not in WITHOUT_DEFAULT | {"workerDefaults.tasks"} and not partial:
            raise AssertionError(f"{where} has no default in values.yaml")


if __name__ == "__main__":
    main()
