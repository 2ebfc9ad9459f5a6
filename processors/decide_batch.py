"""DECIDE: one transaction takes marks and due profiles, resolves identity, sums states and decides (design C7).

A profile's state is made anew from its signatures' states each time, so a merge, a split and a late event are
the same work. What differs from the last committed decision goes to the change feed.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from hashlib import blake2b
from operator import itemgetter
from typing import Any, Final, NamedTuple

from processors.fresh import Fresh, Seen
from processors.resolve import Identity, Moves
from projections.evaluate import Decision, Evaluator
from projections.fold import Fold
from projections.state import (
    CANCELS,
    DIRECT,
    EVENT_COUNT,
    FIRST,
    FORM,
    LAST,
    NAME,
    ORDERS,
    REFUNDS,
    STAMP_KEY,
    STAMP_US,
    TRAITS,
    LocalDays,
    State,
    iso_day,
    shown,
)
from schemas.record import uuid_text
from schemas.store import (
    NO_EVENT,
    SHARDS,
    Change,
    DecideTx,
    Mark,
    NewMark,
    ProfileRow,
    ProjectionStore,
    change_id,
)

DirectTraits = Callable[[Mapping[bytes, State], frozenset[str]], dict[bytes, dict[str, Any]]]
"""Opens the direct traits that conditions need: states by profile id, names -> values by profile id."""

Uncapped = Callable[[DecideTx, Sequence[bytes]], State]
"""The state of some signatures folded anew from the log without a cap, for maps that overflowed."""

_NEVER: Final = -(2**63)


class Outcome(NamedTuple):
    """What one run of DECIDE did."""

    marks: int
    profiles: int
    changes: int


class Cause(NamedTuple):
    """Why a profile is decided: (occurred_us, event) of the newest event, or another kind."""

    kind: str
    stamp: tuple[int, bytes] = (_NEVER, NO_EVENT)

    @property
    def event(self) -> bytes | None:
        return None if self.stamp[1] == NO_EVENT else self.stamp[1]


class Sharing(NamedTuple):
    """How a worker shares DECIDE with others: it takes its `own` shards, and so many `others` that nobody has."""

    own: Collection[int]
    others: int


@dataclass
class Decider:
    """Decides for one revision. A silent one (a building revision) writes no feed and no identity.

    `sharing`: other workers decide for the same revision. Then a profile that another one has is left to a mark of
    its own instead of being waited for: two workers on the same customers would go at one's pace.
    """

    store: ProjectionStore
    fold: Fold
    evaluator: Evaluator
    identity: Identity
    direct: DirectTraits
    uncapped: Uncapped
    revision: int
    time_zone: str
    silent: bool = False
    fresh: Fresh | None = None
    sharing: Sharing | None = None

    @cached_property
    def days(self) -> LocalDays:
        """The calendar that entries and exits are counted by."""
        return LocalDays(self.time_zone)

    @cached_property
    def published_slots(self) -> Callable[[State], tuple[Any, ...]]:
        """Reads the slots of published traits from a state: where these are equal, so are the values at one instant."""
        plans = [self.fold.plan.traits[name] for name in self.evaluator.published_names]
        own = {plan.slot for plan in plans if plan.slot is not None}
        return itemgetter(*sorted(own | {ORDERS, REFUNDS, CANCELS}))

    @cached_property
    def told_slots(self) -> Callable[[State], Sequence[Any]]:
        """Reads the slots whose differences go to the feed."""
        if not self.evaluator.published_names:
            return itemgetter(slice(TRAITS, TRAITS + 1))
        published = self.published_slots
        return lambda state: (state[TRAITS], *published(state))

    def run(self, watermark_us: int, *, marks: int = 64, due: int = 2_000, lagging: bool = False) -> Outcome:
        """Decide what is marked or due at the lowest watermark, in one transaction; beside others, at least there."""
        try:
            with self.store.decide() as tx:
                if self.sharing is not None:
                    watermark_us = max(watermark_us, tx.join(self.revision))
                taken = self._take(tx, marks)
                wanted = self._wanted(tx, taken)
                all_taken = self.fresh is not None and self.sharing is None and len(taken) < marks
                for profile_id in tx.due(self.revision, watermark_us, due, shared=self.sharing is not None):
                    if profile_id not in wanted.causes:
                        wanted.causes[profile_id] = Cause("timer")
                        if all_taken and profile_id not in wanted.moves.ended:  # nothing is open: it is as stored
                            wanted.grown[profile_id] = []
                if not taken and not wanted.causes:
                    return Outcome(0, 0, 0)
                changes = self._decide(tx, wanted, watermark_us, lagging)
                if not self.silent:
                    tx.add_changes(changes)
        except BaseException:
            if self.fresh is not None:
                self.fresh.clear()  # whether it was committed may be unknown
            raise
        if self.fresh is not None:
            self.fresh.decided(mark.id for mark in taken)
        return Outcome(len(taken), len(wanted.causes), len(changes))

    def _take(self, tx: DecideTx, limit: int) -> list[Mark]:
        sharing = self.sharing
        if sharing is None:
            return tx.take_marks(self.revision, limit)
        shards = tx.hold_shards(self.revision, sharing.own, sharing.others)
        return tx.take_marks(self.revision, limit, shards) if shards else []

    def decide_all(self, profile_ids: Sequence[bytes], watermark_us: int, cause: str) -> None:
        """Decide these whether marked or not; a building revision does so with all of them once."""
        with self.store.decide() as tx:
            wanted = _Wanted(dict.fromkeys(profile_ids, Cause(cause)), Moves.none(), {}, {}, {})
            changes = self._decide(tx, wanted, watermark_us, False)
            if not self.silent:
                tx.add_changes(changes)

    def _wanted(self, tx: DecideTx, taken: Sequence[Mark]) -> "_Wanted":
        """The profiles to decide, each with its cause, after identity is settled for all signatures marked."""
        newest: dict[bytes, tuple[int, bytes]] = {}
        anew: set[bytes] = set()
        for mark in taken:
            for signature, at_us, event in zip(mark.signatures, mark.newest_us, mark.newest_events, strict=True):
                newest[signature] = max(newest.get(signature, (_NEVER, NO_EVENT)), (at_us, event))
            if mark.kind == "identity":
                anew.update(mark.signatures)
        if not newest:
            return _Wanted({}, Moves.none(), {}, {}, {})
        owners, moves = self.identity.settle(tx, newest, anew, read_only=self.silent)
        causes: dict[bytes, Cause] = {}
        for signature, stamp in newest.items():
            owner = owners.get(signature)
            if owner is not None:  # none: all its tokens are erased
                other = causes.get(owner, Cause("event"))
                causes[owner] = Cause("event", max(stamp, other.stamp))
        for profile_id in moves.touched:
            causes.setdefault(profile_id, Cause("identity"))
        return _Wanted(causes, moves, self._grown(taken, owners, moves), newest, owners)

    def _grown(self, taken: Sequence[Mark], owners: Mapping[bytes, bytes], moves: Moves) -> dict[bytes, list[Seen]]:
        """Events by profile, of the profiles that lack these events and nothing else."""
        if self.fresh is None:
            return {}
        grown: dict[bytes, list[Seen]] = {}
        other = {*moves.touched, *moves.joined, *moves.split_off, *moves.ended, *moves.ended.values()}
        for mark in taken:
            seen = self.fresh.of(mark.id, mark.signatures)
            for signature in mark.signatures:
                owner = owners.get(signature)
                if owner is None:
                    continue
                if seen is None:
                    other.add(owner)
                else:
                    grown.setdefault(owner, []).append(seen[signature])
        for profile_id in other:
            grown.pop(profile_id, None)
        return grown

    def _decide(self, tx: DecideTx, wanted: "_Wanted", watermark_us: int, lagging: bool) -> list[Change]:
        causes, moves = wanted.causes, wanted.moves
        if self.sharing is None:
            before = tx.lock_profiles(self.revision, {*causes, *moves.ended})
        else:
            before = self._lock_beside_others(tx, wanted)
        grown, still = self._grown_states(wanted.grown, before, watermark_us)
        states = grown | self._states(tx, causes.keys() - grown.keys())
        direct = self.direct(states, self.evaluator.needs_direct) if self.evaluator.needs_direct else {}
        writer = _Writer(self, moves)
        rows: list[ProfileRow] = []
        gone = [profile_id for profile_id in before if profile_id not in states]
        ended = {} if self.silent else tx.ended_versions(states.keys() - before.keys())
        for profile_id in gone:
            writer.end(before[profile_id], watermark_us, causes.get(profile_id, Cause("identity")))
        for profile_id, state in states.items():
            old = before.get(profile_id)
            at_us = max(watermark_us, _stamp_us(state, LAST) or 0, old.decided_us if old else 0)
            decision = self.evaluator.decide(state, at_us, direct.get(profile_id))
            summed = old.summed if old is not None and profile_id in grown else None
            row = self._row(profile_id, state, decision, at_us, old, lagging, summed)
            if profile_id in ended:
                row = row._replace(version=ended[profile_id])
            if self.silent:
                rows.append(row)
                writer.memberships(old.segments if old else 0, row, at_us)
                continue
            traits = None if profile_id in still else state
            rows.append(writer.differences(old, row, traits, causes[profile_id], at_us))
        if gone:
            tx.delete_profiles(self.revision, gone)
            if not self.silent:
                tx.save_ended(writer.ended)
        tx.save_profiles(self.revision, rows)
        if self.fresh is not None:
            self.fresh.writes(rows)
        tx.change_memberships(self.revision, writer.entered, writer.left)
        if not self.silent:
            tx.count_segment_days(writer.segment_days())
            tx.mark_search(writer.searchable | moves.touched | moves.ended.keys() | set(gone))
        return writer.changes

    def _lock_beside_others(self, tx: DecideTx, wanted: "_Wanted") -> dict[bytes, ProfileRow]:
        """Lock what identity changed, waiting for it, and of the rest what is free; the others are marked again."""
        causes, moves = wanted.causes, wanted.moves
        moved = moves.touched | moves.ended.keys() | set(moves.ended.values())
        before = tx.lock_profiles(self.revision, moved)
        free, busy = tx.try_profiles(self.revision, causes.keys() - moved)
        for profile_id in busy:
            del causes[profile_id]
        # Owners were read before the locks: a profile may have been merged away since, with a signature of ours.
        still = [s for s, owner in wanted.owners.items() if owner not in moved]
        now = tx.owners(still) if still else {}
        later = {s: wanted.newest[s] for s in still if wanted.owners[s] in busy or now.get(s) != wanted.owners[s]}
        for signature in later:
            wanted.grown.pop(wanted.owners[signature], None)
        if later:
            shards: dict[int, dict[bytes, tuple[int, bytes]]] = {}
            for signature, newest in later.items():
                shards.setdefault(signature[0] % SHARDS, {})[signature] = newest
            tx.add_marks([NewMark(self.revision, shard, "fold", of) for shard, of in shards.items()])
        return before | free

    def _grown_states(
        self, grown: Mapping[bytes, list[Seen]], before: Mapping[bytes, ProfileRow], watermark_us: int
    ) -> tuple[dict[bytes, State], set[bytes]]:
        """The stored state of each profile with its new events folded in, and which kept all that the feed tells.

        Profiles over a cap are left out.
        """
        states: dict[bytes, State] = {}
        still: set[bytes] = set()
        fresh = self.fresh
        if fresh is None:
            return states, still
        told, pack = self.told_slots, self.fold.pack
        unpack, apply, prune, overflowed = self.fold.unpack, self.fold.apply, self.fold.prune, self.fold.overflowed
        for profile_id, signatures in grown.items():
            row = before.get(profile_id)
            if row is None or not fresh.knows(row):
                continue
            state = unpack(row.state)
            was = pack(list(told(state)))  # folding changes lists in place
            for events in signatures:
                for event, opened in events:
                    apply(event, state, opened)
            if not overflowed(state):
                states[profile_id] = prune(state, watermark_us)
                if pack(list(told(state))) == was:
                    still.add(profile_id)
        return states, still

    def _states(self, tx: DecideTx, profile_ids: Collection[bytes]) -> dict[bytes, State]:
        """The merged state of each profile that owns any, from its signatures' states read under the lock."""
        if not profile_ids:
            return {}
        owned: dict[bytes, bytes] = {sig: owner for owner, sig in tx.evidence_of_profiles(profile_ids)}
        if self.fresh is not None:
            self.fresh.spoil(owned)
        parts: dict[bytes, list[State]] = {}
        for signature, packed in tx.states(self.revision, owned):
            parts.setdefault(owned[signature], []).append(self.fold.unpack(packed))
        merge = self.fold.merge
        merged = {owner: states[0] if len(states) == 1 else merge(states) for owner, states in parts.items()}
        for owner, state in merged.items():
            if self.fold.overflowed(state):
                merged[owner] = self.uncapped(tx, [sig for sig, each in owned.items() if each == owner])
        return merged

    def _row(
        self,
        profile_id: bytes,
        state: State,
        decision: Decision,
        at_us: int,
        old: ProfileRow | None,
        lagging: bool,
        summed: int | None,
    ) -> ProfileRow:
        """`summed`: of a profile that grew; None: it was summed anew."""
        packed = self.fold.pack(state)
        if summed is None:
            summed = 0 if self.sharing is None else _digest(packed)
        return ProfileRow(
            profile_id,
            old.version if old else 0,
            packed,
            at_us,
            decision.due_at_us,
            lagging,
            _stamp_us(state, FIRST),
            _stamp_us(state, LAST),
            state[EVENT_COUNT],
            decision.segments,
            decision.stage,
            decision.risk,
            decision.points,
            decision.reasons,
            summed,
        )


