"""Fixtures shared by the suites: one real PostgreSQL a session, fresh databases a test."""

import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import NamedTuple

import psycopg2
import pytest

from infra.adapters.embedded_postgres import EmbeddedPostgres
from infra.adapters.migrations import migrate
from tests.kafka_broker import kafka  # noqa: F401  # the fixture; its broker starts where a test asks for it

_NUMBERS = count(1)


class Databases(NamedTuple):
    """Connection strings of a test's own main and vault databases, migrated and empty."""

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
    yield postgres
    postgres.stop(immediate=True)  # nobody needs its files again


def create_database(server: EmbeddedPostgres, template: str, name: str) -> str:
    connection = psycopg2.connect(server.dsn.replace("dbname=touchfold", "dbname=postgres"))
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(f"create database {name} template {template}")
    connection.close()
    return server.dsn.replace("dbname=touchfold", f"dbname={name}")


def new_databases(server: EmbeddedPostgres) -> Databases:
    """Databases of their own, migrated and empty."""
    number = next(_NUMBERS)
    return Databases(
        create_database(server, "touchfold", f"main_{number}"),
        create_database(server, "touchfold_vault", f"vault_{number}"),
    )


@pytest.fixture
def databases(server: EmbeddedPostgres) -> Databases:
    """Fresh, migrated databases for one test."""
    return new_databases(server)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The large data sets beside the checkout; a test that needs them skips where they are absent."""
    folder = Path(os.environ.get("TOUCHFOLD_SHARED", Path(__file__).parents[2] / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip(f"the large data sets are not at {folder}: set TOUCHFOLD_SHARED")
    return folder
