"""Builds a revision next to the live one and swaps it in, for changed definitions and rebuilds (design C9, C11).

It works in slices, in the worker's pauses: fold the log with the new definitions, decide every profile silently, catch
up, and at a batch boundary swap in one transaction that emits only the differences.
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
from schemas.rebuilding import Rebuilding, SegmentPair, SwapPlan

log = logging.getLogger("touchfold.rebuild")

SLICE: Final = 10_000  # records folded between live steps: about a third of a second
PROFILES: Final = 2_000  # profiles decided between live steps
NEAR: Final = 2_000  # once this few records behind, fold the rest at the boundary
ROUNDS: Final = 50  # of waiting for other workers' decisions, each as long as a decision takes


class LiveView(Protocol):
    """What building needs from the worker of the live revision."""

    @property
    def compiled(self) -> Compiled: ...

    @property
    def next_offsets(self) -> list[int]:
        """By partition: how far the live revision is folded."""

    def lowest_watermark(self) -> int: ...

    def decide(self, watermark_us: int) -> bool:
        """Decide until nothing is queued or due; True if there was any work."""

    def forget(self) -> None:
        """Reload the stored state: another revision is live."""


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
    """The worker's `Build`: does one slice per call."""

    def __init__(self, services: Services, store: Rebuilding, has_room: Callable[[], bool] = lambda: True) -> None:
        """`has_room`: whether the disk has room beyond what the live revision needs; if not, building waits."""
        self._services = services
        self._store = store
        self._has_room = has_room
        self._waits = False
        self._building: _Building | None = None

    def shadows(self) -> Sequence[int]:
        return () if self._building is None else (self._building.compiled.revision.revision,)

    def __call__(self, live: LiveView) -> bool:
        """Do a slice; True if there was work. A definition that cannot be folded fails its revision, not the worker.

        Only one of several workers builds; the others continue with the live revision.
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
            self._building = None  # not caught up, or taken over: reload the stored state
        except TouchfoldError as err:
            if err.disposition is Disposition.RETRY:
                self._building = None  # continue from the stored state
                raise
            self._fail(revision, err.message)
        return True

    def resign(self) -> None:
        """Leave building to other processes."""
        self._building = None
        self._store.resign()

    def _room(self, revision: Revision) -> bool:
        """Building doubles the stored data, so it pauses before it takes the room of the live revision and the door."""
        room = self._has_room()
        if not room and not self._waits:
            log.warning("building revision %d waits until the disk has room", revision.revision)
        self._waits = not room
        return room

    def _fail(self, revision: Revision, message: str) -> None:
        log.error("building revision %d failed: %s", revision.revision, message)
        self._services.control.fail(revision.revision, message)
        self._building = None

    def _take_up(self, revision: Revision, live: LiveView) -> _Building:
        services = self._services
        with services.store.decide() as tx:
            tx.lock_identity()  # whoever resolves identity after this sees that the revision is being built
        self._store.await_folds()  # and so does whoever replaces a copy of an event
        compiled = compiled_for(services, revision)
        progress = services.control.progress(revision.revision)
        fresh = all(each.next_offset == 0 for each in progress)
        same = compiled.fold.layout_hash == live.compiled.fold.layout_hash
        if fresh and revision.cause == "definition" and same and not self._is_older(live.compiled.revision):
            self._store.copy_states(live.compiled.revision.revision, revision.revision)
            progress = services.control.progress(revision.revision)
        folder = folder_of(services, compiled, epochs_of(progress), live=False, adds_work=False)
        if self._is_older(live.compiled.revision):
            folder.orders_for = live.compiled.revision.revision
        decider = decider_of(services, compiled, silent=True)
        starts = [each.next_offset for each in progress]
        return _Building(compiled, folder, decider, starts, BulkFold(folder, starts))

    def _is_older(self, live: Revision) -> bool:
        """Whether an older build folded these states, so that they may differ from ours."""
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
            building.folder.adds_work = True  # from here on, changes are decided again
            building.decided_up_to = bytes(16)
        if any(behind):
            self._fold(building, behind, SLICE)
        if not building.all_decided:
            self._decide_next(building, live)
            return
        self._finish(building, live)

    def _fold_past(self, building: _Building, behind: Sequence[int]) -> None:
        """Fold the next slice of the partition furthest behind, into states held in memory."""
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
            place = int.from_bytes(ids[-1][:4], "big") / 2**32  # ids are random, so their position shows the progress
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
                    continue  # another worker is still deciding; nothing new comes in while we halt FOLD
                break
            else:
                return
        log.info("revision %d is live (%s), %d changes", plan.new, plan.cause, changes)
        self._building = None
        self._services.store.number_feed()
        live.forget()
        self._services.control.drop_retired()


def segment_hashes(definitions: Definitions) -> dict[str, str]:
    """Segment -> hash of its own condition; a changed hash raises the segment's version."""
    encode = msgspec.json.Encoder(order="deterministic").encode
    return {name: sha256(encode(plain(each))).hexdigest()[:32] for name, each in definitions.segments.items()}


def swap_plan(old: Compiled, new: Compiled, at_us: int) -> SwapPlan:
    """The bit of each segment in the old and in the new revision."""
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
    """The log's ends by partition. Raises ProgressConflict if partitions were added, so that building starts over."""
    ends = live.next_offsets
    if len(ends) != len(building.next):
        raise ProgressConflict(f"the log has {len(ends)} partitions now, {len(building.next)} before")
    return [end - start for end, start in zip(ends, building.next, strict=True)]
