"""The checker itself: it leans on none of our rooms, finds every planted violation and cries no false alarm."""

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.checker import check_log, check_views, reference, tables
from tests.checker.check import DEFINITIONS, SEGMENTS, check
from tests.checker.check_archive import check_archive, manifest
from tests.checker.client import Client
from tests.checker.ledger import Answer, Ledger
from tests.checker.load import Traffic
from tests.checker.plant import PLANTS, hold_still
from tests.checker.product import Product

ROOMS = {"schemas", "projections", "ingest", "processors", "query", "infra"}
PLACES = 3  # random places for each kind of violation
ARCHIVE_NOW = """
import sys
from pathlib import Path
from infra.bootstrap import session
from infra.drivers.archive_role import archiver_of
with session(Path(sys.argv[1])) as here:
    archiver_of(here).flush()
"""


class World(NamedTuple):
    """A small product with a history, settled."""

    product: Product
    ledger: Ledger


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Two sources, about 1,500 events over real HTTP with repeats, conflicts and mistakes; archived to the end."""
    folder = tmp_path_factory.mktemp("checked")
    product, ledger = Product(folder / "data"), Ledger(folder / "ledger.jsonl")
    (folder / "checker.yaml").write_text(DEFINITIONS)
    try:
        product.up()
        product.ask("apply", str(folder / "checker.yaml"))
        now = datetime.now(UTC)
        for name in ("web", "till"):
            client = Client(product.port, name, product.source(name), ledger)
            traffic = Traffic(name, seed=1, now=now, customers=150)
            for _ in range(25):
                answer = client.send(traffic.batch(30))
                assert answer.status == 200, answer
            client.close()
        product.settle()
        product.stop()
        subprocess.run([sys.executable, "-c", ARCHIVE_NOW, str(product.data)], check=True, timeout=120)
        product.up()
        product.settle()
        yield World(product, ledger)
    finally:
        product.stop()
        ledger.close()


def test_the_checker_imports_none_of_the_rooms() -> None:
    imported = set()
    for path in Path(__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add((node.module or "").partition(".")[0])
    assert not imported & ROOMS


def test_a_clean_product_has_no_violation(world: World) -> None:
    shown = world.product.shown()
    with world.product.databases() as (main, vault):
        found = check(main, world.ledger, vault=vault, archive=world.product.data / "archive", shown=shown)
    assert found == []


def test_the_history_holds_what_the_checks_are_about(world: World) -> None:
    with world.product.databases() as (main, _):
        facts = check_log.digest(tables.read(main))
    verdicts = {verdict for *_, verdict in facts.tables.not_applied}
    assert verdicts == {tables.DUPLICATE, tables.CONFLICT}
    assert any(letter.rule != "id_reused" for letter in facts.tables.dead_letters)
    assert facts.people.hubs
    assert any(len(members) > 2 for members in facts.people.members.values())
    types = {event.raw["type"] for event in facts.events.values()}
    assert types >= {*reference.BASES[:2], *reference.REFUNDS[:1], *reference.CANCELS}
    totals = [reference.totals(events) for events in facts.by_profile().values()]
    for belongs in SEGMENTS.values():
        assert {belongs(each) for each in totals} == {True, False}


@pytest.mark.parametrize("plant", PLANTS)
def test_a_planted_violation_is_found_wherever_it_is(world: World, plant: str) -> None:
    with world.product.databases() as (main, vault):
        for place in range(PLACES):
            hold_still(main)
            PLANTS[plant](main, Random(f"{plant}/{place}"))
            found = check(main, world.ledger, vault=vault)
            main.rollback()
            assert found, f"{plant} at place {place} was not found"


@pytest.mark.parametrize("place", range(PLACES))
def test_a_key_lost_without_an_erasure_is_found(world: World, place: int) -> None:
    with world.product.databases() as (main, vault):
        with vault.cursor() as cursor:
            cursor.execute("select token from identifiers order by token")
            (token,) = Random(place).choice(cursor.fetchall())
            cursor.execute("delete from identifiers where token = %s", (token,))
        found = check(main, world.ledger, vault=vault)
        vault.rollback()
    assert {violation.rule for violation in found} == {"I1.vault"}


@pytest.mark.parametrize("place", range(PLACES))
@pytest.mark.parametrize("fault", ["missing row", "altered byte", "doubled row", "missing file"])
def test_a_spoilt_archive_is_found(world: World, tmp_path: Path, fault: str, place: int) -> None:
    random = Random(f"{fault}/{place}")
    folder = tmp_path / "archive"
    shutil.copytree(world.product.data / "archive", folder)
    path = folder / random.choice(manifest(folder))["path"]
    if fault == "missing file":
        path.unlink()
    else:
        pq.write_table(spoilt(pq.read_table(path), fault, random), path)
    with world.product.databases() as (main, _):
        facts = check_log.digest(tables.read(main))
    rules = {violation.rule for violation in check_archive(facts, folder, complete=True)}
    assert rules >= {"missing row": {"I5.missing"}, "altered byte": {"I5.altered"}}.get(fault, {"I5.file"})


def spoilt(rows: pa.Table, fault: str, random: Random) -> pa.Table:
    """The rows of an archive file with one spoilt."""
    row = random.randrange(len(rows))
    if fault == "missing row":
        return pa.concat_tables([rows.slice(0, row), rows.slice(row + 1)])
    if fault == "doubled row":
        return pa.concat_tables([rows.slice(0, row), rows.slice(row, 1), rows.slice(row)])
    records = [bytes(record.as_py()) for record in rows.column("record")]
    at = random.randrange(len(records[row]))
    records[row] = records[row][:at] + bytes([records[row][at] ^ 1]) + records[row][at + 1 :]
    place = rows.schema.get_field_index("record")
    return rows.set_column(place, rows.schema.field(place), pa.array(records, rows.schema.field(place).type))


def test_a_refused_event_in_the_log_is_found(world: World) -> None:
    """The same log, but the sender remembers a 401 where the answer was 200."""
    altered = Ledger()
    altered.requests, altered.answers = world.ledger.requests, dict(world.ledger.answers)
    altered.answers[0] = Answer(401)
    with world.product.databases() as (main, _):
        rules = {violation.rule for violation in check(main, altered)}
    assert rules == {"I1.rejected"}


def test_a_wrong_sum_in_the_shown_profiles_is_found(world: World) -> None:
    shown = world.product.shown()
    profile = Random(0).choice(sorted(shown))
    row = shown[profile]
    cases = {
        "I3.revenue": row._replace(revenue=(row.revenue or Decimal(0)) + 1),
        "I3.orders": row._replace(orders=(row.orders or 0) + 1),
        "I3.count": row._replace(event_count=row.event_count + 1),
    }
    with world.product.databases() as (main, _):
        facts = check_log.digest(tables.read(main))
    for rule, altered in cases.items():
        assert {violation.rule for violation in check_views.check_shown(facts, shown | {profile: altered})} == {rule}


def test_the_ledger_is_read_back_as_it_was(world: World, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    for number, request in enumerate(world.ledger.requests):
        assert ledger.asked(request.source, request.items) == number
        ledger.answered(number, world.ledger.answers[number])
    ledger.close()
    with (tmp_path / "ledger.jsonl").open("a") as file:
        file.write('{"asked": 99999, "sour')  # torn by a kill
    again = Ledger.read(tmp_path / "ledger.jsonl")
    assert again.requests == world.ledger.requests
    assert again.outcomes() == world.ledger.outcomes()
