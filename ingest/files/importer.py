"""Files to the log, through the door's own acceptance: batches of mapped rows, each durable before the next begins.

Nothing is counted twice: an event's key is a function of the file, keys that the dedup index has are left out, and
FOLD applies a key once. So an import that was stopped is finished by running it again. Its caller lets the worker
apply what is in the log before (the dedup index is written by FOLD alone) and after.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import date, datetime
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from ingest.accept.accept import DEAD_LETTER, SUPPRESSED, Acceptor, SourceRules
from ingest.accept.canonical import Refused, canonical
from ingest.files.mapped_rows import Row, Shaped, Shaper, row_hasher
from ingest.files.spill import RefusedLine, RefusedLines, SpillMap
from ingest.files.table_files import Table, open_table
from schemas.clear import Declared
from schemas.dead_letters import DeadLetter, letter_id, seal_letter
from schemas.errors import BadRequest, DefinitionsInvalid
from schemas.failpoints import failpoint
from schemas.mapping import FileMapping, check_columns
from schemas.ports import Clock, EventLog, Sealer, Vault
from schemas.record import Pending, event_key

STAGE: Final = "import"
BATCH_EVENTS: Final = 2_000
BATCH_LINES: Final = 20_000  # of orders with many lines; about 20 MB on their way
HELD_LINES: Final = 200_000  # of orders not yet whole; about 100 MB
HOPELESS: Final = 1_000  # refused events and no other
PREVIEW_LINES: Final = 20_000
_ENCODE: Final = msgspec.json.Encoder(decimal_format="string").encode


class ImportStore(Protocol):
    """What an import asks of the store."""

    def begin(self, source: str, at: datetime) -> None:
        """Make the source unless it is there; one import of a source at a time. Raises StoreUnavailable."""

    def registered(self, keys: Sequence[bytes]) -> dict[bytes, bytes | None]:
        """Those of the event keys that were applied or judged, with their digest; None: its person was erased."""


class LetterStore(Protocol):
    """Where dead letters are kept; a repeat is one row."""

    def insert(self, letters: Sequence[DeadLetter], suppressed: Sequence[bytes], at: datetime) -> None: ...


class Progress(NamedTuple):
    """`done`: 0..1 of the reading; `events`: read so far."""

    done: float
    events: int


@dataclass
class Result:
    """What became of the events of the files: `events` = accepted + duplicates + refused."""

    accepted: int = 0
    duplicates: int = 0
    refused: RefusedLines = field(default_factory=RefusedLines)

    @property
    def events(self) -> int:
        return self.accepted + self.duplicates + len(self.refused)


@dataclass(frozen=True)
class Services:
    """What an import works with. `vault` and `sealer` may be one. `check_disk`: raises DiskFull."""

    acceptor: Acceptor
    vault: Vault
    sealer: Sealer
    log: EventLog
    store: ImportStore
    letters: LetterStore
    clock: Clock
    daily_token: Callable[[date], bytes]
    declared: Declared
    check_disk: Callable[[], None]


# ---------------------------------------------------------------- reading


class Source:
    """The files of one command as one data set: rows, orders, events. Equal lines are counted over all files."""

    def __init__(
        self, files: Sequence[Path], mapping: FileMapping, secret: bytes, *, held_lines: int = HELD_LINES
    ) -> None:
        """Opens each file and compares its columns with the mapping's. Raises DefinitionsInvalid, BadRequest."""
        self.mapping = mapping
        self.shaper = Shaper(mapping)
        self._secret = secret
        self._held_lines = held_lines
        _refuse_repeated(files)
        self.tables: list[Table] = []
        for path in files:
            table = open_table(path, mapping.format, mapping.delimiter)
            check_columns(mapping, table.columns, str(path))
            self.tables.append(table)
        self._weights = [max(1, path.stat().st_size) for path in files]
        self._pass = 0
        self._current = 0

    def done(self) -> float:
        """0..1; with group_by the first half is the counting of lines, and further passes stand at the end."""
        read = float(sum(self._weights[: self._current]))
        if self._current < len(self.tables):
            read += self._weights[self._current] * self.tables[self._current].done()
        share = min(1.0, read / sum(self._weights))
        if not self.mapping.group_by:
            return share
        return share / 2 if self._pass == 1 else (1 + share) / 2 if self._pass == 2 else 1.0

    def name(self, file: int) -> str:
        return str(self.tables[file].path)

    def events(self, limit: int | None = None) -> Iterator[Shaped]:
        """Every event of the files, refused ones too. `limit`: of the first so many lines alone."""
        if not self.mapping.group_by:
            for row in self._rows(limit):
                yield row if isinstance(row, Shaped) else self.shaper.shape((row,))
            return
        yield from self._orders(limit)

    def _rows(self, limit: int | None = None) -> Iterator[Row | Shaped]:
        """Rows of all files in order; a line that cannot be read is refused in its place."""
        self._pass += 1
        for file, table in enumerate(self.tables):
            self._current = file
            yield from islice(self._rows_of(file, table), limit)
        self._current = len(self.tables)

    def _rows_of(self, file: int, table: Table) -> Iterator[Row | Shaped]:
        columns = self.shaper.columns
        if self.mapping.id is not None:
            for number, values, refused in table.rows(columns):
                row = Row(file, number, values, b"")
                yield row if refused is None else Shaped(row, None, None, b"", refused)
            return
        hash_of = row_hasher(table.columns, self._secret)
        places = [table.columns.index(name) for name in columns]
        for number, values, refused in table.rows(table.columns):
            if refused is None:
                yield Row(file, number, tuple([values[place] for place in places]), hash_of(values))
            else:
                yield Shaped(Row(file, number, (), b""), None, None, b"", refused)

    def _orders(self, limit: int | None) -> Iterator[Shaped]:
        """Lines of one order together, wherever they stand, in passes over the files: the first counts lines.

        Nothing is written aside (temporary files would hold personal values in clear). When the orders that wait for
        lines exceed `held_lines`, the newest are left for another pass; one over a file in order of orders suffices.
        """
        missing = self._count(limit)
        first = True
        while missing:
            left = SpillMap[int]()
            held: dict[bytes, list[Row]] = {}
            lines = 0
            for row in self._rows(limit):
                if isinstance(row, Shaped):
                    if first:
                        yield row
                    continue
                try:
                    group = self._group_of(row)
                except Refused as refused:
                    if first:
                        yield Shaped(row, None, None, row.content, refused)
                    continue
                count = missing.get(group)
                if count is None:
                    continue
                rows = held.setdefault(group, [])
                rows.append(row)
                lines += 1
                if len(rows) == count:
                    del held[group]
                    missing.remove(group)
                    lines -= count
                    yield self.shaper.shape(rows)
                while lines > self._held_lines and len(held) > 1:
                    newest, waiting = held.popitem()
                    lines -= len(waiting)
                    left[newest] = missing.get(newest) or 0
                    missing.remove(newest)
            missing.close()
            missing = left
            first = False

    def _count(self, limit: int | None) -> SpillMap[int]:
        counts = SpillMap[int]()
        for row in self._rows(limit):
            if isinstance(row, Row):
                try:
                    counts.count(self._group_of(row))
                except Refused:
                    continue  # told in the next pass, in its place
        return counts

    def _group_of(self, row: Row) -> bytes:
        """The keyed hash of what lines of one order have in common. Raises Refused."""
        group = self.shaper.group_of(row)
        return blake2b(_ENCODE(group), digest_size=16, key=self._secret, person=b"tf-import-order").digest()


