"""One record stops one partition at most: what nobody can read is set aside, at what is newer its partition waits.

Embedded and shared worker alike; a newer build is simulated by the `Reader` it is given.
"""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from infra.adapters.archive.store import ParquetArchive, dataset, read_manifest
from infra.adapters.postgres import sql_snapshot
from infra.adapters.postgres.database import Database
from infra.adapters.postgres.records import PostgresRecords
from infra.drivers.sql.child import restored_rows
from infra.drivers.sql.process import run_sql
from processors.archive.archiver import Archiver
from processors.live.applied import Applied
from processors.live.compiled import Compiled, folder_of
from processors.live.dead_letters import dead_letter_key
from processors.live.feeder import LogFeeder
from processors.live.fold_batch import Folder
from processors.live.late_fold import fold_late
from processors.live.personal_traits import open_personal
from processors.live.worker import Worker
from processors.rebuild.builder import Builder
from processors.rebuild.definitions import start_rebuild
from projections.fold.state import DIRECT, TRAITS
from schemas.errors import FoldFailed, ReaderTooOld, StoreUnavailable
from schemas.record import CURRENT, Pending, Reader, Record, Stored, encode, partition_of
from schemas.store import FoldTx
from schemas.waits import WORKER, Wait
from tests.conftest import Databases
from tests.integration.test_fold_decide import World, new_world
from tests.records import START, key_of_partition, purchase, record

NEWER = Reader(3, {("touchpoint", 1): lambda old: old, ("touchpoint", 2): lambda old: old})
"""A build of version 3, whose records are those of version 2."""

PEOPLE = [[("user_id", f"u{number}")] for number in range(40)]


def in_partition(number: int) -> list[list[tuple[str, str]]]:
    """Customers whose records go into a partition."""
    return [ids for ids in PEOPLE if partition_of(bytes.fromhex(record(ids, "m").route_key), 4) == number]


def newer(each: Record) -> bytes:
    """The same of version 3."""
    return encode(msgspec.structs.replace(each, v=3))


@dataclass
class Side:
    """A world with a worker of one of the two modes."""

    world: World
    mode: str
    reader: Reader = CURRENT
    now_s: float = 0.0
    _feeder: LogFeeder | None = None

    def put(self, partition: int, *values: bytes) -> None:
        key = key_of_partition(partition)
        self.world.services.log.append([Pending(key, value) for value in values])

    @property
    def services(self) -> Any:
        return replace(self.world.services, reader=self.reader)

    def settle(self) -> None:
        """Work until there is no more; again, with another reader, as after an upgrade."""
        if self._feeder is None:
            builder = Builder(self.services, self.world.rebuilding())
            worker = Worker(self.services, builder, shared=self.mode == "shared")
            self._feeder = LogFeeder(worker, lambda: self.now_s)
        while self._feeder.step():
            pass

    def upgrade(self) -> None:
        self.restart(NEWER)

    def restart(self, reader: Reader) -> None:
        """Another worker comes, which reads what `reader` does."""
        if self._feeder is not None:
            self._feeder.worker.upkeep.builder.resign()
        self.reader, self._feeder = reader, None

    def waiting(self) -> list[tuple[int, int, str]]:
        found = self.world.services.control.waiting()
        return [(each.wait.partition, each.wait.offset, each.wait.code) for each in found if each.reader == WORKER]

    def set_aside(self, partition: int, offset: int) -> None:
        with closing(Database(self.world.databases.main)) as database:
            PostgresRecords(database).set_aside(Wait(partition, offset, "reader_too_old", "newer"), "test", START)

    def retry(self, partition: int, offset: int) -> None:
        compiled = Compiled.of(self.world.services.control.live(), "UTC", "USD", reader=self.reader)
        folder = folder_of(self.services, compiled, {}, sharded=self.mode == "shared")
        fold_late(folder, *self.world.services.log.fetch([(partition, offset)]))

    def folded(self) -> list[int]:
        control = self.world.services.control
        return [each.next_offset for each in control.progress(control.live().revision)]

    def profiles(self) -> dict[bytes, int]:
        revision = self.world.services.control.live().revision
        return dict(self.world.query(f"select profile_id, event_count from profiles_r{revision}"))  # type: ignore[arg-type]

    def check(self) -> Any:
        return self.world.check(self.reader)


@pytest.fixture(params=["embedded", "shared"])
def side(request: pytest.FixtureRequest, databases: Databases) -> Side:
    return Side(new_world(databases), request.param)


def deep(levels: int) -> bytes:
    return b'{"v":1,"properties":{"a":' + b"[" * levels + b"]" * levels + b"}}"


