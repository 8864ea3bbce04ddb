"""How people show who they are: not at all, through a proxy, or with an OpenID provider."""

from __future__ import annotations

import asyncio
import hmac
import math
import re
import secrets
import time
from collections.abc import Sequence
from typing import Protocol
from urllib.parse import urlencode, urlsplit

import structlog
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from reviewmesh.console.access import SAFE, is_loopback, origin_of
from reviewmesh.console.audit import Audit, address_of
from reviewmesh.console.cookies import Cookies
from reviewmesh.console.limits import RateLimit
from reviewmesh.console.people import (
    ANYBODY,
    NAME_SHOWN,
    Person,
    Role,
    name_of,
    role_among,
    values_of,
)
from reviewmesh.console.provider import Provider, ProviderAway, SignInFailed
from reviewmesh.console.rendering import Rendering
from reviewmesh.settings import ConsoleSettings, Settings, SigninSettings, WrongSetting
from reviewmesh_kit.settings import variable

STYLES = "/static/"
BEGIN, BACK, END = "/sign-in", "/sign-in/back", "/sign-out"
# What a script asks for cannot be answered by a page of the provider.
STREAMS = ("/events/", "/tail")
# Screens and streams that leave out what records hold for those who may not see it, or have none of
# it. Any other is closed to them.
HIDES_TEXT = re.compile(
    r"/|/(groups|workers|insights|review|live|tail|rollouts|campaigns|budgets|packages|events/[a-z]+)"
    r"|/dead-letters(/redrive|/\d+/\d+)?|/rollouts/(advance|abort)|/campaigns/(pause|resume|cancel)"
)
UNDER_WAY_S = 600.0
LONGEST_PATH = 2_000
# Of one address; a sign-in asks twice.
REQUESTS, WITHIN_S = 60, 60.0
NO_ROLE = (
    "You have no role at this console. Ask those who run it to give you one of viewer, operator "
    "or owner."
)


class SignIn(Protocol):
    """A way in which people show who they are."""

    @property
    def routes(self) -> Sequence[Route]:
        """Its own pages, which everybody may ask for."""
        ...

    def person(self, request: Request) -> Person | Response:
        """Who asks; or the answer to somebody who may not see the page."""
        ...


