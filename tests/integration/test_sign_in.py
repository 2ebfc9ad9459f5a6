"""Signing in over the pages' gate: cookie flags, one-time links, other sites, sessions that ended."""

import asyncio
from collections.abc import Iterator, MutableMapping
from http.cookies import Morsel, SimpleCookie
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import pytest

from infra.drivers.http.session_cookie import COOKIE
from infra.drivers.pages.gate import Gate
from infra.drivers.pages.services import Services
from infra.drivers.pages.shell import VIEWER
from tests.api_server import session_of
from tests.conftest import Databases
from tests.reading_world import NOW, reading_world

PASSWORD = "correct horse battery"
HOST = "shop.example:8700"


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: str

    @property
    def cookie(self) -> "Morsel[str] | None":
        return SimpleCookie(self.headers.get("set-cookie", "")).get(COOKIE)


class Browser:
    """Asks the gate in front of a page that says who looks."""

    def __init__(self, services: Services) -> None:
        self._gate = Gate(self._page, services)
        self.people = services.people
        self.audit = services.audit

    @staticmethod
    async def _page(scope: MutableMapping[str, Any], _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": f"{scope[VIEWER].name} {scope[VIEWER].role}".encode()})

    def ask(self, method: str, path: str, secret: str = "", form: dict[str, str] | None = None, **more: str) -> Answer:
        headers = {"host": HOST, **{name.replace("_", "-"): value for name, value in more.items()}}
        if secret:
            headers["cookie"] = f"other=1; {COOKIE}={secret}"
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": b"",
            "client": ("192.0.2.9", 4711),
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        }
        sent: list[MutableMapping[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": urlencode(form or {}).encode()}

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message)

        asyncio.run(self._gate(scope, receive, send))
        told = {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}
        return Answer(sent[0]["status"], told, b"".join(each.get("body", b"") for each in sent[1:]).decode())


@pytest.fixture
def browser(databases: Databases, tmp_path: Path) -> Iterator[Browser]:
    with reading_world(databases) as world:
        services = Services.of(session_of(world, tmp_path))
        yield Browser(services)
        services.close()


def test_a_link_sets_a_password_once_and_the_cookie_is_for_us_alone(browser: Browser) -> None:
    link = f"/welcome/{browser.people.invite('ada', 'staff', NOW)}"
    assert "Welcome, ada" in browser.ask("GET", link).body
    assert browser.ask("POST", link, form={"password": "short", "again": "short"}).status == 400
    assert browser.ask("POST", link, form={"password": PASSWORD, "again": PASSWORD + "!"}).status == 400
    done = browser.ask("POST", link, form={"password": PASSWORD, "again": PASSWORD}, origin=f"http://{HOST}")
    assert (done.status, done.headers["location"]) == (303, "/")
    cookie = done.cookie
    assert cookie is not None
    assert (cookie["httponly"], cookie["samesite"], cookie["path"], cookie["domain"]) == (True, "Strict", "/", "")
    assert not cookie["secure"]
    assert 0 < int(cookie["max-age"]) <= 7 * 86_400
    assert browser.ask("GET", "/", cookie.value).body == "ada staff"
    assert browser.ask("POST", link, form={"password": PASSWORD, "again": PASSWORD}).status == 410
    assert browser.ask("GET", link).status == 410


def test_behind_https_the_cookie_is_secure(browser: Browser) -> None:
    browser.people.accept(browser.people.invite("ada", "staff", NOW), PASSWORD, NOW)
    form = {"name": "ada", "password": PASSWORD}
    cookie = browser.ask("POST", "/sign-in", form=form, x_forwarded_proto="https").cookie
    assert cookie is not None
    assert cookie["secure"] is True


def test_a_wrong_name_and_a_wrong_password_are_told_alike(browser: Browser) -> None:
    browser.people.accept(browser.people.invite("ada", "staff", NOW), PASSWORD, NOW)
    wrong = browser.ask("POST", "/sign-in", form={"name": "ada", "password": "wrong"})
    nobody = browser.ask("POST", "/sign-in", form={"name": "nobody", "password": "wrong"})
    assert (wrong.status, wrong.body) == (nobody.status, nobody.body)
    assert (wrong.status, wrong.cookie) == (401, None)


def test_other_sites_are_refused_and_never_redirected_to(browser: Browser) -> None:
    browser.people.accept(browser.people.invite("ada", "staff", NOW), PASSWORD, NOW)
    form = {"name": "ada", "password": PASSWORD, "next": "//evil.example/"}
    for origin in ("https://evil.example", "null", f"http://{HOST}.evil.example"):
        assert browser.ask("POST", "/sign-in", form=form, origin=origin).status == 403, origin
    done = browser.ask("POST", "/sign-in", form=form, origin=f"http://{HOST}")
    assert (done.status, done.headers["location"]) == (303, "/")


def test_a_session_that_ended_leads_to_the_sign_in(browser: Browser) -> None:
    browser.people.accept(browser.people.invite("boss", "admin", NOW), PASSWORD, NOW)
    browser.people.accept(browser.people.invite("ada", "staff", NOW), PASSWORD, NOW)
    first = browser.ask("POST", "/sign-in", form={"name": "ada", "password": PASSWORD}).cookie
    second = browser.ask("POST", "/sign-in", form={"name": "ada", "password": PASSWORD}).cookie
    assert first is not None
    assert second is not None
    assert browser.ask("POST", "/sign-out", first.value, origin="https://evil.example").status == 403
    assert browser.ask("GET", "/", first.value).status == 200
    out = browser.ask("POST", "/sign-out", first.value, origin=f"http://{HOST}")
    assert out.cookie is not None
    assert (out.cookie.value, out.cookie["max-age"]) == ("", "0")
    for path in ("/", "/customers"):
        assert browser.ask("GET", path, first.value).headers["location"].startswith("/sign-in")
    assert browser.ask("GET", "/", second.value).body == "ada staff"
    browser.people.disable("ada", NOW)
    assert browser.ask("GET", "/", second.value).status == 303
    assert browser.ask("GET", "/", "made-up").status == 303
    assert {row.action for row in browser.audit.page()} >= {"signed.in"}
