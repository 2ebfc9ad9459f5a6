"""The audit log: who looked at whom and who did what. Each row is hashed under a key together with the one before it.

An entry is durable before anything it is about is answered: `note` returns once it is committed, and raises if it
cannot be. One thread writes all waiting entries in one transaction, so that simultaneous readers share one disk write.
The end of the chain also goes into the ledger's folder (`audit_heads`).
"""

import asyncio
import json
import logging
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from datetime import datetime
from typing import Any, Final, NamedTuple

from psycopg2.extensions import cursor as Cursor
from psycopg2.extras import execute_values

from infra.adapters.ledger.audit_heads import AuditHeads
from infra.adapters.postgres.connection_pool import Lane
from infra.adapters.postgres.database import Database, Uuid
from infra.adapters.postgres.statements import PerThread
from schemas.audit import FIRST, Entry, Head, compared, detail_text, keyed_hash, plain_hash, storable
from schemas.errors import StoreUnavailable, TouchfoldError
from schemas.record import uuid_text

_LOCK: Final = 0x617564
_MOST: Final = 500  # entries in one transaction
_CHUNK: Final = 5_000
WAIT_S: Final = 5.0  # for an entry to become durable; after that the request is refused
AGAIN_S: Final = 0.2
_TRIES: Final = 3  # for failures of unknown cause
SET_BACK: Final = "audit.set_back"
_log = logging.getLogger("touchfold.audit")


class AuditRow(NamedTuple):
    """One entry. `profile_id`: UUID text."""

    seq: int
    at: datetime
    who: str
    role: str
    action: str
    profile_id: str | None
    detail: dict[str, Any]


class _Waiting(NamedTuple):
    entry: Entry
    done: "Future[None]"


