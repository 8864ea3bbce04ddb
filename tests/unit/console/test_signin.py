"""Signing in at the console: a real OpenID provider on loopback, a proxy, and forgeries."""

from __future__ import annotations

import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
import structlog
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey
from starlette.testclient import TestClient
from structlog.testing import LogCapture

from reviewmesh.console.acting import ACTIONS
from reviewmesh.console.audit import Audit
from reviewmesh.console.pages import application
from reviewmesh.console.rendering import Rendering
from reviewmesh.console.signin import REQUESTS, sign_in_of
from reviewmesh.settings import Settings, WrongSetting
from tests.openid import CLIENT_ID, CLIENT_SECRET, OpenIdProvider, running_provider
from tests.unit.console.page import screens_of

URL = "https://reviews.example.com"
SECRET = "a secret that signs the sessions of a test"
PROXY_SECRET = "a secret of the proxy"
SESSION, UNDER_WAY = "__Host-reviewmesh-session", "__Host-reviewmesh-sign-in"
ROLES = {
    "viewers": ("mesh-viewers",),
    "operators": ("mesh-operators",),
    "owners": ("mesh-owners",),
}
REDRIVE = "/dead-letters/redrive"


@pytest.fixture(scope="module")
def provider_process() -> Iterator[OpenIdProvider]:
    with running_provider() as provider:
        yield provider


@pytest.fixture
def provider(provider_process: OpenIdProvider) -> OpenIdProvider:
    provider_process.reset()
    return provider_process


class TestConsole:
    """The console's pages, over a broker that is away. `given`: fields of Screens."""

    __test__ = False

    def __init__(
        self,
        folder: Path,
        url: str = URL,
        given: Mapping[str, Any] = MappingProxyType({}),
        **sections: dict[str, Any],
    ) -> None:
        console = {"url": url, "actions": True, **sections.pop("console", {})}
        settings = Settings.model_validate(
            {"kafka": {"bootstrap_servers": "127.0.0.1:1"}, "console": console, **sections}
        )
        self.logged = LogCapture()
        log = structlog.wrap_logger(structlog.PrintLogger(), processors=[self.logged])
        rendering = Rendering(settings.console)
        sign_in = sign_in_of(settings, rendering, log)
        screens = screens_of(settings, folder, **given)
        screens.watch.stop()
        app = application(screens, rendering, sign_in, Audit(log), url)
        self.browser = TestClient(app, base_url=url, follow_redirects=False)

    @property
    def audit(self) -> list[tuple[str, str, str | None, str | None]]:
        """Action, outcome, who and role of each line."""
        return [
            (line["action"], line["outcome"], line["who"], line["role"])
            for line in self.logged.entries
            if line["event"] == "audit"
        ]

    def begin(self, path: str = "/sign-in") -> str:
        """The path with which the provider sends the browser back."""
        answer = self.browser.get(path)
        assert answer.status_code == 303, answer.text
        back = httpx2.get(answer.headers["location"], follow_redirects=False)
        assert back.status_code == 302
        assert back.headers["location"].startswith(f"{URL}/sign-in/back?")
        return str(back.headers["location"]).removeprefix(URL)

    def sign_in(self, path: str = "/sign-in") -> httpx2.Response:
        return self.browser.get(self.begin(path))

    def post(self, path: str, **headers: str) -> httpx2.Response:
        form = {"place": "0/0"}
        return self.browser.post(path, data=form, headers={"Origin": URL, **headers})


@pytest.fixture
def console(tmp_path: Path, provider: OpenIdProvider) -> TestConsole:
    return TestConsole(tmp_path, signin=of_provider(provider))


def of_provider(provider: OpenIdProvider, **more: Any) -> dict[str, Any]:
    return {
        "issuer": provider.issuer,
        "client_id": CLIENT_ID,
        "client_secret": CLIENT_SECRET,
        "session_secret": SECRET,
        **ROLES,
        **more,
    }


# -- with an OpenID provider -----------------------------------------------------------------


def test_who_signs_in_comes_back_to_where_they_were(
    console: TestConsole, provider: OpenIdProvider
) -> None:
    sent = console.browser.get("/groups?part=2")
    assert sent.status_code == 303
    back = console.sign_in(sent.headers["location"])
    assert (back.status_code, back.headers["location"]) == (303, "/groups?part=2")
    page = console.browser.get("/groups")
    assert page.status_code == 200
    assert "anna@example.com, operator" in page.text
    assert console.audit == [("sign in", "done", "anna@example.com", "operator")]


