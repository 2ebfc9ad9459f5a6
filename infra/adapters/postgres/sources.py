"""`Sources` in PostgreSQL, with the commands that create, rotate and revoke them."""

import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from psycopg2.extensions import cursor as Cursor
from psycopg2.extras import Json

from infra.adapters.postgres.connection_pool import Lane
from infra.adapters.postgres.database import Database
from schemas.clear_rules import NOTHING_DECLARED, Declared, declared_of
from schemas.errors import BadRequest, NotFound, Problem
from schemas.sources import KEY_PREFIX, Source, changed_settings, key_hash, source_of

STALE_S: Final = 0.5  # a changed setting takes effect within a second; two small queries, only while events come
MAX_NAME: Final = 64
_LIVE_KEYS: Final = (
    "select k.key_hash, s.name, s.settings from write_keys k join sources s on s.name = k.source"
    " where k.revoked_at is null"
)


class SourceRow(NamedTuple):
    """One source as listed; `keys`: how many write keys are valid."""

    name: str
    created_at: datetime
    keys: int
    settings: dict[str, Any]


class BlockedRow(NamedTuple):
    """Ids of one kind that named nobody, by rule. `value`: only where it is of the product's own list."""

    kind: str
    rule: str
    value: str
    events: int
    last_at: datetime


class PostgresSources:
    """One connection, any thread. Keys and declarations are reloaded when older than `stale_s`.

    An unknown key is looked up immediately, so a new one works with its first request.
    """

    def __init__(
        self,
        dsn: str,
        *,
        stale_s: float = STALE_S,
        monotonic: Callable[[], float] = time.monotonic,
        unknown: bool = False,
    ) -> None:
        """`unknown`: see schemas.clear.Clear."""
        self._database = Database(dsn, "touchfold sources", Lane.WORK)
        self._lock = threading.Lock()
        self._stale_s = stale_s
        self._monotonic = monotonic
        self._read_at = float("-inf")
        self._sources: dict[bytes, Source] = {}
        self._unknown = unknown
        self._declared: Declared = NOTHING_DECLARED._replace(unknown=unknown)
        self._content_hash = ""

    # ---------------------------------------------------------------- reading

    def find(self, write_key: str) -> Source | None:
        hashed = key_hash(write_key)
        with self._lock:
            self._refresh()
            found = self._sources.get(hashed)
            if found is None:
                found = self._look_up(hashed)
            return found

    def declared(self) -> Declared:
        with self._lock:
            self._refresh()
            return self._declared

    def _refresh(self) -> None:
        now = self._monotonic()
        if now - self._read_at < self._stale_s:
            return
        with self._database.transaction() as cursor:
            cursor.execute(_LIVE_KEYS)
            sources = {bytes(hashed): source_of(name, settings) for hashed, name, settings in cursor.fetchall()}
            cursor.execute(
                "select content_hash, definitions from revisions where state in ('live', 'building')"
                " and content_hash <> %s and revision = (select max(revision) from revisions"
                " where state in ('live', 'building'))",
                (self._content_hash,),
            )
            row = cursor.fetchone()
        self._sources = sources
        if row is not None:
            self._content_hash, self._declared = row[0], declared_of(row[1], unknown=self._unknown)
        self._read_at = now

    def _look_up(self, hashed: bytes) -> Source | None:
        with self._database.transaction() as cursor:
            cursor.execute(_LIVE_KEYS + " and k.key_hash = %s", (hashed,))
            row = cursor.fetchone()
        if row is None:
            return None
        source = self._sources[hashed] = source_of(row[1], row[2])
        return source

    # ---------------------------------------------------------------- commands

    def create(self, name: str, at: datetime, settings: Mapping[str, Any] | None = None) -> str:
        """Create a source; returns its write key, which cannot be read again. Raises BadRequest."""
        if not name or len(name) > MAX_NAME or not name.isprintable() or name != name.strip():
            reason = f"must have 1 to {MAX_NAME} printable characters"
            raise BadRequest("not a name for a source", [Problem("name", reason)])
        with self._lock, self._database.transaction() as cursor:
            cursor.execute(
                "insert into sources (name, created_at, settings) values (%s, %s, %s) on conflict do nothing",
                (name, at, Json(dict(settings or {}))),
            )
            if cursor.rowcount == 0:
                raise BadRequest(
                    f"there already is a source {name!r}: use rotate for a new key", [Problem("name", "is taken")]
                )
            return _new_key(cursor, name, at)

    def rotate(self, name: str, at: datetime) -> str:
        """A new write key; the old ones stop working within a second. Raises NotFound."""
        with self._lock, self._database.transaction() as cursor:
            _must_exist(cursor, name)
            _revoke(cursor, name, at)
            return _new_key(cursor, name, at)

    def revoke(self, name: str, at: datetime) -> int:
        """Revoke all write keys of a source, within a second; its events stay. Returns how many. Raises NotFound."""
        with self._lock, self._database.transaction() as cursor:
            _must_exist(cursor, name)
            return _revoke(cursor, name, at)

    def change(self, name: str, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Change some settings, within a second at every door; returns all (`schemas.sources.changed_settings`).

        Raises NotFound, BadRequest.
        """
        with self._lock, self._database.transaction() as cursor:
            cursor.execute("select settings from sources where name = %s for update", (name,))
            row = cursor.fetchone()
            if row is None:
                raise NotFound(f"there is no source {name!r}: see source list")
            settings = changed_settings(row[0], changes)
            cursor.execute("update sources set settings = %s where name = %s", (Json(settings), name))
        return settings

    def list(self) -> list[SourceRow]:
        with self._lock, self._database.transaction() as cursor:
            cursor.execute(
                "select s.name, s.created_at, count(k.key_hash), s.settings from sources s"
                " left join write_keys k on k.source = s.name and k.revoked_at is null group by s.name order by s.name"
            )
            return [SourceRow(*row) for row in cursor.fetchall()]

    def blocked(self) -> dict[str, Sequence[BlockedRow]]:
        """By source, the ids that named nobody, the most frequent first."""
        found: dict[str, Sequence[BlockedRow]] = {}
        with self._lock, self._database.transaction() as cursor:
            cursor.execute(
                "select source, kind, rule, value, events, last_at from blocked_identifiers"
                " order by source, events desc, kind, rule, value"
            )
            for source, *row in cursor.fetchall():
                found[source] = (*found.get(source, ()), BlockedRow(*row))
        return found

    def close(self) -> None:
        with self._lock:
            self._database.close()


def _must_exist(cursor: Cursor, name: str) -> None:
    cursor.execute("select 1 from sources where name = %s", (name,))
    if cursor.fetchone() is None:
        raise NotFound(f"there is no source {name!r}: see source list")


def _new_key(cursor: Cursor, name: str, at: datetime) -> str:
    key = KEY_PREFIX + secrets.token_urlsafe(18)
    cursor.execute(
        "insert into write_keys (key_hash, source, created_at) values (%s, %s, %s)", (key_hash(key), name, at)
    )
    return key


def _revoke(cursor: Cursor, name: str, at: datetime) -> int:
    cursor.execute("update write_keys set revoked_at = %s where source = %s and revoked_at is null", (at, name))
    return int(cursor.rowcount)
