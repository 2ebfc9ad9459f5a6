"""What an import needs from the main database: which events it already has, its source, and an exclusive lock."""

import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from infra.adapters.postgres.database import Dedicated, array_literal, copy_out
from schemas.errors import StoreUnavailable

WAIT_S: Final = 20.0  # a killed import's connection is gone within a second; longer means another import
_ERASED: Final = 4


class PostgresImports:
    """`ImportStore` of `ingest.files.importer`. One connection; keeps the source's import lock until `close`."""

    def __init__(
        self,
        dsn: str,
        *,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = Dedicated(dsn, "touchfold import")
        self._sleep = sleep
        self._monotonic = monotonic

    def begin(self, source: str, at: datetime) -> None:
        """Create the source unless it exists, and lock it. Raises StoreUnavailable while another import holds it."""
        deadline = self._monotonic() + WAIT_S
        while not self._lock(source):
            if self._monotonic() > deadline:
                raise StoreUnavailable(f"another import of source {source!r} is running: wait until it has finished")
            self._sleep(0.1)
        with self._database.transaction() as cursor:
            cursor.execute(
                "insert into sources (name, created_at) values (%s, %s) on conflict (name) do nothing", (source, at)
            )

    def _lock(self, source: str) -> bool:
        with self._database.transaction() as cursor:
            cursor.execute("select pg_try_advisory_lock(hashtext('touchfold import'), hashtext(%s))", (source,))
            row = cursor.fetchone()
            return bool(row and row[0])

    def registered(self, keys: Sequence[bytes]) -> dict[bytes, bytes | None]:
        """The event keys already in the dedup index, each with its digest; None if the person was erased."""
        if not keys:
            return {}
        query = f"select event_key, digest, verdict from register where event_key = any({array_literal(keys)})"
        with self._database.transaction() as cursor:
            rows = copy_out(cursor, query)
        found: dict[bytes, bytes | None] = {}
        for key, digest, verdict in rows:
            assert key is not None, "event_key is the primary key"
            found[key] = None if int.from_bytes(verdict or b"", "big") == _ERASED else digest
        return found

    def close(self) -> None:
        self._database.close()
