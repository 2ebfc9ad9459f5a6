"""Which roles of a cluster live, which ended without a word, and what the doctor says of one that is missing."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from infra.adapters.postgres.database import Database
from infra.adapters.postgres.roles import Role, Unpublished, roles, unpublished
from infra.app.lags import ARCHIVE_LATE_S, PUBLISH_LATE_S, Lags, missing
from tests.conftest import Databases

NONE = Unpublished(0, None)


@pytest.fixture
def database(databases: Databases) -> Iterator[Database]:
    with closing(Database(databases.main, "touchfold test")) as database:
        yield database


def lives(database: Database, name: str, role: str, seen_s: float, started_s: float) -> None:
    with database.transaction() as cursor:
        cursor.execute(
            "insert into processes (id, role, host, pid, started_at, seen_at) values (%s, %s, 'h', 1,"
            " now() - make_interval(secs => %s), now() - make_interval(secs => %s))",
            (name, role, started_s, seen_s),
        )


def test_the_newest_sign_of_life_does_not_hide_the_dead(database: Database) -> None:
    lives(database, "a", "worker", 1, 5_000)
    lives(database, "b", "worker", 600, 5_000)  # killed, and nobody took its place
    lives(database, "c", "publish", 300, 4_000)
    lives(database, "d", "publish", 2, 290)  # started after the one that was killed
    found = roles(database)
    assert (found["worker"].alive, found["worker"].silent) == (1, 1)
    assert 600 <= (found["worker"].oldest_s or 0) < 660
    assert (found["publish"].alive, found["publish"].silent) == (1, 0)
    assert (found["publish"].oldest_s or 99) < 60
    assert found["archive"] == Role(0, 0, None)


def test_changes_that_no_topic_has_are_counted_with_the_age_of_the_oldest(database: Database) -> None:
    assert unpublished(database) == Unpublished(0, None)
    with database.transaction() as cursor:
        cursor.execute("insert into feed_batches (seq) values (1), (2) returning batch")
        batches = [row[0] for row in cursor.fetchall()]
        for batch, ages in zip(batches, ([500, 400], [300]), strict=True):
            for idx, age in enumerate(ages):
                cursor.execute(
                    "insert into changes (batch, idx, id, type, profile_id, version, at_us, cause) values (%s, %s,"
                    " gen_random_uuid(), 'x', gen_random_uuid(), 1, (extract(epoch from now()) - %s) * 1000000, 'x')",
                    (batch, idx, age),
                )
    assert unpublished(database).changes == 3
    assert 500 <= (unpublished(database).oldest_s or 0) < 560
    with database.transaction() as cursor:
        cursor.execute("insert into publishers (name, seq, idx) values ('changes', 1, 0)")
    assert unpublished(database).changes == 2
    assert 400 <= (unpublished(database).oldest_s or 0) < 460


ALL = {name: Role(1, 0, 1.0) for name in ("http", "inbox", "worker", "archive", "publish")}


@pytest.mark.parametrize(
    ("role", "command", "lags"),
    [
        ("inbox", "ingest", Lags(ALL, NONE, 3, 0.0, 0)),
        ("worker", "worker", Lags(ALL, NONE, 0, 0.0, 0)),
        ("archive", "archive", Lags(ALL, NONE, 0, ARCHIVE_LATE_S + 1, 0)),
        ("publish", "publish", Lags(ALL, Unpublished(2, PUBLISH_LATE_S + 1), 0, 0.0, 0)),
    ],
)
def test_a_role_that_something_waits_for_is_named_with_its_command(role: str, command: str, lags: Lags) -> None:
    assert [each.ok for each in missing(lags)] == [True]
    lags = lags._replace(roles={name: each for name, each in ALL.items() if name != role})
    found = [each for each in missing(lags) if not each.ok]
    assert [each.check for each in found] == [f"role {role}"]
    assert f"touchfold {command}" in found[0].fix


def test_without_pages_and_without_work_nothing_is_missing() -> None:
    assert [each.ok for each in missing(Lags({}, NONE, 0, 0.0, 0))] == [True]
    silent = next(each for each in missing(Lags(ALL | {"worker": Role(1, 2, 700.0)}, NONE, 0, 0.0, 0)) if not each.ok)
    assert "2 worker" in silent.detail
