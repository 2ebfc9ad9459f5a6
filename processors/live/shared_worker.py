"""A worker among others on one PostgreSQL: FOLD for the partitions it owns, DECIDE for whatever shard is free.

A runner (`schemas.work`) hands it what was fetched; progress, epoch and contiguity are in PostgreSQL, in the same
transaction as the effect. Timers, marks, building revisions and the search index are shared out among all workers.
"""

import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from processors.live.applied import Batch, Report
from processors.live.decide_batch import Decider, Outcome, Sharing
from processors.live.delta_cache import Fresh
from processors.live.fold_batch import Folder
from processors.live.search_index import SearchIndexer
from processors.live.worker import (
    BATCH,
    DUE,
    GRACE,
    MARKS,
    MAX_WAIT,
    Compiled,
    KeepsFigures,
    Services,
    decide_on,
    decider_of,
    epochs_of,
    folder_of,
    note_waits,
    refold_or_note,
    watermark_before,
)
from processors.rebuild.builder import Builder
from schemas.control import Beat
from schemas.errors import ProgressConflict, TouchfoldError
from schemas.log_range import records_between
from schemas.record import MICROSECOND, to_us
from schemas.waits import Wait
from schemas.work import Fetched

log = logging.getLogger("touchfold.worker")

WATERMARKS_EVERY_US: Final = 500_000
OTHERS: Final = 2  # shards of other workers that an idle one takes at a time
LONGEST_US: Final = 600_000_000  # of one piece of work that goes on; longer, and the watchdog ends it
GRACE_US: Final = GRACE // MICROSECOND
MAX_WAIT_US: Final = MAX_WAIT // MICROSECOND