GOOD = purchase([("user_id", "kinds")], "o", "20.00")


def changed(**fields: Any) -> bytes:
    raw = msgspec.json.decode(encode(GOOD)) | fields
    return msgspec.json.encode({name: value for name, value in raw.items() if value is not ...})


UNREADABLE = {
    "garbage": b"\x00\xff\x13garbage",
    "nothing": b"",
    "no JSON": b'{"v":1,',
    "no UTF-8": encode(GOOD).replace(b'"20.00"', b'"\xff\xfe"'),
    "no object": b"[1]",
    "deep": deep(1_100),
    "very deep": deep(100_000),
    "huge": b'{"v":1,"properties":"' + b"x" * 2_000_000 + b'"}',
    "no field": b'{"v":1}',
    "no ids": changed(ids=[]),
    "no digest": changed(digest=...),
    "type is a number": changed(type=7),
    "message id is a number": changed(message_id=7),
    "context is a text": changed(context="x"),
    "id of 2 bytes": changed(id="abcd"),
    "id with spaces": changed(id=" " + GOOD.id),
    "route key": changed(route_key="zz"),
    "token": changed(ids=[{"kind": "user_id", "token": "ab cd"}]),
    "sealed key": changed(sealed={"key": "x", "names": [], "data": ""}),
    "sealed data": changed(sealed={"key": "00" * 16, "names": [], "data": "abc"}),
    "no date": changed(received_at="yesterday"),
    "date without zone": changed(received_at="2026-01-01T00:00:00"),
    "day that is none": changed(occurred_at="2026-02-30T00:00:00Z"),
    "number too large": encode(GOOD).replace(b'"20.00"', b"1e999"),
    "version 0": changed(v=0),
    "version below": changed(v=-3),
    "version of text": changed(v="1"),
}


@pytest.mark.parametrize("place", ["first", "last"])
def test_what_nobody_can_read_is_set_aside_by_all_and_nothing_else_is_lost(
    side: Side, place: str, tmp_path: Path
) -> None:
    good = [purchase(ids, f"o{n}", "20.00") for n, ids in enumerate(PEOPLE)]
    if place == "last":
        side.world.send(*good)
    for number, value in enumerate(UNREADABLE.values()):
        side.put(number % 4, value)
    if place == "first":
        side.settle()  # each is the first unfolded record of its partition once, whose receipt tells the watermark
        side.world.send(*good)
    side.settle()
    assert side.world.query("select count(*), min(rule), max(rule) from dead_letters") == [
        (len(UNREADABLE), "record_unreadable", "record_unreadable")
    ]
    assert sum(side.profiles().values()) == len(good)
    assert side.waiting() == []
    assert side.check().equal
    start_rebuild(side.world.services.control, side.world.clock.now())
    side.settle()
    assert side.world.services.control.live().revision == 2
    assert sum(side.profiles().values()) == len(good)
    assert counted(side, tmp_path) == len(good)
    assert archived(side, tmp_path) == sum(side.world.services.log.ends())
    assert counted(side, tmp_path) == len(good)


def archiver(side: Side, folder: Path, told: Callable[[Wait], None] = lambda _wait: None) -> Archiver:
    services, database = side.world.services, Database(side.world.databases.main)
    records = PostgresRecords(database)
    return Archiver(
        *(services.log, ParquetArchive(folder), side.world.clock, side.folded),
        set_aside=lambda wait: records.place(wait.partition, wait.offset).verdict is not None,
        waits=told,
        reader=side.reader,
    )


def archived(side: Side, folder: Path) -> int:
    """Archive all that is applied; how many offsets the archive holds then."""
    made = archiver(side, folder)
    made.flush()
    assert isinstance(made.store, ParquetArchive)
    with closing(made.store):
        return sum(made.store.next_offset(partition) for partition in range(4))


def counted(side: Side, folder: Path) -> int:
    """What SQL says of archive and tail together."""
    dsn, now = side.world.databases.main, side.world.clock.now()
    result = run_sql("select count(*) from events", dsn=dsn, archive_folder=folder, now=now)
    assert not result.left_out
    ((count,),) = result.rows()
    return int(count)


