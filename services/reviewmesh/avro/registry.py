"""A client of the schema registry's Confluent API, as far as the mesh needs it."""

from __future__ import annotations

import json
import ssl
import threading
import time
from typing import Any

import httpx
from pydantic import SecretStr

from reviewmesh.avro.http_client import HttpClient
from reviewmesh.settings import RegistrySettings
from reviewmesh_kit.certificates import RenewedContext

REFUSED_FOR_S = 5.0
KEPT_REFUSED = 10_000
KEPT_SCHEMAS = 1_000
TRIES_OF_AN_ID = 3
# Every record may have another unknown id: the share of time that may be spent on requests for
# them, and how many unused seconds accumulate. Concurrent calls are counted each.
SHARE_OF_TIME = 0.5
SAVED_UP_S = 5.0
# Registries count up: an id up to so far above the newest known one may be a new schema.
NEW_IDS = 100
# `refuses` holds for at least this long.
MOMENT_S = 0.1
MAX_ANSWER = 4 * 1024 * 1024
# The deadline of a whole answer, in multiples of the timeout of one read.
WHOLE_ANSWERS = 3
# The Confluent API's own code; a 404 without it comes from a proxy.
NOT_FOUND = 40403
MAX_SCHEMA = 256 * 1024
CONTENT_TYPE = "application/vnd.schemaregistry.v1+json"


class RegistryUnavailable(RuntimeError):
    """The registry does not answer, or not validly: wait and retry."""


class UnknownSchemaId(LookupError):
    """The registry has no schema with that id."""


class UnusableSchema(LookupError):
    """The registry's entry under that id cannot be used to read Avro records."""


class BadAnswer(RegistryUnavailable):
    """The registry answers with an error or invalid content, perhaps to this request only."""


class SubjectMissing(RegistryUnavailable):
    """The subject lacks our schema: the topics are not applied yet."""


class IncompatibleSchema(ValueError):
    """The registry rejects the schema as incompatible with the registered ones."""


class Allowance:
    """A budget of seconds for requests of unknown ids: a share of the time, which accumulates."""

    def __init__(self) -> None:
        self._saved_s = SAVED_UP_S
        self._at = time.monotonic()

    def is_left(self) -> bool:
        now = time.monotonic()
        self._saved_s = min(SAVED_UP_S, self._saved_s + (now - self._at) * SHARE_OF_TIME)
        self._at = now
        return self._saved_s > 0

    def spend(self, seconds: float) -> None:
        self._saved_s -= seconds


