"""DECIDE: one transaction takes work items and due profiles, resolves identity, sums states and decides (design C7).

A profile's state is summed again from its identifier sets' states each time, so merges, splits and late events need no
special handling. Differences from the last committed decision go to the change feed.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, NamedTuple

from processors.live.delta_cache import DeltaCache, Seen
from processors.live.differences import Cause, Differences, FeedView
from processors.live.figure_changes import FigureChanges
from processors.live.large_profiles import LargeProfiles, Part, summary_of
from processors.live.order_owners import follow_orders
from processors.live.resolve import Identity, Moves
from processors.live.wanted import Wanted, digest_of, stamp_us
from projections.decide.evaluator import Decision, Evaluator
from projections.fold.fold import Fold
from projections.fold.state import EVENT_COUNT, FIRST, LAST, State
from projections.orders.orders import order_slots, summed_up
from schemas.store import DecideTx, ProjectionStore
from schemas.store_rows import SHARDS, Change, NewWorkItem, ProfileRow, WorkItem
from schemas.touchpoints import ORDER_TYPES

ACTS_US: Final = 600_000_000  # a profile seen in the last ten minutes is active, so staff may search for it

PersonalTraits = Callable[[Mapping[bytes, State], frozenset[str]], dict[bytes, dict[str, Any]]]
"""Opens the direct traits that conditions need: (states by profile id, names) -> values by profile id."""


class Outcome(NamedTuple):
    """The result of one run of DECIDE. `more`: there may be more to do, so run again."""

    items: int
    profiles: int
    changes: int
    more: bool

    @property
    def some(self) -> bool:
        return self.items > 0 or self.profiles > 0 or self.more


class Sharing(NamedTuple):
    """How a worker shares DECIDE with others: it takes its `own` shards, and at most `others` free ones."""

    own: Collection[int]
    others: int


@dataclass
class Decider:
    """Decides for one revision. For a building revision it is silent: no feed and no identity.

    `sharing`: other workers decide for the same revision. A profile that another one has locked then gets a new work
    item instead of being waited for; otherwise two workers on the same customers would be no faster than one.
    """

    store: ProjectionStore
    fold: Fold
    evaluator: Evaluator
    identity: Identity
    personal: PersonalTraits
    large: LargeProfiles
    revision: int
    time_zone: str
    silent: bool = False
    deltas: DeltaCache | None = None
    sharing: Sharing | None = None
    all_counted: bool = False  # whether the figures count all profiles of the revision; stays true once it is

    @cached_property
    def feed_view(self) -> FeedView:
        return FeedView(self.fold, self.evaluator, self.time_zone)

    def run(self, watermark_us: int, *, items: int = 64, due: int = 2_000, lagging: bool = False) -> Outcome:
        """Decide what is queued or due at the lowest watermark (or later, if sharing), in one transaction."""
        try:
            with self.store.decide() as tx:
                if self.sharing is not None:
                    watermark_us = max(watermark_us, tx.join(self.revision))
                taken = self._take(tx, items)
                wanted = self._wanted(tx, taken)
                all_taken = self.deltas is not None and self.sharing is None and len(taken) < items
                for profile_id in tx.due(self.revision, watermark_us, due, shared=self.sharing is not None):
                    if profile_id not in wanted.causes:
                        wanted.causes[profile_id] = Cause("timer")
                        if all_taken and profile_id not in wanted.moves.ended:  # nothing is open: it is as stored
                            wanted.grown[profile_id] = []
                if not taken and not wanted.causes:
                    return Outcome(0, 0, 0, False)
                changes = self._decide(tx, wanted, watermark_us, lagging)
                if not self.silent:
                    tx.add_changes(changes)
        except BaseException:
            if self.deltas is not None:
                self.deltas.clear()  # it may or may not have been committed
            raise
        if self.deltas is not None:
            self.deltas.decided(item.id for item in taken)
        more = len(taken) >= items > 0 or len(wanted.causes) >= due
        return Outcome(len(taken), len(wanted.causes), len(changes), more)

    def _take(self, tx: DecideTx, limit: int) -> list[WorkItem]:
        sharing = self.sharing
        if sharing is None:
            return tx.take_work(self.revision, limit)
        shards = tx.hold_shards(self.revision, sharing.own, sharing.others)
        return tx.take_work(self.revision, limit, shards) if shards else []

    def decide_all(self, profile_ids: Sequence[bytes], watermark_us: int, cause: str) -> None:
        """Decide these, queued or not; a building revision does this once with all profiles."""
        with self.store.decide() as tx:
            causes = dict.fromkeys(profile_ids, Cause(cause))
            wanted = Wanted(causes, Moves.none(), {}, {}, {}, set(), set(profile_ids))
            changes = self._decide(tx, wanted, watermark_us, False)
            if not self.silent:
                tx.add_changes(changes)

    def _wanted(self, tx: DecideTx, taken: Sequence[WorkItem]) -> Wanted:
        """The profiles to decide, each with its cause, after resolving identity for all queued identifier sets."""
        newest: dict[bytes, tuple[int, bytes]] = {}
        anew: set[bytes] = set()
        remade: set[bytes] = set()
        orders: set[bytes] = set()
        for item in taken:
            if item.kind == "order":
                orders.update(item.identifier_sets)
                continue
            if item.kind != "fold":
                remade.update(item.identifier_sets)
            for identifier_set, at_us, event in zip(
                item.identifier_sets, item.newest_us, item.newest_events, strict=True
            ):
                known = newest.get(identifier_set)
                if known is None or at_us >= known[0]:  # of one time, the event folded later
                    newest[identifier_set] = (at_us, event)
            if item.kind == "identity":
                anew.update(item.identifier_sets)
        if not newest and not orders:
            return Wanted({}, Moves.none(), {}, {}, {}, set(), set())
        owners, moves = self.identity.resolve(tx, newest, anew, read_only=self.silent)
        if not self.silent:
            owners, moves = self._with_orders(tx, orders, owners, moves)
        causes: dict[bytes, Cause] = {}
        for identifier_set, stamp in newest.items():
            owner = owners.get(identifier_set)
            if owner is not None:  # None: all its tokens are erased
                other = causes.get(owner, Cause("event"))
                causes[owner] = Cause("event", max(stamp, other.stamp))
        for profile_id in moves.touched | moves.gained | (moves.lost - moves.ended.keys()):
            causes.setdefault(profile_id, Cause("identity"))
        shrunk = {owners[identifier_set] for identifier_set in remade if identifier_set in owners}
        shrunk |= moves.split_off.keys() | moves.lost
        return Wanted(causes, moves, self._grown(taken, owners, moves), newest, owners, remade, shrunk)

    def _with_orders(
        self, tx: DecideTx, orders: AbstractSet[bytes], owners: dict[bytes, bytes], moves: Moves
    ) -> tuple[dict[bytes, bytes], Moves]:
        """Identity's owners and moves, with those of order sets."""
        found = follow_orders(tx, orders, moves.moved)
        if found.moved:
            self.identity.tell_shadows(tx, found.moved)
            moves = moves._replace(moved=moves.moved | found.moved, gained=found.gained, lost=found.lost)
        kept = {name: owner for name, owner in owners.items() if name not in found.moved}
        return kept | found.owners, moves

    def _grown(self, taken: Sequence[WorkItem], owners: Mapping[bytes, bytes], moves: Moves) -> dict[bytes, list[Seen]]:
        """Events by profile, for the profiles that lack these events and nothing else."""
        if self.deltas is None:
            return {}
        grown: dict[bytes, list[Seen]] = {}
        other = {*moves.split_off, *moves.ended, *moves.ended.values(), *(moves.touched - moves.only_found)}
        other |= moves.gained | moves.lost
        for item in taken:
            seen = self.deltas.of(item.id, item.identifier_sets)
            for identifier_set in item.identifier_sets:
                owner = owners.get(identifier_set)
                if owner is None:
                    continue
                if seen is None:
                    other.add(owner)
                else:
                    grown.setdefault(owner, []).append(seen[identifier_set])
        for profile_id in other:
            grown.pop(profile_id, None)
        return grown

    def _decide(self, tx: DecideTx, wanted: Wanted, watermark_us: int, lagging: bool) -> list[Change]:
        causes, moves = wanted.causes, wanted.moves
        self.large.touched.clear()
        if self.sharing is None:
            before = tx.lock_profiles(self.revision, {*causes, *moves.ended})
        else:
            before = self._lock_beside_others(tx, wanted)
        grown, still, bought = self._grown_states(tx, wanted, before, watermark_us)
        states = grown | self._states(tx, causes.keys() - grown.keys(), wanted, before, watermark_us)
        personal = self.personal(states, self.evaluator.needs_personal) if self.evaluator.needs_personal else {}
        differences = Differences(self.feed_view, moves)
        changed = FigureChanges(self.fold, self.large.touched)
        rows: list[ProfileRow] = []
        gone = [profile_id for profile_id in before if profile_id not in states]
        ended = {} if self.silent else tx.ended_versions(states.keys() - before.keys())
        for profile_id in gone:
            differences.end(before[profile_id], watermark_us, causes.get(profile_id, Cause("identity")))
            self._end_tree(tx, profile_id, before[profile_id])
            changed.end(before[profile_id])
        for profile_id, state in states.items():
            old = before.get(profile_id)
            at_us = max(watermark_us, stamp_us(state, LAST) or 0, old.decided_us if old else 0)
            decision = self.evaluator.decide(state, at_us, personal.get(profile_id))
            summed = old.summed if old is not None and profile_id in grown else None
            row = self._row(profile_id, state, decision, at_us, old, lagging, summed)
            if profile_id in ended:
                row = row._replace(version=ended[profile_id])
            changed.note(old, row, state, bought=profile_id not in grown or profile_id in bought)
            if self.silent:
                rows.append(row)
                differences.memberships(old.segments if old else 0, row, at_us)
                continue
            traits = None if profile_id in still else state
            rows.append(differences.note(old, row, traits, causes[profile_id], at_us))
        if gone:
            tx.delete_profiles(self.revision, gone)
            if not self.silent:
                tx.save_ended(differences.ended)
        tx.save_profiles(self.revision, rows)
        self._count(tx, changed)
        if self.deltas is not None:
            self.deltas.writes(rows)
        tx.change_memberships(self.revision, differences.entered, differences.left)
        if not self.silent:
            tx.count_segment_days(differences.segment_days())
            acting = [
                row.profile_id for row in rows if row.last_us is not None and row.last_us > row.decided_us - ACTS_US
            ]
            tx.mark_search(differences.searchable | moves.touched | moves.ended.keys() | set(gone), acting)
        return differences.changes

    def _count(self, tx: DecideTx, changed: FigureChanges) -> None:
        """Report the changes of counted profiles to the figures; once all are counted, it no longer checks."""
        upto = None
        if changed and not self.all_counted:
            upto = tx.counted_up_to(self.revision)
            self.all_counted = upto is None
        tx.add_figures(self.revision, changed.cells(upto))

    def _lock_beside_others(self, tx: DecideTx, wanted: Wanted) -> dict[bytes, ProfileRow]:
        """Lock the profiles that identity changed, waiting if needed, and free ones of the rest; queue the others."""
        causes, moves = wanted.causes, wanted.moves
        moved = moves.touched | moves.ended.keys() | set(moves.ended.values()) | moves.gained | moves.lost
        before = tx.lock_profiles(self.revision, moved)
        free, busy = tx.try_profiles(self.revision, causes.keys() - moved)
        for profile_id in busy:
            del causes[profile_id]
        # Owners were read before locking: since then a profile with one of our sets may have been merged away.
        still = [s for s, owner in wanted.owners.items() if owner not in moved]
        now = tx.owners(still) if still else {}
        later = {s: wanted.newest[s] for s in still if wanted.owners[s] in busy or now.get(s) != wanted.owners[s]}
        for identifier_set in later:
            wanted.grown.pop(wanted.owners[identifier_set], None)
        if later:
            shards: dict[tuple[int, str], dict[bytes, tuple[int, bytes]]] = {}
            for identifier_set, newest in later.items():
                kind = "decide" if identifier_set in wanted.remade else "fold"
                shards.setdefault((identifier_set[0] % SHARDS, kind), {})[identifier_set] = newest
            tx.add_work([NewWorkItem(self.revision, shard, kind, of) for (shard, kind), of in shards.items()])
        return before | free

    def _grown_states(
        self, tx: DecideTx, wanted: Wanted, before: Mapping[bytes, ProfileRow], watermark_us: int
    ) -> tuple[dict[bytes, State], set[bytes], set[bytes]]:
        """The stored state of each profile with its new events folded in; which of them still show the same published
        values; and which have new order events.

        Profiles that exceed the cap are left out.
        """
        states: dict[bytes, State] = {}
        still: set[bytes] = set()
        bought: set[bytes] = set()
        deltas = self.deltas
        if deltas is None:
            return states, still, bought
        slots, pack = self.feed_view.slots, self.fold.pack
        unpack, parts, prune, summed_up = self.fold.unpack, self.fold.parts, self.fold.prune, self.fold.summed_up
        today = self.fold.days.day(watermark_us)
        for profile_id, identifier_sets in wanted.grown.items():
            row = before.get(profile_id)
            if row is None or not deltas.knows(row):
                continue
            state = unpack(row.state)
            was = pack(list(slots(state)))  # before folding, which changes lists in place
            large = summed_up(state)
            if not large and self.fold.overflowed(state):
                continue  # from a build that kept no tree: its entries are only in the log
            if large:
                summary = summary_of(state)
                self.fold.make_room(state)
            for events in identifier_sets:
                for part, event, opened in events:
                    parts[part](event, state, opened)
                    if event.type in ORDER_TYPES:
                        bought.add(profile_id)
            if large:
                joined = [each for each in wanted.moves.moved if wanted.owners.get(each) == profile_id]
                whole = self.large.grow(tx, profile_id, state, summary, joined, today)
            else:
                whole = self.fold.lay_off(state) is None
            if whole:
                states[profile_id] = prune(state, watermark_us)
                if pack(list(slots(state))) == was:
                    still.add(profile_id)
        return states, still, bought

    def _states(
        self,
        tx: DecideTx,
        profile_ids: Collection[bytes],
        wanted: Wanted,
        before: Mapping[bytes, ProfileRow],
        watermark_us: int,
    ) -> dict[bytes, State]:
        """The merged state of each profile that has states, from its identifier sets' states read under the lock."""
        if not profile_ids:
            return {}
        owned: dict[bytes, bytes] = {sig: owner for owner, sig in tx.evidence_of_profiles(profile_ids)}
        if self.deltas is not None:
            self.deltas.spoil(owned)
        parts: dict[bytes, list[Part]] = {}
        for identifier_set, packed in tx.states(self.revision, owned):
            parts.setdefault(owned[identifier_set], []).append(Part(identifier_set, self.fold.unpack(packed)))
        merge, overflowed = self.fold.merge, self.fold.overflowed
        merged = {
            owner: mine[0].state if len(mine) == 1 else merge(each.state for each in mine)
            for owner, mine in parts.items()
        }
        today = self.fold.days.day(watermark_us)
        for owner, state in merged.items():
            if overflowed(state):
                self._sum_up(tx, owner, state, parts[owner], wanted, before.get(owner), today)
            elif owner in wanted.shrunk:
                self._end_tree(tx, owner, before.get(owner))
        return merged

    def _end_tree(self, tx: DecideTx, owner: bytes, old: ProfileRow | None) -> None:
        if old is not None and summed_up(order_slots(old.state)):
            self.large.end(tx, owner)
        else:
            tx.delete_order_nodes(self.revision, [owner])

    def _sum_up(
        self,
        tx: DecideTx,
        owner: bytes,
        state: State,
        parts: Sequence[Part],
        wanted: Wanted,
        old: ProfileRow | None,
        today: int,
    ) -> None:
        """The summary of a profile over the cap: its tree brought up to date, or rebuilt if it may hold too much."""
        queued = None
        if old is not None and owner not in wanted.shrunk and self.fold.summed_up(self.fold.unpack(old.state)):
            queued = wanted.newest
        if len(parts) == 1:  # its only state shares its lists with the merged one
            parts = [Part(parts[0].identifier_set, list(state))]
        self.large.sum_up(tx, owner, state, parts, queued, wanted.moves.moved, today)

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
        """`summed`: of a profile that only grew; None: it was summed again."""
        packed = self.fold.pack(state)
        if summed is None:
            summed = 0 if self.sharing is None else digest_of(packed)
        return ProfileRow(
            profile_id,
            old.version if old else 0,
            packed,
            at_us,
            decision.due_at_us,
            lagging,
            stamp_us(state, FIRST),
            stamp_us(state, LAST),
            state[EVENT_COUNT],
            decision.segments,
            decision.stage,
            decision.risk,
            decision.points,
            decision.reasons,
            summed,
        )
