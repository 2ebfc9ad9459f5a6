"""Fixtures shared by the suites: one real PostgreSQL per session, fresh databases per test."""

import os
import re
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import NamedTuple

import psycopg2
import pytest
from hypothesis import settings
from psycopg2.extensions import make_dsn

from infra.adapters.postgres.embedded import EmbeddedPostgres
from infra.adapters.postgres.migrate import migrate
from tests.kafka_broker import kafka  # noqa: F401  # the fixture; its broker starts where a test asks for it

_NUMBERS = count(1)

# The suites start about a thousand processes: each would recompile our modules, a third of its startup CPU time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

settings.register_profile("touchfold", deadline=None)  # an example's duration mostly reflects how busy the machine is
settings.load_profile("touchfold")


class Databases(NamedTuple):
    """Connection strings of one test's own main and vault databases, migrated and empty."""

    main: str
    vault: str


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL server whose two databases are migrated and serve as templates."""
    relaxed = "fsync = off\nsynchronous_commit = off\nfull_page_writes = off\nautovacuum = off\n"
    postgres = EmbeddedPostgres(tmp_path_factory.mktemp("server"), relaxed)
    postgres.start()
    migrate(postgres.dsn, "main")
    migrate(postgres.vault_dsn, "vault")
    make_plain_owner(postgres)
    yield postgres
    postgres.stop(immediate=True)  # nobody needs its files again


def create_database(server: EmbeddedPostgres, template: str, name: str) -> str:
    """Create a database owned by the superuser, for tests that need one; returns its connection string."""
    as_superuser(server, f"create database {name} template {template}")
    return server.dsn.replace("dbname=touchfold", f"dbname={name}")


def as_superuser(server: EmbeddedPostgres, *statements: str) -> None:
    connection = psycopg2.connect(server.dsn.replace("dbname=touchfold", "dbname=postgres"))
    connection.autocommit = True
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
    connection.close()


CLUSTER_MD = Path(__file__).parents[1] / "docs" / "cluster.md"
OWNER = "plain_owner"
PASSWORD = "touchfold-password"  # of the account in docs/cluster.md


def account_of_the_docs(name: str) -> list[str]:
    """The statements of docs/cluster.md that create the account and its databases, under another name."""
    found = re.search(r"```sql\n(create role touchfold .*?)```", CLUSTER_MD.read_text(), re.DOTALL)
    assert found is not None, "docs/cluster.md says how the account is made"
    text = re.sub(r"\btouchfold(_vault)?\b(?!-)", rf"{name}\1", found[1])
    return [each.strip() for each in text.split(";") if each.strip()]


def make_plain_owner(server: EmbeddedPostgres) -> None:
    """Create the account of docs/cluster.md: it owns its databases, used as templates, and has no other rights."""
    as_superuser(server, *account_of_the_docs(OWNER))
    for database, which in ((OWNER, "main"), (f"{OWNER}_vault", "vault")):
        migrate(make_dsn(server.dsn, dbname=database, user=OWNER, password=PASSWORD), which)


def new_databases(server: EmbeddedPostgres) -> Databases:
    """New databases, migrated and empty; the account that uses them owns them and has no other rights."""
    number = next(_NUMBERS)
    names = {f"main_{number}": OWNER, f"vault_{number}": f"{OWNER}_vault"}
    as_superuser(server, *(f"create database {name} template {made} owner {OWNER}" for name, made in names.items()))
    return Databases(*(make_dsn(server.dsn, dbname=name, user=OWNER, password=PASSWORD) for name in names))


@pytest.fixture
def databases(server: EmbeddedPostgres) -> Databases:
    """Fresh, migrated databases for one test, owned by an ordinary account."""
    return new_databases(server)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The large data sets next to the checkout; tests that need them are skipped if they are absent."""
    folder = Path(os.environ.get("TOUCHFOLD_SHARED", Path(__file__).parents[2] / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip(f"the large data sets are not at {folder}: set TOUCHFOLD_SHARED")
    return folder