class SchemaRegistry:
    """Looks up ids and schemas, both cached: a pair never changes.

    `schema` may be called from several threads.
    """

    def __init__(
        self,
        url: str,
        username: str | None = None,
        password: SecretStr | None = None,
        timeout_s: float = 2.0,
        tls: RenewedContext | None = None,
    ) -> None:
        """`tls`: without it, the authorities of the system are trusted."""
        auth = None
        if username is not None:
            auth = (username, password.get_secret_value() if password else "")
        self._url = url.rstrip("/")
        verify: ssl.SSLContext | bool = True if tls is None else tls.context
        client = httpx.AsyncClient(auth=auth, timeout=timeout_s, verify=verify)
        renew = (lambda: None) if tls is None else tls.renew
        self._client = HttpClient(client, WHOLE_ANSWERS * timeout_s, MAX_ANSWER, renew)
        self._keeping = threading.Lock()
        self._schemas: dict[int, Any] = {}
        self._ids: dict[tuple[str, str], int] = {}
        # By id: the error, and until when it is not requested again.
        self._refused: dict[int, tuple[LookupError, float]] = {}
        self._newest_id = 0
        # One for ids that may be new schemas, one for all other unknown ids.
        self._allowances = {True: Allowance(), False: Allowance()}

    def schema(self, schema_id: int) -> Any:
        """The writer's schema. Raises UnknownSchemaId, UnusableSchema or RegistryUnavailable."""
        known = self._schemas.get(schema_id)
        if known is not None:
            return known
        refusal = self._refusal(schema_id, time.monotonic())
        if refusal is not None:
            raise _anew(refusal)
        started = time.monotonic()
        try:
            schema = self._ask_for_schema(schema_id)
        except LookupError as error:
            until = time.monotonic() + REFUSED_FOR_S
            self._keep(self._refused, schema_id, (_anew(error), until), KEPT_REFUSED)
            with self._keeping:
                self._allowance(schema_id).spend(time.monotonic() - started)
            raise
        self._newest_id = max(self._newest_id, schema_id)
        self._keep(self._schemas, schema_id, schema, KEPT_SCHEMAS)
        return schema

    def refuses(self, schema_id: int) -> bool:
        """Whether `schema` raises LookupError without a request, now and for MOMENT_S more."""
        return self._refusal(schema_id, time.monotonic() + MOMENT_S) is not None

    def _refusal(self, schema_id: int, at: float) -> LookupError | None:
        refused, until = self._refused.get(schema_id, (None, 0.0))
        if refused is not None and at < until:
            return refused
        with self._keeping:
            if schema_id in self._schemas or self._allowance(schema_id).is_left():
                return None
        error = UnknownSchemaId(
            f"schema id {schema_id} was not looked up, too many unknown ones came before it; if "
            "it is registered, replay the record"
        )
        self._keep(self._refused, schema_id, (error, at + MOMENT_S), KEPT_REFUSED)
        return error

    def _allowance(self, schema_id: int) -> Allowance:
        return self._allowances[schema_id <= self._newest_id + NEW_IDS]

    def _keep(self, cache: dict[int, Any], key: int, value: Any, at_most: int) -> None:
        with self._keeping:
            cache.pop(key, None)
            cache[key] = value
            if len(cache) > at_most:
                del cache[next(iter(cache))]

    def _ask_for_schema(self, schema_id: int) -> Any:
        problem = ""
        for _ in range(TRIES_OF_AN_ID):
            try:
                status, body = self._call("GET", f"/schemas/ids/{schema_id}", None)
            except BadAnswer as error:
                # If the registry answers a ping, this id is the problem.
                problem = str(error)
                self.ping()
                continue
            if status != 200 and isinstance(body, dict) and body.get("error_code") == NOT_FOUND:
                raise UnknownSchemaId(f"the registry knows no schema of id {schema_id}")
            if status == 200 and isinstance(body, dict) and isinstance(body.get("schema"), str):
                return _avro_schema(schema_id, body)
            problem = f"the registry answered {status} and no schema"
            self.ping()
        raise UnusableSchema(f"asked for schema id {schema_id}, {problem}")

    def id_of(self, subject: str, schema: dict[str, Any]) -> int:
        """The id of our schema under `subject`. Raises SubjectMissing or RegistryUnavailable."""
        text = json.dumps(schema)
        known = self._ids.get((subject, text))
        if known is not None:
            return known
        status, body = self._call("POST", f"/subjects/{subject}", {"schema": text})
        if status == 404:
            raise SubjectMissing(
                f"subject {subject} lacks this version's schema; run `reviewmesh topics apply`"
            )
        found = self._id_in(body)
        self._ids[subject, text] = found
        self._newest_id = max(self._newest_id, found)
        return found

    def register(self, subject: str, schema: dict[str, Any]) -> int:
        """Raises IncompatibleSchema or RegistryUnavailable."""
        text = json.dumps(schema)
        status, body = self._call("POST", f"/subjects/{subject}/versions", {"schema": text})
        if status == 409:
            message = body.get("message") if isinstance(body, dict) else body
            raise IncompatibleSchema(f"{subject}: {message or 'incompatible schema'}")
        if status == 404:
            raise RegistryUnavailable(f"{subject}: {body}")
        return self._id_in(body)

    def _id_in(self, body: Any) -> int:
        """Raises BadAnswer."""
        found = body.get("id") if isinstance(body, dict) else None
        if not isinstance(found, int):
            raise BadAnswer(
                f"the schema registry at {self._url} answered with no id of a schema; check "
                "REVIEWMESH_REGISTRY__URL"
            )
        return found

    def set_compatibility(self, subject: str, level: str) -> None:
        self._call("PUT", f"/config/{subject}", {"compatibility": level})

    def is_compatible(self, subject: str, schema: dict[str, Any]) -> bool:
        """Whether `schema` is compatible with every version; true for a new subject."""
        status, body = self._call(
            "POST",
            f"/compatibility/subjects/{subject}/versions",
            {"schema": json.dumps(schema)},
        )
        return status == 404 or (isinstance(body, dict) and bool(body.get("is_compatible")))

    def ping(self) -> None:
        """Raises RegistryUnavailable, also where another program answers."""
        status, body = self._call("GET", "/subjects", None)
        if status != 200 or not isinstance(body, list):
            raise BadAnswer(
                f"the schema registry at {self._url} answered GET /subjects with {status} and no "
                "list; check REVIEWMESH_REGISTRY__URL"
            )

    def _call(self, method: str, path: str, body: object) -> tuple[int, Any]:
        """Status 200, 404 or 409 with the body; everything else raises."""
        sent = None if body is None else json.dumps(body)
        headers = {"Content-Type": CONTENT_TYPE, "Accept": CONTENT_TYPE}
        try:
            status, content = self._client.send(method, self._url + path, sent, headers)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise RegistryUnavailable(
                f"the schema registry at {self._url} does not answer "
                f"({type(error).__name__}: {error}); check REVIEWMESH_REGISTRY__URL"
            ) from error
        answered = f"the schema registry at {self._url} answered {method} {path} with"
        if status in (401, 403):
            raise RegistryUnavailable(
                f"{answered} {status}; check REVIEWMESH_REGISTRY__USERNAME and "
                "REVIEWMESH_REGISTRY__PASSWORD"
            )
        if status not in (200, 404, 409):
            raise BadAnswer(f"{answered} {status}: {content[:500].decode(errors='replace')}")
        if len(content) > MAX_ANSWER:
            raise BadAnswer(f"{answered} more than {MAX_ANSWER:,} bytes")
        try:
            return status, json.loads(content)
        except (ValueError, RecursionError) as error:
            raise BadAnswer(f"{answered} what is no JSON ({type(error).__name__})") from error


