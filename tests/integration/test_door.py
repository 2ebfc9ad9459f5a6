"""The door over real sockets, on a real log and vault: what SDKs send, what goes wrong, and what is in the log then."""

import gzip
import json
import os
import random
import signal
import socket
import threading
import time
from base64 import b64decode, b64encode
from binascii import a2b_base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pytest
import uvicorn

from infra.adapters.machine.clock import SystemClock
from infra.adapters.machine.shared_buckets import SharedBuckets
from infra.adapters.phones import Phones
from infra.adapters.postgres.dead_letters import PostgresDeadLetters
from infra.adapters.postgres.embedded import EmbeddedPostgres
from infra.adapters.postgres.log import PostgresLog
from infra.adapters.postgres.migrate import migrate
from infra.adapters.postgres.sources import PostgresSources
from infra.adapters.vault.vault import PostgresVault
from infra.drivers.http.door import Door
from infra.drivers.http.door_parts import Limits
from ingest.accept.accept import Acceptor
from ingest.accept.retry import accept_again
from schemas.clear_rules import NOTHING_DECLARED
from schemas.dead_letters import DeadLetter
from schemas.errors import BadRequest, DiskFull, NotFound, StoreUnavailable
from schemas.identifiers import normalise
from schemas.record import Record, decode
from tests.conftest import Databases, create_database

CAPTURES = Path(__file__).parents[1] / "data/segment_captures"
EXPECTED = json.loads((CAPTURES / "expected.json").read_text())
NAMES = sorted(path.stem for path in CAPTURES.glob("*.jsonl"))
KEY = bytes(range(32))
DEADLINE_S = 20.0


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Running:
    """A door behind uvicorn in a thread, with everything it stands on."""

    def __init__(
        self,
        databases: Databases,
        *,
        limits: Limits = Limits(),  # noqa: B008  # a tuple of constants
        check_disk: Callable[[], None] = lambda: None,
        stale_s: float = 5.0,
        ttl_s: float = 5.0,
    ) -> None:
        self.databases = databases
        self.vault = PostgresVault(databases.vault, KEY, ttl_s=ttl_s, renew_s=ttl_s / 10)
        self.vault.hold_lease()
        self.acceptor = Acceptor(self.vault, self.vault, partial(normalise, phone=Phones("US")), self.vault.daily_token)
        self.door_sources = PostgresSources(databases.main, stale_s=stale_s)
        self.sources = PostgresSources(databases.main)
        self.letters = PostgresDeadLetters(databases.main)
        self.log = PostgresLog(databases.main)
        self._door_log = PostgresLog(databases.main)
        self._door_dead_letters = PostgresDeadLetters(databases.main)
        self._folder = TemporaryDirectory()
        self.buckets = SharedBuckets(Path(self._folder.name) / "rates")
        self.door = Door(
            self.acceptor,
            self.door_sources,
            self._door_log,
            self._door_dead_letters,
            SystemClock().now,
            check_disk=check_disk,
            limits=limits,
            take=self.buckets.take,
        )
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        config = uvicorn.Config(
            self.door, loop="uvloop", http="httptools", lifespan="off", log_config=None, access_log=False
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._listener],), daemon=True)
        self._thread.start()
        until(lambda: self._server.started)

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(DEADLINE_S)
        self.door.close()
        self._listener.close()
        for each in (
            *(self.vault, self.door_sources, self.sources, self.letters, self.log),
            *(self._door_log, self._door_dead_letters),
        ):
            each.close()
        self.buckets.close()
        self._folder.cleanup()

    def source(self, name: str, settings: Mapping[str, Any] | None = None) -> str:
        return self.sources.create(name, datetime.now(UTC), settings)

    def send(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Answer:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)
        try:
            connection.request(method, path, body, dict(headers or {}))
            return read(connection.getresponse())
        finally:
            connection.close()

    def post(self, path: str, body: object, key: str | None = None, **headers: str) -> Answer:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if key is not None:
            sent["Authorization"] = basic(key)
        return self.send("POST", path, raw, sent)

    def records(self, source: str) -> list[Record]:
        stored = [each for p in range(4) for each in self.log.read(p, 0, 100_000)]
        return [record for record in (decode(each.value) for each in stored) if record.source == source]

    def dead(self, source: str) -> list[DeadLetter]:
        return [letter for letter in self.letters.list(limit=100_000) if letter.source == source]

    def opened(self, record: Record) -> dict[str, Any]:
        """The sealed part of a record, opened."""
        assert record.sealed is not None
        key = bytes.fromhex(record.id.replace("-", ""))
        triple = (bytes.fromhex(record.sealed.key), a2b_base64(record.sealed.data), key)
        [plain] = self.vault.open_many([triple])
        assert plain is not None
        opened: dict[str, Any] = json.loads(plain)
        return opened


def read(response: HTTPResponse) -> Answer:
    return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())


def basic(key: str) -> str:
    return "Basic " + b64encode(f"{key}:".encode()).decode()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "never happened"
        time.sleep(0.01)


