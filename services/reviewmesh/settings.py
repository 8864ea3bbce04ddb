"""Settings of the services and the command line, read from REVIEWMESH_* and nothing else."""

from __future__ import annotations

import re
import socket
import ssl
from functools import cached_property
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FilePath,
    SecretStr,
    field_validator,
    model_validator,
)

from reviewmesh_kit.certificates import CertificateFiles, PemFiles, RenewedContext
from reviewmesh_kit.environment import SECRET_WORDS
from reviewmesh_kit.settings import CommaSeparated, ProcessSettings, Section, variable

NAME_PATTERN = r"^[A-Za-z0-9._-]*$"

# Exactly-once depends on these: other values would lose or repeat records, or let replicas fence
# each other.
SET_BY_THE_MESH = frozenset(
    {
        "auto_offset_reset",
        "enable_auto_commit",
        "enable_auto_offset_store",
        "enable_idempotence",
        "enable_partition_eof",
        "group_id",
        "group_instance_id",
        "group_protocol",
        "isolation_level",
        "partition_assignment_strategy",
        "transactional_id",
    }
)


class KafkaSettings(BaseModel):
    """librdkafka's own options, dots written as underscores; SASL and TLS included.

    Any of them may be a secret, so only the address is ever printed.
    """

    model_config = ConfigDict(extra="allow", hide_input_in_errors=True)
    __pydantic_extra__: dict[str, SecretStr] = Field(init=False)
    bootstrap_servers: str = Field(
        default="127.0.0.1:9092",
        min_length=1,
        description="Kafka brokers to connect to first, as host:port, separated by commas.",
    )

    @model_validator(mode="after")
    def _leaves_the_mesh_its_own(self) -> Self:
        taken = sorted(SET_BY_THE_MESH & self.__pydantic_extra__.keys())
        if taken:
            names = ", ".join(variable("kafka", name) for name in taken)
            raise ValueError(
                f"the mesh sets these itself, because exactly-once needs them: {names}"
            )
        return self

    def as_librdkafka(self) -> dict[str, str]:
        """The options under librdkafka's names, with secrets: never log them."""
        options = {"bootstrap.servers": self.bootstrap_servers}
        for name, value in self.__pydantic_extra__.items():
            options[name.replace("_", ".")] = value.get_secret_value()
        return options

    @cached_property
    def certificates(self) -> CertificateFiles:
        """The PEM files that the options name. Clients keep those that they were made with."""
        options = self.as_librdkafka()

        def path(name: str) -> Path | None:
            found = options.get(f"ssl.{name}.location")
            return Path(found) if found and Path(found).is_file() else None

        files = PemFiles(
            path("ca"), path("certificate"), path("key"), options.get("ssl.key.password")
        )
        return CertificateFiles(files, "kafka")

    def secrets(self) -> list[str]:
        """The values that must not appear in any message."""
        return [
            value.get_secret_value()
            for name, value in self.__pydantic_extra__.items()
            if value and any(word in name for word in SECRET_WORDS)
        ]


