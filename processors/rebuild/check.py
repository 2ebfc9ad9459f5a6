"""`rebuild --check`: folds and decides everything again from the log and compares it with the live tables (design C9).

It shares the generated fold and evaluator with live work, but none of its bookkeeping: identity is resolved from all
evidence together, and states are folded, not read. Both sides are sorted and walked in step, so that memory does not
grow with the log; what does not fit is in temporary files.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import groupby, islice
from typing import Final, NamedTuple

import msgspec

from processors.live.applied import Applied, not_folded
from processors.live.compiled import Compiled, folder_of
from processors.live.fold_batch import Folder
from processors.live.personal_traits import open_personal
from processors.live.services import Services
from processors.rebuild.check_figures import FigureSums
from processors.rebuild.check_identity import Grouped, Owned, earliest, owners_of, packed, split
from processors.rebuild.check_orders import OrderOwners
from processors.rebuild.external_sort import Scratch, Sorter, joined
from projections.fold.state import State
from schemas.log_range import records_between
from schemas.rebuilding import Snapshot
from schemas.record import Stored, uuid_text
from schemas.store_rows import ProfileRow

CHUNK: Final = 10_000
SHOWN: Final = 20  # differences listed; all of them are counted
KEPT: Final = 1_000  # differences in a verdict
HELD: Final = 20_000  # states in memory while folding, about 2 KB each
HELD_EVENTS: Final = 200_000  # events folded into them, since each may make a state grow
_BATCH: Final = 500  # profiles whose direct traits are opened together
_TOKENS, _STATE = b"\0", b"\1"  # kinds of a profile's lines: its tokens sort before its states
_ENCODER: Final = msgspec.json.Encoder()
Tell = Callable[[str, int, int], None]  # (current step, done, total; 0: unknown)


class Difference(NamedTuple):
    """One difference: `what` names it, `live` and `log` are the two values."""

    what: str
    id: str
    live: str
    log: str


@dataclass
class Verdict:
    """The result of a check. `hash`: of the rebuilt side; the same for equal runs over equal logs.

    `differences`: the first 1,000 of `found`. `left_out`: differences due to an erasure since the snapshot.
    """

    profiles: int = 0
    hash: str = ""
    as_of_us: int = 0
    differences: list[Difference] = field(default_factory=list)
    found: int = 0
    left_out: int = 0

    @property
    def equal(self) -> bool:
        return self.found == 0


class _Line(NamedTuple):
    """A profile according to the log, with its live row."""

    profile_id: bytes
    row: ProfileRow | None
    state: State | None  # None: the log has no event of it
    tokens: list[bytes]


def check(
    services: Services,
    compiled: Compiled,
    snapshot: Snapshot,
    tell: Tell = lambda *_told: None,
    scratch: Scratch | None = None,
) -> Verdict:
    """Compare the live tables of a snapshot with a rebuild of the log up to that snapshot.

    `scratch`: where it sorts. Raises DiskFull, StoreUnavailable and what the log's records raise.
    """
    with scratch or Scratch() as sorters:
        return _Check(services, compiled, snapshot, tell, sorters).run()


class _Check:
    def __init__(
        self, services: Services, compiled: Compiled, snapshot: Snapshot, tell: Tell, scratch: Scratch
    ) -> None:
        self._services = services
        self._compiled = compiled
        self._snapshot = snapshot
        self._tell = tell
        self._scratch = scratch
        self._states, self._receipts = scratch.sorter(), scratch.sorter()
        self._orders = OrderOwners(scratch)
        self._erased = snapshot.erased()
        self._digest = sha256()
        self._verdict = Verdict(as_of_us=snapshot.watermark_us)
        self._figures = FigureSums(compiled.fold.days)

    def run(self) -> Verdict:
        self._fold_all()
        self._tell("resolving identity", 0, 0)
        owners = owners_of(self._evidence, self._services.rules, self._scratch, self._snapshot.unnamed())
        self._receipts.close()
        of_orders = self._orders.decided(owners)
        lines = self._scratch.sorter()
        self._compare_states(owners, of_orders, lines)
        self._states.close()
        self._compare_owners(owners, lines)
        self._compare_order_owners(of_orders)
        owners.close()
        of_orders.close()
        self._compare_profiles(lines)
        self._compare_figures()
        self._verdict.hash = self._digest.hexdigest()
        return self._verdict

    # ------------------------------------------------------------ fold

    def _fold_all(self) -> None:
        folder = folder_of(self._services, self._compiled, {}, live=False)
        ends, done = list(self._snapshot.next_offsets), 0
        held = _Held(folder, self._states, self._receipts, self._orders, self._erased)
        applied = _Applied(self._snapshot.skipped())
        for partition, end in enumerate(ends):
            for records in records_between(self._services.log, partition, 0, end, CHUNK):
                held.add(folder.again([record for record in records if applied.holds(record)]))
                done += len(records)
                self._tell("folding the log again", done, sum(ends))
        held.flush()

    # ------------------------------------------------------------ compare

    def _evidence(self) -> Iterator[Grouped]:
        """The log's evidence, without identifier sets that have no owner; each with its live owner as its group."""
        live = ((row.identifier_set, row) for row in self._snapshot.evidence())
        for identifier_set, mine, row in joined(earliest(self._receipts), live):
            if mine is None or not mine.tokens or (row is not None and not row.tokens):
                continue  # no owner: all its tokens are erased, or its route was a shared identifier that stayed
            yield mine, (row.profile_id if row is not None else None) or identifier_set

    def _compare_states(self, owners: Sorter, of_orders: Sorter, lines: Sorter) -> None:
        fold, at_us = self._compiled.fold, self._verdict.as_of_us
        live = ((identifier_set + bytes([part]), state) for identifier_set, part, state in self._snapshot.states())
        owned = Owned(heapq.merge(owners, of_orders))
        for key, mine, theirs in joined(self._merged(), live):
            identifier_set = key[:16]
            canonical = b"" if mine is None else self._canonical(mine)
            self._digest.update(key + canonical)
            if mine is not None and (owner := owned.of(identifier_set)) is not None:
                lines.add(owner + _STATE + key, mine)
            if mine != theirs:
                other = b"" if theirs is None else fold.canonical(fold.unpack(theirs), at_us)
                if canonical != other:
                    tokens = owned.tokens(identifier_set)
                    self._differs("state", identifier_set.hex(), other.hex(), canonical.hex(), tokens)

    def _merged(self) -> Iterator[tuple[bytes, bytes]]:
        """(identifier set and partition, packed state), from the runs that folding left."""
        fold = self._compiled.fold
        for key, found in groupby(self._states, key=lambda pair: pair[0]):
            parts = [value for _, value in found]
            yield key, parts[0] if len(parts) == 1 else fold.pack(fold.merge_whole(list(map(fold.unpack, parts))))

    def _canonical(self, packed_state: bytes) -> bytes:
        """A state as FOLD stores it; here nothing was laid off, whatever the cap."""
        fold = self._compiled.fold
        state = fold.unpack(packed_state)
        fold.lay_off(state)
        return fold.canonical(state, self._verdict.as_of_us)

    def _compare_owners(self, owners: Sorter, lines: Sorter) -> None:
        live = ((row.identifier_set, row) for row in self._snapshot.evidence())
        for identifier_set, mine, row in joined(owners, live):
            if mine is not None:
                lines.add(mine[:16] + _TOKENS + identifier_set, mine[16:])
            owner, tokens = (b"", []) if mine is None else (mine[:16], split(mine[16:]))
            if row is not None and row.tokens:
                if owner != row.profile_id:
                    self._differs("owner", identifier_set.hex(), (row.profile_id or b"").hex(), owner.hex(), tokens)
            elif mine is not None:
                self._differs("evidence", identifier_set.hex(), "", owner.hex(), tokens)

    def _compare_order_owners(self, of_orders: Sorter) -> None:
        live = ((row.identifier_set, row) for row in self._snapshot.evidence())
        for order_set, mine, row in joined(of_orders, live):
            if mine is not None and (row is None or (row.profile_id or b"") != mine):
                theirs = "" if row is None else (row.profile_id or b"").hex()
                self._differs("order", order_set.hex(), theirs, mine.hex(), [])

    def _compare_profiles(self, lines: Sorter) -> None:
        evaluator = self._compiled.evaluator
        rows = ((row.profile_id, row) for row in self._snapshot.profiles())
        both = (_Line(key, row, *(mine or (None, []))) for key, mine, row in joined(self._profiles(lines), rows))
        while batch := list(islice(both, _BATCH)):
            personal = {}
            if evaluator.needs_personal:
                states = {each.profile_id: each.state for each in batch if each.state is not None}
                services = self._services
                personal = open_personal(services.log, services.sealer, states, evaluator.needs_personal.__contains__)
            for each in batch:
                self._compare_profile(each, personal.get(each.profile_id))
            self._tell("comparing profiles", self._verdict.profiles, 0)

    def _profiles(self, lines: Sorter) -> Iterator[tuple[bytes, tuple[State | None, list[bytes]]]]:
        """By profile id: its state, summed from its identifier sets', and its tokens."""
        fold = self._compiled.fold
        for profile_id, found in groupby(lines, key=lambda pair: pair[0][:16]):
            tokens: set[bytes] = set()
            states = []
            for key, value in found:
                if key[16:17] == _TOKENS:
                    tokens.update(split(value))
                else:
                    states.append(fold.unpack(value))
            yield profile_id, (fold.merge_whole(states) if states else None, sorted(tokens))

    def _compare_profile(self, line: _Line, personal: dict[str, object] | None) -> None:
        profile_id, row, state, tokens = line
        if row is None:
            if state is not None:
                self._differs("profile", uuid_text(profile_id), "", "not in the live tables", tokens)
            return
        self._verdict.profiles += 1
        if state is not None:
            self._figures.add(row, state)
        mine = b"not in the log" if state is None else self._decided(state, row, personal)
        theirs = _written(row)
        self._digest.update(profile_id + _ENCODER.encode([token.hex() for token in tokens]))
        self._digest.update(mine)
        if mine != theirs:
            self._differs("profile", uuid_text(profile_id), theirs.decode(), mine.decode(), tokens)

    def _compare_figures(self) -> None:
        """Compare the figures, unless they are still being counted or an erasure has removed orders meanwhile."""
        kept = self._snapshot.figures()
        if kept is not None and not self._verdict.left_out:
            for cell, live, log in self._figures.unequal(*kept, self._snapshot.nobody()):
                self._differs("figure", cell, live, log, [])

    def _decided(self, state: State, row: ProfileRow, personal: dict[str, object] | None) -> bytes:
        """The line of a profile according to the log, decided at the same instant as the live one."""
        evaluator = self._compiled.evaluator
        decision = evaluator.decide(state, row.decided_us, personal)
        return _written(
            row._replace(
                event_count=evaluator.event_count(state),
                segments=decision.segments,
                lifecycle=decision.stage,
                risk=decision.risk,
                points=decision.points,
                reasons=decision.reasons,
                due_us=decision.due_at_us,
            )
        )

    def _differs(self, what: str, id_: str, live: str, log: str, tokens: Sequence[bytes]) -> None:
        """Note a difference, unless an erasure since the snapshot explains it: keys are gone, records stay sealed."""
        verdict = self._verdict
        new = set(tokens) - self._erased
        if new:
            with self._services.store.fold() as tx:
                if tx.erased(new):
                    verdict.left_out += 1
                    return
        verdict.found += 1
        if len(verdict.differences) < KEPT:
            verdict.differences.append(Difference(what, id_, live[:400], log[:400]))


