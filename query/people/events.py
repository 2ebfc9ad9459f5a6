"""What became of an event: pending, applied, duplicate, suppressed or a dead letter, with the reason."""

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import msgspec

from schemas.errors import Erased, Forbidden, NotFound
from schemas.log_range import records_between
from schemas.ports import EventLog, Vault
from schemas.reads import FoundDeadLetter, Reads, RegisteredEvent
from schemas.record import event_key, uuid_text
from schemas.store_rows import Verdict

CHUNK: Final = 5_000
SHOWN_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,100}")  # a message id that records keep in clear
Answer = dict[str, Any]


class _Head(msgspec.Struct):
    id: str


_HEAD: Final = msgspec.json.Decoder(_Head)


@dataclass(frozen=True)
class Events:
    """Looks events up; any thread may call."""

    reads: Reads
    vault: Vault
    log: EventLog

    def status(self, text: str, *, personal: bool = True) -> Answer:
        """{"id", "status", "reason", "profile_id", "duplicates"} of an event id or of a message id of any source.

        `duplicates`: further copies in the log, which do not count. Without `personal` only ids that are in the tables
        are looked for, since others may be derived from a person's address. Raises NotFound, Erased, Forbidden.
        """
        if not personal and SHOWN_ID.fullmatch(text) is None:
            raise Forbidden(
                "this message id is in no table and may identify a person: looking it up needs a role that sees "
                "personal values; looking up an event's own id does not"
            )
        keys = self._keys(text)
        # before asking the dedup index: anything folded meanwhile is in both
        starts = self.reads.next_offsets(self.reads.live())
        registered = {row.event_key: row for row in self.reads.registered(keys)}
        letters = {row.event_id: row for row in reversed(self.reads.letters(keys))}
        suppressed = self.reads.suppressed(keys)
        for key in keys:
            if key in registered:
                return _registered(registered[key], letters.get(key))
        for key in keys:
            if key in letters:
                return _answer(key, "dead_letter", _reason(letters[key]))
            if key in suppressed:
                return _answer(key, "suppressed", "its person is suppressed: it was refused at the door")
        found = self._in_tail(set(keys), starts)
        if found is None:
            raise NotFound("no event with this id was ever accepted")
        return _answer(found, "pending", "accepted and durable; not folded yet")

    def _keys(self, text: str) -> list[bytes]:
        """The event keys a text can mean: itself, and the key of that message id from each source."""
        keys = []
        with suppress(ValueError):  # then it can only be a message id
            keys.append(UUID(text).bytes)
        secret = self.vault.hash_key
        return keys + [event_key(secret, source, text) for source in self.reads.sources()]

    def _in_tail(self, keys: set[bytes], starts: list[int]) -> bytes | None:
        """The key if it is in the log beyond what is folded; the newest records are checked first."""
        needles = [(key, uuid_text(key)) for key in keys]
        for value in self._tail(starts):
            for key, text in needles:
                if text.encode() in value and _HEAD.decode(value).id == text:
                    return key
        return None

    def _tail(self, starts: list[int]) -> Iterator[bytes]:
        for partition, end in enumerate(self.log.ends()):
            start = starts[partition] if partition < len(starts) else 0
            for last in range(end, start, -CHUNK):
                first = max(start, last - CHUNK)
                for records in records_between(self.log, partition, first, last, CHUNK):
                    yield from (record.value for record in records)


def _registered(row: RegisteredEvent, letter: FoundDeadLetter | None) -> Answer:
    if row.verdict == Verdict.ERASED:
        raise Erased("this event's person was erased")
    if row.verdict == Verdict.APPLIED:
        return _answer(row.event_key, "applied", None) | {
            "profile_id": None if row.profile_id is None else uuid_text(row.profile_id),
            "duplicates": row.copies,
        }
    if row.verdict == Verdict.DUPLICATE:
        return _answer(row.event_key, "duplicate", "the same event was applied from another partition")
    reason = _reason(letter) if letter else "set aside: its id was used by another event, or it cannot be folded"
    return _answer(row.event_key, "dead_letter", reason)


def _reason(letter: FoundDeadLetter) -> str:
    where = f" at {letter.path}" if letter.path else ""
    return f"{letter.rule}{where}: {letter.reason}"


def _answer(key: bytes, status: str, reason: str | None) -> Answer:
    return {"id": uuid_text(key), "status": status, "reason": reason, "profile_id": None, "duplicates": 0}
