"""Who comes in to the pages of a running `up`, and from where; what every answer carries."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from tests.integration.running import Up, result

PAGES = ("/", "/customers", "/customers/0", "/segments", "/live", "/sources", "/system", "/team", "/audit", "/nowhere")
SOCKET = "/_nicegui_ws/socket.io/?EIO=4&transport=websocket"


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    started = Up(tmp_path_factory.mktemp("gate") / "data")
    started.wait_ready()
    yield started
    started.stop()


@pytest.fixture(scope="module")
def token(up: Up) -> str:
    return str(result("token", "create", "--role", "staff", "--data", str(up.data))["token"])


def _post(up: Up, path: str, form: dict[str, str], **headers: str) -> httpx.Response:
    return httpx.post(up.url + path, data=form, headers={"Origin": up.url, **headers})


def _session(up: Up, token: str) -> str:
    """The Cookie header of somebody who signed in."""
    return _post(up, "/sign-in", {"token": token}).headers["set-cookie"].split(";")[0]


def test_nobody_comes_in_without_a_session_even_after_somebody_signed_in(up: Up, token: str) -> None:
    cookie = _session(up, token)
    assert httpx.get(f"{up.url}/customers", headers={"Cookie": cookie}).status_code == 200
    for path in PAGES:
        answer = httpx.get(up.url + path)
        assert answer.status_code == 303, path
        assert answer.headers["location"].startswith("/sign-in"), path
        forged = httpx.get(up.url + path, headers={"Cookie": "touchfold_session=forged"})
        assert forged.status_code == 303, path
    assert httpx.get(f"{up.url}/_nicegui_ws/socket.io/?EIO=4&transport=polling").status_code == 401
    with pytest.raises(InvalidStatus):
        connect(up.url.replace("http", "ws") + SOCKET, origin=Origin(up.url))


def test_a_session_is_a_cookie_that_scripts_and_other_sites_do_not_get(up: Up, token: str) -> None:
    plain = _post(up, "/sign-in", {"token": token, "next": "/segments"})
    assert (plain.status_code, plain.headers["location"]) == (303, "/segments")
    parts = plain.headers["set-cookie"].split("; ")
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(parts)
    assert "Secure" not in parts
    secure = _post(up, "/sign-in", {"token": token}, **{"X-Forwarded-Proto": "https"})
    assert "Secure" in secure.headers["set-cookie"].split("; ")


@pytest.mark.parametrize(
    "target",
    ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)", "/\t/evil.example",
     "/\n/evil.example", "/\r\nSet-Cookie: a=b"],
)  # fmt: skip
def test_signing_in_leads_nowhere_else(up: Up, token: str, target: str) -> None:
    assert _post(up, "/sign-in", {"token": token, "next": target}).headers["location"] == "/"


def test_a_write_comes_from_our_own_pages(up: Up, token: str) -> None:
    cookie = _session(up, token)
    for path in ("/sign-in", "/sign-out", "/welcome/none"):
        foreign = _post(up, path, {"token": token}, Origin="http://evil.example", Cookie=cookie)
        assert foreign.status_code == 403, path
        unnamed = httpx.post(up.url + path, data={"token": token}, headers={"Cookie": cookie})
        assert unnamed.status_code == 403, path
    address = up.url.replace("http", "ws") + SOCKET
    for origin in (Origin("http://evil.example"), None):
        with pytest.raises(InvalidStatus) as refused:
            connect(address, origin=origin, additional_headers={"Cookie": cookie})
        assert refused.value.response.status_code == 403
    with connect(address, origin=Origin(up.url), additional_headers={"Cookie": cookie}) as socket:
        assert str(socket.recv(30)).startswith("0{")  # socket.io's greeting


def test_what_is_not_there_or_breaks_is_said_without_details(up: Up, token: str) -> None:
    answer = httpx.get(f"{up.url}/nowhere/<b>", headers={"Cookie": _session(up, token)})
    assert (answer.status_code, "Page not found" in answer.text) == (404, True)
    assert "HTTPException" not in answer.text


def test_signing_out_ends_the_session_and_not_the_cookie_alone(up: Up, token: str) -> None:
    cookie = _session(up, token)
    assert _post(up, "/sign-out", {}, Cookie=cookie).headers["location"] == "/sign-in"
    assert httpx.get(f"{up.url}/customers", headers={"Cookie": cookie}).status_code == 303


@pytest.mark.parametrize("path", ["/sign-in", "/customers", "/welcome/none", "/assets/touchfold.css"])
def test_every_answer_tells_the_browser_what_it_may_do(up: Up, token: str, path: str) -> None:
    headers = httpx.get(up.url + path, headers={"Cookie": _session(up, token)}).headers
    policy = headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "http" not in policy  # no other host
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    if not path.startswith("/assets"):
        assert headers["cache-control"] == "no-store"


def test_the_first_admin_sets_a_password_by_a_link_that_works_once(up: Up) -> None:
    link = next(line.split()[-1] for line in up.errors if "sign in as admin" in line)
    page = httpx.get(link)
    assert (page.status_code, "Welcome, admin" in page.text) == (200, True)
    path = link.removeprefix(up.url)
    short = _post(up, path, {"password": "short", "again": "short"})
    assert (short.status_code, "10 to 256" in short.text) == (400, True)
    word = "a pässword <b>&"
    done = _post(up, path, {"password": word, "again": word})
    assert (done.status_code, done.headers["location"]) == (303, "/")
    assert httpx.get(link).status_code == 410
    assert _post(up, path, {"password": word, "again": word}).status_code == 410
    assert _post(up, "/sign-in", {"name": "Admin", "password": word}).status_code == 303


def test_guessing_has_to_wait_and_what_was_typed_is_not_repeated_as_markup(up: Up) -> None:
    statuses = []
    for number in range(6):
        form = {"name": "nobody", "password": f"guess {number}", "next": '"><script>alert(1)</script>'}
        answer = _post(up, "/sign-in", form)
        statuses.append(answer.status_code)
        assert "<script" not in answer.text
    assert statuses == [401] * 5 + [429]


def test_the_ui_process_killed_comes_back_and_its_visitors_wait_instead_of_being_refused(up: Up, token: str) -> None:
    cookie = _session(up, token)
    up.kill("ui")
    answer = httpx.get(f"{up.url}/customers", headers={"Cookie": cookie}, timeout=60)
    assert answer.status_code == 200
    assert up.get("/health").status == 200


def test_pages_that_are_off_leave_the_door_and_the_api(tmp_path: Path) -> None:
    up = Up(tmp_path / "data", UI="off")
    up.wait_ready()
    assert up.pids("ui") == []
    assert up.get("/").status == 404
    assert up.get("/health").status == 200
    with pytest.raises(InvalidStatus):
        connect(up.url.replace("http", "ws") + SOCKET)
    assert "sign in as admin" not in up.log
    assert up.stop() == 0