def test_cookies_are_for_this_host_over_https_and_no_script(console: TestConsole) -> None:
    answer = console.sign_in()
    session, gone = answer.headers.get_list("set-cookie")
    flags = {part.strip().lower() for part in session.split(";")[1:]}
    assert session.startswith(f"{SESSION}=")
    assert {"httponly", "secure", "samesite=lax", "path=/", "max-age=28800"} <= flags
    assert gone.startswith(f'{UNDER_WAY}=""') and "Max-Age=0" in gone


def test_over_http_on_this_machine_cookies_are_sent(
    tmp_path: Path, provider: OpenIdProvider
) -> None:
    url = "http://127.0.0.1:8088"
    console = TestConsole(tmp_path, url, signin=of_provider(provider))
    answer = console.browser.get("/sign-in")
    assert "Secure" not in answer.headers["set-cookie"]
    assert answer.headers["set-cookie"].startswith("reviewmesh-sign-in=")


@pytest.mark.parametrize("path", ["/", "/review?id=r", "/live", "/dead-letters", "/insights"])
def test_no_screen_without_a_session(console: TestConsole, path: str) -> None:
    answer = console.browser.get(path)
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/sign-in?to=%2F")


@pytest.mark.parametrize("path", ["/events/overview", "/tail"])
def test_no_stream_without_a_session(console: TestConsole, path: str) -> None:
    assert console.browser.get(path).status_code == 401
    assert console.browser.head("/").status_code == 401
    assert console.post(REDRIVE).status_code == 401


def test_styles_need_no_session(console: TestConsole) -> None:
    assert console.browser.get("/static/console.css").status_code == 200


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "another client"},
        {"aud": ["another client"]},
        {"aud": [CLIENT_ID, "another client"], "azp": "another client"},
        {"nonce": "of another sign-in"},
        {"nonce": None},
        {"exp": int(time.time()) - 3600},
        {"exp": None},
        {"iat": int(time.time()) + 3600},
        {"iss": "https://evil.example"},
        {"sub": None},
    ],
    ids=str,
)
def test_a_token_that_is_not_for_this_sign_in_is_refused(
    console: TestConsole, provider: OpenIdProvider, claims: dict[str, Any]
) -> None:
    provider.changed = claims
    refused(console, console.sign_in())


def refused(console: TestConsole, answer: httpx2.Response) -> None:
    assert answer.status_code == 403
    assert "You are not signed in" in answer.text
    assert SESSION not in console.browser.cookies
    assert console.browser.get("/").status_code == 303
    assert console.audit[-1] == ("sign in", "refused", None, None)


def test_a_token_of_another_key_is_refused(console: TestConsole, provider: OpenIdProvider) -> None:
    provider.signing_key = RSAKey.generate_key(2048, {"kid": "first"})
    refused(console, console.sign_in())


def test_an_unsigned_token_is_refused(console: TestConsole, provider: OpenIdProvider) -> None:
    provider.algorithm = "none"
    refused(console, console.sign_in())


def test_a_token_signed_with_what_everybody_knows_is_refused(
    console: TestConsole, provider: OpenIdProvider
) -> None:
    """The public key as the key of a symmetric signature, and the client's secret."""
    for known in (provider.key.as_pem(private=False), CLIENT_SECRET.encode()):
        provider.known_key = known
        refused(console, console.sign_in())


def test_a_provider_may_change_its_key(console: TestConsole, provider: OpenIdProvider) -> None:
    assert console.sign_in().status_code == 303
    provider.rotate()
    console.browser.cookies.clear()
    assert console.sign_in().status_code == 303
    assert console.browser.get("/").status_code == 200


def test_a_way_back_that_this_browser_did_not_begin_is_refused(console: TestConsole) -> None:
    """As when somebody is sent to the page with the code of another person."""
    back = console.begin()
    console.browser.cookies.clear()
    refused(console, console.browser.get(back))


def test_another_state_is_refused(console: TestConsole) -> None:
    first = parse_qs(urlsplit(console.begin()).query)
    console.begin()
    refused(console, console.browser.get("/sign-in/back", params=first))


