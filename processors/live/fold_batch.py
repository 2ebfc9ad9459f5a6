"""FOLD: one transaction folds batches of the log into states, dedup index, evidence and work items (design C7).

The same code serves live work, building a revision and rebuilds; only live work writes the dedup index.
"""

from binascii import a2b_base64
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, NoReturn

import msgspec

from processors.live.applied import Applied, Batch, DeadLetterMaker, Report, newest_of, not_folded
from processors.live.dedup import Dedup
from processors.live.delta_cache import DeltaCache, Seen
from processors.live.order_evidence import save_orders
from processors.live.restamped import Restamped
from projections.fold.fold import Fold
from projections.fold.state import State
from projections.orders.parts import Part
from schemas.errors import FoldFailed, KeyMissing, ReaderTooOld, RecordUnreadable, SealBroken, TouchfoldError
from schemas.ports import EventLog, Sealer
from schemas.record import Stored, decode, identifier_set_of, received_us, sixteen
from schemas.store import FoldTx, ProjectionStore
from schemas.store_rows import NO_EVENT, SHARDS, Advance, EvidenceRow, NewWorkItem, NotApplied, Verdict
from schemas.touchpoints import ORDER_TYPES
from schemas.waits import SET_ASIDE, Bad, Wait, isolate

_CACHE: Final = 100_000  # identifier sets with evidence known to be stored; about 40 MB with their tokens


class _Again(Exception):
    """Signals that the batches must be folded again: one of their records waits, or turned out to be set aside."""