def _refuse_repeated(files: Sequence[Path]) -> None:
    seen: set[str] = set()
    for path in files:
        real = os.path.realpath(path)
        if real in seen:
            raise BadRequest(f"{path} is given twice: its lines would count twice")
        seen.add(real)


def preview(files: Sequence[Path], mapping: FileMapping, count: int = 5) -> list[dict[str, Any]]:
    """The first events as they would be sent (`item`), or why not (`refused`); stores nothing, asks nobody.

    Ids made of rows are left out: they need the vault's key.
    """
    source = Source(files, mapping, bytes(32))
    shown: list[dict[str, Any]] = []
    for event in islice(source.events(PREVIEW_LINES), count):
        place = (
            {"line": event.row.line}
            if len(files) == 1
            else {"file": source.name(event.row.file), "line": event.row.line}
        )
        if event.item is None:
            shown.append({**place, "refused": str(event.refused)})
        else:
            id_ = {} if event.natural is None else {"messageId": event.natural}
            shown.append({**place, "item": {**event.item, **id_}})
    return shown


# ---------------------------------------------------------------- importing


class _Draft(NamedTuple):
    """An event with its key. `natural`: whether its id is the file's own."""

    event: Shaped
    item: dict[str, Any]
    key: bytes
    natural: bool


class _Digest(msgspec.Struct):
    digest: str


_DIGEST_OF: Final = msgspec.json.Decoder(_Digest).decode