def track(number: object = 1, **more: object) -> dict[str, Any]:
    return {"type": "track", "event": "Signed Up", "userId": f"user-{number}", "messageId": f"m-{number}", **more}


@pytest.fixture(scope="module")
def running(server: EmbeddedPostgres) -> Iterator[Running]:
    main = create_database(server, "touchfold", "door_main")
    vault = create_database(server, "touchfold_vault", "door_vault")
    door = Running(Databases(main, vault))
    yield door
    door.close()


# ---------------------------------------------------------------- what SDKs send


def replay(running: Running, requests: Sequence[Mapping[str, Any]], key: str) -> list[Answer]:
    """Send captured requests byte for byte, but for their write key."""
    answers = []
    for request in requests:
        body = b64decode(request["body_b64"]) if request["body_b64"] else request["body_text"].encode()
        headers = [(n, v) for n, v in request["headers"] if n.lower() not in ("content-length", "connection")]
        answers.append(running.send(request["method"], request["path"] + query(request), body, dict(headers)))
    return answers


def query(request: Mapping[str, Any]) -> str:
    return f"?{request['query']}" if request["query"] else ""


def adopt(running: Running, requests: Sequence[Mapping[str, Any]], name: str) -> None:
    """Let the captured write key be one of a source of ours: the requests are not touched."""
    text = next(value for r in requests for n, value in r["headers"] if n == "Authorization")
    captured = b64decode(text.split()[1]).decode().rstrip(":")
    from infra.adapters.postgres.database import Database  # noqa: PLC0415
    from schemas.sources import key_hash  # noqa: PLC0415

    running.source(name)
    database = Database(running.databases.main)
    with database.transaction() as cursor:
        cursor.execute("delete from write_keys where key_hash = %s", (key_hash(captured),))
        cursor.execute("update write_keys set key_hash = %s where source = %s", (key_hash(captured), name))
    database.close()


@pytest.mark.parametrize("name", NAMES)
def test_captured_requests_of_real_sdks_are_counted_as_expected(databases: Databases, name: str) -> None:
    expected = EXPECTED[name]
    lines = [json.loads(line) for line in (CAPTURES / f"{name}.jsonl").read_text().splitlines()]
    requests = [line for line in lines if line["method"] in ("POST", "OPTIONS") and line["answered_status"] < 300]
    running = Running(databases)
    try:
        adopt(running, requests, name)
        answers = replay(running, requests, name)
        for request, answer in zip(requests, answers, strict=True):
            if request["method"] == "POST":
                assert (answer.status, answer.body) == (200, b'{"success":true}')
            else:
                assert answer.status == 204
                assert "authorization" in answer.headers["access-control-allow-headers"].lower()
        records = running.records(name)
        assert running.dead(name) == []
        assert len(records) == expected["events_in_accepted_posts"]
        assert len({record.id for record in records}) == expected["distinct_message_ids_accepted"]
        assert_people(running, records, expected)
        assert_orders(records, expected)
    finally:
        running.close()


def assert_people(running: Running, records: Sequence[Record], expected: Mapping[str, Any]) -> None:
    tokens = {bytes.fromhex(identifier.token) for record in records for identifier in record.ids}
    opened = running.vault.open(tokens).values()
    assert sorted(each.value for each in opened if each.kind == "user_id") == expected["distinct_user_ids"]
    anonymous = {each.value for each in opened if each.kind == "anonymous_id"}
    assert len(anonymous) == expected["distinct_anonymous_ids"]


def assert_orders(records: Sequence[Record], expected: Mapping[str, Any]) -> None:
    orders = {record.id: record for record in records if record.type == "purchase.completed"}
    assert len(orders) == expected["orders_after_dedup"]
    assert (
        sum(float(order.properties["revenue"]) for order in orders.values()) == (expected["order_revenue_after_dedup"])
    )
    for order in orders.values():
        assert order.properties["products"][0]["name"] == "Monopoly: 3rd Edition – Städte"


def test_a_retry_of_an_sdk_has_the_same_key_and_digest(running: Running) -> None:
    lines = [json.loads(line) for line in (CAPTURES / "segpy_retry.jsonl").read_text().splitlines()]
    adopt(running, lines, "retry")
    assert {answer.status for answer in replay(running, lines, "retry")} == {200}
    seen: dict[str, set[str]] = {}
    for record in running.records("retry"):
        seen.setdefault(record.id, set()).add(record.digest)
    assert len(seen) == 11
    assert all(len(digests) == 1 for digests in seen.values())


# ---------------------------------------------------------------- who may send