def test_a_newer_record_stops_its_partition_alone_until_the_upgrade(side: Side, tmp_path: Path) -> None:
    good = [purchase(ids, f"o{n}", "20.00") for n, ids in enumerate(PEOPLE)]
    half = len(good) // 2
    side.world.send(*good[:half])
    side.settle()
    at = side.folded()[2]
    side.put(2, newer(purchase(in_partition(2)[0], "new", "99.00")))
    side.world.send(*good[half:])
    side.settle()
    ends = side.world.services.log.ends()
    assert side.folded() == [ends[0], ends[1], at, ends[3]]
    assert side.waiting() == [(2, at, "reader_too_old")]
    (waits,) = side.world.services.control.waiting()
    assert "this build reads v2" in waits.wait.reason
    assert f"touchfold record set-aside 2 {at}" in waits.remedy
    side.world.send(purchase(in_partition(1)[0], "later", "5.00"))
    side.settle()
    assert side.folded()[1] == ends[1] + 1, "the others go on"
    assert side.world.services.control.waiting()[0].since == waits.since
    assert side.check().equal
    start_rebuild(side.world.services.control, side.world.clock.now())
    side.settle()
    assert side.world.services.control.live().revision == 2, "a revision is built up to there"
    assert archived(side, tmp_path) == sum(side.folded())
    assert counted(side, tmp_path) == sum(side.profiles().values())
    side.upgrade()
    side.settle()
    assert side.folded() == side.world.services.log.ends()
    assert side.waiting() == []
    assert sum(side.profiles().values()) == len(good) + 2
    assert side.world.query("select count(*) from dead_letters") == [(0,)]
    assert side.check().equal


