"""Whether a transaction pooler sits in front of PostgreSQL: found by trying, since none of them says what it is."""

from contextlib import closing
from typing import Final

import psycopg2

from infra.adapters.postgres.connect import PooledConnection, connect, mapped

TRIES: Final = 3  # one is enough if a pool hands out the last used connection, two if it rotates
_PID: Final = "select pg_backend_pid()"


def shares_backends(dsn: str) -> bool:
    """Whether two of our connections share a backend, or one of them moves between backends.

    If so, whatever a session holds (advisory locks, temporary tables, LISTEN, settings) belongs to somebody else as
    soon as a transaction ends. Between the transactions of one connection another holds one open, so the pooler has to
    use another backend for one of them. Raises StoreUnavailable.
    """
    with closing(connect(dsn, "touchfold check")) as one, closing(connect(dsn, "touchfold check")) as other:
        one.autocommit = True
        with mapped():
            own = _pid(one)
        for _ in range(TRIES):
            try:
                held = _pid(other)
            except psycopg2.Error:  # a statement pooler refuses to begin a transaction, and nothing else does
                with mapped():
                    return _pid(one) > 0
            with mapped():
                if held == own or _pid(one) != own:
                    return True
                other.rollback()
    return False


def _pid(connection: PooledConnection) -> int:
    with connection.cursor() as cursor:
        cursor.execute(_PID)
        row = cursor.fetchone()
    assert row is not None, "a function returns a row"
    return int(row[0])
