"""A rolling upgrade: records of a new version are written only when all who read the log can read them."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from infra.adapters.postgres.database import Database
from infra.adapters.postgres.presence import Presence
from infra.adapters.postgres.record_gate import RecordGate, floor_of, raise_floor
from infra.app.bootstrap import session
from infra.app.first_start import prepare
from schemas.errors import BadRequest
from schemas.record import VERSION
from schemas.record_gate import version_to_write
from tests.conftest import Databases

NEW = 3  # what a build of tomorrow reads and writes


@pytest.fixture
def database(databases: Databases) -> Iterator[Database]:
    with closing(Database(databases.main)) as database:
        yield database


def written(database: Database, own: int = NEW) -> int:
    """What a door of a build would write now."""
    return RecordGate(database, own).version()


def test_a_rolling_upgrade_and_back_writes_only_what_all_who_live_can_read(
    database: Database, databases: Databases
) -> None:
    with ExitStack() as old, ExitStack() as new:
        for role in ("worker", "archive", "serve"):
            old.enter_context(Presence(databases.main, role, reads=1))
        assert written(database) == 1, "an upgraded door among old readers"
        with pytest.raises(BadRequest, match=r"archive on .*, serve on .*, worker on "):
            raise_floor(database, NEW, own=NEW)
        for role in ("worker", "archive", "serve"):
            new.enter_context(Presence(databases.main, role, reads=NEW))
        old.close()
        assert written(database) == 1, "a reader that is stopped just now may be an old one: people say when not"
        assert raise_floor(database, NEW, own=NEW) == 1
        assert (floor_of(database), written(database)) == (NEW, NEW)
        assert written(database, own=1) == 1, "an old door goes on"
        with Presence(databases.main, "worker", reads=1):
            assert written(database) == 1, "an old worker came back"
        assert written(database) == NEW
        assert raise_floor(database, 1, own=NEW) == NEW
        assert floor_of(database) == NEW, "it never falls: records of it may be in the log"
    with pytest.raises(BadRequest, match="up to version 1"):
        raise_floor(database, NEW, own=1)


def test_what_a_gate_found_holds_as_long_as_a_row_of_presence(database: Database, databases: Databases) -> None:
    at = 0.0
    raise_floor(database, NEW, own=NEW)
    gate = RecordGate(database, NEW, lambda: at)
    assert gate.version() == NEW
    with Presence(databases.main, "worker", reads=1):
        assert gate.version() == NEW
        at = 3.0
        assert gate.version() == 1


def test_the_lowest_of_all_counts_and_version_1_is_always_written() -> None:
    assert version_to_write(3, 3, [3, 2, 3]) == 2
    assert version_to_write(3, 1, [3]) == 1
    assert version_to_write(2, 3, []) == 2
    assert version_to_write(2, 2, [0]) == 1


def test_a_new_database_starts_at_its_builds_own_version_and_one_folder_never_waits_for_people(
    tmp_path: Path,
) -> None:
    with session(tmp_path) as here, closing(Database(here.dsn)) as database:
        assert (floor_of(database), written(database, VERSION)) == (VERSION, VERSION)
        with database.transaction() as cursor:  # as a build that knew version 1 alone left it
            cursor.execute("delete from meta where key = 'record_floor'")
        assert written(database, VERSION) == 1
        prepare(here.settings, here.adapters)
        assert written(database, VERSION) == VERSION