class Gate:
    """Lets through who may see the page. Wraps all screens and streams."""

    def __init__(self, app: ASGIApp, sign_in: SignIn, rendering: Rendering) -> None:
        self._app = app
        self._sign_in = sign_in
        self._rendering = rendering
        self._open = {route.path for route in sign_in.routes}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._is_open(scope["path"]):
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        found = self._sign_in.person(request)
        if isinstance(found, Response):
            await found(scope, receive, send)
            return
        scope.setdefault("state", {})["person"] = found
        if not (self._rendering.sees_text(found) or HIDES_TEXT.fullmatch(scope["path"])):
            role = found.role.words
            problem = f"This screen shows what records hold, which a {role} may not see."
            refusal = self._rendering.page(request, "problem.html", 403, problem=problem)
            await refusal(scope, receive, send)
        elif scope["method"] in SAFE:
            await self._until(found.until, scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _is_open(self, path: str) -> bool:
        return path.startswith(STYLES) or path in self._open

    async def _until(self, end: float, scope: Scope, receive: Receive, send: Send) -> None:
        """A stream ends with the session that began it; a browser then asks for it again."""
        begun = ended = False

        async def watched(message: Message) -> None:
            nonlocal begun, ended
            begun = True
            await send(message)
            ended = message["type"] == "http.response.body" and not message.get("more_body")

        left = None if math.isinf(end) else max(0.0, end - time.time())
        try:
            async with asyncio.timeout(left) as limit:
                await self._app(scope, receive, watched)
        except TimeoutError:
            if not limit.expired():
                raise
        if begun and not ended:
            await send({"type": "http.response.body", "body": b""})


def sign_in_of(
    settings: Settings, rendering: Rendering, log: structlog.stdlib.BoundLogger
) -> SignIn:
    """Raises WrongSetting: without sign-in the page is for this machine alone."""
    console, signin = settings.console, settings.signin
    if not signin.issuer and signin.proxy_secret is None:
        _check_without_sign_in(console, signin)
        return _Nobody()
    if signin.issuer and signin.proxy_secret is not None:
        raise WrongSetting(
            f"expected {variable('signin', 'issuer')} or {variable('signin', 'proxy_secret')}, "
            "got both"
        )
    if not console.url:
        raise WrongSetting(
            f"{variable('console', 'url')}: expected the address by which people reach the page, "
            "such as https://reviews.example.com, since they sign in; got none"
        )
    if not (signin.viewers or signin.operators or signin.owners):
        names = ", ".join(variable("signin", name) for name in ("viewers", "operators", "owners"))
        raise WrongSetting(
            f"expected which values give somebody a role, in one of {names}; got none, so that "
            "nobody could see the page"
        )
    if console.url.startswith("http://") and not is_loopback(console.host):
        log.warning("sessions and pages are sent in plaintext: expected https in the page's url")
    if signin.proxy_secret is not None:
        return _ByProxy(signin, rendering, log)
    if not signin.client_id:
        raise WrongSetting(
            f"{variable('signin', 'client_id')}: expected the name under which the provider "
            "knows the console, got none"
        )
    issuer = urlsplit(signin.issuer)
    if issuer.scheme != "https" and not is_loopback(issuer.hostname or ""):
        raise WrongSetting(
            f"{variable('signin', 'issuer')}: expected an address with https, got {signin.issuer}"
        )
    return _ByProvider(signin, origin_of(console.url), rendering, Audit(log))


def _check_without_sign_in(console: ConsoleSettings, signin: SigninSettings) -> None:
    ways = f"{variable('signin', 'issuer')} or {variable('signin', 'proxy_secret')}"
    if not is_loopback(console.host):
        raise WrongSetting(
            f"{variable('console', 'host')}: expected a loopback address such as 127.0.0.1, or "
            f"sign-in by {ways}, got {console.host!r} without; reach the page from elsewhere "
            "through a tunnel, such as `ssh -L` or `kubectl port-forward`, or let people sign in"
        )
    if console.url and not is_loopback(urlsplit(console.url).hostname or ""):
        raise WrongSetting(
            f"{variable('console', 'url')}: expected an address of this machine, or sign-in by "
            f"{ways}, got {console.url} without"
        )
    if signin.model_fields_set:
        given = ", ".join(variable("signin", name) for name in sorted(signin.model_fields_set))
        raise WrongSetting(f"expected {ways} as well, since {given} is given")


class _Nobody:
    routes: Sequence[Route] = ()

    def person(self, request: Request) -> Person | Response:
        return ANYBODY


class _ByProxy:
    """The proxy has signed them in; its secret shows that it is the proxy that says so."""

    routes: Sequence[Route] = ()

    def __init__(
        self, settings: SigninSettings, rendering: Rendering, log: structlog.stdlib.BoundLogger
    ) -> None:
        assert settings.proxy_secret is not None
        self._settings = settings
        self._secret = settings.proxy_secret.get_secret_value().encode()
        self._rendering = rendering
        self._log = log

    def person(self, request: Request) -> Person | Response:
        settings = self._settings
        secret = self._header(request, settings.proxy_secret_header)
        if not hmac.compare_digest(secret.encode("latin-1"), self._secret):
            self._log.warning(
                "a request without the proxy's secret was refused", address=address_of(request)
            )
            return self._refused(
                request,
                "This page is reached through a proxy that signs people in. Your request did not "
                "come through it.",
            )
        name = self._header(request, settings.proxy_user_header)
        values = self._header(request, settings.proxy_roles_header).split(",")
        role = role_among(settings, [value.strip() for value in values])
        if not name:
            return self._refused(request, "The proxy did not say who you are.")
        if role is None:
            return self._refused(request, NO_ROLE, name)
        name = name[:NAME_SHOWN]
        return Person(name, name, role, time.time() + settings.session_s)

    @staticmethod
    def _header(request: Request, name: str) -> str:
        """Empty also if there are several: one of them may be the client's own."""
        values = request.headers.getlist(name)
        return values[0] if len(values) == 1 else ""

    def _refused(self, request: Request, problem: str, name: str = "") -> Response:
        return self._rendering.page(
            request, "outside.html", 403, problem=problem, name=name, again=""
        )


class _ByProvider:
    """A session in a cookie, begun by the provider's word: authorization code flow with PKCE."""

    def __init__(
        self, settings: SigninSettings, origin: str, rendering: Rendering, audit: Audit
    ) -> None:
        self._settings = settings
        self._provider = Provider(settings, origin + BACK)
        self._cookies = Cookies(settings.session_secret, origin.startswith("https://"))
        self._rendering = rendering
        self._audit = audit
        self._limit = RateLimit(REQUESTS, WITHIN_S)
        self.routes: Sequence[Route] = (
            Route(BEGIN, self._begin, methods=["GET"]),
            Route(BACK, self._back, methods=["GET"]),
            Route(END, self._end, methods=["POST"]),
        )

    def person(self, request: Request) -> Person | Response:
        if (found := self._session(request)) is not None:
            return found
        path = request.url.path
        if request.method != "GET" or path.startswith(STREAMS):
            return PlainTextResponse("expected somebody who is signed in\n", 401)
        wanted = f"{path}?{request.url.query}" if request.url.query else path
        return _to(f"{BEGIN}?{urlencode({'to': wanted[:LONGEST_PATH]})}")

    def _session(self, request: Request) -> Person | None:
        found = self._cookies.read(request, "session")
        if found is None:
            return None
        role = Role[found["role"]]
        return Person(found["name"], found["sub"], role, found["exp"], can_sign_out=True)

    async def _begin(self, request: Request) -> Response:
        """Sends the browser to the provider."""
        if not self._limit.allows(address_of(request)):
            return self._too_often(request)
        state, nonce, verifier = (secrets.token_urlsafe(48) for _ in range(3))
        try:
            address = await self._provider.address(state, nonce, verifier)
        except ProviderAway as error:
            return self._refused(request, 503, str(error))
        response = _to(address)
        under_way = {
            "state": state,
            "nonce": nonce,
            "verifier": verifier,
            "to": _own_path(request.query_params.get("to", "")),
        }
        self._cookies.put(response, "sign-in", under_way, UNDER_WAY_S)
        return response

    async def _back(self, request: Request) -> Response:
        """What the provider sent the browser back with."""
        if not self._limit.allows(address_of(request)):
            return self._too_often(request)
        under_way = self._cookies.read(request, "sign-in")
        query = request.query_params
        try:
            if under_way is None or not hmac.compare_digest(
                query.get("state", "").encode(), under_way["state"].encode()
            ):
                raise SignInFailed(
                    "expected a sign-in that this browser began here in the last ten minutes"
                )
            if "code" not in query:
                raise SignInFailed(f"the provider refused it: {query.get('error', 'no code')}")
            claims = await self._provider.claims(
                query["code"], under_way["nonce"], under_way["verifier"]
            )
        except ProviderAway as error:
            return self._refused(request, 503, str(error))
        except SignInFailed as error:
            self._audit.note(request, None, "sign in", "refused", reason=str(error))
            return self._refused(request, 403, f"You are not signed in: {error}.")
        name, subject = name_of(claims), str(claims["sub"])[:NAME_SHOWN]
        role = role_among(self._settings, values_of(claims, self._settings.role_claim))
        if role is None:
            self._audit.note(
                request, None, "sign in", "refused", reason="no role", name=name, sub=subject
            )
            return self._refused(request, 403, NO_ROLE, name)
        lasts_s = self._settings.session_s
        person = Person(name, subject, role, time.time() + lasts_s, can_sign_out=True)
        self._audit.note(request, person, "sign in", "done")
        response = _to(under_way["to"])
        session = {"name": name, "sub": subject, "role": role.name}
        self._cookies.put(response, "session", session, lasts_s)
        self._cookies.drop(response, "sign-in")
        return response

    async def _end(self, request: Request) -> Response:
        self._audit.note(request, self._session(request), "sign out", "done")
        response = self._refused(request, 200, "You are signed out.")
        self._cookies.drop(response, "session")
        return response

    def _too_often(self, request: Request) -> Response:
        response = self._refused(request, 429, "Too many sign-ins; try again in a minute.")
        response.headers["retry-after"] = f"{WITHIN_S:.0f}"
        return response

    def _refused(self, request: Request, status: int, problem: str, name: str = "") -> Response:
        return self._rendering.page(
            request, "outside.html", status, problem=problem, name=name, again=BEGIN
        )


def _to(address: str) -> RedirectResponse:
    return RedirectResponse(address, 303, headers={"cache-control": "no-store"})


def _own_path(text: str) -> str:
    """A path of this page, never another site."""
    own = text.startswith("/") and not text.startswith("//") and "\\" not in text
    return text if own and text.isprintable() and len(text) <= LONGEST_PATH else "/"
