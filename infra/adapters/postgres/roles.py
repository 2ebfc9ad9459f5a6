"""Which processes of each role are alive or silent, and how far the publisher is, as far as PostgreSQL knows."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from infra.adapters.postgres.database import Database
from infra.adapters.postgres.presence import ALIVE_S

ROLES: Final = ("http", "inbox", "worker", "archive", "publish", "ui")
COUNTED: Final = 100_000  # unpublished changes are counted up to this number: each costs an index look-up
_PROCESSES: Final = """
select role, extract(epoch from now() - seen_at)::float8, extract(epoch from now() - started_at)::float8 from processes
"""
_UNPUBLISHED: Final = """
with place as (
    select coalesce(max(seq), 0) seq, coalesce(max(idx), -1) idx from publishers where name = 'changes')
select count(*), extract(epoch from now())::float8 - min(at_us) / 1e6 from (
    select c.at_us from place p join feed_batches b on b.seq >= p.seq join changes c using (batch)
    where b.seq > p.seq or c.idx > p.idx order by b.seq, c.idx limit %s) waiting
"""


class Role(NamedTuple):
    """`alive`: processes that renewed their row; `silent`: those that stopped doing so without signing off.

    `oldest_s`: age of the oldest sign of life among both; None if there is none.
    """

    alive: int
    silent: int
    oldest_s: float | None


class Unpublished(NamedTuple):
    """Changes of the feed not yet on any topic, counted up to COUNTED, and the age of the oldest."""

    changes: int
    oldest_s: float | None


def roles(database: Database) -> dict[str, Role]:
    """By process role. A silent process counts until another of its role is started after it."""
    with database.reading() as cursor:
        cursor.execute(_PROCESSES)
        rows = cursor.fetchall()
    return {role: _role([(seen, started) for name, seen, started in rows if name == role]) for role in ROLES}


def _role(rows: Sequence[tuple[float, float]]) -> Role:
    """(seconds since it was last seen, seconds since it started) of each process."""
    alive = [row for row in rows if row[0] <= ALIVE_S]
    silent = sorted(seen for seen, _ in rows if seen > ALIVE_S)  # most recent first
    for started in sorted((started for _, started in alive), reverse=True):
        replaced = next((seen for seen in silent if started <= seen), None)
        if replaced is not None:
            silent.remove(replaced)
    ages = [seen for seen, _ in alive] + silent
    return Role(len(alive), len(silent), max(ages, default=None))


def unpublished(database: Database) -> Unpublished:
    with database.reading() as cursor:
        cursor.execute(_UNPUBLISHED, (COUNTED,))
        row: Any = cursor.fetchone()
    return Unpublished(int(row[0]), None if row[1] is None else max(0.0, float(row[1])))