def test_the_write_key_is_taken_from_every_place(running: Running) -> None:
    key = running.source("places")
    bare = "Basic " + b64encode(key.encode()).decode()
    bearer = "Bearer some-token-of-segment"
    places = [
        running.post("/v1/track", track(1), key),
        running.post("/v1/track", track(2), Authorization=bare),
        running.post("/v1/track", {**track(3), "writeKey": key}),
        running.post("/v1/batch", {"batch": [track(4)], "writeKey": key}),
        running.post("/v1/batch", {"batch": [track(5)], "writeKey": key}, Authorization=bearer),
        running.post(f"/v1/track?writeKey={key}", track(6)),
        running.post(f"/v1/track?writekey={key}", track(7)),
        running.post("/v1/track", track(8), X_Write_Key=key),
        running.post(f"/beacon/v1/batch?writeKey={key}", {"batch": [track(9)]}, Content_Type="text/plain"),
    ]
    assert [answer.status for answer in places] == [200] * len(places)
    assert sorted(record.message_id or "" for record in running.records("places")) == [f"m-{n}" for n in range(1, 10)]


def test_a_wrong_or_missing_key_answers_401_in_the_one_error_form(running: Running) -> None:
    for answer in (
        running.post("/v1/track", track(), "wk_unknown"),
        running.post("/v1/track", track()),
        running.post("/v1/track", track(), Authorization="Basic %%%"),
    ):
        body = answer.json()
        assert answer.status == 401
        assert body["code"] == "invalid_write_key"
        assert body["success"] is False
        assert body["message"]
        assert body["errors"] == []


def test_a_revoked_key_ends_and_a_rotated_one_replaces_it(databases: Databases) -> None:
    running = Running(databases, stale_s=0.0)
    try:
        key = running.source("till")
        assert running.post("/v1/track", track(1), key).status == 200
        newer = running.sources.rotate("till", datetime.now(UTC))
        assert running.post("/v1/track", track(2), key).status == 401
        assert running.post("/v1/track", track(3), newer).status == 200
        assert running.sources.revoke("till", datetime.now(UTC)) == 1
        assert running.post("/v1/track", track(4), newer).status == 401
        assert [(row.name, row.keys) for row in running.sources.list()] == [("till", 0)]
        with pytest.raises(NotFound):
            running.sources.rotate("nobody", datetime.now(UTC))
        with pytest.raises(BadRequest):
            running.source("till")
    finally:
        running.close()


def test_a_source_switched_off_or_of_another_origin_is_refused(running: Running) -> None:
    off = running.source("off", {"enabled": False})
    assert running.post("/v1/track", track(), off).status == 404
    shop = running.source("shop", {"origins": ["https://shop.example"]})
    assert running.post("/v1/track", track(), shop, Origin="https://shop.example").status == 200
    assert running.post("/v1/track", track(), shop, Origin="https://evil.example").status == 403


def test_a_source_over_its_rate_gets_429_with_retry_after(running: Running) -> None:
    key = running.source("fast", {"events_per_s": 0.01, "burst": 1})
    assert running.post("/v1/track", track(1), key).status == 200
    answer = running.post("/v1/track", track(2), key)
    assert (answer.status, answer.json()["code"]) == (429, "too_many_requests")
    assert int(answer.headers["retry-after"]) >= 1


# ---------------------------------------------------------------- what comes in


def test_any_content_type_and_none_is_taken(running: Running) -> None:
    key = running.source("types")
    for number, kind in enumerate(("application/json", "text/plain", "application/octet-stream", "")):
        headers = {"Content_Type": kind} if kind else {}
        assert running.post("/v1/track", track(number), key, **headers).status == 200
    assert len(running.records("types")) == 4


def test_every_alias_of_a_path_takes_its_call(running: Running) -> None:
    key = running.source("aliases")
    bodies: dict[str, dict[str, Any]] = {
        "t": {"event": "A"},
        "i": {"traits": {}},
        "p": {},
        "s": {"name": "Home"},
        "g": {"groupId": "acme"},
        "a": {"previousId": "anon-1"},
    }
    calls = {"t": "track", "i": "identify", "p": "page", "s": "screen", "g": "group", "a": "alias"}
    for letter, more in bodies.items():
        for path in (f"/v1/{letter}", f"/v1/{calls[letter]}", f"/v1/{calls[letter]}/"):
            assert running.post(path, {"userId": "u-1", **more}, key).status == 200
    for path in ("/v1/b", "/b", "/batch", "/v1/batch/b", "/batch/b", "/v1/import", "/v1/batch"):
        assert running.post(path, {"batch": [{"type": "track", "event": "B", "userId": "u-1"}]}, key).status == 200
    types = sorted(record.type for record in running.records("aliases"))
    assert types.count("custom") == 10
    assert {each: types.count(each) for each in set(types) - {"custom"}} == {
        "profile.identified": 3,
        "web.page_viewed": 3,
        "app.screen_viewed": 3,
        "group.joined": 3,
        "identity.aliased": 3,
    }
    assert running.post("/v1/m", {"series": []}).status == 200
    for method, path in (("GET", "/v1/track"), ("POST", "/v1/nothing"), ("PUT", "/v1/batch")):
        answer = running.send(method, path)
        assert (answer.status, answer.json()["code"]) == (404, "not_found")


