"""What is declared clear or personal acts on the archive: its files are rewritten, and nothing else changes."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from infra.adapters.archive.store import ParquetArchive
from infra.adapters.machine.clock import SystemClock
from infra.adapters.postgres.clear import PostgresClearRules
from infra.adapters.postgres.database import Database, Uuid
from infra.adapters.postgres.erased_tokens import ErasedTokens
from infra.adapters.postgres.sources import PostgresSources
from infra.drivers.sql.process import run_sql
from processors.archive.archiver import Archiver
from processors.archive.rewrite import Rewriter, waiting
from query.reports.undeclared import undeclared
from query.sql.results import SqlResult
from schemas.clear_rules import Declared
from schemas.clear_view import ClearView
from schemas.event_columns import event_table
from schemas.record import Stored, encode
from tests.archive_data import apply_until, deploy, record
from tests.conftest import Databases
from tests.integration.test_archive_merging import Alone, Open, add, merge_all, open_archive, records_of  # noqa: F401
from tests.integration.test_door import Running
from tests.object_store import object_store  # noqa: F401  # a fixture

ROOT = Path(__file__).resolve().parents[2]
PROPERTIES = "select properties from events order by message_id"
HIDDEN_ORDER_ID = Declared({"*": {"order_id": True}}, frozenset())


class World:
    """A door, a log, an archive whose columns follow what is declared, SQL."""

    def __init__(self, databases: Databases, folder: Path) -> None:
        self.door = Running(databases, stale_s=0.0)
        self.dsn, self.folder = databases.main, folder
        self.sources = PostgresSources(databases.main, stale_s=0.0)
        self._database = Database(databases.main, "touchfold test rules")
        self._rules = PostgresClearRules(self._database)
        self.archive = ParquetArchive(folder)
        self.alarms: list[str] = []
        deploy(databases.main, "{}")
        self.key = self.door.source("web")
        self.archiver = Archiver(
            *(self.door.log, self.archive, SystemClock(), self.door.log.ends, "EUR"),
            view=lambda: ClearView(self.declared()),
        )
        self.erased = ErasedTokens(databases.main)
        self.rewriter = Rewriter(
            *(self.archive, Alone(), self.declared, self.door.vault.open_many, self.erased, "EUR"),
            *(lambda: 0.0, self.alarms.append),
        )

    def declared(self) -> Declared:
        found = self.sources.declared()
        self._rules.note(found)
        return found

    def define(self, definitions: dict[str, Any]) -> None:
        text = json.dumps(definitions)
        self.execute("update revisions set definitions = %s, content_hash = md5(%s), created_at = now()", (text, text))

    def definitions(self) -> dict[str, Any]:
        found: dict[str, Any] = self.execute("select definitions from revisions")[0][0]
        return found

    def execute(self, statement: str, parameters: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        with psycopg2.connect(self.dsn) as connection, connection.cursor() as cursor:
            cursor.execute(statement, parameters)
            rows = cursor.fetchall() if cursor.description else []
        connection.close()
        return rows

    def send(self, number: int, properties: dict[str, Any], who: str = "ada", event: str = "quiz") -> None:
        item = {"event": event, "userId": who, "messageId": f"m-{number:03d}", "properties": properties}
        assert self.door.post("/v1/track", item, self.key).status == 200
        apply_until(self.dsn, self.door.log.ends())

    def archived(self) -> None:
        self.archiver.flush()

    def rewrite_all(self) -> int:
        """How many files were rewritten."""
        done = 0
        while self.rewriter.run_once():
            done += 1
        return done

    def ask(self, statement: str = PROPERTIES) -> SqlResult:
        return run_sql(statement, dsn=self.dsn, archive_folder=self.folder)

    def rows(self, statement: str = PROPERTIES) -> list[Any]:
        return [row[0] if len(row) == 1 else row for row in self.ask(statement).rows()]

    def close(self) -> None:
        self.archive.close()
        self.erased.close()
        self.sources.close()
        self._database.close()
        self.door.close()


@pytest.fixture
def world(databases: Databases, tmp_path: Path) -> Iterator[World]:
    world = World(databases, tmp_path / "archive")
    yield world
    world.close()


CLEAR = {"properties": {"quiz": {"points": {"personal": False}, "answers": {"personal": False}}}}


def test_a_field_declared_clear_comes_into_the_past_and_one_declared_personal_leaves_it(world: World) -> None:
    world.send(1, {"points": 7, "note": "for Ada", "answers": {"q1": True}, "coupon": "X"})
    world.send(2, {"points": 8}, who="bob")
    world.archived()
    before = records_of_all(world.archive)
    assert world.rows() == [{"coupon": "X"}, {}]
    assert world.rewrite_all() == 0, "the archiver wrote by what is declared"
    world.define(CLEAR)
    world.send(3, {"points": 9, "note": "x"})
    assert world.rows() == [{"coupon": "X"}, {}, {"points": 9}], "from now on"
    world.declared()
    told = world.ask().warnings
    assert {text.split(" was sealed before ")[0] for text in told} == {"quiz.points", "quiz.answers"}
    assert world.ask("select count(*) from events where json_extract(properties, '$.points') = 7").warnings
    assert not world.ask("select count(*) from events").warnings, "it reads no property"
    files = len(world.archive.files())
    assert world.rewrite_all() == files
    assert world.rows() == [{"answers": {"q1": True}, "coupon": "X", "points": 7}, {"points": 8}, {"points": 9}]
    assert not world.ask().warnings
    names = world.rows("select sealed_names from events where message_id = 'm-001'")
    assert names == [["properties.note"]]
    assert records_of_all(world.archive) == before, "the records are the same, byte for byte"
    assert world.archive.verify() == []
    world.define({"properties": {"quiz": {"points": {"personal": True}, "coupon": {"personal": True}}}})
    world.archived()
    world.rewrite_all()
    assert world.rows() == [{}, {}, {}]
    assert world.archive.verify() == []
    assert not world.alarms


def test_what_a_record_holds_in_clear_and_nothing_names_leaves_the_columns(world: World) -> None:
    """As it came in under an earlier build, or with TOUCHFOLD_UNKNOWN=clear."""
    old = [record(n, type_="custom", lat=47.5231987, order_id=f"o-{n}", nested={"pin": 83751}) for n in range(3)]
    rows = event_table([Stored(0, n, encode(each)) for n, each in enumerate(old)], "EUR", originals=True)
    world.archive.recover()
    world.archive.add(0, 3, world.door.log.generation, rows)
    assert any("47.52" in json.dumps(row) for row in world.rows())
    world.rewrite_all()
    assert world.rows() == [{"order_id": f"o-{n}"} for n in range(3)]
    assert world.rows("select order_id from events order by 1") == ["o-0", "o-1", "o-2"]
    assert world.archive.verify() == []


def test_the_sealed_parts_of_an_erased_person_are_left_out(world: World) -> None:
    world.send(1, {"points": 7, "note": "for Ada"})
    world.send(2, {"points": 8, "note": "for Bob"}, who="bob")
    world.archived()
    [(ada, *_)] = [each.ids for each in world.door.records("web") if each.message_id == "m-001"]
    token = bytes.fromhex(ada.token)
    world.execute("insert into erased_tokens values (%s, now())", (Uuid(token),))
    world.define(CLEAR)
    world.rewrite_all()
    assert world.rows() == [{}, {"points": 8}]
    sealed = [each for each in records_of_all(world.archive) if b'"sealed"' in each.value]
    assert len(sealed) == 1, "Bob's alone"
    assert world.archive.verify() == [], "the digests cover the records without what is sealed"


def records_of_all(archive: ParquetArchive) -> list[Stored]:
    return [each for partition in range(4) for each in records_of(archive, partition)]


def rewriter(archive: ParquetArchive, declared: Declared = HIDDEN_ORDER_ID) -> Rewriter:
    def nothing(triples: Any) -> list[bytes | None]:
        return [None for _ in triples]

    return Rewriter(
        archive, Alone(), lambda: declared, nothing, lambda _tokens: set(), "EUR", lambda: 0.0, list[str]().append
    )


def rewrite_all(archive: ParquetArchive, declared: Declared = HIDDEN_ORDER_ID) -> int:
    worker, done = rewriter(archive, declared), 0
    while worker.run_once():
        done += 1
    return done


def order_ids(archive: ParquetArchive) -> set[Any]:
    return {id_ for each in archive.files() for id_ in archive.rows(each, ["order_id"]).column(0).to_pylist()}


def test_files_are_rewritten_and_merged_in_a_folder_and_on_s3_in_any_order(
    open_archive: Open,  # noqa: F811
) -> None:
    archive = open_archive(grace_s=0.0)
    archive.recover()
    sent = add(archive, files=9)
    assert rewrite_all(archive) == 9
    assert order_ids(archive) == {None}
    assert merge_all(archive) == 1
    assert {each.clear for each in archive.files()} == {ClearView(HIDDEN_ORDER_ID).hash}, "a merge copies the columns"
    sent += add(archive, files=7)
    merge_all(archive)
    nothing = Declared({}, frozenset())
    assert rewrite_all(archive, nothing) == len(archive.files())
    assert None not in order_ids(archive)
    assert not waiting(archive.files(), nothing)
    archive.retire(0)
    assert records_of(open_archive()) == sent
    assert open_archive().verify() == []


def test_a_file_in_which_nothing_changes_is_not_written_again(open_archive: Open) -> None:  # noqa: F811
    archive = open_archive(grace_s=0.0)
    archive.recover()
    sent = add(archive, files=2)
    paths = [each.path for each in archive.files()]
    other = Declared({"call.missed": {"call_id": True}}, frozenset())
    assert rewrite_all(archive, other) == 2
    assert [each.path for each in archive.files()] == paths
    assert not waiting(archive.files(), other)
    assert archive.retire(0) == 0, "what is listed stays"
    assert records_of(open_archive()) == sent
    assert open_archive().verify() == []


_KILLED = """
import sys
from pathlib import Path
from infra.adapters.archive.store import ParquetArchive
from schemas.failpoints import arm
from tests.integration.test_archive_rewriting import rewrite_all