class RegistrySettings(Section):
    """Where the schema registry's Confluent API is, basic auth and TLS.

    A user and a password inside the address are taken out of it.
    """

    url: str = Field(
        default="http://127.0.0.1:8081/apis/ccompat/v7",
        description="Base URL of the registry's Confluent-compatible API.",
    )
    username: str | None = Field(default=None, description="User name for basic authentication.")
    password: SecretStr | None = Field(
        default=None, description="Password for basic authentication."
    )
    ssl_ca_location: FilePath | None = Field(
        default=None,
        description="PEM file of the certificate authorities to trust; without it, those that the "
        "system trusts.",
    )
    ssl_certificate_location: FilePath | None = Field(
        default=None, description="PEM file of the client certificate, for mutual TLS."
    )
    ssl_key_location: FilePath | None = Field(
        default=None,
        description="PEM file of the client certificate's private key, if it is a file of its own.",
    )
    ssl_key_password: SecretStr | None = Field(
        default=None, description="Password of the private key."
    )

    @model_validator(mode="before")
    @classmethod
    def _take_credentials_out_of_the_address(cls, values: Any) -> Any:
        if not isinstance(values, dict) or "url" not in values:
            return values
        try:
            address = urlsplit(str(values["url"]))
            user, password = address.username, address.password
        except ValueError as error:
            raise ValueError(f"{variable('registry', 'url')} is no address") from error
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ValueError(
                f"{variable('registry', 'url')}: expected http://HOST:PORT/PATH or https://…"
            )
        if user is None:
            return values
        bare = address._replace(netloc=address.netloc.rpartition("@")[2]).geturl()
        found = {"username": unquote(user), "password": unquote(password or "")}
        return {**found, **values, "url": bare}

    @model_validator(mode="after")
    def _tls_files_can_be_loaded(self) -> Self:
        try:
            self.ssl_context()
        except (OSError, ValueError) as error:
            raise ValueError(
                f"expected PEM files, with a key that fits, in {variable('registry', 'ssl_*')}: "
                f"{error}"
            ) from error
        return self

    @cached_property
    def certificates(self) -> CertificateFiles:
        """The PEM files of TLS."""
        password = self.ssl_key_password
        files = PemFiles(
            self.ssl_ca_location,
            self.ssl_certificate_location,
            self.ssl_key_location,
            None if password is None else password.get_secret_value(),
        )
        return CertificateFiles(files, "registry")

    def renewed_context(self) -> RenewedContext | None:
        """None: the authorities that the system, or SSL_CERT_FILE, trusts."""
        context = self.ssl_context()
        if isinstance(context, bool):
            return None
        return RenewedContext(context, self.certificates, self._load)

    def ssl_context(self) -> ssl.SSLContext | bool:
        """True: the authorities that the system, or SSL_CERT_FILE, trusts."""
        if self.ssl_ca_location is None and self.ssl_certificate_location is None:
            return True
        if self.ssl_ca_location is None:
            import httpx

            context = httpx.create_ssl_context()
        else:
            context = ssl.create_default_context(cafile=self.ssl_ca_location)
        self._load(context)
        return context

    def _load(self, context: ssl.SSLContext) -> None:
        if self.ssl_ca_location is not None:
            context.load_verify_locations(self.ssl_ca_location)
        if self.ssl_certificate_location is not None:
            password = self.ssl_key_password
            context.load_cert_chain(
                self.ssl_certificate_location,
                self.ssl_key_location,
                # An empty one, so that a key that needs a password is an error, not a prompt.
                password.get_secret_value() if password else "",
            )


class WorkersSettings(Section):
    """Inference workers per task: host:port, several separated by commas."""

    ner: str = Field(
        default="127.0.0.1:50051",
        pattern=r"\S",
        description="Workers of the task ner: host:port, several separated by commas; every "
        "address that a name resolves to is used.",
    )
    topic: str = Field(
        default="127.0.0.1:50051",
        pattern=r"\S",
        description="Workers of the task topic: host:port, several separated by commas; every "
        "address that a name resolves to is used.",
    )
    sentiment: str = Field(
        default="127.0.0.1:50051",
        pattern=r"\S",
        description="Workers of the task sentiment: host:port, several separated by commas; every "
        "address that a name resolves to is used.",
    )


class WrongSetting(ValueError):
    """An error in a setting that only the service that uses it can find; names the setting."""


ENDPOINT = re.compile(r"[a-z0-9-]+@\S+:\d+")


class FallbacksSettings(Section):
    """Workers that answer while a task's own do not, each as REGION@HOST:PORT."""

    ner: CommaSeparated = Field(
        default=(),
        description="Fallback workers of the task ner: REGION@HOST:PORT, where REGION is where the "
        "texts go in the end, as in the policy.",
    )
    topic: CommaSeparated = Field(default=(), description="Fallback workers of the task topic.")
    sentiment: CommaSeparated = Field(
        default=(), description="Fallback workers of the task sentiment."
    )
    after_s: float = Field(
        default=30,
        gt=0,
        allow_inf_nan=False,
        description="Seconds without any worker of a task that answers after which its fallback is "
        "taken.",
    )
    spill_s: float = Field(
        default=600,
        gt=0,
        allow_inf_nan=False,
        description="Seconds since a review was accepted after which the fallback is taken for it, "
        "if it still waits for room at a worker.",
    )

    @field_validator("ner", "topic", "sentiment")
    @classmethod
    def _each_says_where_it_is(cls, endpoints: tuple[str, ...]) -> tuple[str, ...]:
        for endpoint in endpoints:
            if not ENDPOINT.fullmatch(endpoint):
                raise ValueError(
                    f"expected REGION@HOST:PORT, such as eu@10.0.0.7:50051, got {endpoint}"
                )
        return endpoints

    def by_region(self, task: str) -> dict[str, tuple[str, ...]]:
        """The addresses of a task's fallback workers."""
        regions: dict[str, tuple[str, ...]] = {}
        for endpoint in getattr(self, task):
            region, _, address = endpoint.partition("@")
            regions[region] = (*regions.get(region, ()), address)
        return regions