def test_gzip_is_unpacked_with_and_without_its_header(running: Running) -> None:
    key = running.source("gzip")
    body = gzip.compress(json.dumps({"batch": [track(n) for n in range(3)]}).encode())
    assert running.post("/v1/batch", body, key, Content_Encoding="gzip").status == 200
    assert running.post("/v1/batch", body, key).status == 200
    assert len(running.records("gzip")) == 6
    for broken in (body[:-9], b"\x1f\x8b" + b"rubbish", body + b"more"):
        answer = running.post("/v1/batch", broken, key, Content_Encoding="gzip")
        assert (answer.status, answer.json()["code"]) == (400, "invalid_json")


def test_a_gzip_bomb_and_an_oversized_body_answer_413(running: Running) -> None:
    key = running.source("bombs")
    bomb = gzip.compress(b"0" * 100_000_000)
    ratio = gzip.compress(b'{"batch":[' + b" " * 3_000_000 + b"]}")
    for body, headers in ((bomb, {"Content_Encoding": "gzip"}), (ratio, {}), (b" " * 4_000_001, {})):
        answer = running.post("/v1/batch", body, key, **headers)
        assert (answer.status, answer.json()["code"]) == (413, "too_large")
    answer = running.post("/v1/batch", {"batch": [1] * 2_501}, key)
    assert (answer.status, answer.json()["code"]) == (413, "too_large")
    assert running.post("/v1/batch", {"batch": [track()]}, key).status == 200


def test_a_body_in_chunks_is_bounded_as_it_comes(running: Running) -> None:
    key = running.source("chunks")

    def pieces(count: int) -> Iterator[bytes]:
        yield b'{"batch":['
        for _ in range(count):
            yield b" " * 100_000
        yield b"]}"

    connection = HTTPConnection("127.0.0.1", running.port, timeout=DEADLINE_S)
    connection.request("POST", "/v1/batch", pieces(10), {"Authorization": basic(key)}, encode_chunked=True)
    assert connection.getresponse().read() == b'{"success":true}'
    connection.close()
    connection = HTTPConnection("127.0.0.1", running.port, timeout=DEADLINE_S)
    try:
        connection.request("POST", "/v1/batch", pieces(60), {"Authorization": basic(key)}, encode_chunked=True)
        assert connection.getresponse().status == 413
    except (BrokenPipeError, ConnectionResetError):
        pass  # the server stopped reading and answered while we still wrote: it did not take the body
    connection.close()


def test_a_preflight_allows_whatever_a_page_asks_for(running: Running) -> None:
    asked = {
        "Origin": "https://shop.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type, sentry-trace,traceparent , X-Own_Header, bad\tname, SENTAT",
    }
    answer = running.send("OPTIONS", "/v1/t", headers=asked)
    allowed = [each.strip() for each in answer.headers["access-control-allow-headers"].split(",")]
    assert {"sentry-trace", "traceparent", "X-Own_Header", "SentAt"} <= set(allowed)
    assert "bad" not in answer.headers["access-control-allow-headers"]
    assert len({each.lower() for each in allowed}) == len(allowed)


def test_preflights_are_answered_for_any_path_and_reflect_the_origin(running: Running) -> None:
    asked = {
        "Origin": "https://shop.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,x-retry-count",
    }
    for path in ("/v1/t", "/v1/batch", "/v1/projects/x/settings"):
        answer = running.send("OPTIONS", path, headers=asked)
        assert answer.status == 204
        assert answer.headers["access-control-allow-origin"] == "https://shop.example"
        assert answer.headers["access-control-allow-credentials"] == "true"
        assert answer.headers["access-control-allow-methods"] == "GET, POST, HEAD, OPTIONS"
        for name in ("authorization", "content-type", "x-retry-count", "sentat", "rsa-recovered"):
            assert name in answer.headers["access-control-allow-headers"].lower()
    key = running.source("cors")
    good = running.post("/v1/t", track(), key, Origin="https://shop.example")
    bad = running.post("/v1/t", track(), "wk_no", Origin="https://shop.example")
    assert [each.headers["access-control-allow-origin"] for each in (good, bad)] == ["https://shop.example"] * 2
    assert "access-control-allow-origin" not in running.post("/v1/t", track(), key).headers


def test_several_of_the_largest_items_in_one_request_are_all_in_the_log(running: Running) -> None:
    key = running.source("wholesale")
    line = {"product_id": "P" * 40, "name": "n" * 120, "price": 1.5, "quantity": 1, "engraving": "for nobody"}
    orders = [
        {"type": "track", "event": "Order Completed", "userId": f"u-{n}", "messageId": f"large-{n}",
         "properties": {"order_id": f"o-{n}", "revenue": 3_000, "products": [line] * 2_000}}
        for n in range(7)
    ]  # fmt: skip
    answer = running.post("/v1/batch?results=true", {"batch": [*orders, track(1)]}, key)
    assert answer.status == 200
    assert [(each["status"], each["code"]) for each in answer.json()["results"]] == [
        *[("accepted", "over_32_kb")] * 7,
        ("accepted", ""),
    ]
    values = [each.value for partition in range(4) for each in running.log.read(partition, 0, 100)]
    kept = [decode(value) for value in values if len(value) > 500_000]
    assert sorted(each.message_id or "" for each in kept) == [f"large-{n}" for n in range(7)]
    assert {len(each.properties["products"]) for each in kept} == {2_000}
    assert all(each.flags in (["large"], []) for each in kept), "version 1 of the record has no flags"