@dataclass
class Folder:
    """Folds batches for one revision. `letter` makes a sealed dead letter of a record that cannot be folded."""

    store: ProjectionStore
    log: EventLog
    fold: Fold
    sealer: Sealer
    letter: DeadLetterMaker
    revision: int
    epochs: Mapping[int, int]  # by partition: the epoch in which we own it
    live: bool = True
    adds_work: bool = True  # False for a revision that decides all its profiles at the end
    sharded: bool = False  # one shard of DECIDE per partition, because the worker that folds it also decides it
    deltas: DeltaCache | None = None  # collects events that DECIDE may fold into stored profiles
    orders_for: int | None = None  # the live revision, if an older build folded it and kept no evidence of orders
    poison: set[tuple[int, int]] = field(default_factory=set)  # positions that failed to fold repeatedly
    waits: dict[int, Wait] = field(default_factory=dict)  # by partition: the record it waits at, as last seen
    _by_hand: dict[tuple[int, int], str] = field(default_factory=dict)  # decodable records set aside by hand: why
    _identifier_sets: dict[tuple[str, ...], tuple[tuple[tuple[str, bytes], ...], bytes]] = field(default_factory=dict)
    _first: dict[bytes, int] = field(default_factory=dict)  # by identifier set: a receipt in its stored evidence
    _learnt: dict[bytes, int] = field(default_factory=dict)  # the same, in the open transaction

    @cached_property
    def _dedup(self) -> Dedup:
        reading = self.again, self.decoded, self._wait_at, Restamped(self.log, self.sealer, self.fold.reader)
        return Dedup(self.log, self.letter, self.fold, self.revision, *reading)

    def run(self, batches: Sequence[Batch], prune_us: int) -> Report:
        """Fold the batches of some partitions in one transaction. `prune_us`: no later decision is earlier than this.

        A partition with a record that cannot be read yet is folded up to that record: see `waits` and `end_of`.
        Raises ProgressConflict, StoreUnavailable (nothing is kept) or an error of disposition STOP.
        """
        if not self.live:
            return self._run_beside(batches, prune_us)
        for batch in batches:
            self.waits.pop(batch.partition, None)
        while True:
            with suppress(_Again):
                return self._run(batches, prune_us)

    def end_of(self, batch: Batch) -> int:
        """The offset after what `run` folded of a batch."""
        wait = self.waits.get(batch.partition)
        return batch.end if wait is None else min(batch.end, wait.offset)

    def _run(self, batches: Sequence[Batch], prune_us: int) -> Report:
        report = Report()
        steps, decoded, bad = self._judge(batches, report)
        if not steps:
            return report
        self._learnt = {}
        with self.store.fold() as tx:
            tx.hold_erasures(live=True)
            tx.advance(self.revision, steps)
            self._quarantine(tx, bad, report)
            chosen = self._dedup.choose(tx, decoded, report)
            deltas = self._apply(tx, chosen, prune_us)
        return self._done(report, chosen, deltas)

    def _run_beside(self, batches: Sequence[Batch], prune_us: int) -> Report:
        """For a revision being built: the event, as the live revision applied it."""
        report = Report(records=sum(len(batch.records) for batch in batches))
        self._learnt = {}
        with self.store.fold() as tx:
            tx.hold_erasures(live=False)
            steps = [Advance(b.partition, b.start, b.end, b.watermark_us, self.epochs[b.partition]) for b in batches]
            tx.advance(self.revision, steps)
            chosen = self.already_applied(tx, batches)
            deltas = self._apply(tx, chosen, prune_us)
        return self._done(report, chosen, deltas)

    def late(self, tx: FoldTx, record: Stored) -> list[bytes]:
        """Apply a record outside the batches; returns the identifier sets it counts for. Raises why it cannot."""
        decode(record.value, self.fold.reader)
        event = self.decoded(record)
        try:
            chosen = self._dedup.choose(tx, [event], Report())
        except _Again as err:
            raise ReaderTooOld(self.waits[event.partition].reason) from err
        if chosen:
            self._learnt = {}
            self._apply_all(tx, chosen, self.opened(chosen), 0)
        return [each.identifier_set for each in chosen]

    def _done(self, report: Report, chosen: Sequence[Applied], deltas: list[tuple[int, dict[bytes, Seen]]]) -> Report:
        self._learn()
        if self.deltas is not None:
            self.deltas.add(deltas)
        report.applied = len(chosen)
        return report

    # ------------------------------------------------------------ decode

    def _judge(self, batches: Sequence[Batch], report: Report) -> tuple[list[Advance], list[Applied], list[Bad]]:
        """How far each partition is folded, the records that can be read, and those that can never be read."""
        steps: list[Advance] = []
        decoded: list[Applied] = []
        bad: list[Bad] = []
        for batch in batches:
            end = self.end_of(batch)
            records = [each for each in batch.records if each.offset < end] if end < batch.end else batch.records
            found = isolate(records, self._judged, self._is_set_aside)
            if found.wait is not None:
                self.waits[batch.partition] = found.wait
                end = found.wait.offset
            watermark_us = batch.watermark_us if end == batch.end else _received_at(batch.records, end)
            if end > batch.start:
                steps.append(Advance(batch.partition, batch.start, end, watermark_us, self.epochs[batch.partition]))
                report.records += len(found.read) + len(found.bad)
                decoded += found.read
                bad += [self._by_whom(each) for each in found.bad]
        return steps, decoded, bad

    def _by_whom(self, bad: Bad) -> Bad:
        """The record under the rule SET_ASIDE, if it is unreadable only because somebody set it aside by hand."""
        place = (bad.record.partition, bad.record.offset)
        return bad._replace(rule=SET_ASIDE) if place in self._by_hand else bad

    def _judged(self, record: Stored) -> Applied:
        """The event of a record. Only this place decides what counts as an event, for every reader of the log."""
        place = (record.partition, record.offset)
        if place in self.poison:
            raise RecordUnreadable("folding it failed repeatedly")
        if place in self._by_hand:
            raise RecordUnreadable(self._by_hand[place])
        decode(record.value, self.fold.reader)
        return self.decoded(record)

    def _is_set_aside(self, wait: Wait) -> bool:
        with self.store.fold() as tx:
            return tx.is_set_aside(wait.partition, wait.offset)

    def _wait_at(self, tx: FoldTx, each: Applied, err: TouchfoldError) -> NoReturn:
        """Make the partition wait at this event, because something it needs is missing, unless it was set aside."""
        if tx.is_set_aside(each.partition, each.offset):
            self._by_hand[each.partition, each.offset] = err.message
        else:
            self.waits[each.partition] = Wait(each.partition, each.offset, err.code, err.message)
        raise _Again

    def again(self, records: Sequence[Stored]) -> list[Applied]:
        """The events of records applied before. Raises FoldFailed with the place of one that is no longer readable."""
        found = isolate(records, self.decoded)
        if found.bad:
            partition, offset, _ = found.bad[0].record
            raise FoldFailed(f"partition {partition} offset {offset} was applied before: {found.bad[0].reason}")
        if found.wait is not None:
            raise FoldFailed(
                f"{found.wait.place} was applied by a newer build: {found.wait.reason}: upgrade this build"
            )
        return found.read

    def decoded(self, record: Stored) -> Applied:
        event = self.fold.decode(record.value)
        event.partition, event.offset = record.partition, record.offset
        sixteen(event.route_key)  # the bulk fold needs it as bytes
        names = tuple([identifier.token for identifier in event.ids])
        known = self._identifier_sets.get(names)
        if known is None:
            tokens = tuple((identifier.kind, sixteen(identifier.token)) for identifier in event.ids)
            known = tokens, identifier_set_of(token for _, token in tokens)
            if len(self._identifier_sets) >= _CACHE:
                self._identifier_sets.clear()
            self._identifier_sets[names] = known
        order = self.fold.named_order(event, known[1]) if event.type in ORDER_TYPES else None
        return Applied(
            event,
            event.key,
            sixteen(event.digest),
            known[0],
            known[1],
            record.partition,
            record.offset,
            event.received_us,
            event.occurred_us,
            order,
        )

    # ------------------------------------------------------------ dedup

    def _quarantine(self, tx: FoldTx, bad: Sequence[Bad], report: Report) -> None:
        if not bad:
            return
        tx.add_dead_letters([self.letter(each.record, each.rule, each.reason, None) for each in bad])
        tx.not_applied(
            [NotApplied(each.record.partition, each.record.offset, None, Verdict.QUARANTINED) for each in bad]
        )
        report.quarantined += len(bad)

    def already_applied(self, tx: FoldTx, batches: Sequence[Batch]) -> list[Applied]:
        """For a revision being built: what the live one decided, by position. It never overtakes the live one.

        Records set aside are skipped unread. Raises FoldFailed if an applied record cannot be read.
        """
        applied: list[Applied] = []
        for batch in batches:
            skipped = tx.skipped(batch.partition, batch.start, batch.end)
            applied += self.again([each for each in batch.records if each.offset not in skipped])
        gone = tx.erased({bytes.fromhex(each.event.route_key) for each in applied})
        lost = [each for each in applied if bytes.fromhex(each.event.route_key) in gone] if gone else []
        keys = {each.key for each in lost}
        kept = [each for each in applied if each.key not in keys] if keys else applied
        if self.orders_for is not None and (orders := save_orders(tx, kept, lost)):
            tx.add_work([NewWorkItem(self.orders_for, 0, "order", dict.fromkeys(orders, (0, NO_EVENT)))])
        return kept

    # ------------------------------------------------------------ apply

    def _apply(self, tx: FoldTx, chosen: Sequence[Applied], prune_us: int) -> list[tuple[int, dict[bytes, Seen]]]:
        """Apply events to states, evidence and work items; returns them by work item and identifier set."""
        return self._apply_all(tx, chosen, self._opened(tx, chosen), prune_us) if chosen else []

    def _apply_all(
        self, tx: FoldTx, chosen: Sequence[Applied], opened: Mapping[bytes, dict[str, object]], prune_us: int
    ) -> list[tuple[int, dict[bytes, Seen]]]:
        self._apply_to_states(tx, chosen, opened, prune_us)
        earlier = self._save_evidence(tx, chosen) if self.live else set()
        orders = save_orders(tx, chosen, self._dedup.erased) if self.live else []
        if not self.adds_work:
            return []
        shards: dict[int, dict[bytes, list[tuple[Part, Applied]]]] = {}
        for each in chosen:
            number = each.partition if self.sharded else int(each.event.route_key[:2], 16) % SHARDS
            shard = shards.setdefault(number, {})
            for name, part in each.shares:
                shard.setdefault(name, []).append((part, each))
        items = [
            NewWorkItem(
                self.revision,
                shard,
                "fold",
                {name: newest_of([each for _, each in events]) for name, events in of.items()},
            )
            for shard, of in shards.items()
        ]
        seen: list[dict[bytes, Seen]] = [
            {name: [(part, each.event, opened.get(each.key)) for part, each in events] for name, events in of.items()}
            for of in shards.values()
        ]
        if orders:
            items.append(NewWorkItem(self.revision, 0, "order", dict.fromkeys(orders, (0, NO_EVENT))))
        if earlier:  # an earlier receipt of known evidence may change identities
            items.append(NewWorkItem(self.revision, 0, "identity", dict.fromkeys(earlier, (0, NO_EVENT))))
        return list(zip(tx.add_work(items), seen, strict=False))

    def _apply_to_states(
        self, tx: FoldTx, chosen: Sequence[Applied], opened: Mapping[bytes, dict[str, object]], prune_us: int
    ) -> None:
        fold = self.fold
        parts, new_state = fold.parts, fold.new_state
        shared = [(each, each.partition, name, part) for each in chosen for name, part in each.shares]
        stored = tx.load_states(self.revision, {(partition, name) for _, partition, name, _ in shared})
        states: dict[tuple[int, bytes], State] = {}
        lifted: dict[tuple[int, bytes], tuple[int, ...]] = {}
        for each, partition, name, part in shared:
            place = (partition, name)
            state = states.get(place)
            if state is None:
                packed = stored.get(place)
                state = states[place] = new_state() if packed is None else fold.unpack(packed)
                if slots := fold.lift(state):
                    lifted[place] = slots
            try:
                parts[part](each.event, state, opened.get(each.key) if opened else None)
            except Exception as err:
                if self.live:
                    raise  # it is tried again, then set aside
                raise not_folded(each, err) from err
        save_states(tx, fold, self.revision, states, lifted, prune_us)

    def _opened(self, tx: FoldTx, chosen: Sequence[Applied]) -> dict[bytes, dict[str, object]]:
        """The opened sealed parts of events; if the vault lacks a key, the record's partition waits."""
        try:
            return self.opened(chosen)
        except (KeyMissing, SealBroken):
            if not self.live:
                raise
            for each in chosen:
                try:
                    self.opened([each])
                except (KeyMissing, SealBroken) as err:
                    self._wait_at(tx, each, err)
            raise

    def opened(self, chosen: Iterable[Applied]) -> dict[bytes, dict[str, object]]:
        """The opened sealed parts of events, where definitions need them; an erased one opens to nothing."""
        wanted = [each for each in chosen if self.fold.needs_sealed(each.event)]
        if not wanted:
            return {}
        triples = []
        for each in wanted:
            sealed = each.event.sealed
            assert sealed is not None, "needs_sealed found something sealed"
            triples.append((bytes.fromhex(sealed.key), a2b_base64(sealed.data), each.key))
        plain = self.sealer.open_many(triples)
        return {
            each.key: msgspec.json.decode(data) for each, data in zip(wanted, plain, strict=True) if data is not None
        }

    def _save_evidence(self, tx: FoldTx, chosen: Sequence[Applied]) -> set[bytes]:
        """Store first receipts of identifier sets; returns known ones with a first receipt earlier than before."""
        first: dict[bytes, Applied] = {}
        for each in chosen:
            if each.received_us > self._first.get(each.identifier_set, 2**63 - 1) or each.names_nobody:
                continue  # usual case: its evidence is stored with an earlier receipt
            other = first.get(each.identifier_set)
            if other is None or each.receipt < other.receipt:
                first[each.identifier_set] = each
        if not first:
            return set()
        known = tx.first_receipts(first)
        lower = {
            identifier_set: each
            for identifier_set, each in first.items()
            if identifier_set not in known or each.receipt < known[identifier_set]
        }
        gone = tx.erased({token for each in lower.values() for _, token in each.tokens})
        tx.save_evidence(
            [
                EvidenceRow(
                    identifier_set,
                    tuple(pair for pair in each.tokens if pair[1] not in gone),
                    *each.receipt,
                )
                for identifier_set, each in lower.items()
            ]
        )
        for identifier_set, each in first.items():
            self._learnt[identifier_set] = min(each.received_us, known.get(identifier_set, (each.received_us, b""))[0])
        return {identifier_set for identifier_set in lower if identifier_set in known}

    def _learn(self) -> None:
        """Remember what was committed."""
        if len(self._first) + len(self._learnt) > _CACHE:
            self._first.clear()
        self._first |= self._learnt


def save_states(
    tx: FoldTx,
    fold: Fold,
    revision: int,
    states: Mapping[tuple[int, bytes], State],
    lifted: Mapping[tuple[int, bytes], tuple[int, ...]],
    prune_us: int | None = None,
) -> None:
    """Store states by (partition, identifier set), and separately what is over the cap. `lifted`: see `Fold.lift`."""
    off: dict[tuple[int, bytes], bytes] = {}
    for place, state in states.items():
        maps = fold.lay_off(state, lifted.get(place, ()))
        if maps is not None:
            off[place] = fold.pack(maps)
        if prune_us is not None:
            fold.prune(state, prune_us)
    tx.save_states(revision, {place: fold.pack(state) for place, state in states.items()})
    tx.lay_off(revision, off)


def _received_at(records: Sequence[Stored], offset: int) -> int:
    """When the record at an offset was received; 0 if it does not say, which leaves the watermark unchanged."""
    return next((received_us(each.value) or 0 for each in records if each.offset == offset), 0)