class _Wanted(NamedTuple):
    """What one run decides. `grown`: the events that are all a stored profile lacks, by profile.

    `newest` and `owners`: of the signatures that were marked.
    """

    causes: dict[bytes, Cause]
    moves: Moves
    grown: dict[bytes, list[Seen]]
    newest: Mapping[bytes, tuple[int, bytes]]
    owners: Mapping[bytes, bytes]


class _Writer:
    """Collects what differs from the last committed decision."""

    def __init__(self, decider: Decider, moves: Moves) -> None:
        self._decider = decider
        self._evaluator = decider.evaluator
        self._moves = moves
        self.searchable: set[bytes] = set()  # profiles whose traits or identifiers changed
        self.changes: list[Change] = []
        self.entered: list[tuple[int, bytes, int | None]] = []
        self.left: list[tuple[int, bytes]] = []
        self._days: dict[tuple[int, int], list[int]] = {}  # (segment index, local day) -> [entered, left]
        self.ended: dict[bytes, int] = {}  # last versions of profiles that end: one that comes back goes on from there

    def differences(
        self, old: ProfileRow | None, row: ProfileRow, state: State | None, cause: Cause, at_us: int
    ) -> ProfileRow:
        """Note all changes of one profile; returns the row with the version after them.

        `state`: None when nothing differs in the traits.
        """
        note = _Notes(row.profile_id, row.version, at_us, cause)
        moves = self._moves
        if row.profile_id in moves.split_off:
            note.add("identity", "split_off", None, [uuid_text(part) for part in moves.split_off[row.profile_id]])
        if row.profile_id in moves.joined:
            kinds = sorted(moves.joined[row.profile_id])
            note.add("profile", "identifiers", None, {"personal": True, "kinds": kinds})
            self.searchable.add(row.profile_id)
        if state is not None:
            self._traits(note, old, state, at_us)
        self._segments(note, old.segments if old else 0, row, at_us)
        was = old.lifecycle if old else None
        if was != row.lifecycle:
            note.add("lifecycle", None, was, row.lifecycle)
        was = old.risk if old else "low"  # a new profile starts from the baseline without a change
        if was != row.risk:
            note.add("risk", None, was, row.risk)
        self.changes += note.changes
        return row if row.version == note.version else row._replace(version=note.version)

    def memberships(self, before: int, row: ProfileRow, at_us: int) -> None:
        """Note who enters and leaves, and no change: a swap compares what it replaces and gives versions."""
        self.entered += [(index, row.profile_id, at_us) for index in _bits(row.segments & ~before)]
        self.left += [(index, row.profile_id) for index in _bits(before & ~row.segments)]

    def end(self, old: ProfileRow, at_us: int, cause: Cause) -> None:
        """A profile that owns nothing any more: merged into another, or erased elsewhere."""
        into = self._moves.ended.get(old.profile_id)
        note = _Notes(old.profile_id, old.version, at_us, cause if cause.event else Cause("identity"))
        if into is not None:
            note.add("identity", "merged_into", None, [uuid_text(into)])
        for index in _bits(old.segments):
            self._count(index, at_us, 0, 1)
        self.changes += note.changes
        self.ended[old.profile_id] = note.version

    def _traits(self, note: "_Notes", old: ProfileRow | None, state: State, at_us: int) -> None:
        """Attributes by value, direct traits by the event that set them, computed traits at one clock."""
        evaluator = self._evaluator
        before = self._decider.fold.unpack(old.state) if old else self._decider.fold.new_state()
        if before[TRAITS] != state[TRAITS]:
            self.searchable.add(note.profile_id)
            had, has = evaluator.attributes(before), evaluator.attributes(state)
            for name in sorted(had.keys() | has.keys()):
                if had.get(name) != has.get(name):
                    note.add("profile", name, had.get(name), has.get(name))
            stamps, now = _direct_stamps(before), _direct_stamps(state)
            for name in sorted(stamps.keys() | now.keys()):
                if stamps.get(name) != now.get(name):
                    note.add("profile", name, None, {"personal": True})
        slots = self._decider.published_slots
        if evaluator.published_names and slots(before) != slots(state):
            for name, was, is_ in evaluator.published_changes(before, state, at_us):
                note.add("profile", name, was, is_)

    def _segments(self, note: "_Notes", before: int, row: ProfileRow, at_us: int) -> None:
        if row.segments == before:
            return
        names = self._evaluator.segment_names
        for index in _bits(row.segments & ~before):
            self.entered.append((index, row.profile_id, at_us))
            note.add("segment", names[index], False, True)
            self._count(index, at_us, 1, 0)
        for index in _bits(before & ~row.segments):
            self.left.append((index, row.profile_id))
            note.add("segment", names[index], True, False)
            self._count(index, at_us, 0, 1)

    def _count(self, index: int, at_us: int, entered: int, left: int) -> None:
        counts = self._days.setdefault((index, self._decider.days.day(at_us)), [0, 0])
        counts[0] += entered
        counts[1] += left

    def segment_days(self) -> dict[tuple[str, str], tuple[int, int]]:
        """(segment, ISO day) -> (entered, left)."""
        names = self._evaluator.segment_names
        return {(names[index], iso_day(day)): (entered, left) for (index, day), (entered, left) in self._days.items()}