def test_a_code_of_another_sign_in_is_refused(console: TestConsole) -> None:
    """Its state is this browser's; the provider wants the verifier of whoever got the code."""
    stolen = parse_qs(urlsplit(console.begin()).query)["code"]
    own = parse_qs(urlsplit(console.begin()).query)["state"]
    answer = console.browser.get("/sign-in/back", params={"code": stolen, "state": own})
    refused(console, answer)
    assert "refused the code" in answer.text


def test_what_the_provider_refuses_is_said_as_text(console: TestConsole) -> None:
    state = parse_qs(urlsplit(console.begin()).query)["state"]
    query = {"error": "<script>access_denied", "state": state}
    answer = console.browser.get("/sign-in/back", params=query)
    refused(console, answer)
    assert "&lt;script&gt;access_denied" in answer.text


def test_without_a_role_a_page_says_so(console: TestConsole, provider: OpenIdProvider) -> None:
    provider.person["roles"] = ["accounting"]
    answer = console.sign_in()
    assert answer.status_code == 403
    assert "You have no role at this console" in answer.text
    assert "anna@example.com" in answer.text
    assert "<nav" not in answer.text
    assert SESSION not in console.browser.cookies
    assert console.audit == [("sign in", "refused", None, None)]


@pytest.mark.parametrize(
    ("claim", "claims", "role"),
    [
        ("roles", {"roles": "mesh-viewers"}, "viewer"),
        ("roles", {"roles": ["mesh-viewers", "mesh-owners"]}, "owner"),
        ("realm_access.roles", {"realm_access": {"roles": ["mesh-operators"]}}, "operator"),
        ("https://example.com/roles", {"https://example.com/roles": ["mesh-owners"]}, "owner"),
    ],
)
def test_roles_come_from_a_claim(
    tmp_path: Path, provider: OpenIdProvider, claim: str, claims: dict[str, Any], role: str
) -> None:
    provider.person = {"sub": "1", **claims}
    console = TestConsole(tmp_path, signin=of_provider(provider, role_claim=claim))
    assert console.sign_in().status_code == 303
    assert f"<span>1, {role}</span>" in console.browser.get("/").text


@pytest.mark.parametrize(
    "path",
    ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)", "/\x00"],
)
def test_nobody_is_sent_to_another_site(console: TestConsole, path: str) -> None:
    query = httpx2.QueryParams({"to": path})
    assert console.sign_in(f"/sign-in?{query}").headers["location"] == "/"


def sealed(secret: str, **claims: Any) -> str:
    content = {"name": "mallory", "sub": "m", "role": "OWNER", "aud": "session", **claims}
    return jwt.encode({"alg": "HS256"}, content, OctKey.import_key(secret))


SOON = int(time.time()) + 3600
UNSIGNED = ".".join(
    (urlsafe_b64encode(b'{"alg":"none"}').decode(), sealed(SECRET).split(".")[1], "")
)


@pytest.mark.parametrize(
    "forged",
    [
        "",
        "nonsense",
        "a.b.c",
        sealed("another secret of at least 32 characters", exp=SOON),
        sealed(SECRET, exp=int(time.time()) - 1),
        sealed(SECRET, exp=None),
        sealed(SECRET, exp=SOON, aud="sign-in"),
        UNSIGNED,
    ],
)
def test_a_forged_session_is_none(console: TestConsole, forged: str) -> None:
    console.browser.cookies.set(SESSION, forged, domain="reviews.example.com")
    assert console.browser.get("/").status_code == 303
    assert console.post(REDRIVE).status_code == 401


def test_the_same_session_unforged_is_one(console: TestConsole) -> None:
    """So that the forgeries above fail for their own reason."""
    console.browser.cookies.set(SESSION, sealed(SECRET, exp=SOON), domain="reviews.example.com")
    assert "mallory, owner" in console.browser.get("/").text


def test_a_changed_session_is_none(console: TestConsole) -> None:
    console.sign_in()
    head, _, signature = console.browser.cookies[SESSION].split(".")
    owner = sealed("x" * 32, exp=SOON).split(".")[1]
    console.browser.cookies.clear()
    console.browser.cookies.set(
        SESSION, f"{head}.{owner}.{signature}", domain="reviews.example.com"
    )
    assert console.browser.get("/").status_code == 303


def test_a_sign_in_under_way_is_no_session(console: TestConsole) -> None:
    console.begin()
    console.browser.cookies.set(
        SESSION, console.browser.cookies[UNDER_WAY], domain="reviews.example.com"
    )
    assert console.browser.get("/").status_code == 303


