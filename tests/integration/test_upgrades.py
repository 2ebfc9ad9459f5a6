"""A deployment of any earlier build becomes one of this build, and nothing in it is lost or different afterwards."""

import gzip
import os
import subprocess
from contextlib import closing
from itertools import count
from pathlib import Path

import pytest
from psycopg2.extensions import make_dsn, parse_dsn

from infra.adapters.postgres.database import Database
from infra.adapters.postgres.embedded import EmbeddedPostgres, binaries
from infra.adapters.postgres.migrate import FOLDER
from infra.app.bootstrap import session
from infra.app.checks import states
from infra.app.databases import database_of
from infra.app.doctor import on_session
from infra.app.drain import drain
from infra.app.log import log_of
from infra.app.vault import vault_of
from infra.drivers.http.health import Health
from schemas.record import Pending, encode
from tests.conftest import OWNER, PASSWORD, as_superuser
from tests.integration.running import command, result
from tests.records import purchase

DUMPS = Path(__file__).parents[1] / "data" / "schemas"
VERSIONS = sorted(path.name[:4] for path in DUMPS.glob("*_main.sql.gz"))
KEY = "ab" * 32
_NUMBERS = count(1)


def load_dump(server: EmbeddedPostgres, dump: Path) -> str:
    """A database of the plain owner with what a dump holds; its connection string."""
    name = f"of_{dump.name[:4]}_{next(_NUMBERS)}"
    as_superuser(server, f"create database {name} template template0 owner {OWNER}")
    dsn = str(make_dsn(server.dsn, dbname=name, user=OWNER, password=PASSWORD))
    done = subprocess.run(
        [str(binaries() / "psql"), "-q", "-v", "ON_ERROR_STOP=1", "-d", dsn],
        input=gzip.decompress(dump.read_bytes()),
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return dsn


def deployment(server: EmbeddedPostgres, version: str) -> dict[str, str]:
    return {
        "DATABASE": load_dump(server, DUMPS / f"{version}_main.sql.gz"),
        "VAULT": load_dump(server, DUMPS / f"{version}_vault.sql.gz"),
        "MASTER_KEY": KEY,
    }


def test_the_build_before_every_migration_is_there() -> None:
    numbers = sorted(int(path.name[:4]) for path in FOLDER.glob("[0-9]*_main.sql"))
    assert [int(each) for each in VERSIONS][:5] == [1, 2, 3, 4, 10]
    assert int(VERSIONS[-1]) in numbers


@pytest.mark.parametrize("version", VERSIONS)
def test_data_of_an_earlier_build_is_what_its_log_says_after_the_upgrade(
    version: str, server: EmbeddedPostgres, tmp_path: Path
) -> None:
    settings = deployment(server, version)
    at = ("--data", str(tmp_path / "data"))
    begun = command("status", "--json", *at, **settings)
    assert "an earlier build folded this data: revision 2 folds the log again" in begun.stderr
    assert revisions(settings) == [(1, "live", "initial"), (2, "building", "rebuild")]
    again = command("status", "--json", *at, **settings)
    assert "an earlier build" not in again.stderr, "begun once"
    verdict = result("rebuild", "--check", *at, **settings)
    assert (verdict["equal"], verdict["profiles"]) == (True, 29)
    assert revisions(settings) == [(1, "retired", "initial"), (2, "live", "rebuild")]
    result("status", *at, **settings)
    assert len(revisions(settings)) == 2


def revisions(settings: dict[str, str]) -> list[tuple[int, str, str]]:
    with closing(Database(settings["DATABASE"])) as database, database.reading() as cursor:
        cursor.execute("select revision, state, cause from revisions order by revision")
        return [(int(row[0]), str(row[1]), str(row[2])) for row in cursor.fetchall()]


def test_definitions_applied_while_states_are_an_earlier_builds_are_folded_anew(tmp_path: Path) -> None:
    """A change that keeps the layout copies the states; not those that an earlier build folded."""
    data = tmp_path / "data"
    at = ("--data", str(data))
    with session(data) as here:
        vault_of(here).hold_lease()
        log_of(here).append([Pending(bytes(16), encode(purchase([("user_id", "ada")], "o1", "20.00")))])
        drain(here)
        with closing(database_of(here, "test")) as database, database.transaction() as cursor:
            cursor.execute("delete from meta where key = 'layout'")
            cursor.execute("update states_r1 set signature = gen_random_uuid()")  # what no fold of this build makes
    folder = tmp_path / "definitions"
    folder.mkdir()
    (folder / "more.yaml").write_text("segments: {buyers: {when: {trait: lifetime_orders, op: gte, value: 1}}}\n")
    result("apply", str(folder), *at)
    assert result("rebuild", "--check", *at)["equal"] is True
    assert result("segment", "show", "buyers", *at)["size"] == 1


def test_an_older_build_refuses_what_a_newer_one_migrated(server: EmbeddedPostgres, tmp_path: Path) -> None:
    settings = deployment(server, VERSIONS[-1])
    for which, key in (("main", "DATABASE"), ("vault", "VAULT")):
        database = Database(settings[key])
        with database.transaction() as cursor:
            cursor.execute("insert into migrations values (9999, 'of a newer build')")
        refused = command("status", "--data", str(tmp_path / "data"), **settings)
        assert refused.returncode == 1
        assert f"the {which} database is at migration 9999" in refused.stderr
        assert "restore a backup taken before the upgrade" in refused.stderr
        with database.transaction() as cursor:
            cursor.execute("delete from migrations where number = 9999")
        database.close()
    assert parse_dsn(settings["DATABASE"])["user"] == OWNER


def test_states_that_were_not_folded_again_are_told(tmp_path: Path) -> None:
    """A rebuild for a newer layout that has failed: `doctor` and /health say so until another one is live."""
    with session(tmp_path / "data") as here, closing(database_of(here, "test")) as database:
        assert states(here.dsn).ok
        with database.transaction() as cursor:
            cursor.execute("update meta set value = jsonb_set(value, '{since}', '2') where key = 'layout'")
            cursor.execute(
                "insert into revisions (revision, state, cause, definitions, content_hash, created_at, message)"
                " select 2, 'failed', 'rebuild', definitions, content_hash, now(), 'no room' from revisions"
            )
        found = {each.check: each for each in on_session(here)}["states"]
        assert not found.ok
        assert "revision 2, which folds the log again, has failed: no room" in found.detail
        assert "touchfold rebuild" in found.fix
        problems = {each["check"] for each in Health(here).look()["problems"]}
        assert "states" in problems
        with database.transaction() as cursor:
            cursor.execute("update revisions set state = 'building', done = 0.5 where revision = 2")
        found = states(here.dsn)
        assert (found.ok, "50%" in found.detail) == (True, True)
