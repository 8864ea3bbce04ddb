"""The OpenID provider: where people sign in, and what it says of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx2
from authlib.integrations.base_client import OAuthError
from authlib.integrations.httpx_client import AsyncOAuth2Client
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from joserfc.jws import JWSRegistry

from reviewmesh.settings import SigninSettings
from reviewmesh_kit.settings import variable

TIMEOUT_S = 10.0
# Clocks of the provider and of this machine may differ so much.
LEEWAY_S = 60
# Signed with a private key of the provider; none, and a key that both sides know, are refused.
ALGORITHMS = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "Ed25519"),
)
ENDPOINTS = ("authorization_endpoint", "token_endpoint", "jwks_uri")


class ProviderAway(RuntimeError):
    """It does not answer, or not as an OpenID provider does; another time it may."""


class SignInFailed(RuntimeError):
    """What came back is no sign-in at this page; the message says what was expected."""


class Provider:
    """Asked anew for its description and its keys at each sign-in, so that none of them is old."""

    def __init__(self, settings: SigninSettings, back: str) -> None:
        """`back`: the address to which it sends people back."""
        self._settings = settings
        self._back = back

    async def address(self, state: str, nonce: str, verifier: str) -> str:
        """Where to send somebody who signs in. Raises ProviderAway."""
        async with self._client() as client:
            described = await self._described(client)
            address, _ = client.create_authorization_url(
                described["authorization_endpoint"],
                state=state,
                nonce=nonce,
                code_verifier=verifier,
            )
        return str(address)

    async def claims(self, code: str, nonce: str, verifier: str) -> Mapping[str, Any]:
        """Of the ID token for this code, once it is checked. Raises ProviderAway, SignInFailed."""
        async with self._client() as client:
            described = await self._described(client)
            if self._settings.client_secret is not None:
                client.token_endpoint_auth_method = _authentication(described)
            try:
                tokens = await client.fetch_token(
                    described["token_endpoint"], code=code, code_verifier=verifier
                )
            except OAuthError as error:
                raise SignInFailed(f"the provider refused the code: {error}") from error
            except (httpx2.HTTPError, ValueError) as error:
                raise self._away(error) from error
            keys = await self._read(client, described["jwks_uri"])
        return self._checked(tokens.get("id_token"), keys, nonce)

    def _client(self) -> AsyncOAuth2Client:
        secret = self._settings.client_secret
        return AsyncOAuth2Client(
            self._settings.client_id,
            None if secret is None else secret.get_secret_value(),
            scope=" ".join(self._settings.scopes),
            redirect_uri=self._back,
            code_challenge_method="S256",
            timeout=TIMEOUT_S,
        )

    async def _described(self, client: AsyncOAuth2Client) -> dict[str, Any]:
        issuer = self._settings.issuer
        path = f"{issuer.removesuffix('/')}/.well-known/openid-configuration"
        found = await self._read(client, path)
        if found.get("issuer") != issuer:
            raise ProviderAway(
                f"{variable('signin', 'issuer')}: expected what the provider calls itself, "
                f"{found.get('issuer')!r}, got {issuer!r}"
            )
        schemes = ("https://", f"{issuer.partition('://')[0]}://")
        for name in ENDPOINTS:
            if not str(found.get(name, "")).startswith(schemes):
                raise ProviderAway(f"expected {name} with https in {path}, got {found.get(name)!r}")
        return found

    async def _read(self, client: AsyncOAuth2Client, address: str) -> dict[str, Any]:
        try:
            answer = await client.request("GET", address, withhold_token=True)
            answer.raise_for_status()
            found = answer.json()
        except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
            raise self._away(error) from error
        if not isinstance(found, dict):
            raise ProviderAway(f"expected an object at {address}")
        return found

    def _away(self, error: Exception) -> ProviderAway:
        why = str(error) or type(error).__name__
        return ProviderAway(f"the provider {self._settings.issuer} does not answer: {why}")

    def _checked(self, token: Any, keys: dict[str, Any], nonce: str) -> Mapping[str, Any]:
        if not isinstance(token, str):
            raise SignInFailed("expected an ID token; is openid among the scopes?")
        client_id = self._settings.client_id
        wanted = jwt.JWTClaimsRegistry(
            leeway=LEEWAY_S,
            iss={"essential": True, "value": self._settings.issuer},
            aud={"essential": True, "value": client_id},
            sub={"essential": True},
            exp={"essential": True},
            iat={"essential": True},
            nonce={"essential": True, "value": nonce},
            # A token that was made for another client, with this one among its audience.
            azp={"value": client_id},
        )
        registry = JWSRegistry(algorithms=ALGORITHMS, strict_check_header=False)
        try:
            found = jwt.decode(token, KeySet.import_key_set(keys), registry=registry)  # type: ignore[arg-type]
            wanted.validate(found.claims)
        except (JoseError, ValueError, KeyError, TypeError) as error:
            raise SignInFailed(
                f"the provider's ID token is not for this sign-in: {error}"
            ) from error
        return found.claims


def _authentication(described: Mapping[str, Any]) -> str:
    """Basic, which every provider has to know, unless it says that it wants it otherwise."""
    known = described.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
    return "client_secret_basic" if "client_secret_basic" in known else "client_secret_post"
