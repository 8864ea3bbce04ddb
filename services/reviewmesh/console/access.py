"""Who may use the page: names it is reached under, headers against other sites, same-site posts."""

from __future__ import annotations

import ipaddress

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from reviewmesh.settings import ConsoleSettings, WrongSetting
from reviewmesh_kit.settings import variable

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "x-frame-options": "DENY",
}
LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")
SAFE = ("GET", "HEAD")


def check_address(settings: ConsoleSettings) -> None:
    """Nobody signs in, so the page listens on loopback only. Raises WrongSetting."""
    try:
        loopback = ipaddress.ip_address(settings.host).is_loopback
    except ValueError:
        loopback = settings.host == "localhost"
    if not loopback:
        raise WrongSetting(
            f"{variable('console', 'host')}: expected a loopback address such as 127.0.0.1, since "
            f"nobody signs in, got {settings.host!r}; reach it from elsewhere through a tunnel, "
            "such as `ssh -L` or `kubectl port-forward`"
        )


class Guard:
    """Refuses what another site could make a browser do. Wraps the whole application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

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

    @staticmethod
    def _refusal(method: str, headers: Headers) -> PlainTextResponse | None:
        # A name of another site that resolves to loopback would read the page with its scripts.
        name = _without_port(headers.get("host", ""))
        if name not in LOCAL_NAMES:
            return PlainTextResponse(
                f"expected the page to be reached as {', '.join(LOCAL_NAMES)}\n", 421
            )
        if method not in SAFE:
            origin, site = headers.get("origin"), headers.get("sec-fetch-site", "same-origin")
            own = origin is not None and origin.partition("://")[2] == headers.get("host")
            if not own or site != "same-origin":
                return PlainTextResponse("expected a post from this page itself\n", 403)
        return None


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0].lower() + "]"
    return host.partition(":")[0].lower()
