"""The lease of a process that caches vault rows: a thread renews it, so that an erasure can wait for it to end.

A new epoch clears the holder's cache before the renewal that reports it is written (design C2, C12).
"""

import secrets
import threading
import time
from collections.abc import Callable
from typing import Final

from psycopg2.extensions import cursor as Cursor

from infra.adapters.postgres.connection_pool import Lane
from infra.adapters.postgres.database import Database, Uuid
from schemas.errors import MasterKeyWrong, StoreUnavailable

TTL_S: Final = 5.0
RENEW_S: Final = 1.5


class Lease:
    """`valid()` uses this process's monotonic clock, the row uses the database's clock.

    The row never expires before `valid()` ends: our time is read before the statement that sets the row's.
    `prepare` runs before each renewal; `on_epoch(cursor)` inside each renewal that finds a new epoch, before the
    row is written.
    """

    def __init__(
        self,
        dsn: str,
        prepare: Callable[[], object],
        on_epoch: Callable[[Cursor], None],
        *,
        ttl_s: float = TTL_S,
        renew_s: float = RENEW_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._dsn = dsn
        self._database = Database(dsn, "touchfold vault lease", Lane.WORK)
        self._prepare = prepare
        self._on_epoch = on_epoch
        self._ttl_s = ttl_s
        self._renew_s = renew_s
        self._monotonic = monotonic
        self._door = secrets.token_bytes(16)
        self._epoch: int | None = None
        self._expires = float("-inf")
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def valid(self) -> bool:
        return self._monotonic() < self._expires

    def start(self) -> None:
        """Take the lease and keep it. If the vault is unavailable, it is taken as soon as the vault is back."""
        if self._thread is None:
            self._try_renew()
            self._thread = threading.Thread(target=self._run, name="vault lease", daemon=True)
            self._thread.start()

    def renew(self) -> None:
        """One renewal. Raises StoreUnavailable; the lease then expires by itself."""
        self._prepare()
        asked = self._monotonic()
        with self._database.transaction() as cursor:
            # shared with the other doors, against `bump_epoch`: it waits for renewals under the old epoch to
            # commit, so every lease under the old epoch is in the table when the eraser looks.
            cursor.execute("select epoch from vault_meta for share")
            row = cursor.fetchone()
            if row is None:
                raise StoreUnavailable("the vault has not been prepared", retry_after_s=1)
            epoch = int(row[0])
            if epoch != self._epoch:
                self._on_epoch(cursor)
                self._epoch = epoch
            cursor.execute(
                "insert into leases values (%(door)s, %(epoch)s, now() + make_interval(secs => %(ttl)s)) "
                "on conflict (door) do update set epoch = excluded.epoch, expires_at = excluded.expires_at",
                {"door": Uuid(self._door), "epoch": epoch, "ttl": self._ttl_s},
            )
        self._expires = asked + self._ttl_s

    def _try_renew(self) -> None:
        try:
            self.renew()
        except (StoreUnavailable, MasterKeyWrong):
            # Nothing to do here: once the lease has expired, each caller gets the error when it asks.
            self._database.close()

    def _run(self) -> None:
        while not self._stop.wait(self._renew_s if self.valid() else min(self._renew_s, 0.2)):
            self._try_renew()
        self._database.close()

    def close(self) -> None:
        """End the thread; the row is removed, so that no erasure has to wait for us."""
        self._expires = float("-inf")
        if self._thread is None:
            return
        self._stop.set()
        self._thread.join(10)
        self._thread = None
        database = Database(self._dsn, "touchfold vault lease", Lane.WORK)
        try:
            with database.transaction() as cursor:
                cursor.execute("delete from leases where door = %s", (Uuid(self._door),))
        except StoreUnavailable:
            return  # the row expires by itself
        finally:
            database.close()