class CandidatesSettings(Section):
    """Workers with the candidate of a rollout, per task: host:port."""

    ner: CommaSeparated = Field(
        default=(),
        description="Workers with the candidate of the task ner: host:port, several separated by "
        "commas. They get calls only during a rollout.",
    )
    topic: CommaSeparated = Field(
        default=(), description="Workers with the candidate of the task topic: host:port."
    )
    sentiment: CommaSeparated = Field(
        default=(), description="Workers with the candidate of the task sentiment: host:port."
    )
    patience_s: float = Field(
        default=10,
        gt=0,
        allow_inf_nan=False,
        description="Seconds after which a review that the candidate has not answered goes to the "
        "task's own workers, and counts as a failure of the candidate.",
    )


class IntakeSettings(Section):
    dedupe_window_s: float = Field(
        default=3600,
        gt=0,
        allow_inf_nan=False,
        description="Seconds for which a review that comes again unchanged is dropped.",
    )
    dedupe_ids: int = Field(
        default=20_000,
        gt=0,
        description="Review ids that each partition remembers to find duplicates; the oldest are "
        "forgotten first.",
    )
    drop_attributes: CommaSeparated = Field(
        default=("email", "phone", "ip_address", "user_id"),
        description="Attributes that are removed from every review.",
    )
    forwarding_secret: SecretStr | None = Field(
        default=None,
        min_length=16,
        description="The same secret for all replicas of intake. With it, a review that was "
        "forwarded to the partition of its key names the record that its producer wrote; without "
        "it, the forwarded copy, because anybody can write headers. `reviewmesh up` creates one.",
    )


class JoinSettings(Section):
    max_wait_s: float = Field(
        default=6 * 3600,
        gt=0,
        allow_inf_nan=False,
        description="Seconds after which a review is published even if results are missing.",
    )
    straggler_s: float = Field(
        default=60,
        gt=0,
        allow_inf_nan=False,
        description="Seconds that later results of a task may flow past a review before the "
        "joiner looks up whether that task's enricher has finished it.",
    )
    late_window_s: float = Field(
        default=24 * 3600,
        gt=0,
        allow_inf_nan=False,
        description="Seconds for which a missing result still completes a review that was "
        "published without it, as a higher revision.",
    )


class ReprocessSettings(Section):
    live_late_s: float = Field(
        default=30,
        gt=0,
        allow_inf_nan=False,
        description="Seconds that the oldest live review of an enricher may wait before answers "
        "that are done again pause.",
    )


class LagSettings(Section):
    """Groups watched in addition to the mesh's own, on the mesh's topics."""

    groups: CommaSeparated = Field(
        default=(), description="Consumer groups to watch in addition to those of the mesh."
    )


class TracesSettings(Section):
    """Spans of reviews for an OpenTelemetry backend, written by the tracer."""

    endpoint: str = Field(
        default="",
        pattern=r"^(https?://\S+)?$",
        description="OTLP endpoint over HTTP, such as http://collector:4318; the tracer needs it. "
        "Without it nothing is traced, and nothing else changes.",
    )
    authorization: SecretStr | None = Field(
        default=None,
        description="Value of the header Authorization, a secret like a password.",
    )
    slow_s: float = Field(
        default=10.0,
        gt=0,
        allow_inf_nan=False,
        description="A review is traced that took longer, from the producer's timestamp until it "
        "was enriched. So are partial and failed ones, and those that a fallback or a candidate "
        "answered.",
    )
    share: float = Field(
        default=0.001,
        ge=0,
        le=1,
        description="Share of the other reviews that is traced, by trace id: as OpenTelemetry's "
        "TraceIdRatioBased.",
    )


class ConsoleSettings(Section):
    """The page over the mesh."""

    host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="Address on which the page is served. Any but a loopback address needs "
        "sign-in, by REVIEWMESH_SIGNIN__ISSUER or REVIEWMESH_SIGNIN__PROXY_SECRET.",
    )
    port: int = Field(default=8088, ge=0, le=65535, description="Port of the page; 0: any.")
    url: str = Field(
        default="",
        pattern=r"^(https?://[A-Za-z0-9.:\[\]-]+/?)?$",
        description="Address by which people reach the page, such as https://reviews.example.com. "
        "Sign-in needs it; without it the page answers to localhost alone.",
    )
    folder: Path = Field(
        default=Path(".reviewmesh-console"),
        description="Folder of the index of where each review's records are. It is made again from "
        "the topics when it is lost.",
    )
    actions: bool = Field(
        default=False,
        description="Whether the page may send dead letters again, and command rollouts and "
        "campaigns. Where people sign in, operators and owners may then do so; without sign-in, "
        "everybody who reaches it.",
    )
    viewers_see_text: bool = Field(
        default=False,
        description="Whether people with the role viewer see what records hold: text, titles, "
        "entities, dead letters. Operators and owners do.",
    )
    processes: CommaSeparated = Field(
        default=(),
        description="Processes whose endpoints are asked, each as NAME=HOST:PORT, such as "
        "intake=127.0.0.1:9464.",
    )
    model_registry: Path | None = Field(
        default=None,
        description="Folder of the registry of models whose packages the page shows; it only reads "
        "them.",
    )


