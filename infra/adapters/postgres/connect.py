"""One connection to PostgreSQL, and what its errors mean. Pooling is in connection_pool.py."""

import re
import select
from typing import Any, Final

import psycopg2
import psycopg2.extensions
from psycopg2.extensions import connection as Connection

from schemas.errors import BadRequest, ConnectionsInUse, DatabaseDamaged, DiskFull, StoreUnavailable, TouchfoldError

_DISK_FULL: Final = "53100"
_TOO_MANY_CONNECTIONS: Final = "53300"
_IDLE: Final = "25P03"  # the server ended a transaction that was idle for two minutes
_DAMAGED: Final = frozenset({"XX001", "XX002", "58030", "58P01"})  # a page, an index, an I/O error, a missing file
_OPTIONS: Final = "-c TimeZone=UTC -c standard_conforming_strings=on"
# libpq gives no SQLSTATE for a refused connection, so its message must do; it is English if the server's messages are.
_REFUSED: Final = re.compile(r"too many clients already|remaining connection slots are reserved|too many connections")
_OUTAGES: Final = frozenset({"40", "53", "57", "08"})  # serialisation and deadlock, resources, shutdown, connection


def translated(err: BaseException | None) -> TouchfoldError | None:
    """What a driver error means if it is an outage, or the cause of one with an error of its own.

    Text that PostgreSQL cannot hold (NUL, half a surrogate pair) is BadRequest: it can be neither stored nor found.
    None for everything else: integrity, SQL and our own errors stay as they are.
    """
    if isinstance(err, UnicodeEncodeError) or (isinstance(err, ValueError) and "NUL (0x00)" in str(err)):
        return BadRequest("a text contains a character that cannot be stored (NUL, or a lone surrogate): remove it")
    if not isinstance(err, psycopg2.Error):
        return None
    code = err.pgcode or ""
    if code == _DISK_FULL:
        return DiskFull("PostgreSQL has no disk space left", retry_after_s=10)
    if code in _DAMAGED:
        reason = err.diag.message_primary or "no reason given"
        return DatabaseDamaged(f"PostgreSQL cannot read its own data: {reason}", retry_after_s=60)
    if code == _TOO_MANY_CONNECTIONS or (not code and _REFUSED.search(str(err))):
        return ConnectionsInUse(
            "PostgreSQL has no free connections: close other programs that use it, or raise its max_connections "
            "(docs/decisions/0014-connections.md has the number)",
            retry_after_s=2,
        )
    # no code: the socket is gone (a server that crashes while answering leaves a bare DatabaseError)
    gone = (type(err) is psycopg2.DatabaseError and not code) or code == _IDLE
    if gone or isinstance(err, psycopg2.OperationalError | psycopg2.InterfaceError) or code[:2] in _OUTAGES:
        return StoreUnavailable(f"PostgreSQL is unavailable ({type(err).__name__})", retry_after_s=1)
    return None


class mapped:  # noqa: N801  # used like a contextlib function
    """A context that raises what `translated` makes of its error."""

    __slots__ = ()

    def __enter__(self) -> None:
        return None

    def __exit__(self, _type: object, err: BaseException | None, _traceback: object) -> None:
        meant = translated(err)
        if meant is not None:
            raise meant from err


class PooledConnection(Connection):
    """A connection and what its pool knows about it."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.prepared: set[str] = set()  # names of statements prepared on it
        self.made_at = 0.0  # monotonic seconds, as `idle_at`
        self.idle_at = 0.0
        self._poll = select.poll()
        self._poll.register(self.fileno(), select.POLLIN)

    def is_quiet(self) -> bool:
        """Whether an idle connection has nothing to read: the server only speaks unasked when it ends the connection.

        (Or after a configuration reload; then a new connection is made unnecessarily.) Takes 1 µs.
        """
        return not self._poll.poll(0)


def connect(dsn: str, name: str = "touchfold") -> PooledConnection:
    """A new connection in UTC, with `name` shown in pg_stat_activity. Raises StoreUnavailable, ConnectionsInUse."""
    with mapped():
        connection: PooledConnection = psycopg2.connect(
            dsn,
            application_name=name,
            connect_timeout=10,
            options=_OPTIONS,
            connection_factory=PooledConnection,
        )
    psycopg2.extensions.register_type(_UUID, connection)
    psycopg2.extensions.register_type(_UUID_ARRAY, connection)
    return connection


def _uuid_bytes(value: str | bytes | None, _cursor: object) -> bytes | None:
    return None if value is None else bytes.fromhex(str(value).replace("-", ""))


_UUID: Final = psycopg2.extensions.new_type((2950,), "TOKEN", _uuid_bytes)
_UUID_ARRAY: Final = psycopg2.extensions.new_array_type((2951,), "TOKEN[]", _UUID)
