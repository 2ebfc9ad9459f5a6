"""Which tokens are erased, for callers that must tell an erased key from a lost one."""

import threading
from collections.abc import Collection

from infra.adapters.postgres.database import Database, Uuids


class ErasedTokens:
    """Looks up which of some tokens are erased, in the main database. Connects when first used; any thread."""

    def __init__(self, main_dsn: str) -> None:
        self._database = Database(main_dsn, "touchfold erased tokens")
        self._lock = threading.Lock()

    def __call__(self, tokens: Collection[bytes]) -> set[bytes]:
        with self._lock, self._database.transaction() as cursor:
            cursor.execute("select token from erased_tokens where token = any(%s)", (Uuids(list(tokens)),))
            return {row[0] for row in cursor.fetchall()}

    def close(self) -> None:
        self._database.close()
