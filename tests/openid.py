"""A small OpenID provider on a loopback port: discovery, keys, authorization codes with PKCE."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import threading
import time
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlencode

import uvicorn
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from tests.broker import wait_until

CLIENT_ID, CLIENT_SECRET = "console", "the client's secret"


class OpenIdProvider:
    """Signs everybody in who asks, with `person` as further claims of the ID token."""

    def __init__(self) -> None:
        self.issuer = ""
        self.person: dict[str, Any] = {}
        self.changed: dict[str, Any] = {}
        """Claims of the ID token that are not as they should be; None leaves one out."""
        self.described: dict[str, Any] = {}
        """What the description says otherwise."""
        self.key = RSAKey.generate_key(2048, {"kid": "first"})
        self.signing_key = self.key
        self.algorithm = "RS256"
        self.known_key: bytes | None = None
        """Signs with HS256 and this, in place of a key of its own."""
        self._codes: dict[str, Mapping[str, str]] = {}

    def reset(self) -> None:
        self.person = {"sub": "248289", "email": "anna@example.com", "roles": ["mesh-operators"]}
        self.changed, self.described = {}, {}
        self.signing_key, self.algorithm, self.known_key = self.key, "RS256", None

    def rotate(self) -> None:
        self.key = RSAKey.generate_key(2048, {"kid": "second"})
        self.signing_key = self.key

    def application(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/.well-known/openid-configuration", self._describe),
                Route("/authorize", self._authorize),
                Route("/token", self._token, methods=["POST"]),
                Route("/keys", self._keys),
            ]
        )

    async def _describe(self, request: Request) -> Response:
        return JSONResponse(
            {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/keys",
                **self.described,
            }
        )

    async def _keys(self, request: Request) -> Response:
        return JSONResponse(KeySet([self.key]).as_dict(private=False))

    async def _authorize(self, request: Request) -> Response:
        wanted = dict(request.query_params)
        assert wanted["response_type"] == "code"
        assert wanted["client_id"] == CLIENT_ID
        assert wanted["code_challenge_method"] == "S256"
        assert "openid" in wanted["scope"].split()
        code = secrets.token_urlsafe()
        self._codes[code] = wanted
        back = urlencode({"code": code, "state": wanted["state"]})
        return RedirectResponse(f"{wanted['redirect_uri']}?{back}", 302)

    async def _token(self, request: Request) -> Response:
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        if kind != "Basic" or b64decode(given).decode() != f"{CLIENT_ID}:{CLIENT_SECRET}":
            return JSONResponse({"error": "invalid_client"}, 401)
        form = {name: value for name, [value] in parse_qs((await request.body()).decode()).items()}
        wanted = self._codes.pop(form["code"], None)
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = encoded(digest).decode()
        if (
            wanted is None
            or wanted["code_challenge"] != challenge
            or wanted["redirect_uri"] != form["redirect_uri"]
        ):
            return JSONResponse({"error": "invalid_grant"}, 400)
        now = int(time.time())
        claims = {
            **{"iss": self.issuer, "aud": CLIENT_ID, "iat": now, "exp": now + 300},
            **{"nonce": wanted["nonce"], **self.person, **self.changed},
        }
        token = self._signed({name: value for name, value in claims.items() if value is not None})
        return JSONResponse({"access_token": "unused", "token_type": "Bearer", "id_token": token})

    def _signed(self, claims: dict[str, Any]) -> str:
        if self.known_key is not None:
            parts = ({"alg": "HS256", "kid": self.key.kid}, claims)
            signed = b".".join(encoded(json.dumps(part).encode()) for part in parts)
            signature = hmac.digest(self.known_key, signed, "sha256")
            return b".".join((signed, encoded(signature))).decode()
        header = {"alg": self.algorithm, "kid": self.signing_key.kid}
        return jwt.encode(header, claims, self.signing_key, algorithms=[self.algorithm])


def encoded(content: bytes) -> bytes:
    return urlsafe_b64encode(content).rstrip(b"=")


@contextmanager
def running_provider() -> Iterator[OpenIdProvider]:
    provider = OpenIdProvider()
    config = uvicorn.Config(provider.application(), port=0, log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started, 30, "the provider listens")
    port = server.servers[0].sockets[0].getsockname()[1]
    provider.issuer = f"http://127.0.0.1:{port}"
    provider.reset()
    yield provider
    server.should_exit = True
    thread.join(30)
