"""Whether a pooler by transactions stands before PostgreSQL: found out by use, for none of them says what it is."""

from contextlib import closing
from typing import Final

import psycopg2

from infra.adapters.postgres.connect import PooledConnection, connect, mapped

TRIES: Final = 3  # one finds it where a pool gives the connection used last, two where it goes round
_PID: Final = "select pg_backend_pid()"


def shares_backends(dsn: str) -> bool:
    """Whether two of our connections are given one backend, or one of them different backends in turn.

    Then what a session keeps (advisory locks, temporary tables, LISTEN, settings) is somebody else's the moment a
    transaction ends. Between the transactions of one connection another one holds a transaction open, so that the
    pooler has to give either of them another backend. Raises StoreUnavailable.
    """
    with closing(connect(dsn, "touchfold check")) as one, closing(connect(dsn, "touchfold check")) as other:
        one.autocommit = True
        with mapped():
            own = _pid(one)
        for _ in range(TRIES):
            try:
                held = _pid(other)
            except psycopg2.Error:  # a pooler by statements ends who begins a transaction, and nobody else
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
