"""A pooler before PostgreSQL: one by transactions is refused at the start, one by sessions works."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import psycopg2
import pytest
from psycopg2.extensions import make_dsn, parse_dsn

from infra.adapters.postgres.connect import PooledConnection, connect
from infra.adapters.postgres.own import OwnPostgres
from infra.adapters.postgres.pooler import shares_backends
from infra.adapters.postgres.server_account import as_account, server_account
from schemas.errors import ServiceFailed
from tests.conftest import PASSWORD, Databases
from tests.integration.running import until
from tests.kafka_broker import free_port

PGBOUNCER = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
Pooled = Callable[..., Databases]


@pytest.fixture
def pooled(databases: Databases, tmp_path: Path) -> Iterator[Pooled]:
    """The databases through a PgBouncer of this mode, with these further settings."""
    if PGBOUNCER is None:
        pytest.skip("pgbouncer is not installed: apt-get install pgbouncer")
    started: list[subprocess.Popen[bytes]] = []

    def start(mode: str, *settings: str) -> Databases:
        port = free_port()
        server = parse_dsn(databases.main)
        where = f"host={server['host']} port={server['port']} user={server['user']} password={PASSWORD}"
        lines = [
            *("[databases]", f"* = {where}", "[pgbouncer]", "listen_addr = 127.0.0.1", f"listen_port = {port}"),
            *("unix_socket_dir =", "auth_type = any", f"pool_mode = {mode}"),
            *settings,
        ]
        config = tmp_path / f"{mode}.ini"
        config.write_text("\n".join(lines))
        # it refuses to run as root, as PostgreSQL does
        command = as_account([PGBOUNCER, "-q", str(config)], server_account(), [config])
        started.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
        here = {"host": "127.0.0.1", "port": str(port)}
        through = Databases(*(make_dsn(dsn, **here) for dsn in databases))

        def answers() -> bool:
            assert started[-1].poll() is None, "pgbouncer ended"
            with suppress(psycopg2.OperationalError), closing(psycopg2.connect(through.main)):
                return True
            return False

        until(answers, "pgbouncer")
        return through

    yield start
    for process in started:
        process.terminate()
        process.wait(10)


OPTIONS = "ignore_startup_parameters = options"


@pytest.mark.parametrize("mode", ["transaction", "statement"])
@pytest.mark.parametrize("order", ["server_round_robin = 0", "server_round_robin = 1"])
def test_a_pooler_by_transactions_or_statements_is_refused_at_the_start(
    mode: str, order: str, pooled: Pooled, tmp_path: Path
) -> None:
    through = pooled(mode, OPTIONS, order, "default_pool_size = 5")
    with pytest.raises(ServiceFailed, match=r"TOUCHFOLD_DATABASE goes through a pooler .* pool_mode = session"):
        OwnPostgres(tmp_path / "data", *through).start()


def test_a_pool_with_many_idle_connections_is_found_out_too(pooled: Pooled, tmp_path: Path) -> None:
    through = pooled("transaction", OPTIONS, "server_round_robin = 1", "default_pool_size = 9")
    busy: list[PooledConnection] = [connect(through.main) for _ in range(8)]
    for each in busy:
        with each.cursor() as cursor:
            cursor.execute("select 1")  # holds a backend each until all of them have one
    for each in busy:
        each.close()
    assert shares_backends(through.main)


def test_a_vault_behind_such_a_pooler_is_refused_by_its_own_name(
    databases: Databases, pooled: Pooled, tmp_path: Path
) -> None:
    through = pooled("transaction", OPTIONS)
    with pytest.raises(ServiceFailed, match="TOUCHFOLD_VAULT goes through a pooler"):
        OwnPostgres(tmp_path / "data", databases.main, through.vault).start()


def test_a_pooler_by_sessions_works(pooled: Pooled, tmp_path: Path) -> None:
    OwnPostgres(tmp_path / "data", *pooled("session", OPTIONS)).start()


def test_a_pooler_that_refuses_our_options_is_named_with_the_way_out(pooled: Pooled, tmp_path: Path) -> None:
    with pytest.raises(ServiceFailed, match=r"there is a pooler in front of it.*pool_mode = session"):
        OwnPostgres(tmp_path / "data", *pooled("session")).start()


def test_a_pooler_that_drops_our_time_zone_is_refused(databases: Databases, pooled: Pooled, tmp_path: Path) -> None:
    with closing(connect(databases.main)) as connection, connection.cursor() as cursor:
        cursor.execute(
            "alter role current_user in database {} set timezone = 'Asia/Tokyo'".format(
                parse_dsn(databases.main)["dbname"]
            )
        )
        connection.commit()
    with pytest.raises(ServiceFailed, match=r"it is Asia/Tokyo, must be UTC"):
        OwnPostgres(tmp_path / "data", *pooled("session", OPTIONS)).start()


def test_postgresql_itself_is_not_taken_for_a_pooler(databases: Databases, tmp_path: Path) -> None:
    assert not shares_backends(databases.main)
    OwnPostgres(tmp_path / "data", *databases).start()