def test_a_session_ends_and_its_streams_with_it(console: TestConsole) -> None:
    soon = sealed(SECRET, exp=int(time.time()) + 5)
    console.browser.cookies.set(SESSION, soon, domain="reviews.example.com")
    # Only returns once the stream has ended.
    stream = console.browser.get("/events/overview")
    assert stream.status_code == 200
    assert console.browser.get("/events/overview").status_code == 401


def test_who_signs_out_has_no_session(console: TestConsole) -> None:
    console.sign_in()
    answer = console.post("/sign-out")
    assert answer.status_code == 200
    assert "You are signed out" in answer.text
    assert SESSION not in console.browser.cookies
    assert console.browser.get("/").status_code == 303
    assert console.audit[-1] == ("sign out", "done", "anna@example.com", "operator")


def test_too_many_sign_ins_are_refused(console: TestConsole) -> None:
    answers = [console.browser.get("/sign-in/back").status_code for _ in range(REQUESTS + 1)]
    assert answers == [403] * REQUESTS + [429]
    answer = console.browser.get("/sign-in")
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "60"


def test_a_provider_that_is_away_is_named(tmp_path: Path, provider: OpenIdProvider) -> None:
    away = of_provider(provider, issuer="http://127.0.0.1:1/realm")
    console = TestConsole(tmp_path, signin=away)
    answer = console.browser.get("/sign-in")
    assert answer.status_code == 503
    assert "http://127.0.0.1:1/realm does not answer" in answer.text


@pytest.mark.parametrize(
    ("described", "words"),
    [
        ({"issuer": "https://evil.example"}, "REVIEWMESH_SIGNIN__ISSUER"),
        ({"token_endpoint": "ftp://evil.example/token"}, "expected token_endpoint with https"),
        ({"jwks_uri": None}, "expected jwks_uri with https"),
    ],
)
def test_a_provider_that_describes_itself_wrongly_is_refused(
    console: TestConsole, provider: OpenIdProvider, described: dict[str, Any], words: str
) -> None:
    provider.described = described
    answer = console.browser.get("/sign-in")
    assert answer.status_code == 503
    assert words in answer.text


# -- through a proxy -------------------------------------------------------------------------


@pytest.fixture
def proxied(tmp_path: Path) -> TestConsole:
    return TestConsole(tmp_path, signin={"proxy_secret": PROXY_SECRET, **ROLES})


def through_proxy(role: str, name: str = "bert") -> dict[str, str]:
    return {
        "X-Proxy-Secret": PROXY_SECRET,
        "X-Forwarded-User": name,
        "X-Forwarded-Groups": f"accounting, mesh-{role}s",
    }


def test_a_proxy_with_the_secret_says_who_it_is(proxied: TestConsole) -> None:
    page = proxied.browser.get("/", headers=through_proxy("viewer"))
    assert page.status_code == 200
    assert "<span>bert, viewer</span>" in page.text
    assert "Sign out" not in page.text, "the proxy holds the session"


@pytest.mark.parametrize(
    "secret", [{}, {"X-Proxy-Secret": ""}, {"X-Proxy-Secret": PROXY_SECRET[:-1]}]
)
def test_headers_without_the_secret_are_refused(
    proxied: TestConsole, secret: dict[str, str]
) -> None:
    headers = through_proxy("owner")
    del headers["X-Proxy-Secret"]
    answer = proxied.browser.get("/", headers=headers | secret)
    assert answer.status_code == 403
    assert "bert" not in answer.text
    assert "without the proxy's secret" in proxied.logged.entries[-1]["event"]
    assert proxied.post(REDRIVE, **headers, **secret).status_code == 403


def test_a_header_that_comes_twice_is_none(proxied: TestConsole) -> None:
    """A proxy that adds its header to one of the client's own would let the client choose."""
    for name in ("X-Forwarded-User", "X-Forwarded-Groups"):
        headers = [*through_proxy("owner").items(), (name, "mesh-owners")]
        assert proxied.browser.get("/", headers=headers).status_code == 403


def test_without_a_role_of_the_proxy_a_page_says_so(proxied: TestConsole) -> None:
    answer = proxied.browser.get("/", headers=through_proxy("accountant"))
    assert answer.status_code == 403
    assert "You have no role at this console" in answer.text


