"""Tokens of values that name nobody: they link nothing, live and in every rebuild. Changed together with identity."""

from collections.abc import Iterable, Mapping, Sequence

from psycopg2.extensions import cursor as Cursor

from infra.adapters.postgres.connection_pool import Lane
from infra.adapters.postgres.database import Database, Uuids
from infra.adapters.postgres.locks import IDENTITY_LOCK
from schemas.store_rows import NO_EVENT


class UnnamedTokens:
    """One connection. A change also queues every identifier set that holds a changed token, to be resolved again."""

    def __init__(self, dsn: str) -> None:
        self._database = Database(dsn, "touchfold unnamed tokens", Lane.WORK)

    def add(self, kinds: Mapping[bytes, str]) -> int:
        """These name nobody, by the product's own rules. Returns how many are new."""
        with self._database.transaction() as cursor:
            return self._add(cursor, kinds, defined=False)

    def replace_defined(self, kinds: Mapping[bytes, str]) -> int:
        """These and no others name nobody by definition. Returns how many changed."""
        with self._database.transaction() as cursor:
            cursor.execute("select token from unnamed_tokens where defined and token <> all(%s)", (Uuids(list(kinds)),))
            gone = [row[0] for row in cursor.fetchall()]
            if gone:
                cursor.execute("select pg_advisory_xact_lock(%s)", (IDENTITY_LOCK,))
                cursor.execute("delete from unnamed_tokens where token = any(%s)", (Uuids(gone),))
                cursor.execute("update tokens set hub = false where token = any(%s)", (Uuids(gone),))
                _resolve_again(cursor, gone)
            return len(gone) + self._add(cursor, kinds, defined=True)

    def _add(self, cursor: Cursor, kinds: Mapping[bytes, str], *, defined: bool) -> int:
        if not kinds:
            return 0
        cursor.execute("select pg_advisory_xact_lock(%s)", (IDENTITY_LOCK,))
        cursor.execute(
            "insert into unnamed_tokens select token, kind, %s from unnest(%s, %s::text[]) as row (token, kind)"
            " order by token on conflict do nothing returning token",
            (defined, Uuids(list(kinds)), list(kinds.values())),
        )
        new = [row[0] for row in cursor.fetchall()]
        _resolve_again(cursor, new)
        return len(new)

    def close(self) -> None:
        self._database.close()


def _resolve_again(cursor: Cursor, tokens: Iterable[bytes]) -> None:
    """One work item: resolved in parts, a set of a later part would still be owned as it was."""
    cursor.execute("select distinct signature from evidence_tokens where token = any(%s)", (Uuids(list(tokens)),))
    held: Sequence[bytes] = sorted(row[0] for row in cursor.fetchall())
    if held:
        cursor.execute(
            "insert into marks (revision, shard, kind, signatures, newest_us, newest_events)"
            " select revision, 0, 'identity', %s, %s, %s from revisions where state = 'live'",
            (Uuids(held), [0] * len(held), Uuids([NO_EVENT] * len(held))),
        )
