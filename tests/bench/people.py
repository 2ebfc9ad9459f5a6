"""The UI: search and a customer's page over HTTP while events arrive, and the cost of an idle UI."""

import http.client
import json
import time
from base64 import b64encode
from collections.abc import Callable
from random import Random
from typing import Final, NamedTuple
from urllib.parse import quote

from infra.demo.names import FAMILY_NAMES, GIVEN_NAMES
from tests.bench import http_load
from tests.bench.door import product
from tests.bench.http_load import Plan
from tests.bench.measure import Table, percentile
from tests.checker.product import Product

SECTION: Final = "People"
RATE: Final = 500  # events per second arriving meanwhile


class Size(NamedTuple):
    """Amounts of data and queries."""

    customers: int
    events: int
    asked: int  # of each kind


QUICK: Final = Size(200, 1_000, 20)
FULL: Final = Size(100_000, 5_000_000, 400)


def measure(table: Table, size: Size) -> None:
    """p95 of searches by prefix, digits and two words, and of customers' pages; CPU of an idle UI."""
    with product() as (running, key):
        names = _people(running, key, size.customers)
        if size.events > size.customers:
            requests = (size.events - size.customers) // 100
            http_load.run(Plan(running.port, "track", 8, requests, 100, key, size.customers, prefix="fill"))
        running.settle(7_200)
        _indexed(running)
        idle = _idle_share(running)
        token = str(running.ask("token", "create", "--role", "admin")["token"])
        cookie = _signed_in(running.port, token)
        ids = [str(_get(running.port, f"/api/v1/profiles/user_id/customer-{n}", token)["id"]) for n in range(20)]
        beside = Plan(
            running.port, "track", 2, int(RATE / 10 * 600), 10, key, size.customers, RATE / 10, "beside", 600.0
        )
        with http_load.start(beside) as process:
            searches = _timed(
                running.port, size.asked, _queries(names, size.asked), {"Authorization": f"Bearer {token}"}
            )
            paths = [f"/customers/{ids[n % len(ids)]}" for n in range(size.asked)]
            pages = _timed(running.port, size.asked, paths, {"Cookie": cookie})
            process.terminate()
        _report(table, size, searches, pages, idle)


def _report(table: Table, size: Size, searches: list[float], pages: list[float], idle: float) -> None:
    what = f"{size.customers:,} customers, {size.events:,} events, {RATE} events/s arriving"
    for name, found, goal in (("search", searches, 100), ("customer page", pages, 300)):
        p50, p95 = (percentile(sorted(found), share) * 1_000 for share in (0.5, 0.95))
        table.add(
            SECTION,
            f"{name}, {what}: p95",
            f"{p95:.0f} ms (p50 {p50:.0f} ms)",
            f"goal {goal} ms",
            ratio=p95 / goal,
            target=f"< {goal} ms",
            met=p95 < goal,
        )
    table.add(
        SECTION,
        "the UI with nobody looking: share of a core",
        f"{idle:.2%}",
        "nothing",
        target="near zero",
        met=idle < 0.01,
    )


def _people(running: Product, key: str, count: int) -> list[tuple[str, str]]:
    """Identify customers with names, e-mails and phones; returns their names."""
    rng = Random(7)
    names = [(rng.choice(GIVEN_NAMES), rng.choice(FAMILY_NAMES)) for _ in range(count)]
    connection = http.client.HTTPConnection("127.0.0.1", running.port)
    word = b64encode(f"{key}:".encode()).decode()
    for start in range(0, count, 100):
        items = [
            {
                "type": "identify",
                "userId": f"customer-{n}",
                "messageId": f"who-{n}",
                "traits": {
                    "first_name": names[n][0],
                    "last_name": names[n][1],
                    "email": f"c{n}@example.com",
                    "phone": f"+1415{n:07d}" if n < 10_000_000 else None,
                },
            }
            for n in range(start, min(start + 100, count))
        ]
        connection.request(
            "POST", "/v1/batch", json.dumps({"batch": items}).encode(), {"Authorization": f"Basic {word}"}
        )
        connection.getresponse().read()
    connection.close()
    return names


def _queries(names: list[tuple[str, str]], count: int) -> list[str]:
    """Two to five letters of a name, a name and the start of another, last digits, an address."""
    rng = Random(8)
    kinds: list[Callable[[int], str]] = [
        lambda n: names[n][0][:2],
        lambda n: names[n][1][:3],
        lambda n: names[n][1][:5],
        lambda n: f"{names[n][0]} {names[n][1][:2]}",
        lambda n: f"{n:07d}"[-4:],
        lambda n: f"c{n}@example.com",
    ]
    wanted = [kinds[i % len(kinds)](rng.randrange(len(names))) for i in range(count)]
    return [f"/api/v1/profiles?search={quote(text)}&limit=20" for text in wanted]


def _timed(port: int, count: int, paths: list[str], headers: dict[str, str]) -> list[float]:
    """Seconds per request, sent one after another, as a person types."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    taken = []
    for path in paths[:count]:
        begun = time.perf_counter()
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        answer.read()
        taken.append(time.perf_counter() - begun)
        if answer.status != 200:
            raise RuntimeError(f"{path} was answered {answer.status}")
    connection.close()
    return taken


def _get(port: int, path: str, token: str) -> dict[str, object]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
    found: dict[str, object] = json.loads(connection.getresponse().read())
    connection.close()
    return found


def _signed_in(port: int, token: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/sign-in", f"token={token}")
    cookie = str(connection.getresponse().headers["set-cookie"]).split(";")[0]
    connection.close()
    return cookie


def _indexed(running: Product, timeout_s: float = 1_800) -> None:
    """Wait until every customer can be found."""
    deadline = time.monotonic() + timeout_s
    with running.databases() as (main, _), main.cursor() as cursor:
        while time.monotonic() < deadline:
            cursor.execute("select exists (select from search_due)")
            row = cursor.fetchone()
            main.rollback()
            if row is not None and not row[0]:
                return
            time.sleep(0.2)
    raise RuntimeError("the search index did not catch up")


def _idle_share(running: Product, seconds: float = 5.0) -> float:
    """CPU seconds per second of the UI process while nobody uses it."""
    (process,) = running.processes()["ui"]
    before, begun = process.cpu_times(), time.monotonic()
    time.sleep(seconds)
    after = process.cpu_times()
    used = after.user + after.system - before.user - before.system
    return float(used / (time.monotonic() - begun))