def test_names_of_headers_are_settings(tmp_path: Path) -> None:
    names = {
        "proxy_secret_header": "X-Ours",
        "proxy_user_header": "Remote-User",
        "proxy_roles_header": "Remote-Roles",
    }
    console = TestConsole(tmp_path, signin={"proxy_secret": PROXY_SECRET, **ROLES, **names})
    headers = {"X-Ours": PROXY_SECRET, "Remote-User": "bert", "Remote-Roles": "mesh-owners"}
    assert "bert, owner" in console.browser.get("/", headers=headers).text
    assert console.browser.get("/", headers=through_proxy("owner")).status_code == 403


def test_a_proxied_page_has_no_pages_of_a_provider(proxied: TestConsole) -> None:
    headers = through_proxy("owner")
    assert proxied.browser.get("/sign-in", headers=headers).status_code == 404


# -- roles -----------------------------------------------------------------------------------


def test_a_viewer_may_not_act(proxied: TestConsole) -> None:
    answer = proxied.post(REDRIVE, **through_proxy("viewer"))
    assert answer.status_code == 403
    assert "expected an operator or an owner; your role is viewer" in answer.text
    assert proxied.audit == [("redrive", "refused", "bert", "viewer")]


@pytest.mark.parametrize("role", ["operator", "owner"])
def test_an_action_is_in_the_audit_whatever_comes_of_it(proxied: TestConsole, role: str) -> None:
    answer = proxied.post(REDRIVE, **through_proxy(role))
    assert answer.status_code == 503, "the broker is away"
    assert proxied.audit == [("redrive", "failed", "bert", role)]
    assert proxied.logged.entries[-1]["place"] == "0/0"


def test_without_actions_nobody_acts(tmp_path: Path) -> None:
    console = TestConsole(
        tmp_path,
        console={"actions": False},
        signin={"proxy_secret": PROXY_SECRET, **ROLES},
    )
    answer = console.post(REDRIVE, **through_proxy("owner"))
    assert answer.status_code == 403
    assert "REVIEWMESH_CONSOLE__ACTIONS" in answer.text


def test_too_many_actions_are_refused(proxied: TestConsole) -> None:
    bert, eve = through_proxy("operator"), through_proxy("operator", "eve")
    answers = {proxied.post(REDRIVE, **bert).status_code for _ in range(ACTIONS)}
    assert answers == {503}
    assert proxied.post(REDRIVE, **bert).status_code == 429
    assert proxied.audit[-1] == ("redrive", "refused", "bert", "operator")
    assert proxied.post(REDRIVE, **eve).status_code == 503, "others may still act"


def test_a_screen_that_is_not_known_to_hide_text_is_closed_to_viewers(
    proxied: TestConsole,
) -> None:
    answer = proxied.browser.get("/a-new-screen", headers=through_proxy("viewer"))
    assert answer.status_code == 403
    assert "which a viewer may not see" in answer.text
    answer = proxied.browser.get("/a-new-screen", headers=through_proxy("operator"))
    assert answer.status_code == 404


def test_a_filter_tells_a_viewer_nothing_of_a_text(proxied: TestConsole) -> None:
    for filtered in ({"containing": "Anna"}, {"where": "stars < 3"}):
        answer = proxied.browser.get("/tail", params=filtered, headers=through_proxy("viewer"))
        assert "event: refused" in answer.text
        assert "your role may not see" in answer.text
    page = proxied.browser.get("/live", headers=through_proxy("viewer")).text
    assert 'name="containing"' not in page and 'name="topic"' in page
    assert 'name="containing"' in proxied.browser.get("/live", headers=through_proxy("owner")).text


def test_a_setting_shows_viewers_the_text(tmp_path: Path) -> None:
    console = TestConsole(
        tmp_path,
        console={"viewers_see_text": True},
        signin={"proxy_secret": PROXY_SECRET, **ROLES},
    )
    page = console.browser.get("/live", headers=through_proxy("viewer")).text
    assert 'name="containing"' in page