def test_a_bad_item_is_set_aside_and_the_rest_goes_on(running: Running) -> None:
    key = running.source("mixed")
    batch = [
        track(1),
        {"type": "track", "event": "No one", "messageId": "m-none"},
        {"type": "track", "userId": "u-1", "messageId": "m-nameless"},
        5,
        track(2, timestamp="yesterday"),
        track(3, properties=[1]),
        track(4, properties={"note": "x" * 33_000}),
        track(5, properties={str(n): n for n in range(30_001)}),
        track(6, properties=nested(40)),
        track(7, properties={"big": ["x" * 32_000] * 17}),
        {"type": "shout", "userId": "u-1"},
        track(8, userId="null"),
        track(9, userId={"id": 1}),
        {"type": "alias", "userId": "u-1"},
        {"type": "group", "userId": "u-1"},
        track(10, messageId=["m"]),
        track(11),
    ]
    answer = running.post("/v1/batch?results=true", {"batch": batch}, key)
    assert answer.status == 200
    results = answer.json()["results"]
    assert [(each["status"], each["code"]) for each in results] == [
        ("accepted", ""),
        ("dead_letter", "no_identifier"),
        ("dead_letter", "missing_field"),
        ("dead_letter", "wrong_type"),
        ("accepted", ""),
        ("dead_letter", "wrong_type"),
        ("dead_letter", "string_too_long"),
        ("dead_letter", "too_many_keys"),
        ("dead_letter", "too_deep"),
        ("dead_letter", "too_large"),
        ("dead_letter", "unknown_type"),
        ("dead_letter", "no_identifier"),
        ("dead_letter", "no_identifier"),
        ("dead_letter", "missing_field"),
        ("dead_letter", "missing_field"),
        ("dead_letter", "wrong_type"),
        ("accepted", ""),
    ]
    assert [record.message_id for record in sorted(running.records("mixed"), key=lambda r: r.message_id or "")] == [
        "m-1",
        "m-11",
        "m-2",
    ]
    letters = running.dead("mixed")
    assert len(letters) == 14
    assert {letter.stage for letter in letters} == {"door"}
    by_rule = {letter.rule: letter for letter in letters}
    assert by_rule["string_too_long"].path == "properties.note"
    assert results[0]["id"] in {record.id for record in running.records("mixed")}
    again = running.post("/v1/batch?results=true", {"batch": batch}, key)
    assert again.json()["results"] == results
    assert len(running.dead("mixed")) == 14


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"a": value}
    return value


def test_a_dead_letter_opens_and_is_sent_again_when_repaired(running: Running) -> None:
    key = running.source("repair")
    sent_at = "2020-01-01T00:00:10Z"
    batch = [track(1, event=None, sentAt=sent_at, timestamp="2020-01-01T00:00:00Z"), {"type": "track", "event": "E"}]
    assert running.post("/v1/batch", {"batch": batch}, key).status == 200
    known, unknown = sorted((letter for letter in running.dead("repair")), key=lambda each: each.rule, reverse=False)
    assert (known.rule, unknown.rule) == ("missing_field", "no_identifier")
    assert known.tokens
    assert known.seal_key == known.tokens[0]
    assert unknown.tokens == ()
    full, state = running.letters.get(known.id) or pytest.fail("the letter is gone")
    assert state == "open"
    [plain] = running.vault.open_many([(full.seal_key, full.sealed, full.id)])
    assert plain is not None
    body = json.loads(plain)
    assert body["item"]["userId"] == "user-1"
    body["item"]["event"] = "Signed Up"
    now = datetime.now(UTC)
    accepted = accept_again(full, json.dumps(body).encode(), running.acceptor, NOTHING_DECLARED, now)
    assert [result.status for result in accepted.results] == ["accepted"]
    running.log.append(accepted.pending)
    running.letters.mark(known.id, "retried")
    [record] = running.records("repair")
    assert record.clock_rule == "corrected"
    assert (known.received_at - record.occurred_at).total_seconds() == pytest.approx(10)
    assert [letter.id for letter in running.dead("repair")] == [unknown.id]
    assert running.letters.find_event(known.event_id or b"") is None


# ---------------------------------------------------------------- what is personal


