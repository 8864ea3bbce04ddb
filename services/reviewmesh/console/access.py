"""From where the page may be used: names it is reached under, headers against other sites, posts
of its own."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from reviewmesh.settings import WrongSetting
from reviewmesh_kit.settings import variable

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    # Not no-referrer: with it browsers send no Origin with the page's own posts.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "x-frame-options": "DENY",
}
LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")
SAFE = ("GET", "HEAD")


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def origin_of(url: str) -> str:
    """As browsers name it: in small letters, and without the scheme's own port.

    Raises WrongSetting.
    """
    try:
        parts = urlsplit(url.lower())
        port = parts.port
    except ValueError as error:
        raise WrongSetting(
            f"{variable('console', 'url')}: expected an address such as "
            f"https://reviews.example.com, got {url}"
        ) from error
    name = parts.netloc.rpartition(":")[0] if port is not None else parts.netloc
    default = {"http": 80, "https": 443}[parts.scheme]
    return f"{parts.scheme}://{name}" + ("" if port in (None, default) else f":{port}")


class Guard:
    """Refuses what another site could make a browser do. Wraps the whole application."""

    def __init__(self, app: ASGIApp, url: str) -> None:
        """`url`: by which people reach the page; empty: on this machine only."""
        self._app = app
        self._origin = origin_of(url) if url else ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if (refusal := self._refusal(scope["method"], headers)) is not None:
            await refusal(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await self._app(scope, receive, send_guarded)

    def _refusal(self, method: str, headers: Headers) -> PlainTextResponse | None:
        # A name of another site that resolves to this address would read the page with its scripts.
        host = headers.get("host", "").lower()
        known = self._origin.partition("://")[2]
        if host != known if known else _without_port(host) not in LOCAL_NAMES:
            names = known or ", ".join(LOCAL_NAMES)
            return PlainTextResponse(f"expected the page to be reached as {names}\n", 421)
        if method not in SAFE:
            origin, site = headers.get("origin"), headers.get("sec-fetch-site", "same-origin")
            own = self._origin or f"http://{host}"
            if origin != own or site != "same-origin":
                return PlainTextResponse("expected a post from this page itself\n", 403)
        return None


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]