HEADER_NAME = r"^[A-Za-z0-9-]+$"


class SigninSettings(Section):
    """Who may use the console: an OpenID provider says it, or a proxy in front of the page."""

    issuer: str = Field(
        default="",
        pattern=r"^(https?://\S+)?$",
        description="Issuer of the OpenID provider with which people sign in, such as "
        "https://login.example.com/realms/reviews.",
    )
    client_id: str = Field(
        default="", description="Name under which the provider knows the console."
    )
    client_secret: SecretStr | None = Field(
        default=None,
        min_length=1,
        description="Secret of this client; none for a public client. PKCE is used either way.",
    )
    scopes: CommaSeparated = Field(
        default=("openid", "profile", "email"), description="Scopes that the provider is asked for."
    )
    role_claim: str = Field(
        default="roles",
        min_length=1,
        description="Claim of the ID token that holds the roles, a text or a list; dots lead into "
        "objects, as in realm_access.roles.",
    )
    viewers: CommaSeparated = Field(
        default=(),
        description="Values of the claim or the header that make somebody a viewer: who reads.",
    )
    operators: CommaSeparated = Field(
        default=(), description="Values that make somebody an operator: who also acts."
    )
    owners: CommaSeparated = Field(
        default=(), description="Values that make somebody an owner: who may do everything."
    )
    session_s: float = Field(
        default=8 * 3600,
        gt=0,
        allow_inf_nan=False,
        description="Seconds after which people sign in again, and a role that was taken away is "
        "gone.",
    )
    session_secret: SecretStr | None = Field(
        default=None,
        min_length=32,
        description="Secret that signs sessions, the same for all replicas. Without it one is made "
        "at each start, and a restart ends all sessions.",
    )
    proxy_secret: SecretStr | None = Field(
        default=None,
        min_length=16,
        description="Secret that a proxy which signs people in sends with every request, in place "
        "of an issuer.",
    )
    proxy_secret_header: str = Field(
        default="X-Proxy-Secret",
        pattern=HEADER_NAME,
        description="Header in which the proxy sends the secret.",
    )
    proxy_user_header: str = Field(
        default="X-Forwarded-User",
        pattern=HEADER_NAME,
        description="Header in which the proxy sends who it is.",
    )
    proxy_roles_header: str = Field(
        default="X-Forwarded-Groups",
        pattern=HEADER_NAME,
        description="Header in which the proxy sends the roles, separated by commas.",
    )


class InsightsSettings(Section):
    window_s: float = Field(
        default=3600, gt=0, allow_inf_nan=False, description="Length of a window in seconds."
    )
    retention_s: float = Field(
        default=48 * 3600,
        gt=0,
        allow_inf_nan=False,
        description="Seconds for which a window still changes after its end; this bounds memory.",
    )


class Settings(ProcessSettings):
    kafka: KafkaSettings = KafkaSettings()
    registry: RegistrySettings = RegistrySettings()
    workers: WorkersSettings = WorkersSettings()
    fallbacks: FallbacksSettings = FallbacksSettings()
    candidates: CandidatesSettings = CandidatesSettings()
    intake: IntakeSettings = IntakeSettings()
    join: JoinSettings = JoinSettings()
    reprocess: ReprocessSettings = ReprocessSettings()
    lag: LagSettings = LagSettings()
    insights: InsightsSettings = InsightsSettings()
    traces: TracesSettings = TracesSettings()
    console: ConsoleSettings = ConsoleSettings()
    signin: SigninSettings = SigninSettings()
    prefix: str = Field(
        default="",
        max_length=200,
        pattern=NAME_PATTERN,
        description="Prefix of every topic, consumer group and subject.",
    )
    slot: str = Field(
        default_factory=socket.gethostname,
        min_length=1,
        max_length=200,
        pattern=NAME_PATTERN,
        description="Name of this replica: the same after a restart, different between the "
        "replicas of a service. It is part of the transactional id and of the group membership.",
    )
    policy: FilePath | None = Field(
        default=None,
        description="Policy that says whose reviews may leave for fallback workers, for which "
        "regions, and what is masked first: docs/routes.md. Without it nothing leaves. Read at "
        "the start of the enrichers.",
    )
    budgets: FilePath | None = Field(
        default=None,
        description="Budgets of what leaves, per day and month: docs/routes.md. Without it nothing "
        "leaves. Read at the start of the enrichers, and by `reviewmesh budget`.",
    )
    grace_s: float = Field(
        default=20,
        gt=0,
        allow_inf_nan=False,
        description="Seconds to finish work after SIGTERM.",
    )