def test_personal_values_are_sealed_and_identifiers_are_tokens(running: Running) -> None:
    key = running.source("privacy")
    item = {
        "type": "identify",
        "userId": "privacy-77",
        "anonymousId": "anon-privacy",
        "traits": {"email": "Ada.Privacy@Example.com", "name": "Ada Privacy", "phone": "(415) 555-2671", "age": 36},
        "context": {"ip": "203.0.113.99", "locale": "de-AT", "page": {"path": "/c", "url": "https://x.example/?ada"}},
    }
    assert running.post("/v1/identify", item, key).status == 200
    [record] = running.records("privacy")
    stored = [each.value for p in range(4) for each in running.log.read(p, 0, 100_000)]
    for value in (b"privacy-77", b"anon-privacy", b"rivacy@", b"Ada Privacy", b"555-2671", b"203.0.113.99", b"?ada"):
        assert not any(value in each for each in stored)
    assert [each.kind for each in record.ids] == ["user_id", "email", "phone", "anonymous_id"]
    assert record.route_key == record.ids[0].token
    assert record.context == {"locale": "de-AT", "page": {"path": "/c"}}
    assert record.traits == {}
    assert record.sealed is not None
    assert record.sealed.names == [
        *("context.ip", "context.page.url", "traits.age", "traits.email", "traits.name", "traits.phone"),
    ]
    opened = running.opened(record)
    assert opened["traits"]["name"] == "Ada Privacy"
    assert opened["traits"]["email"] == {"$token": record.ids[1].token, "$kind": "email"}
    assert opened["context"] == {"ip": "203.0.113.99", "page": {"url": "https://x.example/?ada"}}
    values = running.vault.open([bytes.fromhex(each.token) for each in record.ids])
    assert {each.value for each in values.values()} == {
        *("privacy-77", "ada.privacy@example.com", "+14155552671", "anon-privacy"),
    }


def test_a_suppressed_person_is_refused_without_a_trace(running: Running) -> None:
    from infra.adapters.vault.epochs import bump_epoch, wait_for_leases  # noqa: PLC0415

    key = running.source("suppress")
    assert running.post("/v1/track", track("gone"), key).status == 200
    database = running.databases.vault
    from infra.adapters.postgres.database import Database  # noqa: PLC0415

    vault = Database(database)
    with vault.transaction() as cursor:
        hashed = running.vault.hash_of("user_id", "user-gone")
        cursor.execute("delete from identifiers where hash = %s", (hashed,))
        cursor.execute("insert into suppressed values (%s, gen_random_uuid())", (hashed,))
    vault.close()
    wait_for_leases(database, bump_epoch(database), DEADLINE_S)
    batch = [track("gone", messageId="m-2"), track("here"), track("gone", messageId="m-3", event=None)]
    answer = running.post("/v1/batch?results=true", {"batch": batch}, key)
    assert [each["status"] for each in answer.json()["results"]] == ["suppressed", "accepted", "suppressed"]
    assert len(running.records("suppress")) == 2
    assert running.dead("suppress") == []
    main = Database(running.databases.main)
    with main.transaction() as cursor:
        cursor.execute("select count(*) from suppressed_events")
        assert cursor.fetchone() == (2,)
    main.close()


# ---------------------------------------------------------------- hostile bodies


HOSTILE = {
    "empty": b"",
    "deep": b"[" * 100_000,
    "deep_objects": b'{"batch":[' + b'{"a":' * 100_000,
    "deep_in_item": b'{"batch":[{"a":' + b"[" * 900 + b"]" * 900 + b"}]}",
    "array": b"[1,2]",
    "word": b"null",
    "truncated": b'{"batch":[{"type":"track"',
    "nan": b'{"batch":[{"type":"track","event":"E","userId":"u","properties":{"a":NaN}}]}',
    "infinity": b'{"batch":[{"type":"track","event":"E","userId":"u","properties":{"a":1e999}}]}',
    "huge": b'{"batch":[{"type":"track","event":"E","userId":"u","properties":{"a":' + b"9" * 5_000 + b"}}]}",
    "long_fraction": b'{"batch":[{"type":"track","event":"E","userId":"u","properties":{"a":0.'
    + b"3" * 9_000
    + b"}}]}",
    "latin": b'{"batch":[{"type":"track","event":"caf\xe9","userId":"u"}]}',
    "controls": b'{"batch":[{"type":"track","event":"a\x00b","userId":"u"}]}',
    "batch_object": b'{"batch":{}}',
    "batch_null": b'{"batch":null}',
    "context": b'{"batch":[],"context":[1]}',
    "keys": b'{"batch":[{' + b",".join(b'"%d":1' % n for n in range(200_000)) + b"}]}",
    "long_key": b'{"type":"track","event":"E","userId":"u","properties":{"' + b"k" * 60_000 + b'":1}}',
    "bom": b"\xef\xbb\xbf{}",
    "surrogates": b'{"type":"track","event":"a\\ud83d","userId":"u"}',
    "long_id": b'{"type":"track","event":"E","userId":"' + b"u" * 9_000 + b'"}',
}


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_a_hostile_body_is_refused_or_set_aside_and_the_door_stays_up(running: Running, name: str) -> None:
    key = running.source(f"hostile {name}")
    for path in ("/v1/batch", "/v1/track"):
        answer = running.post(path, HOSTILE[name], key)
        assert answer.status in (200, 400, 413)
        assert json.loads(answer.body)
    assert running.post("/v1/track", track(), key).status == 200


