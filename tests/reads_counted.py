"""How many rows of a table PostgreSQL visits for a read, by its own counters: reveals plans that scan."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Final

import psycopg2

DEADLINE_S: Final = 20.0
BIG: Final = (
    *("profiles_r1", "states_r1", "memberships_r1", "tokens", "evidence", "evidence_tokens", "register", "search"),
    *("event_log_0", "event_log_1", "event_log_2", "event_log_3", "changes", "feed_batches", "dead_letters"),
    *("audit_log", "segment_days"),
)
"""Tables that grow with customers, events or time."""
_ROWS: Final = """
select t.relname, t.seq_tup_read + coalesce((
    select sum(i.idx_tup_read) from pg_stat_user_indexes i where i.relid = t.relid), 0)
from pg_stat_user_tables t where t.relname = any(%s)
"""


def rows_read(dsn: str, read: Callable[[], object]) -> Counter[str]:
    """Rows and index entries visited while `read` ran, by table."""
    before = _counted(dsn)
    read()
    found = _counted(dsn)
    found.subtract(before)
    return Counter({table: rows for table, rows in found.items() if rows > 0})


def _counted(dsn: str) -> Counter[str]:
    """The counters. Sessions report at the latest when they end, so all others are ended; readers reconnect."""
    connection = psycopg2.connect(dsn)
    connection.autocommit = True
    with connection.cursor() as cursor:
        deadline = time.monotonic() + DEADLINE_S
        others = "from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
        while True:
            cursor.execute(f"select pg_terminate_backend(pid) {others} and backend_type = 'client backend'")
            cursor.execute(f"select count(*) {others} and backend_type = 'client backend'")
            row = cursor.fetchone()
            if row == (0,):
                break
            assert time.monotonic() < deadline, "a session did not end"
            time.sleep(0.02)
        cursor.execute(_ROWS, (list(BIG),))
        found = Counter({str(table): int(rows) for table, rows in cursor.fetchall()})
    connection.close()
    return found
