"""Which processes are alive: each process of a cluster's roles renews a row in the shared database."""

import os
import secrets
import socket
import threading
from types import TracebackType
from typing import Final, NamedTuple, Self

from infra.adapters.postgres.connection_pool import Lane
from infra.adapters.postgres.database import Database
from schemas.errors import StoreUnavailable
from schemas.record import VERSION

RENEW_S: Final = 3.0
ALIVE_S: Final = 10.0  # an older row belongs to a process that died
FORGET_S: Final = 86_400.0


class Present(NamedTuple):
    """A live process."""

    role: str
    host: str
    pid: int
    reads: int = 1  # the newest record version it can read


class Presence:
    """A context: the row exists from the start, a thread renews it, and it is gone at the end."""

    def __init__(self, dsn: str, role: str, reads: int = VERSION) -> None:
        self._database = Database(dsn, "touchfold presence", Lane.WORK)
        self._role = role
        self._reads = reads
        self._id = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="presence", daemon=True)

    def __enter__(self) -> Self:
        self._renew()
        self._thread.start()
        return self

    def __exit__(self, _type: type[BaseException] | None, _err: BaseException | None, _: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(10)
        try:
            with self._database.transaction() as cursor:
                cursor.execute("delete from processes where id = %s", (self._id,))
        except StoreUnavailable:
            return  # the row expires by itself
        finally:
            self._database.close()

    def _run(self) -> None:
        while not self._stop.wait(RENEW_S):
            self._renew()

    def _renew(self) -> None:
        try:
            with self._database.transaction() as cursor:
                cursor.execute(
                    "insert into processes (id, role, host, pid, started_at, seen_at, detail) values"
                    " (%s, %s, %s, %s, now(), now(), jsonb_build_object('reads', %s::int))"
                    " on conflict (id) do update set seen_at = now()",
                    (self._id, self._role, socket.gethostname(), os.getpid(), self._reads),
                )
                cursor.execute("delete from processes where seen_at < now() - make_interval(secs => %s)", (FORGET_S,))
        except StoreUnavailable:
            self._database.close()  # shown as gone until PostgreSQL is back


def present(database: Database) -> list[Present]:
    """The live processes, by role."""
    with database.reading() as cursor:
        cursor.execute(
            "select role, host, pid, coalesce((detail ->> 'reads')::int, 1) from processes"
            " where seen_at > now() - make_interval(secs => %s)"
            " order by role, host, pid",
            (ALIVE_S,),
        )
        return [Present(*row) for row in cursor.fetchall()]
