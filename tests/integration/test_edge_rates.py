"""Rates and settings of sources against a real `touchfold up` with two doors: what one counts the other knows."""

import json
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.integration.running import Up, command, result, until

RATE = 5  # requests a second of a caller; 100 at once
PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # httpx would read all certificates of the machine for each request
TRACK = {"userId": "ada", "event": "Signed Up"}


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    running = Up(
        tmp_path_factory.mktemp("rates") / "data",
        DOORS="2",
        TRUSTED_PROXIES="127.0.0.1",
        API_RATE=str(RATE),
        SEARCH_RATE="0.5",
        SIGN_IN_RATE="6",
    )
    running.wait_ready()
    yield running
    assert running.stop() == 0


def ask(up: Up, path: str, count: int, **headers: str) -> list[httpx.Response]:
    """Requests in connections of their own, so that both doors have some."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(lambda _: httpx.get(up.url + path, headers=sent, timeout=60, verify=PLAIN), range(count)))


def refused(answers: list[httpx.Response]) -> list[httpx.Response]:
    return [each for each in answers if each.status_code == 429]


def until_refused(up: Up, answers: list[httpx.Response], count: int, **headers: str) -> None:
    """Ask in parts until one is refused, however slow the machine is; adds to `answers`."""

    def asked() -> bool:
        answers.extend(ask(up, "/api/v1/me", count, **headers))
        return bool(refused(answers))

    until(asked, "a refusal")


def test_a_caller_of_the_api_has_a_rate_and_another_does_not_share_it(up: Up) -> None:
    one, other = (
        {"Authorization": f"Bearer {result('token', 'create', '--role', 'admin', *at(up))['token']}"} for _ in range(2)
    )
    answers: list[httpx.Response] = []
    until_refused(up, answers, 60, **one)
    late = refused(answers)
    assert {each.status_code for each in answers} == {200, 429}
    assert len(answers) - len(late) >= 20 * RATE
    assert late[0].json()["code"] == "too_many_requests"
    assert int(late[0].headers["retry-after"]) >= 1
    assert not refused(ask(up, "/api/v1/me", 5, **other))
    found = ask(up, "/api/v1/profiles?search=ada", 30, **other)
    assert 10 <= len(found) - len(refused(found)) < 30
    assert not refused(ask(up, "/api/v1/me", 5, **other))


def at(up: Up) -> tuple[str, str]:
    return "--data", str(up.data)


def test_strangers_share_a_rate_by_address_and_hold_up_nobody_who_is_known(up: Up) -> None:
    token = result("token", "create", "--role", "service", *at(up))["token"]
    stranger = {"X_Forwarded_For": "10.9.9.9, 192.0.2.1"}  # 10.9.9.9 is its own invention
    assert not refused(ask(up, "/api/v1/me", 1, Authorization=f"Bearer {token}", **stranger))
    wrong: list[httpx.Response] = []
    sent = {"Authorization": "Bearer tf_wrong", **stranger}
    until_refused(up, wrong, 30, **sent)
    assert {each.status_code for each in wrong} == {401, 429}
    assert refused(ask(up, "/metrics", 60, X_Forwarded_For="10.8.8.8, 192.0.2.1"))
    assert not refused(ask(up, "/api/v1/openapi.json", 3, X_Forwarded_For="10.9.9.9, 192.0.2.2"))
    assert not refused(ask(up, "/health", 20, **stranger))


def test_tries_to_sign_in_have_a_rate_by_address(up: Up) -> None:
    def post(address: str, **headers: str) -> httpx.Response:
        sent = {"X-Forwarded-For": address, "Origin": up.url, **headers}
        return httpx.post(
            f"{up.url}/sign-in", data={"name": "a", "password": "b"}, headers=sent, timeout=60, verify=PLAIN
        )

    last = post("192.0.2.7")
    for _ in range(200):  # the pages' own 429, of wrong passwords, is a page
        if last.headers["content-type"] == "application/json":
            break
        last = post("192.0.2.7")
    assert (last.status_code, last.json()["code"]) == (429, "too_many_requests")
    assert int(last.headers["retry-after"]) >= 1
    assert "Too many attempts" in post("192.0.2.7", Accept="text/html").text
    assert post("192.0.2.8").status_code == 401


def test_a_sources_rate_holds_for_all_doors_and_acts_at_once(up: Up) -> None:
    key = result("source", "create", "till", *at(up))["write_key"]
    for _ in range(10):  # every door knows it
        assert up.send(key, "track", TRACK).status == 200
    done = result("source", "set", "till", "--rate", "0.01", "--burst", "40", *at(up))
    assert done == {"name": "till", "settings": {"events_per_s": 0.01, "burst": 40}}
    until(lambda: up.send(key, "batch", {"batch": [TRACK] * 40}).status == 429, "the rate at every door")
    with ThreadPoolExecutor(4) as pool:
        statuses = list(pool.map(lambda _: up.send(key, "track", TRACK).status, range(20)))
    assert statuses == [429] * 20, "one door does not know what the other counted"
    result("source", "set", "till", "--no-rate", *at(up))
    until(lambda: [up.send(key, "track", TRACK).status for _ in range(6)] == [200] * 6, "no rate at every door")


def test_a_source_is_switched_off_and_on_and_its_origins_are_kept(up: Up) -> None:
    key = result("source", "create", "shop", *at(up))["write_key"]
    token = result("token", "create", "--role", "admin", *at(up))["token"]

    def change(**settings: object) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"}
        return httpx.post(
            f"{up.url}/api/v1/sources/shop/settings", json=settings, headers=headers, timeout=60, verify=PLAIN
        )

    def sent(origin: str) -> int:
        body, headers = {**TRACK, "writeKey": key}, {"Origin": origin}
        return httpx.post(f"{up.url}/v1/track", json=body, headers=headers, timeout=60, verify=PLAIN).status_code

    assert change(origins=["https://shop.example"]).json()["settings"] == {"origins": ["https://shop.example"]}
    until(lambda: {sent("https://evil.example") for _ in range(6)} == {403}, "the origins at every door")
    assert sent("https://shop.example") == 200
    assert change(enabled=False, trusted_clock=True).status_code == 200
    until(lambda: {up.send(key, "track", TRACK).status for _ in range(6)} == {404}, "the end of a source that is off")
    assert up.send(key, "track", TRACK).body["code"] == "source_off"
    assert change(enabled=None).json()["settings"] == {"origins": ["https://shop.example"], "trusted_clock": True}
    until(lambda: {up.send(key, "track", TRACK).status for _ in range(6)} == {200}, "a source that is on again")
    wrong = change(events_per_s=0, origins=["*"])
    assert wrong.status_code == 400
    assert {each["path"] for each in wrong.json()["errors"]} == {"events_per_s", "origins"}
    assert change(rates=1).json()["errors"][0]["path"] == "rates"
    done = command("source", "set", "shop", "--burst", "3", "--json", *at(up))
    assert done.returncode == 2, done.stdout
    assert [each["path"] for each in json.loads(done.stderr)["errors"]] == ["burst"], done.stderr
    assert command("source", "set", "shop", *at(up)).returncode == 2
    audit = result("audit", *at(up))
    assert [each["detail"] for each in audit if each["action"] == "source.changed"][-1]["settings"]