arm(sys.argv[2], int(sys.argv[3]))
archive = ParquetArchive(Path(sys.argv[1]))
archive.recover()
rewrite_all(archive)
"""


@pytest.mark.kill
@pytest.mark.parametrize(
    "point",
    [
        *("archive.rewrite_written", "archive.rewrite_put", "archive.rewrite_listed"),
        *("archive.manifest_written", "archive.manifest_renamed"),
    ],
)
def test_a_kill_while_files_are_rewritten_loses_and_doubles_nothing(point: str, tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    archive = ParquetArchive(folder)
    archive.recover()
    sent = add(archive, files=3)
    archive.close()
    hits = "1" if "manifest" in point else "2"
    killed = subprocess.run([sys.executable, "-c", _KILLED, str(folder), point, hits], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert records_of(ParquetArchive(folder)) == sent, "whatever was left half done"
    again = ParquetArchive(folder)
    again.recover()
    rewrite_all(again)
    assert order_ids(again) == {None}
    assert records_of(again) == sent
    assert again.verify() == []
    again.close()
    assert not [each for each in os.listdir(folder) if each.endswith(".tmp")]


def test_what_came_sealed_and_undeclared_is_listed_with_kind_count_and_share(world: World) -> None:
    world.define({"properties": {"quiz": {"secret": {"personal": True}}}})
    for number in range(3):
        world.send(number, {"points": number, "secret": 1, "coupon": "X", "email": "ada@example.com"})
    world.send(3, {"points": 1.5, "note": "for Ada", "products": [{"sku": "s", "weight": 3}, {"weight": 4}]})
    item = {"userId": "ada", "traits": {"shoe_size": 42, "email": "ada@example.com"}}
    assert world.door.post("/v1/identify", item, world.key).status == 200
    apply_until(world.dsn, world.door.log.ends())
    world.archived()

    def ask(statement: str, limit: int) -> dict[str, Any]:
        return {"rows": list(run_sql(statement, dsn=world.dsn, archive_folder=world.folder, limit=limit).rows())}

    found = undeclared(ask, world.door.log, world.door.vault, world.definitions())
    assert [tuple(each) for each in found] == [
        ("quiz", "points", "decimal or integer", 4, 4),
        ("quiz", "note", "text", 1, 4),
        ("quiz", "products.weight", "integer", 1, 4),
        ("traits", "shoe_size", "integer", 1, 1),
    ]
    assert [each.share for each in found] == [1.0, 0.25, 0.25, 1.0]
    assert json.loads(found[0].line) == {"properties": {"quiz": {"points": {"personal": False}}}}
    world.define(json.loads(found[2].line))
    assert "products.weight" not in {
        each.field for each in undeclared(ask, world.door.log, world.door.vault, world.definitions())
    }
