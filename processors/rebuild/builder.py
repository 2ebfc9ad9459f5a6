"""Builds a revision beside the live one and swaps it in: changed definitions and rebuilds alike (design C9, C11).

In slices, in the worker's pauses: fold the log by the new definitions, decide every profile silently, catch up,
and at a batch boundary swap in one transaction that emits only what differs.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain
from typing import Final, Protocol

import msgspec

from processors.erase.refold import refold_all
from processors.live.applied import Batch
from processors.live.compiled import Compiled, compiled_for, decider_of, epochs_of, folder_of
from processors.live.decide_batch import Decider
from processors.live.fold_batch import Folder
from processors.live.services import Services
from processors.rebuild.bulk_fold import BulkFold
from schemas.control import Revision
from schemas.definitions import Definitions, plain
from schemas.errors import Disposition, ProgressConflict, TouchfoldError
from schemas.log_range import records_between
from schemas.store import Rebuilding, SegmentPair, SwapPlan

log = logging.getLogger("touchfold.rebuild")

SLICE: Final = 10_000  # records folded between two live steps: about a third of a second
PROFILES: Final = 2_000  # decided between two live steps
NEAR: Final = 2_000  # records behind at which the rest is folded at the boundary
ROUNDS: Final = 50  # of waiting for what other workers decide, each as long as a decision takes


class LiveView(Protocol):
    """What building needs of the worker that keeps the live revision, whoever folds for it."""

    @property
    def compiled(self) -> Compiled: ...

    @property
    def next_offsets(self) -> list[int]:
        """By partition: how far the live revision is folded."""

    def lowest_watermark(self) -> int: ...

    def decide(self, watermark_us: int) -> bool:
        """Decide what is queued or due until there is none; True if there was any."""

    def forget(self) -> None:
        """Take up again what is stored: another revision is live."""


@dataclass
class _Building:
    compiled: Compiled
    folder: Folder
    decider: Decider
    next: list[int]
    bulk: BulkFold
    decided_up_to: bytes | None = None  # None: still folding the past; then profile ids in order
    all_decided: bool = False


class Builder:
    """The worker's `Build`: does one slice a call."""

    def __init__(self, services: Services, store: Rebuilding, has_room: Callable[[], bool] = lambda: True) -> None:
        """`has_room`: whether the disk has room for more than the live revision needs; without it, building waits."""
        self._services = services
        self._store = store
        self._has_room = has_room
        self._waits = False
        self._building: _Building | None = None

    def shadows(self) -> Sequence[int]:
        return () if self._building is None else (self._building.compiled.revision.revision,)

    def __call__(self, live: LiveView) -> bool:
        """A slice; True if there was work. A definition that cannot be folded fails its revision, not the worker.

        Of several workers one builds, the others go on with the live revision.
        """
        revision = self._services.control.building()
        if revision is None or not self._store.lead():
            self._building = None
            return False
        if not self._room(revision):
            return False
        if self._building is None or self._building.compiled.revision.revision != revision.revision:
            self._building = self._take_up(revision, live)
        try:
            self._slice(self._building, live)
        except ProgressConflict:
            self._building = None  # not level yet, or taken over: look again at what is stored
        except TouchfoldError as err:
            if err.disposition is Disposition.RETRY:
                self._building = None  # go on from what is stored
                raise
            self._fail(revision, err.message)
        return True

    def resign(self) -> None:
        """Leave building to others: this process goes on without."""
        self._building = None
        self._store.resign()

    def _room(self, revision: Revision) -> bool:
        """Building doubles what is stored: it stops before it takes the room of the live revision and of the door."""
        room = self._has_room()
        if not room and not self._waits:
            log.warning("revision %d waits until the disk has room", revision.revision)
        self._waits = not room
        return room

    def _fail(self, revision: Revision, message: str) -> None:
        log.error("revision %d is given up: %s", revision.revision, message)
        self._services.control.fail(revision.revision, message)
        self._building = None

    def _take_up(self, revision: Revision, live: LiveView) -> _Building:
        services = self._services
        with services.store.decide() as tx:
            tx.lock_identity()  # whoever resolves identity after this sees that the revision is being built
        self._store.await_folds()  # and who takes an event's place
        compiled = compiled_for(services, revision)
        progress = services.control.progress(revision.revision)
        fresh = all(each.next_offset == 0 for each in progress)
        same = compiled.fold.layout_hash == live.compiled.fold.layout_hash
        if fresh and revision.cause == "definition" and same and not self._is_older(live.compiled.revision):
            self._store.copy_states(live.compiled.revision.revision, revision.revision)
            progress = services.control.progress(revision.revision)
        folder = folder_of(services, compiled, epochs_of(progress), live=False, adds_work=False)
        decider = decider_of(services, compiled, silent=True)
        starts = [each.next_offset for each in progress]
        return _Building(compiled, folder, decider, starts, BulkFold(folder, starts))

    def _is_older(self, live: Revision) -> bool:
        """Whether an earlier build folded these states, which may be other ones by now."""
        return live.revision < self._services.control.layout().since

    def _slice(self, building: _Building, live: LiveView) -> None:
        behind = _behind(building, live)
        if building.decided_up_to is None:
            if sum(behind) > NEAR:
                self._fold_past(building, behind)
                total = sum(live.next_offsets)
                self._services.control.set_done(
                    building.compiled.revision.revision, 0.8 * (1 - max(0, sum(behind) - SLICE) / max(1, total))
                )
                return
            building.bulk.flush()
            building.folder.adds_work = True  # from here on what changes is decided again
            building.decided_up_to = bytes(16)
        if any(behind):
            self._fold(building, behind, SLICE)
        if not building.all_decided:
            self._decide_next(building, live)
            return
        self._finish(building, live)

    def _fold_past(self, building: _Building, behind: Sequence[int]) -> None:
        """The next slice of the partition that is furthest behind, into states held in memory."""
        partition = behind.index(max(behind))
        batch = self._batch(building, partition, min(behind[partition], SLICE))
        building.bulk.add(batch)
        building.next[partition] = batch.end

    def _fold(self, building: _Building, behind: Sequence[int], limit: int) -> None:
        batches: list[Batch] = []
        for partition, count in enumerate(behind):
            if count > 0 and sum(len(batch.records) for batch in batches) < limit:
                batches.append(self._batch(building, partition, min(count, limit)))
        building.folder.run(batches, 0)
        for batch in batches:
            building.next[batch.partition] = batch.end

    def _batch(self, building: _Building, partition: int, count: int) -> Batch:
        start = building.next[partition]
        end = start + count
        parts = records_between(self._services.log, partition, start, end, count)
        return Batch(partition, start, end, list(chain.from_iterable(parts)), 0)

    def _decide_next(self, building: _Building, live: LiveView) -> None:
        assert building.decided_up_to is not None, "folding the past comes first"
        ids = self._store.next_profiles(building.decided_up_to, PROFILES)
        if ids:
            building.decider.decide_all(ids, live.lowest_watermark(), building.compiled.revision.cause)
            building.decided_up_to = ids[-1]
            place = int.from_bytes(ids[-1][:4], "big") / 2**32  # ids are random: their place is the progress
            self._services.control.set_done(building.compiled.revision.revision, 0.8 + 0.19 * place)
        else:
            building.all_decided = True

    def _finish(self, building: _Building, live: LiveView) -> None:
        """At a batch boundary of the worker: fold and decide the rest, then swap."""
        with self._store.halted():
            while any(behind := _behind(building, live)):
                self._fold(building, behind, SLICE)
            refold_all(building.folder)
            watermark = live.lowest_watermark()
            for _ in range(ROUNDS):
                live.decide(watermark)
                while True:
                    outcome = building.decider.run(watermark)
                    if outcome.items == outcome.profiles == 0:
                        break
                plan = swap_plan(live.compiled, building.compiled, watermark)
                try:
                    changes = self._store.swap(plan)
                except ProgressConflict:
                    continue  # another worker still decides what it has taken; nothing new comes while we halt FOLD
                break
            else:
                return
        log.info("revision %d is live (%s), %d changes", plan.new, plan.cause, changes)
        self._building = None
        self._services.store.number_feed()
        live.forget()
        self._services.control.drop_retired()


