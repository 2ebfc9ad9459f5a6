"""A real `up` under many readers: no backend more than its processes may have, and commands go on beside them."""

import http.client
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import cycle, islice
from pathlib import Path
from typing import Final
from urllib.parse import urlencode, urlsplit
from uuid import UUID

import psycopg2
import pytest

from infra.adapters.machine.data_folder import DataFolder
from infra.app.connections import SHARES, embedded_connections, most_of
from tests.integration.running import Up, command, result, until

AT_ONCE: Final = 16
COMMANDS: Final = (
    ("status",),
    ("sql", "select count(*) from events"),
    ("apply", "segments.yaml"),
    ("profile", "user_id:c1"),
    ("erase", "user_id:c2", "--yes"),
)
SEGMENT: Final = "segments: {buyers: {description: Who bought, when: {trait: lifetime_orders, op: gte, value: 1}}}\n"
PAGES: Final = ("/", "/customers", "/segments", "/sources", "/live", "/system", "/team", "/audit")


class World:
    """An `up` with a few customers, a token that may all, and a session of the pages."""

    def __init__(self, data: Path, **settings: str) -> None:
        self.data = data
        self.up = Up(data, **settings)
        self.up.wait_ready()
        key = result("source", "create", "shop", "--data", str(data))["write_key"]
        for number in range(20):
            properties = {"order_id": f"o{number}", "revenue": 10, "currency": "USD"}
            item = {"userId": f"c{number}", "event": "Order Completed", "properties": properties}
            self.up.send_until_accepted(key, "track", item)
        result("status", "--wait", "--data", str(data))
        self.token = result("token", "create", "--role", "admin", "--data", str(data))["token"]
        self.cookie = self._sign_in()
        found = DataFolder(data).running()
        assert found is not None
        self.dsn = found.dsn

    def _sign_in(self) -> str:
        with closing(self._connect()) as connection:
            form = urlencode({"token": self.token})
            kind = "application/x-www-form-urlencoded"
            connection.request("POST", "/sign-in", form, {"Content-Type": kind, "Origin": self.up.url})
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 303, answer.status
            return (answer.headers["Set-Cookie"] or "").partition(";")[0]

    def _connect(self) -> http.client.HTTPConnection:
        address = urlsplit(self.up.url)
        return http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)

    def get(self, path: str) -> int:
        """The status of one GET, on a connection of its own as a new client has."""
        headers = {"Authorization": f"Bearer {self.token}"} if "/api/" in path else {"Cookie": self.cookie}
        with closing(self._connect()) as connection:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            answer.read()
            return answer.status

    def paths(self) -> list[str]:
        """Every GET of the API, with what exists for its parameters, and every page."""
        with closing(self._connect()) as connection:
            connection.request("GET", "/api/v1/openapi.json")
            routes = json.loads(connection.getresponse().read())["paths"]
        profile = result("profile", "user_id:c1", "--data", str(self.data))["id"]
        values = {
            **{
                "kind": "user_id",
                "value": "c1",
                "profile_id": profile,
                "name": "vip",
                "event_id": "none",
                "partition": 0,
                "offset": 0,
            },
            "letter_id": "0" * 32,
            "list_id": UUID(int=0),
        }
        found = [route.format_map(values) for route, methods in routes.items() if "get" in methods]
        return [*(path for path in found if not path.endswith("/stream")), *PAGES]

    def backends(self) -> "Counter[str]":
        """Connections by what they say they are for."""
        query = (
            "select application_name from pg_stat_activity where backend_type = 'client backend'"
            " and pid <> pg_backend_pid()"
        )
        with closing(psycopg2.connect(self.dsn, application_name="the test")) as connection:
            cursor = connection.cursor()
            cursor.execute(query)
            return Counter(row[0] for row in cursor.fetchall())


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "data")
    yield made
    made.up.stop()


def _failed_reads(world: World, paths: Sequence[str], number: int) -> list[str]:
    """Those answered 5xx, of so many GETs."""
    asked = list(islice(cycle(paths), number))
    with ThreadPoolExecutor(AT_ONCE) as threads:
        answers = list(threads.map(world.get, asked))
    assert answers.count(200) > number / 2
    return [f"{status} {path}" for status, path in zip(answers, asked, strict=True) if status >= 500]


def _commands(world: World) -> list[str]:
    (world.data / "segments.yaml").write_text(SEGMENT)
    failed = []
    for name, *arguments in COMMANDS:
        given = [str(world.data / each) if each.endswith(".yaml") else each for each in arguments]
        done = command(name, *given, "--data", str(world.data))
        if done.returncode:
            failed.append(f"{name}: {done.stderr}")
    return failed


def _reads_and_commands(world: World, number: int) -> None:
    paths = world.paths()
    assert len(paths) > 25
    processes = ("up", "http", "ui", "worker", "archive")
    with ThreadPoolExecutor(2) as threads:
        reads = threads.submit(_failed_reads, world, paths, number)
        commands = threads.submit(_commands, world)  # beside the reads
        peak: Counter[str] = Counter()
        while not (reads.done() and commands.done()):
            peak |= world.backends()
    assert reads.result() == [], world.up.log
    assert commands.result() == []
    share = SHARES["http"]
    assert peak["touchfold http pool"] <= share.main.size
    assert peak["touchfold http vault pool"] <= share.vault.size
    assert peak["touchfold ui pool"] <= SHARES["ui"].main.size
    assert sum(world.backends().values()) <= most_of(processes)
    assert _commands_of_later(world) == []
    middle = world.backends()
    assert _failed_reads(world, paths, number) == []
    assert sum(world.backends().values()) <= max(sum(middle.values()), most_of(processes))
    assert world.up.get("/health").body["status"] == "ok"


def _commands_of_later(world: World) -> list[str]:
    done = command("status", "--data", str(world.data))
    return [] if done.returncode == 0 else [done.stderr]


def test_hundreds_of_reads_leave_connections_for_everybody_else(world: World) -> None:
    _reads_and_commands(world, 200)


@pytest.mark.long
def test_thousands_of_reads_leave_connections_for_everybody_else(world: World) -> None:
    _reads_and_commands(world, 2_000)


@pytest.mark.long
def test_sixteen_doors_fit(tmp_path: Path) -> None:
    world = World(tmp_path / "data", DOORS="16")
    try:
        with closing(psycopg2.connect(world.dsn)) as connection, connection.cursor() as cursor:
            cursor.execute("show max_connections")
            assert cursor.fetchone() == (str(embedded_connections(16)),)
        until(lambda: len(world.up.pids("http")) == 16, "16 doors")
        assert _failed_reads(world, world.paths(), 1_000) == []
        assert _commands(world) == []
    finally:
        world.up.stop()