def test_nul_and_lone_surrogates_are_replaced_and_large_integers_are_strings(running: Running) -> None:
    key = running.source("unicode")
    body = (
        b'{"type":"track","event":"Cut \\ud83d emoji \\ud83d\\ude00","userId":"u","messageId":"m-1",'
        b'"properties":{"order_id":9007199254740993,"note":"a\\u0000b","total":12345678901234567890.12,"n":1,"n":2,'
        b'"x":{"$token":"00","$kind":"email"}}}'
    )
    assert running.post("/v1/track", body, key).status == 200
    [record] = running.records("unicode")
    assert record.name == "Cut \ufffd emoji \U0001f600"
    assert record.properties["order_id"] == "9007199254740993"
    assert record.properties["total"] == "12345678901234567000"
    opened = running.opened(record)["properties"]
    assert opened["n"] == 2
    assert opened["note"] == "a\ufffdb"
    assert opened["x"] == {"_$token": "00", "_$kind": "email"}


def test_random_mutations_of_a_good_body_never_answer_5xx(running: Running) -> None:
    mutate(running, 1_500, "mutations")


@pytest.mark.long
def test_ten_thousand_random_mutations_never_answer_5xx(running: Running) -> None:
    mutate(running, 10_000, "many mutations")


def mutate(running: Running, count: int, name: str) -> None:
    key = running.source(name)
    rnd = random.Random(20_261_124)
    lines = (CAPTURES / "web_seg.jsonl").read_text().splitlines()
    bodies = [body.encode() for line in lines if (body := json.loads(line)["body_text"])]
    bodies.append(json.dumps({"batch": [track(n, context={"ip": "1.2.3.4"}) for n in range(3)]}).encode())
    with closing(HTTPConnection("127.0.0.1", running.port, timeout=DEADLINE_S)) as connection:
        for _ in range(count):
            body = mutated(bytearray(rnd.choice(bodies)), rnd)
            path = rnd.choice(["/v1/track", "/v1/batch", "/v1/identify", "/v1/g"])
            connection.request("POST", path, body, {"Authorization": basic(key)})
            answer = read(connection.getresponse())
            assert answer.status < 500, body


PIECES = [
    *(b'"', b"{", b"}", b"[", b"]", b",", b":", b"\\u0000", b"\\ud800", b"null", b"1e999", b"-", b"\xff", b"\0"),
    *(b'"userId":5,', b'"context":[],', b'"traits":{"email":["a"]},', b'"batch":[],', b'"type":"identify",'),
    *(b'"type":{},', b'"sentAt":7,', b'"messageId":{},', b'"properties":{"products":[[{}],1,"a",null]},'),
    *(b'"context":{"externalIds":[1,{"type":"x","id":[]}],"device":5,"traits":3,"page":[]},', b'"event":[],'),
]


def mutated(body: bytearray, rnd: random.Random) -> bytes:
    for _ in range(rnd.randint(1, 4)):
        place = rnd.randrange(len(body) + 1)
        action = rnd.random()
        if action < 0.2 and place < len(body):
            body[place] = rnd.randrange(256)
        elif action < 0.4:
            del body[place : place + rnd.randint(1, 30)]
        elif action < 0.7:
            body[place:place] = rnd.choice(PIECES)
        else:  # where a key may stand, so that the JSON stays whole
            starts = [at + 1 for at, byte in enumerate(body) if byte == ord("{")]
            if starts:
                place = rnd.choice(starts)
                body[place:place] = rnd.choice([piece for piece in PIECES if piece.endswith(b",")])
    return bytes(body)


# ---------------------------------------------------------------- outages and back-pressure