def test_a_partition_that_waits_is_tried_again_by_itself(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a key comes back in the vault: nobody sets anything aside, and nobody starts the worker again."""
    judged, away = Folder._judged, [True]

    def not_yet(folder: Folder, found: Stored) -> Applied:
        if away and (found.partition, found.offset) == (2, 1):
            raise ReaderTooOld("what it needs is away")
        return judged(folder, found)

    monkeypatch.setattr(Folder, "_judged", not_yet)
    side.world.send(*[purchase(in_partition(2)[0], f"o{n}", "20.00") for n in range(3)])
    side.settle()
    assert (side.waiting(), side.folded()[2]) == ([(2, 1, "reader_too_old")], 1)
    away.clear()
    side.settle()
    assert side.folded()[2] == 1, "a look costs a transaction: not at every step"
    side.now_s = 2.0
    side.settle()
    assert (side.waiting(), side.folded()[2]) == ([], 3)
    assert side.check().equal


def test_a_record_that_makes_the_fold_fail_is_isolated_and_the_rest_is_folded(
    side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, tried = Folder._apply_to_states, []

    def failing(folder: Folder, tx: FoldTx, chosen: Sequence[Applied], *rest: Any) -> None:
        tried.append(len(chosen))
        if any((each.partition, each.offset) == (2, 150) for each in chosen):
            raise ZeroDivisionError("a fault of ours")
        good(folder, tx, chosen, *rest)

    monkeypatch.setattr(Folder, "_apply_to_states", failing)
    records = [purchase(PEOPLE[n % len(PEOPLE)], f"o{n}", "20.00") for n in range(1_200)]
    side.world.send(*records)
    side.settle()
    assert side.folded() == side.world.services.log.ends()
    assert side.world.query("select id, rule from dead_letters") == [(dead_letter_key(2, 150), "record_unreadable")]
    assert sum(side.profiles().values()) == len(records) - 1
    assert len(tried) < 30, "by halves, and not one by one"
    assert side.check().equal


def test_a_record_set_aside_by_hand_is_passed_by_all_and_applied_once_after_the_upgrade(
    side: Side, tmp_path: Path
) -> None:
    ids = in_partition(2)
    side.world.send(purchase(ids[0], "o1", "20.00"))
    side.put(2, newer(purchase(ids[0], "new", "99.00", START + timedelta(days=1))))
    side.world.send(purchase(ids[1], "o2", "20.00"))
    side.settle()
    assert side.waiting() == [(2, 1, "reader_too_old")]
    side.set_aside(2, 1)
    side.settle()
    assert (side.waiting(), side.folded()[2]) == ([], 3)
    assert side.world.query("select id, rule from dead_letters") == [(dead_letter_key(2, 1), "record_set_aside")]
    assert side.check().equal
    start_rebuild(side.world.services.control, side.world.clock.now())
    side.settle()
    assert side.world.services.control.live().revision == 2
    assert archived(side, tmp_path) == 3
    assert counted(side, tmp_path) == 2
    with pytest.raises(ReaderTooOld):
        side.retry(2, 1)
    side.upgrade()
    assert side.check().equal, "the new build passes it, too"
    start_rebuild(side.world.services.control, side.world.clock.now())  # a building revision has perhaps passed it
    side.retry(2, 1)
    side.retry(2, 1)
    side.settle()
    assert side.world.services.control.live().revision == 3
    assert sum(side.profiles().values()) == 3
    verdict = side.check()
    assert verdict.equal, verdict.differences
    snapshot = sql_snapshot.load(side.world.databases.main, frozenset({"_tail", "_not_applied"}), [1, 1, 3, 1])
    assert snapshot.not_applied.num_rows == 0
    (late,) = restored_rows(dataset(tmp_path, read_manifest(tmp_path)[0]), snapshot, NEWER)
    assert late.column("order_id").to_pylist() == ["new"], "its file has its bytes alone"
    facts = side.world.query("select type from facts where type like 'record.%' order by seq")
    assert facts == [("record.set_aside",), ("record.restored",)]


def test_timers_go_on_lagging_while_a_partition_waits_and_others_are_busy(side: Side) -> None:
    ids, others = in_partition(2), in_partition(1)
    side.world.send(*[purchase(others[0], f"o{day}", "20.00", START + timedelta(days=day)) for day in (0, 10, 20)])
    side.put(2, newer(purchase(ids[0], "new", "99.00", START + timedelta(days=21))))
    side.settle()
    before = side.world.query("select lifecycle from profiles_r1")
    side.world.clock.at += timedelta(days=400)
    side.world.send(purchase(others[1], "busy", "1.00", side.world.clock.at))
    side.settle()
    ((lifecycle, lagging),) = side.world.query("select lifecycle, lagging from profiles_r1 where event_count = 3")
    assert before == [("repeat",)]
    assert (lifecycle, lagging) == ("lapsed", True)
    assert side.waiting() != []


def test_a_newer_copy_that_a_revision_must_read_again_fails_it_with_a_word(side: Side) -> None:
    """As after a downgrade: the live revision has applied what this build cannot read."""
    side.reader = NEWER
    side.put(2, newer(purchase(in_partition(2)[0], "new", "99.00")))
    side.settle()
    assert sum(side.profiles().values()) == 1
    side.restart(CURRENT)
    start_rebuild(side.world.services.control, side.world.clock.now())
    side.settle()
    (message,) = side.world.query("select message from revisions where revision = 2")[0]
    assert "partition 2 offset 0" in str(message)
    assert "upgrade this build" in str(message)
    with pytest.raises(FoldFailed, match="partition 2 offset 0"):
        side.check()
    side.world.query(
        "insert into marks (revision, shard, kind, signatures, newest_us, newest_events) select 1, 0, 'refold',"
        " array_agg(signature), array_agg(0), array_agg(signature) from evidence returning 1"
    )
    side.settle()
    (found,) = side.world.services.control.waiting()
    assert (found.reader, found.wait.code) == ("refold", "fold_failed")


def test_the_archiver_of_an_old_build_waits_alone_where_a_newer_one_has_applied(side: Side, tmp_path: Path) -> None:
    side.reader = NEWER
    side.world.send(*[purchase(ids, f"o{n}", "20.00") for n, ids in enumerate(PEOPLE)])
    at = side.world.services.log.ends()[2]
    side.put(2, newer(purchase(in_partition(2)[0], "new", "99.00")))
    side.settle()
    told: list[Wait] = []
    side.reader = CURRENT
    old = archiver(side, tmp_path, told.append)
    assert isinstance(old.store, ParquetArchive)
    old.flush()
    assert [(wait.partition, wait.offset) for wait in told] == [(2, at)]
    ends = side.world.services.log.ends()
    assert [old.store.next_offset(p) for p in range(4)] == [ends[0], ends[1], at, ends[3]]
    old.store.close()
    side.reader = NEWER
    assert archived(side, tmp_path) == sum(ends)


def test_the_tail_says_what_an_old_build_leaves_out(side: Side) -> None:
    side.reader = NEWER
    side.put(2, newer(purchase(in_partition(2)[0], "new", "99.00")))
    side.world.send(purchase(in_partition(1)[0], "o1", "20.00"))
    side.settle()
    found = sql_snapshot.load(side.world.databases.main, frozenset({"_tail"}), [])
    assert found.tail.num_rows == 1
    assert [(wait.partition, wait.offset) for wait in found.left_out] == [(2, 0)]


def test_values_of_a_newer_record_are_waited_for_and_no_decision_is_made_without_them(side: Side) -> None:
    """As after a downgrade: a trait of a profile lies in a record that a newer build applied."""
    side.put(2, newer(purchase(in_partition(2)[0], "new", "99.00")))
    state = Compiled.of(side.world.services.control.live(), "UTC", "USD").fold.new_state()
    state[TRAITS] = [["city", 0, 0, b"", DIRECT, None, 2, 0]]
    with pytest.raises(StoreUnavailable, match=r"partition 2 offset 0 .* newer build.*upgrade this build"):
        open_personal(side.world.services.log, side.world.services.sealer, {b"u": state}, lambda _name: True)
