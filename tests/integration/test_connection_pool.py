"""The pool of connections: it waits, gives work its reserve, replaces what died, and leaves nothing behind."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import psycopg2
import pytest

from infra.adapters.postgres import connection_pool
from infra.adapters.postgres.connection_pool import Lane, Limits, pool_of
from infra.adapters.postgres.database import Database, Dedicated, connect
from infra.adapters.postgres.embedded import EmbeddedPostgres
from infra.adapters.postgres.statements import PerThread
from schemas.errors import ConnectionsInUse, StoreUnavailable
from tests.conftest import Databases

NAME = "pool of the test"


@pytest.fixture
def dsn(databases: Databases) -> str:
    pool_of(databases.main).limit(Limits(4, 2, 0.3), "main", NAME)
    return databases.main


def backends(dsn: str) -> int:
    """Of the pool, as PostgreSQL sees them."""
    with closing(connect(dsn, "looks")) as connection, connection.cursor() as cursor:
        cursor.execute(
            "select count(*) from pg_stat_activity where datname = current_database() and application_name = %s",
            (NAME,),
        )
        row = cursor.fetchone()
    return int(row[0]) if row else -1


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end, "it did not come true within 20 s"
        time.sleep(0.01)


def pid(database: Database | Dedicated) -> int:
    with database.reading() as cursor:
        cursor.execute("select pg_backend_pid()")
        row = cursor.fetchone()
    return int(row[0]) if row else 0


class Holding:
    """Transactions that stay open, each in a thread of its own, until the block ends."""

    def __init__(self, database: Database, number: int) -> None:
        self._database, self._number = database, number
        self._end = threading.Event()
        self._threads = ThreadPoolExecutor(number)

    def __enter__(self) -> "Holding":
        begun = threading.Barrier(self._number + 1)
        for _ in range(self._number):
            self._threads.submit(self._hold, begun)
        begun.wait(30)
        return self

    def _hold(self, begun: threading.Barrier) -> None:
        with self._database.transaction() as cursor:
            cursor.execute("select 1")
            begun.wait(30)
            self._end.wait(30)

    def end(self) -> None:
        self._end.set()

    def __exit__(self, *_: object) -> None:
        self.end()
        self._threads.shutdown()


def test_many_threads_share_few_connections(dsn: str) -> None:
    with closing(Database(dsn)) as database, ThreadPoolExecutor(16) as threads:
        pool_of(dsn).limit(Limits(4, 2, 30), "main", NAME)
        assert all(threads.map(lambda _: pid(database), range(400)))
        assert 1 <= backends(dsn) <= 2
        figures = pool_of(dsn).figures()
        assert (figures.in_use, figures.waiting, figures.refused) == (0, 0, 0)


def test_who_waits_longer_than_the_deadline_is_told_what_is_full(dsn: str) -> None:
    with closing(Database(dsn)) as database, Holding(database, 2):
        with pytest.raises(ConnectionsInUse, match="all 4 connections of this process to the main database") as err:
            pid(database)
        assert (err.value.code, err.value.status, err.value.retry_after_s) == ("connections_in_use", 503, 1)
        assert pool_of(dsn).figures().refused == 1
        assert pool_of(dsn).figures().waiting == 0


def test_who_waits_goes_on_when_one_is_given_back(dsn: str) -> None:
    pool_of(dsn).limit(Limits(4, 2, 30), "main", NAME)
    with closing(Database(dsn)) as database, ThreadPoolExecutor(1) as thread, Holding(database, 2) as holding:
        waits = thread.submit(pid, database)
        until(lambda: pool_of(dsn).figures().waiting == 1)
        holding.end()
        assert waits.result(30) > 0


def test_reads_never_take_what_is_kept_for_work(dsn: str) -> None:
    work = Database(dsn, lane=Lane.WORK)
    with closing(Database(dsn)) as reads, closing(work), Holding(reads, 2):
        with pytest.raises(ConnectionsInUse):
            pid(reads)
        assert pid(work) > 0


def test_work_goes_before_reads_that_waited_longer(dsn: str) -> None:
    pool_of(dsn).limit(Limits(2, 1, 30), "main", NAME)  # one for all but those that hold one already
    order: list[str] = []

    def ask(database: Database, name: str) -> None:
        pid(database)
        order.append(name)

    reads, work = Database(dsn), Database(dsn, lane=Lane.WORK)
    with closing(reads), closing(work), ThreadPoolExecutor(2) as threads, Holding(reads, 1) as holding:
        threads.submit(ask, reads, "read")
        until(lambda: pool_of(dsn).figures().waiting == 1)
        threads.submit(ask, work, "work")
        until(lambda: pool_of(dsn).figures().waiting == 2)
        holding.end()
        until(lambda: len(order) == 2)
    assert order == ["work", "read"]


def test_a_thread_that_holds_one_gets_a_second_though_all_others_do_too(databases: Databases) -> None:
    """Every thread holds one of one pool and asks for one of the other, both ways round: nobody waits for ever."""
    for dsn in databases:
        pool_of(dsn).limit(Limits(4, 1, 30), "main", NAME)
    main, vault = Database(databases.main), Database(databases.vault)
    begun = threading.Barrier(6)

    def nested(outer: Database, inner: Database) -> bool:
        with outer.transaction() as cursor:
            cursor.execute("select 1")
            begun.wait(30)  # all three of either pool are held now
            return pid(inner) > 0 and pid(outer) > 0

    with closing(main), closing(vault), ThreadPoolExecutor(6) as threads:
        done = [threads.submit(nested, *each) for each in [(main, vault), (vault, main)] * 3]
        assert all(each.result(60) for each in done)


def test_a_connection_the_server_ended_is_replaced_unseen(dsn: str) -> None:
    with closing(Database(dsn)) as database:
        first = pid(database)
        with closing(connect(dsn)) as other, other.cursor() as cursor:
            cursor.execute("select pg_terminate_backend(%s)", (first,))
        until(lambda: backends(dsn) == 0)
        assert pid(database) not in {0, first}


def test_one_that_dies_in_the_middle_takes_the_idle_ones_with_it(dsn: str) -> None:
    with closing(Database(dsn)) as database:
        with Holding(database, 2):
            pass  # two idle ones now
        with pytest.raises(StoreUnavailable), database.transaction() as cursor:
            cursor.execute("select pg_terminate_backend(pg_backend_pid())")
        assert pool_of(dsn).figures().idle == 0
        assert pid(database) > 0


def test_a_restart_of_the_server_is_no_error_afterwards(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path, "fsync = off\n")
    server.start()
    try:
        pool_of(server.dsn).limit(Limits(4, 1), "main", NAME)
        with closing(Database(server.dsn)) as database:
            statements = PerThread(lambda: database)
            with Holding(database, 3):
                pass
            server.stop(immediate=True)
            with pytest.raises(StoreUnavailable, match="is unavailable"):
                statements.rows("select 1")
            server.start()
            assert [statements.rows("select 1") for _ in range(5)] == [[(1,)]] * 5
            with database.transaction() as cursor:
                cursor.execute("select 1")
    finally:
        server.stop(immediate=True)


def test_statements_are_prepared_once_a_connection(dsn: str) -> None:
    with closing(Database(dsn)) as database, ThreadPoolExecutor(8) as threads:
        pool_of(dsn).limit(Limits(4, 2, 30), "main", NAME)
        statements = PerThread(lambda: database)
        found = threads.map(lambda _: statements.prepared("the_token", "select $1", bytes(16)), range(200))
        assert list(found) == [[(bytes(16),)]] * 200


def test_an_open_transaction_never_comes_back_to_the_pool(dsn: str) -> None:
    with closing(Database(dsn)) as database:
        with database.reading() as cursor:
            cursor.execute("begin")
            cursor.execute("create table left_open (a integer)")
        with database.reading() as cursor:
            cursor.execute("select to_regclass('left_open') is null")
            assert cursor.fetchone() == (True,)


def test_idle_connections_are_closed_after_a_while(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_pool, "IDLE_S", 0.05)
    with closing(Database(dsn)) as database:
        with Holding(database, 2):
            pass
        until(lambda: pool_of(dsn).figures().idle == 0)
        until(lambda: backends(dsn) == 0)
        assert pid(database) > 0


def test_old_connections_are_not_kept(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(Database(dsn)) as database:
        first = pid(database)
        assert pid(database) == first
        monkeypatch.setattr(connection_pool, "OLDEST_S", 0.0)
        assert pid(database) == first  # and is closed now
        assert pid(database) != first


def test_the_last_who_closes_leaves_nothing_behind(dsn: str) -> None:
    one, other = Database(dsn), Database(dsn, lane=Lane.WORK)
    assert pid(one) == pid(other)
    one.close()
    assert backends(dsn) == 1
    other.close()
    until(lambda: backends(dsn) == 0)
    assert pid(one) > 0  # used again, it counts again
    one.close()
    until(lambda: backends(dsn) == 0)


def test_dedicated_connections_are_counted_beside_the_pool(dsn: str) -> None:
    with closing(Dedicated(dsn, "of its own")) as own:
        assert pool_of(dsn).figures().dedicated == 0
        first = pid(own)
        assert pool_of(dsn).figures()[2:6] == (0, 0, 0, 1)
        assert pid(own) == first
    assert pool_of(dsn).figures().dedicated == 0


@pytest.fixture
def few(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    """A server with room for a handful of connections."""
    server = EmbeddedPostgres(tmp_path, "fsync = off\nsuperuser_reserved_connections = 0\n", connections=5)
    server.start()
    yield server
    server.stop(immediate=True)


def test_a_full_server_is_waited_for_and_then_said_to_be_full(few: EmbeddedPostgres) -> None:
    pool_of(few.dsn).limit(Limits(4, 2, 0.3), "main", NAME)
    with ExitStack() as others, closing(Database(few.dsn)) as database:
        taken = []
        while True:
            try:
                taken.append(others.enter_context(closing(psycopg2.connect(few.dsn))))
            except psycopg2.OperationalError:
                break
        assert taken
        with pytest.raises(ConnectionsInUse, match="PostgreSQL has no free connections"):
            pid(database)
        with pytest.raises(ConnectionsInUse, match="PostgreSQL has no free connections"):
            Dedicated(few.dsn, "of its own").connection()
        pool_of(few.dsn).limit(Limits(4, 2, 30), "main", NAME)
        with ThreadPoolExecutor(1) as thread:
            waits = thread.submit(pid, database)
            until(lambda: pool_of(few.dsn).figures().in_use == 1)
            taken[0].close()
            assert waits.result(30) > 0
