"""Signed cookies that expire: a session, and a sign-in that is under way."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from typing import Any, Literal

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey
from pydantic import SecretStr
from starlette.requests import Request
from starlette.responses import Response

ALGORITHMS = ("HS256",)

Kind = Literal["session", "sign-in"]


class Cookies:
    """Each is a JWT for its own kind, so that one never passes for the other."""

    def __init__(self, secret: SecretStr | None, secure: bool) -> None:
        """`secure`: browsers send them over https only, and take them from this host only."""
        text = secrets.token_hex() if secret is None else secret.get_secret_value()
        self._key = OctKey.import_key(text)
        self._secure = secure

    def name(self, kind: Kind) -> str:
        return f"{'__Host-' if self._secure else ''}reviewmesh-{kind}"

    def put(
        self, response: Response, kind: Kind, claims: Mapping[str, Any], lasts_s: float
    ) -> None:
        content = {**claims, "aud": kind, "exp": int(time.time() + lasts_s)}
        response.set_cookie(
            self.name(kind),
            jwt.encode({"alg": ALGORITHMS[0]}, content, self._key),
            max_age=int(lasts_s),
            path="/",
            secure=self._secure,
            httponly=True,
            # Lax, not strict: the way back from the provider is a navigation from another site.
            samesite="lax",
        )

    def drop(self, response: Response, kind: Kind) -> None:
        response.delete_cookie(
            self.name(kind), path="/", secure=self._secure, httponly=True, samesite="lax"
        )

    def read(self, request: Request, kind: Kind) -> dict[str, Any] | None:
        """None: there is none, it has expired, or it was not made here for this."""
        text = request.cookies.get(self.name(kind))
        if text is None:
            return None
        wanted = jwt.JWTClaimsRegistry(
            aud={"essential": True, "value": kind}, exp={"essential": True}
        )
        try:
            found = jwt.decode(text, self._key, algorithms=ALGORITHMS)
            wanted.validate(found.claims)
        except (JoseError, ValueError):
            return None
        return found.claims