# -- other sites, and other names ------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "http://reviews.example.com"}, 403),
        ({"Origin": "https://reviews.example.com:8443"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": URL, "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": URL, "Sec-Fetch-Site": "same-site"}, 403),
        ({"Host": "evil.example"}, 421),
        ({"Host": "localhost"}, 421),
        ({"Origin": URL, "Sec-Fetch-Site": "same-origin"}, 503),
    ],
    ids=str,
)
def test_posts_of_other_sites_are_refused(
    console: TestConsole, headers: dict[str, str], status: int
) -> None:
    """With the session of somebody who may act; the last passes, and finds the broker away."""
    console.sign_in()
    for path in (REDRIVE, "/sign-out") if status != 503 else (REDRIVE,):
        answer = console.browser.post(path, data={"place": "0/0"}, headers=headers)
        assert answer.status_code == status
    assert console.browser.get("/").status_code == 200, "the session goes on"
    assert "no-referrer" not in console.browser.get("/").headers["referrer-policy"]


def test_a_post_without_an_origin_is_refused(console: TestConsole) -> None:
    console.sign_in()
    assert console.browser.post(REDRIVE, data={"place": "0/0"}).status_code == 403


def test_without_sign_in_it_is_for_this_machine(tmp_path: Path) -> None:
    console = TestConsole(tmp_path, url="http://localhost:8088")
    page = console.browser.get("/")
    assert page.status_code == 200
    assert 'class="who"' not in page.text
    assert console.browser.get("/sign-in").status_code == 404
    answer = console.browser.post(
        REDRIVE, data={"place": "0/0"}, headers={"Origin": "http://localhost:8088"}
    )
    assert answer.status_code == 503
    assert console.audit == [("redrive", "failed", "anybody on this machine", "owner")]


# -- settings --------------------------------------------------------------------------------

PROVIDER = {"issuer": "https://login.example.com", "client_id": CLIENT_ID, **ROLES}
PROXY = {"proxy_secret": PROXY_SECRET, **ROLES}


@pytest.mark.parametrize(
    ("console", "signin", "words"),
    [
        ({"host": "0.0.0.0"}, {}, "REVIEWMESH_CONSOLE__HOST: expected a loopback address"),
        ({"host": "::"}, {}, "or sign-in by REVIEWMESH_SIGNIN__ISSUER"),
        ({"host": "console.internal"}, {}, "expected a loopback address"),
        ({"url": URL}, {}, "REVIEWMESH_CONSOLE__URL: expected an address of this machine"),
        ({"url": URL}, PROVIDER | PROXY, "REVIEWMESH_SIGNIN__PROXY_SECRET, got both"),
        ({}, PROVIDER, "REVIEWMESH_CONSOLE__URL: expected the address"),
        ({"url": URL}, {"proxy_secret": PROXY_SECRET}, "one of REVIEWMESH_SIGNIN__VIEWERS"),
        ({"url": URL}, PROVIDER | {"client_id": ""}, "REVIEWMESH_SIGNIN__CLIENT_ID: expected"),
        (
            {"url": URL},
            PROVIDER | {"issuer": "http://login.example.com"},
            "REVIEWMESH_SIGNIN__ISSUER: expected an address with https",
        ),
        ({"url": "https://a:b:c"}, PROVIDER, "REVIEWMESH_CONSOLE__URL: expected an address such"),
        ({}, ROLES, "REVIEWMESH_SIGNIN__VIEWERS is given"),
    ],
)
def test_what_nobody_could_sign_in_with_is_refused_at_the_start(
    console: dict[str, Any], signin: dict[str, Any], words: str
) -> None:
    settings = Settings.model_validate({"console": console, "signin": signin})
    with pytest.raises(WrongSetting, match=words):
        sign_in_of(settings, Rendering(settings.console), structlog.get_logger())


@pytest.mark.parametrize(
    ("console", "signin", "warned"),
    [
        ({"host": "0.0.0.0", "url": URL}, PROVIDER, False),
        ({"host": "0.0.0.0", "url": "http://reviews.example.com"}, PROXY, True),
        ({"url": "http://localhost:8088"}, PROXY, False),
        ({"host": "127.0.0.2"}, {}, False),
    ],
)
def test_plaintext_is_warned_of(
    console: dict[str, Any], signin: dict[str, Any], warned: bool
) -> None:
    settings = Settings.model_validate({"console": console, "signin": signin})
    logged = LogCapture()
    log = structlog.wrap_logger(structlog.PrintLogger(), processors=[logged])
    sign_in_of(settings, Rendering(settings.console), log)
    assert ["plaintext" in line["event"] for line in logged.entries] == [True] * warned