class Importer:
    """One import of some files. `run` may raise StoreUnavailable or DiskFull: what was accepted is in the log."""

    def __init__(self, services: Services, source: Source) -> None:
        self._services = services
        self._source = source
        self._mapping = source.mapping
        self._secret = services.vault.hash_key
        self._rules = SourceRules(self._mapping.source, services.declared)
        self._digester = blake2b(digest_size=16, key=self._secret, person=b"tf-digest")
        self._seen = SpillMap[bytes]()  # natural ids of this import: key -> digest
        self._times = SpillMap[int]()  # contents of this import -> how often
        self._letters = SpillMap[int]()  # the same for refused lines
        self.result = Result()

    def run(self, progress: Callable[[Progress], None]) -> Result:
        """All events of the source. `progress` is called after each batch. What was remembered is gone afterwards."""
        self._services.store.begin(self._mapping.source, self._services.clock.now())
        with closing(self._seen), closing(self._times), closing(self._letters):
            for batch in _batches(self._source.events()):
                self._services.check_disk()
                self._import(batch)
                progress(Progress(self._source.done(), self.result.events))
        return self.result

    def _import(self, batch: Sequence[Shaped]) -> None:
        now = self._services.clock.now()
        letters: list[DeadLetter] = []
        drafts: list[_Draft] = []
        for event in batch:
            if event.item is None:
                letters.append(self._refuse(event, now))
            else:
                drafts.append(self._draft(event, event.item))
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
        """Whether what is there under this key is this event. Of a made id that is certain, even where the mapping
        has changed since; of an erased person it is not asked.
        """
        return digest is None or not draft.natural or digest == self._digest(draft.item)

    def _digest(self, item: Mapping[str, Any]) -> bytes:
        """As `accept` makes it, without making tokens."""
        digester = self._digester.copy()
        try:
            digester.update(canonical(item)[1])
        except Refused:
            return b""  # too large and the like: it was never accepted
        return digester.digest()

    def _send(self, drafts: Sequence[_Draft], letters: list[DeadLetter], now: datetime) -> None:
        """Accept, set aside, append: in this order, so that a stop between them loses nothing."""
        drafts = self._first_of(drafts, letters, now)
        services = self._services
        accepted = services.acceptor.accept(
            [draft.item for draft in drafts],
            self._rules,
            now,
            historical=self._mapping.historical,
            trusted_clock=True,
        )
        dead = iter(accepted.dead)
        pending: list[Pending] = []
        records = iter(accepted.pending)
        for draft, outcome in zip(drafts, accepted.results, strict=True):
            if outcome.status == DEAD_LETTER:
                letter = next(dead)
                letters.append(letter._replace(stage=STAGE))
                self._tell(draft.event, f"{letter.path}: {letter.reason}" if letter.path else letter.reason)
            elif outcome.status == SUPPRESSED:
                self._tell(draft.event, "this person's events are refused (erased with --suppress)")
            else:
                record = next(records)
                if draft.natural and self._comes_again(draft, record, letters, now):
                    continue
                pending.append(record)
        self._must_fit(len(pending))
        services.letters.insert(letters, accepted.suppressed, now)
        if pending:
            services.log.append(pending)
            failpoint("import.after_append")
        self.result.accepted += len(pending)

    def _first_of(self, drafts: Sequence[_Draft], letters: list[DeadLetter], now: datetime) -> list[_Draft]:
        """Without those whose natural id an earlier batch of this import had."""
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
                f"the first {len(refused)} lines are all refused (line {line.line}: {line.reason}): the mapping does "
                "not fit the file; nothing was imported. Try --preview"
            )

    def _tell(self, event: Shaped, reason: str) -> None:
        self.result.refused.append(RefusedLine(self._source.name(event.row.file), event.row.line, reason))

    def _refuse(self, event: Shaped, now: datetime) -> DeadLetter:
        refused = event.refused
        assert refused is not None, "an event without an item was refused"
        reason = str(refused)
        self._tell(event, f"{refused.path}: {reason}" if refused.path else reason)
        values = dict(zip(self._source.shaper.columns, event.row.values, strict=False))
        return self._letter(refused, event, values, None, now)

    def _reused(self, draft: _Draft, now: datetime) -> DeadLetter:
        refused = Refused("id_reused", "id", "another event with this id and other content was imported before")
        self._tell(draft.event, f"id: {refused}")
        return self._letter(refused, draft.event, {"item": draft.item}, draft.key, now)

    def _letter(
        self, refused: Refused, event: Shaped, body: Mapping[str, Any], event_id: bytes | None, now: datetime
    ) -> DeadLetter:
        """Sealed under the day's key: whose it is may not be readable. Erasure opens and searches these."""
        services, source = self._services, self._mapping.source
        place = {"file": Path(self._source.name(event.row.file)).name, "line": event.row.line}
        content = _ENCODE(body)
        if not event.row.values:
            content += _ENCODE(place)  # nothing of the line could be read: its place is all there is
        times = self._letters.count(blake2b(content, digest_size=16, key=self._secret, person=b"tf-refused").digest())
        if times > 1:
            content += b"%d" % times
        plain = _ENCODE({**place, ("item" if "item" in body else "row"): body.get("item", body)})
        id_ = letter_id(self._secret, STAGE, source, content)
        day_token = services.daily_token(now.date())
        reason = str(refused)
        return seal_letter(
            services.sealer,
            id_,
            STAGE,
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
    """Some events each, fewer of those with many lines."""
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
