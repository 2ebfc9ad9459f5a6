"""Imports files into the log the way the door accepts events: batches of mapped rows, each durable before the next.

The events of one command are received in the order in which they occurred, whatever the order of the files, so that who
was seen first is who came first. They are sorted before the first is appended: nothing is in the log while lines are
still read.

Nothing is counted twice: an event's key depends only on the file, keys already in the dedup index are left out, and
FOLD applies a key once. So an interrupted import is finished by running it again. Its caller lets the worker apply
everything in the log before the import (only FOLD writes the dedup index) and after it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import date, datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from ingest.accept.accept import Acceptor
from ingest.accept.calls import DEAD_LETTER, SUPPRESSED, SourceRules
from ingest.accept.canonical import Refused, canonical
from ingest.files.mapped_rows import Shaped
from ingest.files.notes import SHOWN_LINES
from ingest.files.ordering import Cipher, EventSorter
from ingest.files.rows import Progress, Source
from ingest.files.spill import RefusedLine, RefusedLines, SpillMap
from schemas.clear_rules import Declared
from schemas.dead_letters import IMPORT, REUSED, DeadLetter, DeadLetterStore, dead_letter_id, seal_dead_letter
from schemas.errors import DefinitionsInvalid, StoreUnavailable
from schemas.failpoints import failpoint
from schemas.ports import Clock, EventLog, Sealer, Vault
from schemas.record import EPOCH, Pending, event_key

BATCH_EVENTS: Final = 2_000
BATCH_LINES: Final = 20_000  # for orders with many lines; about 20 MB in memory
HOPELESS: Final = 1_000  # refused events without a single good one
_MOST_REASONS: Final = 200
_ENCODE: Final = msgspec.json.Encoder(decimal_format="string").encode


class ImportStore(Protocol):
    """What an import needs from the store."""

    def begin(self, source: str, at: datetime) -> None:
        """Create the source if it is missing; one import per source at a time. Raises StoreUnavailable."""

    def registered(self, keys: Sequence[bytes]) -> dict[bytes, bytes | None]:
        """The event keys that have already been applied or judged, with their digest; None: the person was erased."""


@dataclass
class Reason:
    """Why lines were refused: how many events, and the first few lines."""

    rule: str
    reason: str
    count: int = 0
    lines: list[int] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return {"rule": self.rule, "reason": self.reason, "count": self.count, "lines": self.lines}


@dataclass
class Result:
    """The outcome of an import: `events` = accepted + duplicates + refused. `reasons`: the refused ones by reason.

    `unreadable_amounts`: accepted orders and refunds with an amount that cannot be read, which counts nowhere.
    """

    accepted: int = 0
    unreadable_amounts: int = 0
    duplicates: int = 0
    refused: RefusedLines = field(default_factory=RefusedLines)
    reasons: dict[str, Reason] = field(default_factory=dict)

    @property
    def events(self) -> int:
        return self.accepted + self.duplicates + len(self.refused)


@dataclass(frozen=True)
class Services:
    """What an import needs. `vault` and `sealer` may be the same object. `check_disk` raises DiskFull."""

    acceptor: Acceptor
    vault: Vault
    sealer: Sealer
    log: EventLog
    store: ImportStore
    letters: DeadLetterStore
    clock: Clock
    daily_token: Callable[[date], bytes]
    declared: Declared
    check_disk: Callable[[], None]


# ---------------------------------------------------------------- importing


class _Draft(NamedTuple):
    """An event with its key. `natural`: whether its id comes from the file."""

    event: Shaped
    item: dict[str, Any]
    key: bytes
    natural: bool


class _Digest(msgspec.Struct):
    digest: str


_DIGEST_OF: Final = msgspec.json.Decoder(_Digest).decode


class Importer:
    """One import of some files. `run` may raise StoreUnavailable or DiskFull; what it had accepted is in the log."""

    def __init__(self, services: Services, source: Source) -> None:
        self._services = services
        self._source = source
        self._mapping = source.mapping
        self._secret = services.vault.hash_key
        self._rules = SourceRules(self._mapping.source, services.declared)
        self._digester = blake2b(digest_size=16, key=self._secret, person=b"tf-digest")
        self._seen = SpillMap[bytes]()  # natural ids of this import: key -> digest
        self._times = SpillMap[int]()  # contents of this import -> how often they occurred
        self._letters = SpillMap[int]()  # the same for refused lines
        self._latest = EPOCH
        self._sent = 0  # events given to acceptance so far: their places go on from batch to batch
        self.result = Result()

    def run(self, progress: Callable[[Progress], None]) -> Result:
        """Import all events of the source. Calls `progress` after each batch; forgets its memory at the end."""
        self._services.store.begin(self._mapping.source, self._services.clock.now())
        with closing(self._seen), closing(self._times), closing(self._letters), closing(self._sorter()) as events:
            self._read(events, progress)
            taken = 0
            for batch in _batches(events):
                self._services.check_disk()
                self._import(batch)
                taken += len(batch)
                progress(Progress((1 + taken / events.count) / 2, self.result.events))
        return self.result

    def _sorter(self) -> EventSorter:
        """Its spilled runs are sealed under the day's key, like the dead letters of events without a person."""
        sealer = self._services.sealer
        day_token = self._services.daily_token(self._services.clock.now().date())

        def open_(data: bytes, number: int) -> bytes:
            (plain,) = sealer.open_many([(day_token, data, number.to_bytes(16, "big"))])
            if plain is None:
                raise StoreUnavailable("the key of the day was destroyed meanwhile: run the same command again")
            return plain

        return EventSorter(
            Cipher(lambda plain, number: sealer.seal(day_token, plain, number.to_bytes(16, "big")), open_)
        )

    def _read(self, events: EventSorter, progress: Callable[[Progress], None]) -> None:
        """The first half: all lines become events, to be sorted; those that cannot be events are refused."""
        refused: list[Shaped] = []
        for number, event in enumerate(self._source.events(), 1):
            if event.item is None:
                refused.append(event)
            else:
                events.add(event)
            if number % BATCH_EVENTS == 0:
                self._refuse_all(refused, events)
                progress(Progress(self._source.done() / 2, number))
        self._refuse_all(refused, events)

    def _refuse_all(self, refused: list[Shaped], events: EventSorter) -> None:
        if not refused:
            return
        self._services.check_disk()
        now = self._services.clock.now()
        letters = [self._refuse(event, now) for event in refused]
        self._must_fit(events.count)
        self._services.letters.insert(letters, [], now)
        refused.clear()

    def _now(self) -> datetime:
        """The clock, never backwards: what is sent later is received later."""
        self._latest = max(self._services.clock.now(), self._latest)
        return self._latest

    def _import(self, batch: Sequence[Shaped]) -> None:
        now = self._now()
        letters: list[DeadLetter] = []
        drafts = [self._draft(event, event.item) for event in batch if event.item is not None]
        known = self._services.store.registered([draft.key for draft in drafts])
        fresh: list[_Draft] = []
        for draft in drafts:
            if draft.key not in known:
                fresh.append(draft)
            elif self._is_same(draft, known[draft.key]):
                self.result.duplicates += 1
            else:
                letters.append(self._reused(draft, now))
        self._send(fresh, letters, now)

    def _draft(self, event: Shaped, item: dict[str, Any]) -> _Draft:
        natural = event.natural
        if natural is not None:
            message_id = natural
        else:
            times = self._times.count(event.content)
            message_id = event.content.hex() if times == 1 else f"{event.content.hex()}.{times}"
        item["messageId"] = message_id
        key = event_key(self._secret, self._mapping.source, message_id)
        return _Draft(event, item, key, natural is not None)

    def _is_same(self, draft: _Draft, digest: bytes | None) -> bool:
        """Whether the event stored under this key is this one. With a derived id it always is, even if the mapping has
        changed since; for an erased person it counts as the same.
        """
        return digest is None or not draft.natural or digest == self._digest(draft.item)

    def _digest(self, item: Mapping[str, Any]) -> bytes:
        """The digest as `accept` computes it, without creating tokens."""
        digester = self._digester.copy()
        try:
            digester.update(canonical(item)[1])
        except Refused:
            return b""  # refused (too large, for example), so it was never accepted
        return digester.digest()

    def _send(self, drafts: Sequence[_Draft], letters: list[DeadLetter], now: datetime) -> None:
        """Accept, store dead letters, append: in this order, so that an interruption loses nothing."""
        drafts = self._first_of(drafts, letters, now)
        services = self._services
        accepted = services.acceptor.accept(
            [draft.item for draft in drafts],
            self._rules,
            now,
            historical=self._mapping.historical,
            trusted_clock=True,
            first_n=self._sent,
        )
        self._sent += len(drafts)
        dead = iter(accepted.dead)
        pending: list[Pending] = []
        records = iter(accepted.pending)
        for draft, outcome in zip(drafts, accepted.results, strict=True):
            if outcome.status == DEAD_LETTER:
                letter = next(dead)
                letters.append(letter._replace(stage=IMPORT))
                self._tell(draft.event, letter.rule, letter.path, letter.reason)
            elif outcome.status == SUPPRESSED:
                self._tell(draft.event, SUPPRESSED, "", "this person's events are refused (erased with --suppress)")
            else:
                record = next(records)
                if draft.natural and self._comes_again(draft, record, letters, now):
                    continue
                pending.append(record)
                self.result.unreadable_amounts += b'"amount_unreadable"' in record.value
        self._must_fit(len(pending))
        services.letters.insert(letters, accepted.suppressed, now)
        if pending:
            services.log.append(pending)
            failpoint("import.after_append")
        services.letters.count_blocked(accepted.blocked, now)
        self.result.accepted += len(pending)

    def _first_of(self, drafts: Sequence[_Draft], letters: list[DeadLetter], now: datetime) -> list[_Draft]:
        """The events without those whose natural id occurred in an earlier batch of this import."""
        fresh: list[_Draft] = []
        for draft in drafts:
            digest = self._seen.get(draft.key) if draft.natural else None
            if digest is None:
                fresh.append(draft)
            elif digest == self._digest(draft.item):
                self.result.duplicates += 1
            else:
                letters.append(self._reused(draft, now))
        return fresh

    def _comes_again(self, draft: _Draft, record: Pending, letters: list[DeadLetter], now: datetime) -> bool:
        """Whether an earlier event of this batch has the same natural id; remembers it if not."""
        digest = bytes.fromhex(_DIGEST_OF(record.value).digest)
        earlier = self._seen.get(draft.key)
        if earlier is None:
            self._seen[draft.key] = digest
            return False
        if earlier == digest:
            self.result.duplicates += 1
        else:
            letters.append(self._reused(draft, now))
        return True

    # ---------------------------------------------------------------- refusals

    def _must_fit(self, accepted: int) -> None:
        """A whole first batch of refusals is a wrong mapping, not a thousand dead letters."""
        refused = self.result.refused
        if not accepted and self.result.events == len(refused) >= HOPELESS:
            line = next(iter(refused))
            raise DefinitionsInvalid(
                f"the first {len(refused)} lines were all refused (line {line.line}: {line.reason}): the mapping does "
                "not fit the file; nothing was imported. Try --preview"
            )

    def _tell(self, event: Shaped, rule: str, path: str, reason: str) -> None:
        text = f"{path}: {reason}" if path else reason
        self.result.refused.append(RefusedLine(self._source.name(event.row.file), event.row.line, text))
        kind = text.partition(";")[0]  # without how many lines are one event
        found = self.result.reasons.get(kind)
        if found is None:
            if len(self.result.reasons) >= _MOST_REASONS:
                return
            found = self.result.reasons[kind] = Reason(rule, kind)
        found.count += 1
        if len(found.lines) < SHOWN_LINES:
            found.lines.append(event.row.line)

    def _refuse(self, event: Shaped, now: datetime) -> DeadLetter:
        refused = event.refused
        assert refused is not None, "an event without an item was refused"
        self._tell(event, refused.rule, refused.path, str(refused))
        values = dict(zip(self._source.shaper.columns, event.row.values, strict=False))
        return self._letter(refused, event, values, None, now)

    def _reused(self, draft: _Draft, now: datetime) -> DeadLetter:
        refused = Refused(REUSED, "id", "an event with this id and different content was imported before")
        self._tell(draft.event, refused.rule, refused.path, str(refused))
        return self._letter(refused, draft.event, {"item": draft.item}, draft.key, now)

    def _letter(
        self, refused: Refused, event: Shaped, body: Mapping[str, Any], event_id: bytes | None, now: datetime
    ) -> DeadLetter:
        """A dead letter under the day's key, because its person may be unknown. An erasure opens and searches these."""
        services, source = self._services, self._mapping.source
        place = {"file": Path(self._source.name(event.row.file)).name, "line": event.row.line}
        content = _ENCODE(body)
        if not event.row.values:
            content += _ENCODE(place)  # nothing of the line could be read: its place is all we have
        times = self._letters.count(blake2b(content, digest_size=16, key=self._secret, person=b"tf-refused").digest())
        if times > 1:
            content += b"%d" % times
        plain = _ENCODE({**place, ("item" if "item" in body else "row"): body.get("item", body)})
        id_ = dead_letter_id(self._secret, IMPORT, source, content)
        day_token = services.daily_token(now.date())
        reason = str(refused)
        return seal_dead_letter(
            services.sealer,
            id_,
            IMPORT,
            refused.rule,
            refused.path,
            reason,
            source,
            now,
            event_id,
            (),
            day_token,
            plain,
        )


def _batches(events: Iterable[Shaped]) -> Iterator[list[Shaped]]:
    """Batches of events, smaller ones if the events have many lines."""
    batch: list[Shaped] = []
    lines = 0
    for event in events:
        batch.append(event)
        lines += 1 if event.item is None else len(event.item.get("properties", {}).get("products", ())) or 1
        if len(batch) >= BATCH_EVENTS or lines >= BATCH_LINES:
            yield batch
            batch, lines = [], 0
    if batch:
        yield batch
