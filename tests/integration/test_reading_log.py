"""What stands between the reading side and a log that is elsewhere: records at hand, ends in time."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing

import pytest

from infra.adapters.archive.reading_log import (
    KEPT_AT_ONCE,
    NEAR,
    SLICED,
    SLICES,
    CachedLog,
    PerThreadLog,
    Tails,
    TimelyEnds,
)
from infra.adapters.postgres.database import Database
from infra.adapters.postgres.log import PostgresLog
from schemas.errors import StoreUnavailable
from schemas.record import Pending, Stored
from tests.conftest import Databases

DEADLINE_S = 30.0
Place = tuple[int, int]


class Counted(PostgresLog):
    """Remembers what was asked of the tables; its ends wait while `away` is set."""

    def __init__(self, dsn: str) -> None:
        super().__init__(dsn)
        self.asked: list[list[Place]] = []
        self._one = threading.Lock()
        self.here = threading.Event()
        self.here.set()

    def fetch(self, positions: Iterable[Place]) -> list[Stored]:
        asked = list(positions)
        with self._one:
            self.asked.append(asked)
            return super().fetch(asked)

    def ends(self) -> list[int]:
        assert self.here.wait(DEADLINE_S)
        return super().ends()


@pytest.fixture
def log(databases: Databases) -> Iterator[Counted]:
    with closing(Counted(databases.main)) as log:
        yield log


def filled(log: PostgresLog, count: int) -> list[Place]:
    return log.append([Pending(number.to_bytes(4, "big") * 4, b"%08d" % number) for number in range(count)])


def as_stored(places: Iterable[Place], first: int = 0) -> list[Stored]:
    return sorted(Stored(*place, b"%08d" % number) for number, place in enumerate(places, first))


def test_a_record_that_was_fetched_is_not_asked_for_again(log: Counted) -> None:
    places = filled(log, 30)
    cached = CachedLog(log)
    assert sorted(cached.fetch(places[:20])) == as_stored(places[:20])
    assert sorted(cached.fetch([*places, *places])) == as_stored(places)
    assert sorted(cached.fetch(places[5:])) == as_stored(places[5:], 5)
    assert [sorted(each) for each in log.asked] == [sorted(places[:20]), sorted(places[20:])]
    assert cached.fetch([]) == []


def test_many_records_come_in_slices_and_each_once(log: Counted, databases: Databases) -> None:
    places = filled(log, 10 * SLICED)
    with ExitStack() as opened:
        made: list[Counted] = []

        def make() -> Counted:
            made.append(opened.enter_context(closing(Counted(databases.main))))
            return made[-1]

        cached = opened.enter_context(closing(CachedLog(PerThreadLog(make))))
        assert sorted(cached.fetch([*places, (3, 10**9)])) == as_stored(places)
        assert len([asked for each in made for asked in each.asked]) == SLICES
        assert sorted(cached.fetch(places)) == as_stored(places)
        assert len([asked for each in made for asked in each.asked]) == SLICES


def test_a_position_without_a_record_is_left_out_until_there_is_one(log: Counted) -> None:
    cached = CachedLog(log)
    assert cached.fetch([(0, 0), (1, 0)]) == []
    places = filled(log, 8)
    assert sorted(cached.fetch(places)) == as_stored(places)


def test_what_is_at_hand_stays_within_its_bytes_and_the_oldest_goes_first(log: Counted) -> None:
    places = filled(log, 100)
    cached = CachedLog(log, limit_bytes=10 * 300)
    for place in places:
        cached.fetch([place])
        cached.fetch(places[:1])  # asked for all the time, it stays
        assert cached.bytes <= 10 * 300
    before = len(log.asked)
    cached.fetch([*places[:1], *places[-5:]])
    assert len(log.asked) == before
    cached.fetch(places[50:51])
    assert log.asked[before:] == [places[50:51]]


def test_a_whole_history_does_not_push_out_what_is_at_hand(log: Counted) -> None:
    places = filled(log, KEPT_AT_ONCE + 11)
    cached = CachedLog(log)
    cached.fetch(places[:10])
    assert sorted(cached.fetch(places)) == as_stored(places)
    kept = cached.bytes
    assert len(log.asked) == 1 + SLICES
    cached.fetch(places[:10])
    assert (len(log.asked), cached.bytes) == (1 + SLICES, kept)
    cached.close()


def test_a_cached_log_appends_reads_and_ends_as_the_log_behind_it(log: Counted) -> None:
    cached = CachedLog(log)
    places = cached.append([Pending(bytes(16), b"one"), Pending(bytes(16), b"two")])
    assert cached.read(0, 0, 10) == log.read(0, 0, 10) == [Stored(*places[0], b"one"), Stored(*places[1], b"two")]
    assert (cached.ends(), cached.partitions, cached.generation) == (log.ends(), log.partitions, log.generation)


def test_each_thread_reads_by_a_log_of_its_own(databases: Databases) -> None:
    made: list[PostgresLog] = []
    with ExitStack() as opened:

        def make() -> PostgresLog:
            made.append(opened.enter_context(closing(PostgresLog(databases.main))))
            return made[-1]

        shared = PerThreadLog(make)
        places = shared.append([Pending(bytes(16), b"one")])
        found: list[list[Stored]] = []
        threads = [threading.Thread(target=lambda: found.append(shared.fetch(places))) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE_S)
        assert found == [[Stored(*places[0], b"one")]] * 3
        assert len(made) == 4
        assert shared.ends() == made[0].ends()


def in_another_thread(work: Callable[[], object]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(DEADLINE_S)
    assert not thread.is_alive()


def test_offsets_without_a_record_behind_what_is_applied_are_no_lag(log: Counted, databases: Databases) -> None:
    filled(log, 40)
    applied = log.ends()
    with closing(Database(databases.main)) as database, database.transaction() as cursor:
        cursor.execute("update log_head set next_offset = next_offset + 3 where partition = 1")
        cursor.execute("update log_head set next_offset = next_offset + %s where partition = 2", (2 * NEAR,))
    place = filled(log, 1)[0][0]
    tails = Tails(log)
    for looks in range(1, 4):
        cut = tails.cut(log.ends(), applied)
        assert cut[1] == applied[1], "a short gap is looked into at once"
        assert cut[2] == (applied[2] + 2 * NEAR if looks == 1 else applied[2]), "a long one when it stands still"
        assert (place, cut[place] - applied[place]) == (0, 1), "a record is there"


def test_ends_that_do_not_come_in_time_are_an_outage_and_come_when_the_log_is_back(log: Counted) -> None:
    filled(log, 5)
    ends = TimelyEnds(lambda: log, deadline_s=0.05)
    log.here.clear()
    for _ in range(3):
        with pytest.raises(StoreUnavailable, match=r"did not answer within 0\.05 s"):
            ends.ends()
    waiting = [thread for thread in threading.enumerate() if thread.name == "ends of the log"]
    assert len(waiting) == 1, "one asks, however many wait"
    log.here.set()
    waiting[0].join(DEADLINE_S)
    patient = TimelyEnds(lambda: log, deadline_s=DEADLINE_S)
    assert patient.ends() == log.ends()
    filled(log, 5)
    in_another_thread(patient.ends)
    assert patient.ends() == log.ends()


def test_an_outage_of_the_log_is_told_to_those_who_wait_for_its_ends() -> None:
    with closing(PostgresLog("host=127.0.0.1 port=1 dbname=none")) as nowhere, pytest.raises(StoreUnavailable):
        TimelyEnds(lambda: nowhere, deadline_s=DEADLINE_S).ends()