class PostgresAudit:
    """Any thread may call. `now` stamps the entries; `key`: of the chain, fetched when first needed."""

    def __init__(self, dsn: str, now: Callable[[], datetime], key: Callable[[], bytes], heads: AuditHeads) -> None:
        self._connections = PerThread(lambda: Database(dsn, "touchfold audit"))
        self._database = Database(dsn, "touchfold audit writer", Lane.WORK)
        self._now = now
        self._key = key
        self._heads = heads
        self._ledger_well = True
        self._compared = False  # with the ledger, once per process
        self._unsure: tuple[int, bytes] | None = None  # (seq, hash) of an interrupted commit, which may have succeeded
        self._queue: queue.Queue[_Waiting | None] = queue.Queue(maxsize=100_000)
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    # --- writing ---------------------------------------------------------------------------------------------------

    def note(
        self,
        who: str,
        role: str,
        action: str,
        profile_id: bytes | None = None,
        detail: Mapping[str, Any] | None = None,
    ) -> None:
        """Durable when it returns. Raises StoreUnavailable: then nothing the entry is about may be answered."""
        settled(self.begin(who, role, action, profile_id, detail))

    def begin(
        self,
        who: str,
        role: str,
        action: str,
        profile_id: bytes | None = None,
        detail: Mapping[str, Any] | None = None,
    ) -> "Future[None]":
        """Like `note`, without waiting: done once durable. An entry that is given up may still be written.

        `detail` holds no personal value: only texts, whole numbers, booleans, lists of texts.
        """
        text = detail_text({name: storable(value) for name, value in (detail or {}).items()})
        waiting = _Waiting(Entry(self._now(), who, role, action, profile_id, text), Future())
        waiting.done.set_running_or_notify_cancel()  # never cancelled: callers that give up just stop waiting
        with self._lock:
            if self._thread is None:
                self._closing.clear()
                self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
                self._thread.start()
        try:
            self._queue.put_nowait(waiting)
        except queue.Full:
            raise StoreUnavailable(_CANNOT, retry_after_s=2) from None
        return waiting.done

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            batch, over = [first], False
            with suppress(queue.Empty):
                while len(batch) < _MOST and not over:
                    more = self._queue.get_nowait()
                    over = more is None
                    batch += [] if more is None else [more]
            self._write(batch)
            if over:
                return

    def _write(self, batch: Sequence[_Waiting]) -> None:
        """Until it is durable or can never be; whatever happens, everybody is told and the thread goes on."""
        tries = 0
        while True:
            try:
                head = self._commit([waiting.entry for waiting in batch])
            except StoreUnavailable as err:  # entries about what was seen are written later, not dropped
                self._database.close()
                if self._closing.wait(AGAIN_S):
                    _fail(batch, err)
                    return
            except TouchfoldError as err:
                _fail(batch, err)
                return
            except Exception as err:
                self._database.close()
                tries += 1
                if tries < _TRIES:
                    continue
                if len(batch) == 1:
                    _log.exception("an audit log entry cannot be written")
                    _fail(batch, StoreUnavailable(f"{_CANNOT} ({type(err).__name__})", retry_after_s=5))
                    return
                for each in batch:  # one of them is the cause: write the others
                    self._write([each])
                return
            else:
                self._tell_ledger(head)
                for waiting in batch:
                    waiting.done.set_result(None)
                return

    def _commit(self, entries: Sequence[Entry]) -> Head:
        key = self._key()
        with self._database.transaction() as cursor:
            cursor.execute(
                "select pg_advisory_xact_lock(%s), set_config('synchronous_commit',"
                " case current_setting('synchronous_commit') when 'off' then 'on' else"
                " current_setting('synchronous_commit') end, true)",
                (_LOCK,),
            )
            seq, last = _end(cursor)
            if self._unsure is not None and _has(cursor, *self._unsure):
                seq, last = self._unsure
                self._unsure = None
                return Head(seq, last, entries[-1].at)
            if not self._compared:
                seq, entries = self._after_ledger(key, seq, entries)
            rows = []
            for entry in entries:
                seq, last = seq + 1, keyed_hash(key, last, entry)
                profile = None if entry.profile_id is None else Uuid(entry.profile_id)
                rows.append((seq, entry.at, entry.who, entry.role, entry.action, profile, entry.detail, last))
            columns = "(seq, at, who, role, action, profile_id, detail, hash)"
            execute_values(cursor, f"insert into audit_log {columns} values %s", rows, page_size=_MOST)
            cursor.execute(
                "insert into meta values ('audit_head', %s) on conflict (key) do update set value = excluded.value",
                (json.dumps({"seq": seq, "hash": last.hex()}),),
            )
            self._unsure = (seq, last)
        self._unsure, self._compared = None, True
        return Head(seq, last, entries[-1].at)

    def _after_ledger(self, key: bytes, seq: int, entries: Sequence[Entry]) -> tuple[int, Sequence[Entry]]:
        """Never reuse numbers known to the ledger: if the log was set back, an entry says so."""
        try:
            newest = self._heads.newest(key)
        except OSError:  # reported when the end is written
            newest = None
        if newest is None or newest.seq <= seq:
            return seq, entries
        detail = detail_text({"missing_from": seq + 1, "missing_to": newest.seq})
        return newest.seq, [Entry(entries[0].at, "touchfold", "admin", SET_BACK, None, detail), *entries]

    def _tell_ledger(self, head: Head) -> None:
        """The entries are durable; a ledger that cannot be written is reported, but delays nobody."""
        try:
            self._heads.put(self._key(), head)
        except (OSError, TouchfoldError) as err:
            if self._ledger_well:
                _log.error("cannot write the end of the audit log to the ledger (%s): %s", type(err).__name__, err)
            self._ledger_well = False
        else:
            self._ledger_well = True

    # --- reading ---------------------------------------------------------------------------------------------------

    def page(
        self,
        before: int | None = None,
        limit: int = 100,
        profile_id: bytes | None = None,
        words: Sequence[str] | None = None,
    ) -> list[AuditRow]:
        """Entries, newest first, with a seq below `before`; optionally of one profile, or with one of the words."""
        rows = self._connections.rows(
            "select seq, at, who, role, action, profile_id, detail from audit_log"
            " where (%(before)s::bigint is null or seq < %(before)s) and"
            " (%(profile)s::uuid is null or profile_id = %(profile)s) and"
            " (%(words)s::text[] is null or detail -> 'words' ?| %(words)s::text[]) order by seq desc limit %(limit)s",
            {
                "before": before,
                "limit": limit,
                "profile": None if profile_id is None else Uuid(profile_id),
                "words": None if words is None else list(words),
            },
        )
        return [
            AuditRow(seq, at, who, role, action, None if profile is None else uuid_text(profile), detail)
            for seq, at, who, role, action, profile, detail in rows
        ]

    def verify(self) -> list[str]:
        """What is wrong, in words; empty if every entry is as written, none is missing, and the ledger agrees.

        Somebody who also has the vault's key can forge another chain: the ledger reveals that, if it is elsewhere.
        """
        key = self._key()
        try:
            noted = self._heads.read(key)  # before reading the log: entries written meanwhile are then in both
        except OSError as err:
            return [f"the ledger's file audit_heads.jsonl cannot be read: {err.strerror}"]
        head = self._connections.rows("select value from meta where key = 'audit_head'")
        chain = _Chain(key, {each.seq for each in noted.heads})
        while True:
            rows = self._connections.rows(
                "select seq, at, who, role, action, profile_id, detail, hash from audit_log"
                " where seq > %s order by seq limit %s",
                (chain.seq, _CHUNK),
            )
            for row in rows:
                chain.take(*row)
            if len(rows) < _CHUNK:
                break
        problems = chain.problems + _at_the_end(head[0][0] if head else None, chain.seq, chain.last)
        if chain.seq and not chain.keyed:
            problems.append("no entry is under our key: all come from an older build or from somebody else")
        if chain.keyed and not noted.heads and self._heads.alone:
            problems.append("the ledger knows nothing of the audit log: its file audit_heads.jsonl was removed")
        problems += [f"line {number} of the ledger's audit_heads.jsonl was not written by us" for number in noted.wrong]
        beyond = [each for each in noted.heads if each.seq > chain.seq or each.seq in chain.found]
        return problems + compared(beyond, chain.found)

    def head(self) -> tuple[int, str]:
        """(seq, hash) of the newest entry; (0, "") before the first."""
        rows = self._connections.rows("select value from meta where key = 'audit_head'")
        return (int(rows[0][0]["seq"]), str(rows[0][0]["hash"])) if rows else (0, "")

    def close(self) -> None:
        """Write what is queued and disconnect."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._closing.set()  # stop waiting for an outage to end
            self._queue.put(None)
            thread.join(10)
        self._database.close()
        self._connections.close()


_CANNOT: Final = "the audit log cannot be written, so nothing that must be logged can be shown or done: try again"


def settled(done: "Future[None]") -> None:
    """Wait until an entry is durable. Raises StoreUnavailable."""
    try:
        done.result(WAIT_S)
    except TimeoutError:
        raise StoreUnavailable(_CANNOT, retry_after_s=2) from None


async def durable(done: "Future[None]") -> None:
    """`settled` without a thread."""
    try:
        await asyncio.wait_for(asyncio.wrap_future(done), WAIT_S)
    except TimeoutError:
        raise StoreUnavailable(_CANNOT, retry_after_s=2) from None


def _fail(batch: Sequence[_Waiting], err: TouchfoldError) -> None:
    for waiting in batch:
        waiting.done.set_exception(err)


def _end(cursor: Cursor) -> tuple[int, bytes]:
    """(seq, hash) of the last entry: from the note of it, or from the row if somebody set the note back."""
    cursor.execute("select value from meta where key = 'audit_head'")
    noted = cursor.fetchone()
    cursor.execute("select seq, hash from audit_log order by seq desc limit 1")
    row = cursor.fetchone()
    seq, last = (int(noted[0]["seq"]), bytes.fromhex(noted[0]["hash"])) if noted else (0, FIRST)
    return (int(row[0]), bytes(row[1])) if row is not None and row[0] > seq else (seq, last)


def _has(cursor: Cursor, seq: int, hashed: bytes) -> bool:
    cursor.execute("select from audit_log where seq = %s and hash = %s", (seq, hashed))
    return cursor.fetchone() is not None


class _Chain:
    """Checks the rows in order. `found`: hashes of the entries that the ledger knows."""

    def __init__(self, key: bytes, known: set[int]) -> None:
        self._key = key
        self._known = known
        self.keyed = False  # from the first keyed hash on, only keyed hashes count
        self.problems: list[str] = []
        self.found: dict[int, bytes] = {}
        self.seq, self.last = 0, FIRST

    def take(
        self, seq: int, at: datetime, who: str, role: str, action: str, profile: bytes | None, detail: Any, stored: Any
    ) -> None:
        entry, hashed = Entry(at, who, role, action, profile, detail_text(detail)), bytes(stored)
        follows = self._follows(entry, hashed)
        if seq != self.seq + 1:
            why = " (the log was set back, by a restore or by hand)" if follows and action == SET_BACK else ""
            self.problems.append(f"entries {self.seq + 1} to {seq - 1} are missing{why}")
        elif not follows:
            self.problems.append(f"entry {seq} ({at.isoformat()}) is not as it was written")
        if seq in self._known:
            self.found[seq] = hashed
        self.seq, self.last = seq, hashed

    def _follows(self, entry: Entry, hashed: bytes) -> bool:
        if hashed == keyed_hash(self._key, self.last, entry):
            self.keyed = True
            return True
        return not self.keyed and hashed == plain_hash(self.last, entry)


def _at_the_end(head: Mapping[str, Any] | None, after: int, last: bytes) -> list[str]:
    """Problems with the noted end; rows added after it was read are not problems."""
    if head is None:
        return ["the note of the last entry is missing"] if after else []
    if head["seq"] > after:
        return [f"entries after {after} are missing"]
    if head["seq"] == after and head["hash"] != last.hex():
        return ["the note of the last entry is not as it was written"]
    return []