class _Notes:
    """The changes of one profile: each raises its version by one; ids are hashes of content."""

    def __init__(self, profile_id: bytes, version: int, at_us: int, cause: Cause) -> None:
        self.profile_id = profile_id
        self._at_us = at_us
        self._cause = cause
        self.version = version
        self.changes: list[Change] = []

    def add(self, type_: str, name: str | None, old: Any, new: Any) -> None:
        self.version += 1
        old, new = _plain(old), _plain(new)
        key = change_id(self.profile_id, self.version, type_, name, old, new)
        cause = self._cause
        self.changes.append(
            Change(
                key, type_, self.profile_id, self.version, name, old, new, self._at_us, cause.kind, cause.event, None
            )
        )


def _plain(value: Any) -> Any:
    """A value as the feed's JSON holds it: decimals as strings, times in ISO form."""
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return value


def _digest(packed: bytes) -> int:
    """Equal for equal states alone: then the same events are in them."""
    return int.from_bytes(blake2b(packed, digest_size=8).digest(), "big", signed=True)


def _stamp_us(state: State, slot: int) -> int | None:
    return int(state[slot][0]) if state[slot] else None


def _direct_stamps(state: State) -> dict[str, tuple[int, bytes]]:
    """The event that set each direct trait."""
    return {entry[NAME]: (entry[STAMP_US], entry[STAMP_KEY]) for entry in shown(state[TRAITS]) if entry[FORM] == DIRECT}


def _bits(mask: int) -> list[int]:
    return [index for index in range(mask.bit_length()) if mask >> index & 1]
