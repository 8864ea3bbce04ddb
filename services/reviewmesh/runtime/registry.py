"""A client of the schema registry's Confluent API, with what the mesh needs of it."""

from __future__ import annotations

import json
import ssl
import time
from typing import Any

import httpx
from pydantic import SecretStr

from reviewmesh.runtime.settings import RegistrySettings

UNKNOWN_FOR_S = 5.0
CONTENT_TYPE = "application/vnd.schemaregistry.v1+json"


class RegistryUnavailable(RuntimeError):
    """The registry does not answer, or not with sense: wait and ask again."""


class UnknownSchemaId(LookupError):
    """The registry answers and knows no schema of that id."""


class SubjectMissing(RegistryUnavailable):
    """The subject lacks our schema: the topics are not applied yet."""


class IncompatibleSchema(ValueError):
    """The registry refuses the schema as incompatible with what is registered."""


class SchemaRegistry:
    """Looks ids and schemas up, both cached: a pair never changes once it is known."""

    def __init__(
        self,
        url: str,
        username: str | None = None,
        password: SecretStr | None = None,
        timeout_s: float = 2.0,
        verify: ssl.SSLContext | bool = True,
    ) -> None:
        auth = None
        if username is not None:
            auth = (username, password.get_secret_value() if password else "")
        self._url = url.rstrip("/")
        self._client = httpx.Client(auth=auth, timeout=timeout_s, verify=verify)
        self._schemas: dict[int, dict[str, Any]] = {}
        self._ids: dict[tuple[str, str], int] = {}
        self._unknown_until: dict[int, float] = {}

    def schema(self, schema_id: int) -> dict[str, Any]:
        """The writer's schema. Raises UnknownSchemaId or RegistryUnavailable."""
        known = self._schemas.get(schema_id)
        if known is not None:
            return known
        if time.monotonic() < self._unknown_until.get(schema_id, 0.0):
            raise UnknownSchemaId(f"the registry knows no schema of id {schema_id}")
        status, body = self._call("GET", f"/schemas/ids/{schema_id}", None)
        if status == 404:
            self._remember_unknown(schema_id)
            raise UnknownSchemaId(f"the registry knows no schema of id {schema_id}")
        schema: Any = json.loads(body["schema"])
        if not isinstance(schema, dict):
            schema = {"type": schema}
        self._schemas[schema_id] = schema
        return dict(schema)

    def _remember_unknown(self, schema_id: int) -> None:
        now = time.monotonic()
        self._unknown_until = {
            known: until for known, until in self._unknown_until.items() if until > now
        }
        self._unknown_until[schema_id] = now + UNKNOWN_FOR_S

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
        self._ids[subject, text] = int(body["id"])
        return int(body["id"])

    def register(self, subject: str, schema: dict[str, Any]) -> int:
        """Raises IncompatibleSchema or RegistryUnavailable."""
        text = json.dumps(schema)
        status, body = self._call("POST", f"/subjects/{subject}/versions", {"schema": text})
        if status == 409:
            raise IncompatibleSchema(f"{subject}: {body.get('message', 'incompatible schema')}")
        if status == 404:
            raise RegistryUnavailable(f"{subject}: {body}")
        return int(body["id"])

    def set_compatibility(self, subject: str, level: str) -> None:
        self._call("PUT", f"/config/{subject}", {"compatibility": level})

    def is_compatible(self, subject: str, schema: dict[str, Any]) -> bool:
        """Whether `schema` may follow every version; true for a subject that is new."""
        status, body = self._call(
            "POST",
            f"/compatibility/subjects/{subject}/versions",
            {"schema": json.dumps(schema)},
        )
        return status == 404 or bool(body["is_compatible"])

    def ping(self) -> None:
        """Raises RegistryUnavailable."""
        self._call("GET", "/subjects", None)

    def _call(self, method: str, path: str, body: object) -> tuple[int, Any]:
        """Status 200, 404 or 409 with the body; everything else raises."""
        try:
            response = self._client.request(
                method,
                self._url + path,
                content=None if body is None else json.dumps(body),
                headers={"Content-Type": CONTENT_TYPE, "Accept": CONTENT_TYPE},
            )
            if response.status_code in (200, 404, 409):
                return response.status_code, response.json()
        except (httpx.HTTPError, ValueError) as error:
            raise RegistryUnavailable(
                f"the schema registry at {self._url} does not answer "
                f"({type(error).__name__}: {error}); check REVIEWMESH_REGISTRY__URL"
            ) from error
        hint = ""
        if response.status_code in (401, 403):
            hint = "; check REVIEWMESH_REGISTRY__USERNAME and REVIEWMESH_REGISTRY__PASSWORD"
        raise RegistryUnavailable(
            f"the schema registry at {self._url} answered {method} {path} with "
            f"{response.status_code}: {response.text[:500]}{hint}"
        )


def registry_of(settings: RegistrySettings, timeout_s: float = 2.0) -> SchemaRegistry:
    return SchemaRegistry(
        settings.url, settings.username, settings.password, timeout_s, settings.ssl_context()
    )