def test_many_clients_at_once_are_each_answered_after_their_commit(running: Running) -> None:
    key = running.source("many")
    failed: list[object] = []

    def client(number: int) -> None:
        connection = HTTPConnection("127.0.0.1", running.port, timeout=DEADLINE_S)
        for n in range(20):
            body = json.dumps({"batch": [track(f"{number}-{n}-{i}") for i in range(3)]})
            connection.request("POST", "/v1/batch", body, {"Authorization": basic(key)})
            answer = read(connection.getresponse())
            if answer.status != 200:
                failed.append(answer)
        connection.close()

    threads = [threading.Thread(target=client, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert failed == []
    assert len({record.id for record in running.records("many")}) == 8 * 20 * 3
    assert running.door.counters.accepted >= 8 * 20 * 3


def test_a_full_disk_answers_503_before_the_body_is_taken(databases: Databases) -> None:
    full = threading.Event()

    def check() -> None:
        if full.is_set():
            raise DiskFull("4 % left", retry_after_s=30)

    running = Running(databases, check_disk=check)
    try:
        key = running.source("web")
        assert running.post("/v1/track", track(1), key).status == 200
        full.set()
        answer = running.post("/v1/track", track(2), key)
        assert (answer.status, answer.json()["code"], answer.headers["retry-after"]) == (503, "disk_full", "30")
        full.clear()
        assert running.post("/v1/track", track(3), key).status == 200
    finally:
        running.close()


def test_what_waits_is_bounded_and_the_rest_is_told_to_come_back(databases: Databases) -> None:
    running = Running(databases, limits=Limits(waiting_requests=0))
    try:
        answer = running.post("/v1/track", track(), running.source("web"))
        assert (answer.status, answer.json()["code"], answer.headers["retry-after"]) == (503, "busy", "1")
    finally:
        running.close()
    running = Running(databases, limits=Limits(waiting_bytes=100))
    try:
        key = running.sources.rotate("web", datetime.now(UTC))
        assert running.post("/v1/track", {**track(), "pad": "x" * 200}, key).json()["code"] == "busy"
    finally:
        running.close()


def test_a_body_that_does_not_come_is_given_up(databases: Databases) -> None:
    running = Running(databases, limits=Limits(body_s=0.2))
    try:
        with socket.create_connection(("127.0.0.1", running.port), timeout=DEADLINE_S) as slow:
            slow.sendall(b"POST /v1/track HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
            answer = slow.recv(1_000)
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"body_too_slow" in answer
    finally:
        running.close()


def test_an_acceptance_that_takes_too_long_answers_503_and_counts_once_when_repeated(databases: Databases) -> None:
    running = Running(databases, limits=Limits(deadline_s=0.3))
    blocker = PostgresLog(databases.main)
    try:
        key = running.source("web")
        assert running.post("/v1/track", track(1), key).status == 200
        with blocker._database.transaction() as cursor:  # holds the log as a slow commit would
            cursor.execute("select * from log_head for update")
            answer = running.post("/v1/track", track(2), key)
        assert (answer.status, answer.json()["code"]) == (503, "unavailable")
        assert "retry-after" in answer.headers
        until(lambda: running.post("/v1/track", track(2), key).status == 200)
        assert {record.message_id for record in running.records("web")} == {"m-1", "m-2"}
    finally:
        blocker.close()
        running.close()


def test_a_request_that_is_answered_late_is_counted_once(databases: Databases) -> None:
    refused: list[int] = []
    running = Running(databases, limits=Limits(deadline_s=0.3))
    go_on = threading.Event()
    try:
        running.door._refused = refused.append
        key = running.source("web")

        class Late(PostgresLog):
            def append(self, batch: Sequence[Any]) -> list[tuple[int, int]]:
                go_on.wait(DEADLINE_S)
                raise StoreUnavailable("away", retry_after_s=7)

        late = Late(databases.main)
        good, running.door._log = running.door._log, late
        assert running.post("/v1/track", track(1), key).status == 503
        assert running.door.counters == (1, 0, 0, 0, 0, 1)
        go_on.set()
        until(lambda: running.door._waiting_requests == 0)
        running.door._log = good
        assert running.post("/v1/track", track(1), key).status == 200
        assert running.post("/nowhere", b"").status == 404
        assert running.door.counters == (3, 1, 0, 0, 1, 1)
        assert refused == [503, 404]
        late.close()
    finally:
        go_on.set()
        running.close()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    """A server that a test may stop and start again."""
    postgres = EmbeddedPostgres(tmp_path)
    postgres.start()
    migrate(postgres.dsn, "main")
    migrate(postgres.vault_dsn, "vault")
    yield postgres
    postgres.stop()


def test_without_postgresql_the_door_answers_503_and_recovers_by_itself(own_server: EmbeddedPostgres) -> None:
    running = Running(Databases(own_server.dsn, own_server.vault_dsn), ttl_s=1.0)
    try:
        key = running.source("web")
        assert running.post("/v1/track", track(1), key).status == 200
        os.kill(own_server.pid, signal.SIGQUIT)  # at once, as a crash
        until(lambda: own_server.poll() is not None)
        for body in (track(1), track(2)):  # a known identifier and a new one
            answer = running.post("/v1/track", body, key)
            assert (answer.status, answer.json()["code"]) == (503, "unavailable")
            assert int(answer.headers["retry-after"]) >= 1
        own_server.start()
        until(lambda: running.post("/v1/track", track(3), key).status == 200)
        assert {"m-1", "m-3"} <= {record.message_id for record in running.records("web")}
    finally:
        running.close()


def test_an_append_that_fails_is_a_503_for_the_whole_group(databases: Databases) -> None:
    running = Running(databases)
    try:
        key = running.source("web")

        class Away(PostgresLog):
            def append(self, batch: Sequence[Any]) -> list[tuple[int, int]]:
                raise StoreUnavailable("away", retry_after_s=7)

        away = Away(databases.main)
        good, running.door._log = running.door._log, away
        answer = running.post("/v1/batch", {"batch": [track(1), {"type": "track"}]}, key)
        assert (answer.status, answer.headers["retry-after"]) == (503, "7")
        running.door._log = good
        assert running.post("/v1/batch", {"batch": [track(1), {"type": "track"}]}, key).status == 200
        assert len(running.records("web")) == len(running.dead("web")) == 1
        away.close()
    finally:
        running.close()
