"""Clear by allow-list only: what nothing names is in no byte that an analyst, a log or a file shows."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from infra.adapters.archive.store import ParquetArchive
from infra.adapters.machine.clock import SystemClock
from infra.adapters.machine.private_files import open_to_others
from infra.drivers.sql.process import run_sql
from processors.archive.archiver import Archiver
from projections.definitions.files import load_pack, parse_documents
from schemas.definitions import to_json
from tests.archive_data import apply_until, deploy
from tests.conftest import Databases
from tests.integration.running import Up, command, result
from tests.integration.test_door import Running

CANARIES: dict[str, Any] = {
    "date_of_birth": "1984-02-29", "lat": 47.5231987, "zip": 10987, "pin": 83751, "hiv_positive": True,
    "salary": -61234.75, "due": "2031-07-19T08:00:00Z", "geo": {"lat": 48.1239871, "seen": [77123, {"deep": 78123}]},
    "scores": [91234, 92345.5], "20260131": 71234, "phone_no": 4155559917, "huge": 2**60 + 7,
}  # fmt: skip
BYTES = (
    *("1984-02-29", "47.5231987", "10987", "83751", "61234.75", "2031-07-19", "48.1239871", "77123", "78123"),
    *("91234", "92345.5", "71234", "4155559917", str(2**60 + 7), 'hiv_positive":true', "hiv_positive': True"),
)


@pytest.fixture
def running(databases: Databases) -> Iterator[Running]:
    running = Running(databases)
    deploy(databases.main, to_json(parse_documents(load_pack("retail"))))
    yield running
    running.close()


def everywhere() -> list[dict[str, Any]]:
    """The canaries in every part of every call."""
    order = {"order_id": "o-1", "revenue": 5, "currency": "EUR", "products": [{"sku": "s-1", **CANARIES}, 77123]}
    context = {
        **CANARIES, "location": CANARIES, "os": {"name": "Linux", **CANARIES}, "device": {"type": "ios", **CANARIES},
        "campaign": {"name": "spring", **CANARIES}, "app": {"build": "3", **CANARIES},
        "page": {"path": "/", **CANARIES},
        "library": CANARIES, "screen": CANARIES, "traits": CANARIES,
    }  # fmt: skip
    who = {"userId": "ada", "context": context}
    return [
        {"type": "track", "event": "Order Completed", "properties": {**order, **CANARIES}, **who},
        {"type": "track", "event": "pos.purchase", "properties": {**order, "order_id": "o-2", **CANARIES}, **who},
        {"type": "track", "event": "Anything Else", "properties": {**CANARIES, "shipping": CANARIES}, **who},
        {"type": "track", "event": "Call Received", "properties": {"call_id": "c-1", **CANARIES}, **who},
        {"type": "identify", "traits": {"city": "Wien", **CANARIES}, **who},
        {"type": "page", "name": "Home", "properties": CANARIES, **who},
        {"type": "screen", "name": "Home", "properties": CANARIES, **who},
        {"type": "group", "groupId": "g", "traits": CANARIES, **who},
        {"type": "alias", "previousId": "p", "traits": CANARIES, **who},
    ]


def texts_of(path: Path) -> Iterator[str]:
    """Every value of a Parquet file, as text."""
    for column in pq.read_table(path).columns:
        for value in column.to_pylist():
            yield value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def test_no_unknown_value_is_clear_in_the_log_the_archive_or_sql(
    running: Running, databases: Databases, tmp_path: Path
) -> None:
    answer = running.post("/v1/batch", {"batch": everywhere()}, running.source("web"))
    assert answer.status == 200
    stored = [each.value.decode() for p in range(4) for each in running.log.read(p, 0, 1_000)]
    assert len(stored) == len(everywhere())
    apply_until(databases.main, running.log.ends())
    archive = tmp_path / "archive"
    tail = run_sql("select * from events", dsn=databases.main, archive_folder=archive)
    Archiver(running.log, ParquetArchive(archive), SystemClock(), running.log.ends, "EUR").flush()
    files = sorted(archive.glob("p*/*.parquet"))
    assert not list(open_to_others(archive))
    answers = run_sql("select * from events", dsn=databases.main, archive_folder=archive)
    places = {
        "log": stored,
        "tail by SQL": [json.dumps(row) for row in tail.rows()],
        "archive": [text for path in files for text in texts_of(path)],
        "archive by SQL": [json.dumps(row) for row in answers.rows()],
    }
    assert len(places["archive by SQL"]) == len(places["tail by SQL"]) == len(everywhere())
    seen = re.compile("|".join(rf"(?<![\w.-]){re.escape(canary)}(?!\w)" for canary in BYTES))  # no part of a hash
    found = {(place, canary) for place, texts in places.items() for text in texts for canary in seen.findall(text)}
    assert not found
    orders = run_sql(
        "select distinct order_id, revenue from events where revenue is not null order by 1",
        dsn=databases.main,
        archive_folder=archive,
    )
    assert list(orders.rows()) == [["o-1", "5.0000"], ["o-2", "5.0000"]], "the commerce fields are clear"
    opened = running.opened(next(each for each in running.records("web") if each.name == "Anything Else"))
    assert opened["properties"]["geo"] == CANARIES["geo"], "nothing is lost"


def test_the_data_folder_is_its_owners_alone_and_what_is_not_is_told_and_mended(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o755)
    up = Up(data, UNKNOWN="clear")
    try:
        up.wait_ready()
        assert "TOUCHFOLD_UNKNOWN=clear: numbers, booleans and times" in up.log, "the other choice is said at start"
        key = result("source", "create", "web", "--data", str(data))["write_key"]
        assert up.send(key, "track", {"userId": "ada", "event": "x", "properties": {"lat": 47.52}}).status == 200
        result("status", "--wait", "--data", str(data))
        told = result("sql", "select properties from events", "--data", str(data))
        assert told == [{"properties": {"lat": 47.52}}]
        sealed = {"userId": "ada", "event": "x", "properties": {"note": "abc"}}
        assert up.send(key, "track", sealed).status == 200
        result("status", "--wait", "--data", str(data))
        [field] = result("fields", "list", "--data", str(data))
        assert field == {"event": "x", "field": "note", "kind": "text", "count": 1, "events": 2, "share": 0.5}
        assert "not personal" in command("fields", "clear", "x", "note", "--data", str(data)).stdout
        assert up.send(key, "track", sealed).status == 200
        result("status", "--wait", "--data", str(data))
        told = result(
            "sql", "select properties->>'$.note' as note from events order by received_at", "--data", str(data)
        )
        notes = [each["note"] for each in told]
        assert (notes[0], notes[2]) == (None, "abc")
        assert notes[1] in (None, "abc"), "where the test took a minute, its file is written, and follows the rule"
        assert result("fields", "list", "--data", str(data)) == []
        checks = {each["check"]: each for each in result("doctor", "--data", str(data))}
        assert checks["private files"]["ok"], checks["private files"]["detail"]
        assert "TOUCHFOLD_UNKNOWN=clear" not in checks["unknown fields"]["detail"], "doctor has its own settings"
    finally:
        up.stop()
    assert not list(open_to_others(data))
    for name, mode in (("archive", 0o755), ("postgres.secret", 0o644)):
        (data / name).chmod(mode)
    checked = json.loads(command("doctor", "--data", str(data), "--json").stdout)
    told = next(each for each in checked if each["check"] == "private files")
    assert not told["ok"]
    assert "postgres.secret" in told["detail"]
    assert not list(open_to_others(data)), "whoever takes the folder mends it: doctor itself did"
