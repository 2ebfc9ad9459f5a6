"""The audit log: who looked at whom and who did what. Each row is hashed over the one before it.

Notes are queued and written together by a thread of their own, so that a look-up waits for none; `flush` waits.
"""

import json
import queue
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from hashlib import sha256
from typing import Any, Final, NamedTuple

from infra.adapters.connection_pool import Lane
from infra.adapters.postgres import Database, Uuid
from infra.adapters.postgres_reads import PerThread
from schemas.errors import TouchfoldError
from schemas.record import uuid_text

_LOCK: Final = 0x617564
_MOST: Final = 500  # notes in one transaction
_CHUNK: Final = 5_000
_FIRST: Final = bytes(32)


class AuditRow(NamedTuple):
    """One entry. `profile_id`: UUID text."""

    seq: int
    at: datetime
    who: str
    role: str
    action: str
    profile_id: str | None
    detail: dict[str, Any]


class _Note(NamedTuple):
    at: datetime
    who: str
    role: str
    action: str
    profile_id: bytes | None
    detail: str


class PostgresAudit:
    """Any thread may call. `now` stamps the notes."""

    def __init__(self, dsn: str, now: Callable[[], datetime]) -> None:
        self._connections = PerThread(lambda: Database(dsn, "touchfold audit"))
        self._database = Database(dsn, "touchfold audit writer", Lane.WORK)
        self._now = now
        self._queue: queue.Queue[_Note | None] = queue.Queue(maxsize=100_000)
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def note(
        self,
        who: str,
        role: str,
        action: str,
        profile_id: bytes | None = None,
        detail: Mapping[str, Any] | None = None,
    ) -> None:
        """Write down soon. `detail` holds no personal value: texts, whole numbers, truths, lists of texts."""
        text = _text({name: _storable(value) for name, value in (detail or {}).items()})
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._write, name="audit", daemon=True)
                self._thread.start()
        self._queue.put(_Note(self._now(), who, role, action, profile_id, text))

    def flush(self) -> None:
        """Return when every note so far is committed."""
        self._queue.join()

    def _write(self) -> None:
        while True:
            note = self._queue.get()
            if note is None:
                self._queue.task_done()
                return
            notes = [note]
            with suppress(queue.Empty):
                while len(notes) < _MOST:
                    more = self._queue.get_nowait()
                    if more is None:
                        self._queue.put(None)
                        self._queue.task_done()
                        break
                    notes.append(more)
            while not self._stored(notes):
                threading.Event().wait(0.5)  # PostgreSQL is away: what was seen is told later, not forgotten
            for _ in notes:
                self._queue.task_done()

    def _stored(self, notes: list[_Note]) -> bool:
        try:
            with self._database.transaction() as cursor:
                cursor.execute("select pg_advisory_xact_lock(%s)", (_LOCK,))
                cursor.execute("select value from meta where key = 'audit_head'")
                row = cursor.fetchone()
                seq, last = (int(row[0]["seq"]), bytes.fromhex(row[0]["hash"])) if row else (0, _FIRST)
                for note in notes:
                    seq, last = seq + 1, _hash(last, note)
                    profile = None if note.profile_id is None else Uuid(note.profile_id)
                    cursor.execute(
                        "insert into audit_log (seq, at, who, role, action, profile_id, detail, hash)"
                        " values (%s, %s, %s, %s, %s, %s, %s, %s)",
                        (seq, note.at, note.who, note.role, note.action, profile, note.detail, last),
                    )
                cursor.execute(
                    "insert into meta values ('audit_head', %s) on conflict (key) do update set value = excluded.value",
                    (json.dumps({"seq": seq, "hash": last.hex()}),),
                )
        except TouchfoldError:
            self._database.close()
            return False
        return True

    def page(self, before: int | None = None, limit: int = 100, profile_id: bytes | None = None) -> list[AuditRow]:
        """Entries, newest first, with a seq below `before`; of one profile if given."""
        rows = self._connections.rows(
            "select seq, at, who, role, action, profile_id, detail from audit_log"
            " where (%(before)s::bigint is null or seq < %(before)s) and"
            " (%(profile)s::uuid is null or profile_id = %(profile)s) order by seq desc limit %(limit)s",
            {"before": before, "limit": limit, "profile": None if profile_id is None else Uuid(profile_id)},
        )
        return [
            AuditRow(seq, at, who, role, action, None if profile is None else uuid_text(profile), detail)
            for seq, at, who, role, action, profile, detail in rows
        ]

    def verify(self) -> list[str]:
        """What is wrong with the chain, in words; empty when every entry is as it was written and none is missing.

        Who may write to the database can make another chain: keep the head (`head`) elsewhere to see that too.
        """
        problems: list[str] = []
        head = self._connections.rows("select value from meta where key = 'audit_head'")
        last, after = _FIRST, 0
        while True:
            rows = self._connections.rows(
                "select seq, at, who, role, action, profile_id, detail, hash from audit_log"
                " where seq > %s order by seq limit %s",
                (after, _CHUNK),
            )
            for seq, at, who, role, action, profile_id, detail, stored in rows:
                text = _text(detail)
                if seq != after + 1:
                    problems.append(f"entries {after + 1} to {seq - 1} are missing")
                elif _hash(last, _Note(at, who, role, action, profile_id, text)) != bytes(stored):
                    problems.append(f"entry {seq} ({at.isoformat()}) is not as it was written")
                last, after = bytes(stored), seq
            if len(rows) < _CHUNK:
                break
        return problems + _at_the_end(head[0][0] if head else None, after, last)

    def head(self) -> tuple[int, str]:
        """(seq, hash) of the newest entry; (0, "") before the first."""
        rows = self._connections.rows("select value from meta where key = 'audit_head'")
        return (int(rows[0][0]["seq"]), str(rows[0][0]["hash"])) if rows else (0, "")

    def close(self) -> None:
        """Write what is queued and disconnect."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._queue.put(None)
            thread.join(10)
        self._database.close()
        self._connections.close()


def _at_the_end(head: Mapping[str, Any] | None, after: int, last: bytes) -> list[str]:
    """Problems of the noted end: rows that came after it was read are none."""
    if head is None:
        return ["the note of the last entry is missing"] if after else []
    if head["seq"] > after:
        return [f"entries after {after} are missing"]
    if head["seq"] == after and head["hash"] != last.hex():
        return ["the note of the last entry is not as it was written"]
    return []


def _text(detail: Mapping[str, Any]) -> str:
    return json.dumps(detail, sort_keys=True, separators=(",", ":"))


def _storable(value: object) -> object:
    """A value that jsonb gives back as it was: no NUL, no half of a surrogate pair, no fraction."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, list | tuple | set | frozenset):
        return [_storable(each) for each in value]
    return str(value).encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def _hash(last: bytes, note: _Note) -> bytes:
    profile = b"" if note.profile_id is None else note.profile_id
    parts = [note.at.isoformat(), note.who, note.role, note.action, profile.hex(), note.detail]
    return sha256(last + json.dumps(parts).encode()).digest()
