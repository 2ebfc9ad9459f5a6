"""The vault's list of suppressed people: keyed hashes, with nothing that links a row to an erased token.

A row has no time, and no position that shows when it came: each change rewrites the whole list, sorted by hash, in one
transaction. A mark is random; one person's hashes share it, so that any of them lets the person in again. Their number
could single out a person among the erased, so every person has 8, 16, 32, … of them, filled up with random values that
belong to nobody (decision 0027).
"""

import secrets
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final

from psycopg2.extensions import cursor as Cursor

from infra.adapters.postgres.connection_pool import Lane
from infra.adapters.postgres.database import Database, Uuids
from infra.adapters.vault.rewrite import is_ours

FEWEST: Final = 8  # hashes per person; few customers have more identifiers
_HASH_BYTES: Final = 16


class SuppressedList:
    """One connection. Rows: hash -> mark."""

    def __init__(self, vault_dsn: str) -> None:
        self._database = Database(vault_dsn, "touchfold vault suppressed", Lane.WORK)

    def read(self) -> dict[bytes, bytes]:
        with self._database.transaction() as cursor:
            return _read(cursor)

    def add(self, people: Iterable[Collection[bytes]]) -> None:
        """People on the list stay as they are; each new identifier joins the person it came with."""

        def change(known: dict[bytes, bytes]) -> dict[bytes, bytes]:
            for hashes in people:
                known |= dict.fromkeys([each for each in hashes if each not in known], secrets.token_bytes(16))
            return known

        self._change(change)

    def remove(self, hashed: bytes) -> bool:
        mark = self.read().get(hashed)
        if mark is None:
            return False
        self._change(lambda known: {each: own for each, own in known.items() if own != mark})
        return True

    def group(self, people: Iterable[Collection[bytes]]) -> None:
        """Give each person's hashes on the list one mark, as if they had come together."""

        def change(known: dict[bytes, bytes]) -> dict[bytes, bytes]:
            for hashes in people:
                here = [each for each in hashes if each in known]
                marks = {known[each] for each in here}
                if len(marks) > 1:
                    known = {each: mark for each, mark in known.items() if mark not in marks or each in here}
                    known |= dict.fromkeys(here, secrets.token_bytes(16))
            return known

        self._change(change)

    def restore(self, marks: Mapping[bytes, bytes]) -> None:
        """Add rows copied from elsewhere."""
        self._change(lambda known: {**marks, **known})

    def _change(self, change: Callable[[dict[bytes, bytes]], dict[bytes, bytes]]) -> None:
        with self._database.transaction() as cursor:
            cursor.execute("lock table suppressed in exclusive mode")
            known = _read(cursor)
            rows = sorted(filled(change(dict(known))).items())
            if dict(rows) == known:
                return
            cleanly = is_ours(cursor)
            cursor.execute("truncate suppressed" if cleanly else "delete from suppressed")
            cursor.execute(
                "insert into suppressed (hash, mark) select hash, mark from unnest(%s::bytea[], %s) with ordinality"
                " as row (hash, mark, place) order by place",
                ([hashed for hashed, _ in rows], Uuids([mark for _, mark in rows])),
            )
        if not cleanly:
            with self._database.reading() as cursor:
                cursor.execute("vacuum (truncate false, index_cleanup on) suppressed")

    def close(self) -> None:
        self._database.close()


def filled(rows: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """The rows, filled up with hashes of nobody so that each person has a round number."""
    found = dict(rows)
    for mark, count in Counter(rows.values()).items():
        size = FEWEST
        while size < count:
            size *= 2
        found |= {secrets.token_bytes(_HASH_BYTES): mark for _ in range(size - count)}
    return found


def _read(cursor: Cursor) -> dict[bytes, bytes]:
    cursor.execute("select hash, mark from suppressed order by hash")
    return {bytes(row[0]): row[1] for row in cursor.fetchall()}