@dataclass
class SharedWorker:
    """`PartitionWork` and the builder's `LiveView`. `owner` names it in the progress table; unique to the process.

    `check_in` is called before partitions are claimed; it raises where this process may not have any.
    """

    services: Services
    builder: Builder
    index: SearchIndexer | None
    owner: str
    figures: KeepsFigures | None = None
    check_in: Callable[[], None] = lambda: None
    totals: Report = field(default_factory=Report)
    _compiled: Compiled | None = None
    _folder: Folder | None = None
    _decider: Decider | None = None
    _epochs: dict[int, int] = field(default_factory=dict)  # of the partitions that are ours
    _watermark_us: int = 0  # the lowest of all partitions when last seen; it only rises
    _saved_us: int = 0
    _waits: dict[int, Wait] = field(default_factory=dict)  # by partition of ours: at which record it waits
    _broken: bool = False  # what the refold marks ask for cannot be made: not until the next claim
    _excuse: Callable[[], None] = lambda: None
    _since_us: int = 0  # when the piece of work at hand began
    _worked_s: float = 0.0  # on events, since the search index last had its share
    _fresh: Fresh = field(default_factory=partial(Fresh, shared=True))

    # ------------------------------------------------------------ partitions

    def claim(self, partitions: Collection[int]) -> dict[int, int]:
        self.check_in()
        revision = self.compiled.revision.revision
        if self.services.control.live().revision != revision:
            self.forget()
            revision = self.compiled.revision.revision
            partitions = {*partitions, *self._epochs}
        claimed = self.services.control.claim(revision, partitions, self.owner)
        if len(claimed) < len(set(partitions)):  # the topic was given more
            self.services.control.add_partitions(max(partitions) + 1)
            claimed = self.services.control.claim(revision, partitions, self.owner)
        self._epochs |= epochs_of(claimed)
        self._broken = False
        self._make()
        return {each.partition: each.next_offset for each in claimed}

    def release(self, partitions: Collection[int]) -> None:
        mine = {partition: self._epochs.pop(partition) for partition in partitions if partition in self._epochs}
        if mine and self._compiled is not None:
            try:
                self.services.control.release(self._compiled.revision.revision, mine)
            except TouchfoldError as err:
                log.info("partitions are given back without a note: %s", err.message)

    # ------------------------------------------------------------ work

    def apply(self, batches: Sequence[Fetched]) -> dict[int, int]:
        began = time.monotonic()
        with self._knowing():
            stopped = self._fold([self._batch(each) for each in batches])
            self._share(0)
            self._decide(self._watermark_us, until_none=False)
        self._worked_s += time.monotonic() - began
        return stopped

    def salvage(self, batch: Fetched) -> dict[int, int]:
        """Halve the batch until what fails is one record; that is set aside, the rest is folded."""
        waiting = [batch]
        stopped: dict[int, int] = {}
        with self._knowing():
            while waiting and not stopped:
                part = waiting.pop()
                try:
                    stopped = self._fold([self._batch(part)])
                except TouchfoldError:
                    raise
                except Exception:
                    waiting += reversed(self._halves(part))
            self.decide(self._watermark_us)
        return stopped

    def watched_by(self, excuse: Callable[[], None]) -> None:
        self._excuse = excuse

    def _alive(self) -> None:
        """Called by what may take long: to settle who is whom among thousands of connected identifiers."""
        if to_us(self.services.clock.now()) - self._since_us < LONGEST_US:
            self._excuse()

    @contextmanager
    def _knowing(self) -> Iterator[None]:
        """After an error what was committed is not known: DECIDE sums anew. Raises DiskFull before anything is done."""
        self.services.check_room()
        self._since_us = to_us(self.services.clock.now())
        try:
            yield
        except BaseException:
            self._fresh.clear()
            raise

    def _halves(self, batch: Fetched) -> list[Fetched]:
        """The two halves of a batch; of a single record itself, set aside."""
        records = batch.records
        if len(records) == 1:
            place = (batch.partition, records[0].offset)
            assert self._folder is not None, "it just failed"
            if place in self._folder.poison:
                raise ProgressConflict(f"partition {place[0]} offset {place[1]} cannot even be set aside")
            log.exception("partition %d offset %d is set aside", *place)
            self._folder.poison.add(place)
            return [batch]
        half = len(records) // 2
        border = records[half].offset
        return [
            Fetched(batch.partition, batch.start, border, records[:half], None),
            Fetched(batch.partition, border, batch.end, records[half:], batch.caught_up_us),
        ]

    def _batch(self, fetched: Fetched) -> Batch:
        records = fetched.records
        if fetched.caught_up_us is not None:
            watermark = fetched.caught_up_us - GRACE_US
        else:
            watermark = watermark_before(records[-1], self.services.clock.now()) if records else 0
        return Batch(fetched.partition, fetched.start, fetched.end, records, watermark)

    def _fold(self, batches: Sequence[Batch]) -> dict[int, int]:
        """Returns the partitions that wait, with the offset of the record each waits at."""
        unowned = [each.partition for each in batches if each.partition not in self._epochs]
        if unowned or self._folder is None:
            raise ProgressConflict(f"partitions {unowned} are not ours")
        report = self._folder.run(batches, self._watermark_us)
        for name, value in vars(report).items():
            setattr(self.totals, name, getattr(self.totals, name) + value)
        mine = {batch.partition for batch in batches}
        self._waits = {
            partition: wait for partition, wait in self._waits.items() if partition not in mine
        } | note_waits(self.services, {p: wait for p, wait in self._folder.waits.items() if p in mine}, self._waits)
        return {partition: self._waits[partition].offset for partition in mine & self._waits.keys()}

    def idle(self, caught_up: Mapping[int, int]) -> bool:
        with self._knowing():
            return self._idle(caught_up)

    def _idle(self, caught_up: Mapping[int, int]) -> bool:
        beat = self.services.control.beat(self.compiled.revision.revision)
        if beat.live != self.compiled.revision.revision:
            self._take_up_live()
            return True
        self._watermark_us = max(self._watermark_us, beat.watermark_us)
        self._share(OTHERS)
        self._save_watermarks(caught_up)
        return any([self._timers_and_marks(beat), self._build(beat), self._index(beat), self._keep_figures(beat)])

    def _timers_and_marks(self, beat: Beat) -> bool:
        worked = False
        if beat.refolds and self._folder is not None and not self._broken:
            done = refold_or_note(self.services, self._folder)
            self._broken = done is None
            worked = bool(done)
        due = beat.due_us is not None and beat.due_us <= beat.watermark_us
        if beat.marks or due:
            worked = self.decide(beat.watermark_us) or worked
        late = to_us(self.services.clock.now()) - MAX_WAIT_US
        if beat.due_us is not None and beat.watermark_us < beat.due_us <= late and (beat.waits or not worked):
            worked = self._look(late, marks=0, lagging=True).some or worked
        return worked

    def _build(self, beat: Beat) -> bool:
        return beat.building is not None and self.builder(self)

    def _index(self, beat: Beat) -> bool:
        worked_s, self._worked_s = self._worked_s, 0.0
        if self.index is None or not beat.search:
            return False
        compiled = self.compiled
        return self.index.keep_up(compiled.revision.revision, compiled.fold, compiled.evaluator, worked_s) > 0

    def _keep_figures(self, beat: Beat) -> bool:
        if self.figures is None:
            return False
        counted = beat.figures and self.figures.step(self.compiled)
        return self.figures.compact(self.compiled) or counted

    def _save_watermarks(self, caught_up: Mapping[int, int]) -> None:
        now_us = to_us(self.services.clock.now())
        if now_us - self._saved_us < WATERMARKS_EVERY_US:
            return
        mine = {partition: at - GRACE_US for partition, at in caught_up.items() if partition in self._epochs}
        if mine:
            self.services.control.save_owned_watermarks(self.compiled.revision.revision, self._epochs, mine)
        self._saved_us = now_us

    # ------------------------------------------------------------ the live revision

    @property
    def compiled(self) -> Compiled:
        if self._compiled is None:
            services = self.services
            live = services.control.live()
            self._compiled = Compiled.of(
                live, services.time_zone, services.currency, services.order_cap, services.reader
            )
            self._make()
        return self._compiled

    @property
    def next_offsets(self) -> list[int]:
        return [each.next_offset for each in self.services.control.progress(self.compiled.revision.revision)]

    def lowest_watermark(self) -> int:
        progress = self.services.control.progress(self.compiled.revision.revision)
        self._watermark_us = max(self._watermark_us, min((each.watermark_us for each in progress), default=0))
        return self._watermark_us

    def decide(self, watermark_us: int) -> bool:
        return self._decide(watermark_us, until_none=True)

    def _decide(self, watermark_us: int, *, until_none: bool) -> bool:
        return decide_on(lambda: self._look(watermark_us), self.services.store, until_none=until_none)

    def _look(self, watermark_us: int, *, marks: int = MARKS, lagging: bool = False) -> Outcome:
        assert self._decider is not None, "compiled makes it"
        try:
            return self._decider.run(watermark_us, marks=marks, due=DUE, lagging=lagging)
        except ProgressConflict:
            self._take_up_live()  # another revision went live under our hands
            return Outcome(0, 0, 0, more=True)

    def forget(self) -> None:
        self._compiled = self._folder = self._decider = None
        self._fresh = Fresh(shared=True)

    def _take_up_live(self) -> None:
        """Another revision is live: own our partitions there. It stands where the old one stood."""
        self.forget()
        mine = list(self._epochs)
        self._epochs.clear()
        if mine:
            self.claim(mine)

    def _make(self) -> None:
        """The folder and decider of what is ours now."""
        if self._compiled is None:
            return
        self._fresh.clear()
        poison = set() if self._folder is None else self._folder.poison
        self._folder = folder_of(self.services, self._compiled, self._epochs, sharded=True, fresh=self._fresh)
        self._folder.poison = poison
        if self._decider is None:
            sharing = Sharing((), OTHERS)
            self._decider = decider_of(
                self.services, self._compiled, fresh=self._fresh, sharing=sharing, alive=self._alive
            )

    def _share(self, others: int) -> None:
        """Decide what we folded ourselves, and of what others folded so many shards that wait."""
        if self._decider is not None:
            self._decider.sharing = Sharing(list(self._epochs), others)


def work_off(worker: SharedWorker, tell: Callable[[], None]) -> None:
    """All that the log has, read directly: for a command where no worker of the cluster runs. `tell`: of each step."""
    log, clock = worker.services.log, worker.services.clock
    places = dict(worker.claim(range(log.partitions)))
    ends = log.ends()
    waits: dict[int, int] = {}  # partitions that wait at a record, which nobody mends while we work
    while True:
        before = to_us(clock.now())
        ends = list(map(max, ends, log.ends()))  # a broker that has just become the leader may show less
        batches = []
        for partition, start in places.items():
            if partition in waits:
                continue
            records = next(records_between(log, partition, start, ends[partition], BATCH), None)
            if records:
                batches.append(Fetched(partition, start, records[-1].offset + 1, records, None))
        if batches:
            waits |= worker.apply(batches)
            places |= {each.partition: waits.get(each.partition, each.end) for each in batches}
        caught_up = {} if batches else dict.fromkeys(places.keys() - waits.keys(), before)
        if not worker.idle(caught_up) and not batches:
            worker.release(places)
            return
        tell()