class _Applied:
    """Says which records count; must be asked in order of position."""

    def __init__(self, skipped: Iterator[tuple[int, int]]) -> None:
        self._skipped = skipped
        self._next = next(skipped, None)

    def holds(self, record: Stored) -> bool:
        place = (record.partition, record.offset)
        while self._next is not None and self._next < place:
            self._next = next(self._skipped, None)
        return self._next != place


class _Held:
    """The states and evidence in memory; `flush` passes them to the sorters, packed."""

    def __init__(
        self, folder: Folder, states: Sorter, receipts: Sorter, orders: OrderOwners, erased: set[bytes]
    ) -> None:
        self._folder = folder
        self._orders = orders
        self._sorted_states = states
        self._sorted_receipts = receipts
        self._erased = erased
        self._states: dict[bytes, State] = {}
        self._receipts: dict[bytes, Applied] = {}
        self._events = 0

    def add(self, events: Iterable[Applied]) -> None:
        fold, erased = self._folder.fold, self._erased
        events = list(events)
        chosen = [each for each in events if bytes.fromhex(each.event.route_key) not in erased] if erased else events
        kept = list(chosen)
        self._orders.add(events, kept)
        opened = self._folder.opened(kept)
        for each in kept:
            for name, part in each.shares:
                key = name + bytes([each.partition])
                state = self._states.get(key)
                if state is None:
                    state = self._states[key] = fold.new_state()
                try:
                    fold.parts[part](each.event, state, opened.get(each.key))
                except Exception as err:
                    raise not_folded(each, err) from err
            if each.names_nobody:
                continue
            known = self._receipts.get(each.identifier_set)
            if known is None or each.receipt < known.receipt:
                self._receipts[each.identifier_set] = each
        self._events += len(kept)
        if len(self._states) >= HELD or self._events >= HELD_EVENTS:
            self.flush()

    def flush(self) -> None:
        fold, erased = self._folder.fold, self._erased
        for key, state in self._states.items():
            self._sorted_states.add(key, fold.pack(state))
        for identifier_set, each in self._receipts.items():
            tokens = tuple(pair for pair in each.tokens if pair[1] not in erased)
            self._sorted_receipts.add(identifier_set, packed(*each.receipt, tokens))
        self._states.clear()
        self._receipts.clear()
        self._events = 0


def _written(row: ProfileRow) -> bytes:
    return _ENCODER.encode(
        [
            *(row.decided_us, row.event_count, str(row.segments), row.lifecycle, row.risk, row.points),
            *(row.reasons, row.due_us),
        ]
    )