def segment_hashes(definitions: Definitions) -> dict[str, str]:
    """Segment -> hash of what it means by itself; a changed one raises the segment's version."""
    encode = msgspec.json.Encoder(order="deterministic").encode
    return {name: sha256(encode(plain(each))).hexdigest()[:32] for name, each in definitions.segments.items()}


def swap_plan(old: Compiled, new: Compiled, at_us: int) -> SwapPlan:
    """Which bit of the old revision is which of the new."""
    was, is_ = old.evaluator.segment_names, new.evaluator.segment_names
    pairs = [
        SegmentPair(name, was.index(name) if name in was else -1, is_.index(name) if name in is_ else -1)
        for name in sorted({*was, *is_})
    ]
    cause = "definition" if new.revision.cause == "definition" else "rebuild"
    return SwapPlan(
        *(old.revision.revision, new.revision.revision, cause, pairs),
        segment_hashes(new.definitions),
        at_us,
    )


def _behind(building: _Building, live: LiveView) -> list[int]:
    """By partition. Raises ProgressConflict when the log was given more: it is taken up again with these."""
    ends = live.next_offsets
    if len(ends) != len(building.next):
        raise ProgressConflict(f"the log has {len(ends)} partitions now, {len(building.next)} before")
    return [end - start for end, start in zip(ends, building.next, strict=True)]
