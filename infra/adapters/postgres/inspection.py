"""What `touchfold doctor` and /health check in PostgreSQL itself: pages, clock, sizes, and that rows add up."""

from collections.abc import Iterator
from datetime import datetime
from typing import Final, NamedTuple

from infra.adapters.postgres.database import Database
from schemas.errors import StoreUnavailable

_TABLES: Final = """
select quote_ident(n.nspname) || '.' || quote_ident(c.relname)
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'm', 't') and c.relpersistence = 'p' and has_table_privilege(c.oid, 'select')
  and has_schema_privilege(n.oid, 'usage') and not (n.nspname = 'pg_catalog' and c.relname = 'pg_statistic')
order by c.relpages, 1
"""
_READ_PAGES: Final = (
    "set local enable_indexscan = off; set local enable_indexonlyscan = off; set local enable_bitmapscan = off; "
    "set local statement_timeout = 0"
)
_HEADS: Final = """
select h.partition, h.next_offset, count(l."offset"), coalesce(max(l."offset") + 1, 0)
from log_head h left join event_log l on l.partition = h.partition
group by h.partition, h.next_offset order by h.partition
"""
_DROPPED: Final = "42P01"  # undefined_table


class Head(NamedTuple):
    """A log partition: the next offset according to its head; how many rows it has, and the offset after the last."""

    partition: int
    next_offset: int
    rows: int
    end: int


def answers(database: Database) -> None:
    """Raises StoreUnavailable if it does not answer."""
    database.one("select 1")


def server(database: Database) -> tuple[str, str]:
    """PostgreSQL's version, and the database's size in readable form."""
    row = database.one("select current_setting('server_version'), pg_size_pretty(pg_database_size(current_database()))")
    assert row is not None, "a select of settings gave no row"
    return str(row[0]), str(row[1])


def server_time(database: Database) -> datetime:
    row = database.one("select clock_timestamp()")
    assert row is not None, "the database has no clock"
    found: datetime = row[0]
    return found


def cluster_bytes(database: Database) -> int:
    """Of all databases on the server."""
    row = database.one("select coalesce(sum(pg_database_size(oid)), 0)::bigint from pg_database")
    return int(row[0]) if row else 0


def migration(database: Database) -> int:
    """The number of the newest migration; 0 if there is none."""
    row = database.one("select coalesce(max(number), 0) from migrations")
    return int(row[0]) if row else 0


# --- pages -------------------------------------------------------------------------------------------------------


def checksum_failures(database: Database) -> list[tuple[str | None, int]]:
    """(database, pages) that had a wrong checksum when any session read them. PostgreSQL counts them."""
    query = "select datname, checksum_failures from pg_stat_database where checksum_failures > 0"
    with database.reading() as cursor:
        cursor.execute(query)
        return [(name, int(count)) for name, count in cursor.fetchall()]


def readable_tables(database: Database) -> list[str]:
    """Every table that we may read, smallest first."""
    with database.reading() as cursor:
        cursor.execute(_TABLES)
        return [str(row[0]) for row in cursor.fetchall()]


def damaged(database: Database, tables: list[str]) -> Iterator[tuple[str, str]]:
    """Reads every page of these tables; (table, message) for each with a damaged page."""
    for table in tables:
        try:
            with database.transaction() as cursor:
                cursor.execute(_READ_PAGES)
                cursor.execute(f"select count(*) from {table}")
        except StoreUnavailable as err:
            if err.code != "database_damaged":
                raise
            yield table, err.message
        except Exception as err:
            if getattr(err, "pgcode", None) != _DROPPED:  # dropped since: a revision was retired
                raise


# --- that rows add up --------------------------------------------------------------------------------------------


def heads(database: Database) -> list[Head]:
    """One statement, so one snapshot, even while `up` appends."""
    with database.reading() as cursor:
        cursor.execute(_HEADS)
        return [Head(*(int(value) for value in row)) for row in cursor.fetchall()]


def progress_rows(database: Database) -> list[tuple[int, int, int]]:
    """(revision, partition, next offset) of all revisions."""
    with database.reading() as cursor:
        cursor.execute("select revision, partition, next_offset from progress order by 1, 2")
        return [(int(revision), int(partition), int(at)) for revision, partition, at in cursor.fetchall()]


def live_revisions(database: Database) -> list[int]:
    """Exactly one, if all is well."""
    with database.reading() as cursor:
        cursor.execute("select revision from revisions where state = 'live'")
        return [int(row[0]) for row in cursor.fetchall()]


def finished_erasures(database: Database) -> int:
    row = database.one("select count(*) from jobs where kind = 'erase' and finished_at is not null")
    return int(row[0]) if row else 0


def unfinished_jobs(database: Database) -> int:
    row = database.one("select count(*) from jobs where finished_at is null")
    return int(row[0]) if row else 0


def knows_identifiers(database: Database) -> bool:
    """Whether the main database knows identifiers and none was erased: then its vault cannot be empty."""
    row = database.one("select exists (select from tokens) and not exists (select from erased_tokens)")
    return bool(row and row[0])
