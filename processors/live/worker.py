"""The worker: FOLD for the partitions it owns, DECIDE, and upkeep in its pauses. The same alone and with others.

It fetches nothing itself: a Kafka runner or a `LogFeeder` passes it the records (`schemas.work`). PostgreSQL keeps
progress, epoch and contiguity, in the same transaction as the effect.
"""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from processors.live.claims import GRACE_US, Claims
from processors.live.compiled import Compiled, compiled_for, decider_of, folder_of
from processors.live.decide_batch import Sharing
from processors.live.deciding import Deciding
from processors.live.delta_cache import DeltaCache
from processors.live.folding import Folding
from processors.live.search_index import SearchIndexer
from processors.live.services import Services
from processors.live.upkeep import KeepsFigures, Upkeep
from processors.rebuild.builder import Builder
from schemas.control import Beat
from schemas.record import to_us
from schemas.work import Fetched

OTHERS: Final = 2  # shards of other workers that an idle one takes at a time
LONGEST_US: Final = 600_000_000  # the longest one piece of work may take; after that the watchdog ends it


class Worker:
    """Implements `PartitionWork` and the builder's `LiveView`. See decision 0029 for what `shared` turns on.

    `owner` names it in the progress table, unique to the process. `check_in` is called before partitions are claimed,
    and raises if this process may not have any.
    """

    def __init__(
        self,
        services: Services,
        builder: Builder,
        index: SearchIndexer | None = None,
        figures: KeepsFigures | None = None,
        *,
        owner: str = "alone",
        shared: bool = False,
        check_in: Callable[[], None] = lambda: None,
    ) -> None:
        self.services = services
        self.shared = shared
        self.claims = Claims(services.control, owner, shared)
        self.folding = Folding(services, self.claims)
        self.deciding = Deciding(services, self.claims, self._take_up_live)
        self.upkeep = Upkeep(builder, index, figures)
        self._check_in = check_in
        self._compiled: Compiled | None = None
        self._deltas = DeltaCache(shared=shared)
        self._applied = False  # whether anything was applied since the last idle turn
        self._excuse: Callable[[], None] = lambda: None
        self._since_us = 0  # when the current piece of work began

    # ------------------------------------------------------------ partitions

    def claim(self, partitions: Collection[int]) -> dict[int, int]:
        self._check_in()
        compiled = self._compiled
        if compiled is not None and self.services.control.live().revision != compiled.revision.revision:
            self.forget()
        starts = self.claims.claim(self.compiled.revision.revision, partitions)
        self._make(self.compiled)
        return starts

    def release(self, partitions: Collection[int]) -> None:
        self.claims.release(None if self._compiled is None else self._compiled.revision.revision, partitions)

    # ------------------------------------------------------------ work

    def apply(self, batches: Sequence[Fetched]) -> dict[int, int]:
        began = time.monotonic()
        self.services.check_room()
        with self._knowing():
            stopped = self.folding.fold(batches)
            self._applied = True
            self.deciding.share(0)
            self.deciding.run(self.claims.lowest_us, until_none=False)
        self.upkeep.worked_s += time.monotonic() - began
        return stopped

    def isolate(self, batch: Fetched) -> dict[int, int]:
        self.services.check_room()
        with self._knowing():
            stopped = self.folding.isolate(batch)
            self.deciding.run(self.claims.lowest_us, until_none=True)
        return stopped

    def idle(self, caught_up: Mapping[int, int]) -> bool:
        with self._knowing():
            return self._idle(caught_up)

    def _idle(self, caught_up: Mapping[int, int]) -> bool:
        revision = self.compiled.revision.revision
        beat = self.services.control.beat(revision)
        if beat.live != revision:
            self._take_up_live()
            return True
        for partition, at_us in caught_up.items():
            if partition in self.claims.epochs:
                self.claims.note(partition, at_us - GRACE_US)
        self.claims.see(beat.watermark_us)
        if _has_work(beat, self.claims.lowest_us):
            self.services.check_room()
        self.claims.save(revision, caught_up, to_us(self.services.clock.now()))
        return self._keep_up(beat)

    def _keep_up(self, beat: Beat) -> bool:
        applied, self._applied = self._applied, False
        noticed = self.folding.noticed(beat.set_aside)
        self.deciding.share(OTHERS)
        decided = self.deciding.keep_up(beat, catching_up=applied and not self.shared)
        return self.upkeep.keep_up(self, beat) or decided or noticed

    def watched_by(self, excuse: Callable[[], None]) -> None:
        self._excuse = excuse

    def _alive(self) -> None:
        """Called during long work, such as resolving thousands of connected identifiers."""
        if to_us(self.services.clock.now()) - self._since_us < LONGEST_US:
            self._excuse()

    @contextmanager
    def _knowing(self) -> Iterator[None]:
        """After an error it is unknown what was committed: DECIDE sums in full, and reads again what is counted."""
        self._since_us = to_us(self.services.clock.now())
        try:
            _ = self.compiled
            yield
        except BaseException:
            self._deltas.clear()
            if self.deciding.decider is not None:
                self.deciding.decider.all_counted = False
            raise

    # ------------------------------------------------------------ the live revision

    @property
    def compiled(self) -> Compiled:
        """The live revision as last seen; when a new one is taken up, claims our partitions for it."""
        if self._compiled is None:
            compiled = compiled_for(self.services, self.services.control.live())
            if self.claims.epochs:
                self._check_in()
                self.claims.claim(compiled.revision.revision, list(self.claims.epochs))
            self._make(compiled)
            self._compiled = compiled
        return self._compiled

    @property
    def next_offsets(self) -> list[int]:
        return [each.next_offset for each in self.services.control.progress(self.compiled.revision.revision)]

    def lowest_watermark(self) -> int:
        if self.shared:
            progress = self.services.control.progress(self.compiled.revision.revision)
            self.claims.see(min((each.watermark_us for each in progress), default=0))
        return self.claims.lowest_us

    def decide(self, watermark_us: int) -> bool:
        return self.deciding.run(watermark_us, until_none=True)

    def forget(self) -> None:
        """Reload the live revision before the next work."""
        self._compiled = self.deciding.decider = None
        self._deltas = DeltaCache(shared=self.shared)

    def _take_up_live(self) -> None:
        """Switch to another live revision, which has the same progress as the old one."""
        self.forget()
        _ = self.compiled

    def _make(self, compiled: Compiled) -> None:
        """Set the folder and decider for our current partitions."""
        self._deltas.clear()
        self.deciding.broken = False
        epochs = self.claims.epochs
        folder = folder_of(self.services, compiled, epochs, sharded=self.shared, deltas=self._deltas)
        self.folding.use(folder)
        self.deciding.folder = folder
        if self.deciding.decider is None:
            self.deciding.decider = decider_of(
                *(self.services, compiled),
                shadows=self.upkeep.builder.shadows,
                deltas=self._deltas,
                sharing=Sharing((), OTHERS) if self.shared else None,
                alive=self._alive,
            )


def _has_work(beat: Beat, watermark_us: int) -> bool:
    due = beat.due_us is not None and beat.due_us <= watermark_us
    return beat.work or beat.refolds or beat.search or beat.building is not None or due
