"""The search index in PostgreSQL: `SearchStore` of the indexer, and the reader's candidates."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from psycopg2.extensions import cursor as Cursor

from infra.adapters.postgres.connection_pool import Lane
from infra.adapters.postgres.database import Database, Uuids, array_literal, copy_rows, f_array, f_bytes, f_int8
from infra.adapters.vault.rewrite import is_ours
from schemas.search_store import Indexed, SearchTx

_INT8 = 20


class PostgresSearch:
    """One connection: for one indexer."""

    def __init__(self, dsn: str) -> None:
        self._database = Database(dsn, "touchfold search index", Lane.WORK)

    @contextmanager
    def take(self, limit: int) -> Iterator[SearchTx]:
        with self._database.transaction() as cursor:
            yield _Tx(cursor, _taken(cursor, limit))

    def close(self) -> None:
        self._database.close()


def _taken(cursor: Cursor, limit: int) -> list[bytes]:
    """The newest profiles that are active now, then the longest waiting, which get at least a quarter."""
    taken: list[bytes] = []
    for most, which in ((limit - limit // 4, "where acting order by id desc"), (limit, "order by id")):
        cursor.execute(
            f"delete from search_due where profile_id in (select profile_id from search_due {which}"
            " limit %s for update skip locked) returning profile_id",
            (min(most, limit - len(taken)),),
        )
        taken += [row[0] for row in cursor.fetchall()]
    return taken


class _Tx:
    def __init__(self, cursor: Cursor, taken: Sequence[bytes]) -> None:
        self._cursor = cursor
        self.taken = taken

    def profiles(self, revision: int) -> list[Indexed]:
        # The lock keeps an erasure from deleting a profile between our read and our commit: it deletes both afterwards.
        self._cursor.execute(
            f"select profile_id, state from profiles_r{int(revision)}"
            f" where profile_id = any({array_literal(sorted(self.taken))}) order by profile_id for key share"
        )
        states = {row[0]: bytes(row[1]) for row in self._cursor.fetchall()}
        self._cursor.execute(
            "select profile_id, token, kind from tokens where profile_id = any(%s)"
            " order by profile_id, first_us, token",
            (Uuids(list(states)),),
        )
        tokens: dict[bytes, list[tuple[bytes, str]]] = {}
        for profile_id, token, kind in self._cursor.fetchall():
            tokens.setdefault(profile_id, []).append((token, kind))
        return [Indexed(key, state, tokens.get(key, ())) for key, state in states.items()]

    def put(self, rows: Mapping[bytes, Sequence[int]]) -> None:
        self._cursor.execute("delete from search where profile_id = any(%s)", (Uuids(list(self.taken)),))
        packed = [f_bytes(key) + f_array(_INT8, [f_int8(term) for term in rows[key]]) for key in sorted(rows)]
        copy_rows(self._cursor, "search", ("profile_id", "words"), packed)


def clean(database: Database) -> None:
    """Rewrite the index so that no deleted row remains in its pages: it has keyed words next to a profile's id.

    Only on the data folder's own server; elsewhere VACUUM frees the space (decision 0022). Readers continue until
    the swap; the indexer waits, for seconds at 100,000 customers.
    """
    with database.reading() as cursor:
        if not is_ours(cursor):
            cursor.execute("vacuum (truncate false, index_cleanup on) search")
            return
    with database.transaction() as cursor:
        cursor.execute("lock table search in share row exclusive mode")
        cursor.execute("create table search_next (like search including defaults including constraints)")
        cursor.execute("insert into search_next select * from search order by profile_id")
        cursor.execute("alter table search_next add constraint search_next_pkey primary key (profile_id)")
        cursor.execute("create index search_next_words on search_next using gin (words)")
        cursor.execute("drop table search")
        cursor.execute("alter table search_next rename to search")
        cursor.execute("alter index search_next_pkey rename to search_pkey")
        cursor.execute("alter index search_next_words rename to search_words")