def _anew(error: LookupError) -> LookupError:
    """A copy. A raised exception keeps its frames, and the records in them, alive: so cached ones
    are
    never raised themselves."""
    return type(error)(*error.args)


def _avro_schema(schema_id: int, body: dict[str, Any]) -> Any:
    """Raises UnusableSchema."""
    kind = body.get("schemaType") or "AVRO"
    if kind != "AVRO":
        raise UnusableSchema(f"schema id {schema_id} is one of type {str(kind)[:100]}")
    if body.get("references"):
        raise UnusableSchema(
            f"schema id {schema_id} refers to other subjects; register one that holds every type "
            "that it uses"
        )
    if len(body["schema"]) > MAX_SCHEMA:
        raise UnusableSchema(
            f"schema id {schema_id} has {len(body['schema']):,} characters, at most "
            f"{MAX_SCHEMA:,} are read"
        )
    try:
        return json.loads(body["schema"])
    except (ValueError, RecursionError) as error:
        raise UnusableSchema(
            f"the schema of id {schema_id} is no JSON ({type(error).__name__})"
        ) from error


def registry_of(settings: RegistrySettings, timeout_s: float = 2.0) -> SchemaRegistry:
    return SchemaRegistry(
        url=settings.url,
        username=settings.username,
        password=settings.password,
        timeout_s=timeout_s,
        tls=settings.renewed_context(),
    )
