"""The loop of the embedded worker: read, FOLD, DECIDE, number the feed; beside it the building revision.

All the I/O and the order of steps; what is computed lives in `fold_batch`, `decide_batch` and the projections.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

import msgspec

from processors.erase.refold import refold_marked, uncapped_state
from processors.live.applied import Batch, Report
from processors.live.decide_batch import Decider, Outcome, Sharing
from processors.live.delta_cache import Fresh
from processors.live.fold_batch import Folder, LetterMaker
from processors.live.large_profiles import LargeProfiles
from processors.live.personal_traits import open_direct
from processors.live.resolve import Identity
from processors.live.search_index import SearchIndexer
from projections.decide.evaluator import Evaluator, compile_evaluator
from projections.definitions.files import from_json
from projections.fold.fold import Fold, compile_fold
from projections.fold.state import ORDER_CAP, State
from schemas.control import Control, Progress, Revision
from schemas.definitions import Definitions
from schemas.errors import DiskFull, Disposition, FoldFailed, ProgressConflict, TouchfoldError
from schemas.identity_rules import DEFAULT_RULES
from schemas.ports import Clock, EventLog, Sealer
from schemas.record import CURRENT, Reader, Stored, received_us, to_us
from schemas.store import DecideTx, ProjectionStore
from schemas.waits import REFOLD, WORKER, Wait

log = logging.getLogger("touchfold.worker")

BATCH: Final = 5_000  # records of a partition in one FOLD; four partitions make 20,000 when behind
GRACE: Final = timedelta(seconds=2)  # how far an idle partition's watermark stays behind the clock (design C8)
MAX_WAIT: Final = timedelta(minutes=1)  # how long a due profile waits for a partition that is behind
MARKS: Final = 64  # of one look of DECIDE
DUE: Final = 2_000
WATERMARK_EVERY_S: Final = 5.0
AWAY_S: Final = 0.2  # between two tries in an outage
FULL_S: Final = 1.0  # on a full disk
TRIES: Final = 3  # of a record that makes the fold fail, before it is set aside


@dataclass(frozen=True)
class Services:
    """What the processors work with; made by `infra.app.bootstrap`."""

    log: EventLog
    store: ProjectionStore
    control: Control
    sealer: Sealer
    letter: LetterMaker
    clock: Clock
    time_zone: str
    currency: str
    order_cap: int | None = ORDER_CAP  # entries of a map that a state holds itself
    reader: Reader = CURRENT  # which records this build reads
    check_room: Callable[[], None] = lambda: None  # raises DiskFull where nothing may be written for now
    batch: int = BATCH  # less on a small disk, where a large transaction would take all that is kept free


@dataclass(frozen=True)
class Compiled:
    """A revision with its generated functions."""

    revision: Revision
    definitions: Definitions
    fold: Fold
    evaluator: Evaluator

    @classmethod
    def of(
        cls,
        revision: Revision,
        time_zone: str,
        currency: str,
        order_cap: int | None = ORDER_CAP,
        reader: Reader = CURRENT,
    ) -> "Compiled":
        definitions = from_json(msgspec.json.encode(revision.definitions))
        fold = compile_fold(definitions, time_zone=time_zone, currency=currency, order_cap=order_cap, reader=reader)
        return cls(revision, definitions, fold, compile_evaluator(definitions, fold, time_zone=time_zone))


def decider_of(
    services: Services,
    compiled: Compiled,
    *,
    silent: bool = False,
    shadows: Callable[[], Sequence[int]] = tuple,
    fresh: Fresh | None = None,
    sharing: Sharing | None = None,
    alive: Callable[[], None] = lambda: None,
) -> Decider:
    """The DECIDE of a revision."""

    def direct(states: Mapping[bytes, State], names: frozenset[str]) -> dict[bytes, dict[str, Any]]:
        return open_direct(services.log, services.sealer, states, names.__contains__)

    def from_log(tx: DecideTx, signatures: Sequence[bytes]) -> State:
        return uncapped_state(folder_of(services, compiled, {}), tx, signatures)

    number = compiled.revision.revision
    identity = Identity(DEFAULT_RULES, number, shadows, sharing is not None, alive)
    return Decider(
        *(services.store, compiled.fold, compiled.evaluator, identity, direct),
        LargeProfiles(compiled.fold, number, from_log),
        *(number, services.time_zone),
        silent=silent,
        fresh=fresh,
        sharing=sharing,
    )


def folder_of(
    services: Services,
    compiled: Compiled,
    epochs: Mapping[int, int],
    *,
    live: bool = True,
    marks: bool = True,
    sharded: bool = False,
    fresh: Fresh | None = None,
) -> Folder:
    """The FOLD of a revision."""
    return Folder(
        *(services.store, services.log, compiled.fold, services.sealer, services.letter),
        *(compiled.revision.revision, epochs),
        live=live,
        marks=marks,
        sharded=sharded,
        fresh=fresh,
    )


@dataclass
class LiveLoop:
    """FOLD and DECIDE of the live revision, step by step."""

    services: Services
    shadows: Callable[[], Sequence[int]] = tuple
    batch: int = BATCH
    totals: Report = field(default_factory=Report)
    _compiled: Compiled | None = None
    _folder: Folder | None = None
    _decider: Decider | None = None
    _next: list[int] = field(default_factory=list)
    _failures: int = 0
    _waits: dict[int, Wait] = field(default_factory=dict)  # by partition: at which record it waits
    _set_aside: int = 0  # records set aside by hand when last looked: a partition that waits is looked at again then
    _broken: bool = False  # what the refold marks ask for cannot be made: not until the next load()

    def load(self) -> Compiled:
        """Take up the live revision where its progress is; again after a swap or a conflict."""
        services = self.services
        revision = services.control.live()
        progress = services.control.progress(revision.revision)
        self._compiled = Compiled.of(
            revision, services.time_zone, services.currency, services.order_cap, services.reader
        )
        self._broken = False
        self._waits.clear()
        fresh = Fresh()  # this loop alone folds and decides the live revision: the epoch of its progress says so
        self._folder = folder_of(services, self._compiled, epochs_of(progress), fresh=fresh)
        self._decider = decider_of(services, self._compiled, shadows=self.shadows, fresh=fresh)
        self._next = [each.next_offset for each in progress]
        return self._compiled

    def forget(self) -> None:
        """Before the next step, take up again what is stored."""
        self._compiled = self._folder = self._decider = None

    @property
    def compiled(self) -> Compiled:
        return self._compiled or self.load()

    @property
    def next_offsets(self) -> list[int]:
        return list(self._next)

    def step(self) -> bool:
        """One FOLD of what the log has, then DECIDE until nothing is marked or due; True if there was work."""
        if self._folder is None or self._decider is None:
            self.load()
        assert self._folder is not None, "load() makes it"
        batches, watermarks = self._read()
        lowest = min(watermarks)
        if batches:
            self._fold(self._folder, batches, lowest)
        refolded = self.refold_wanted(self._folder)
        decided = self._decide(lowest, until_none=False)
        return bool(batches) or refolded or decided

    def waits_behind(self, ends: Sequence[int], set_aside: int) -> bool:
        """Whether there are records to fold. Not for those behind one that waits, until more is set aside by hand."""
        if set_aside != self._set_aside:
            self._set_aside = set_aside
            self._waits.clear()
        places = enumerate(zip(ends, self._next, strict=True))
        return any(end > start for partition, (end, start) in places if partition not in self._waits)

    @property
    def waits(self) -> bool:
        """Whether a partition waits at a record that cannot be read yet."""
        return bool(self._waits)

    def refold_wanted(self, folder: Folder) -> bool:
        """Work off refold marks; FOLD leaves them rarely, commands sometimes."""
        if self._broken or self.services.control.open_marks(folder.revision, "refold") == 0:
            return False
        done = refold_or_note(self.services, folder)
        self._broken = done is None
        return bool(done)

    def decide(self, watermark_us: int) -> bool:
        """DECIDE until nothing is marked or due, then number the feed."""
        return self._decide(watermark_us, until_none=True)

    def _decide(self, watermark_us: int, *, until_none: bool) -> bool:
        assert self._decider is not None, "load() makes it"
        decider = self._decider
        return decide_on(
            lambda: decider.run(watermark_us, marks=MARKS, due=DUE), self.services.store, until_none=until_none
        )

    def decide_late(self, until_us: int) -> bool:
        """Decide what was due long ago though a partition is behind; such decisions are marked as lagging."""
        assert self._decider is not None, "load() makes it"
        return self._decider.run(until_us, marks=0, lagging=True).profiles > 0

    def lowest_watermark(self) -> int:
        """The lowest watermark now, without reading more than the next record of each partition."""
        before = self.services.clock.now()
        return min(self._watermark(part, before) for part in range(self.services.log.partitions))

    def _watermark(self, partition: int, before: datetime) -> int:
        waiting = self.services.log.read(partition, self._next[partition], 1)
        return watermark_before(waiting[0], before) if waiting else to_us(before - GRACE)

    def _read(self) -> tuple[list[Batch], list[int]]:
        """The next batch of each partition, and every partition's watermark after it."""
        source = self.services.log
        before = self.services.clock.now()
        batches, watermarks = [], []
        for partition, start in enumerate(self._next):
            if partition in self._waits:
                watermarks.append(self._watermark(partition, before))
                continue
            records = source.read(partition, start, self.batch + 1)  # one more tells the watermark
            if len(records) > self.batch:
                watermark = watermark_before(records[-1], before)
                records = records[:-1]
            else:
                watermark = to_us(before - GRACE)
            watermarks.append(watermark)
            if records:
                batches.append(Batch(partition, start, records[-1].offset + 1, records, watermark))
        return batches, watermarks

    def _fold(self, folder: Folder, batches: Sequence[Batch], lowest: int) -> None:
        try:
            report = folder.run(batches, lowest)
        except ProgressConflict:
            self.load()  # another owner, or a commit whose outcome we did not learn: go on from what is stored
            return
        except TouchfoldError:
            raise
        except Exception:
            self._corner(folder, batches)
            return
        for batch in batches:
            self._next[batch.partition] = folder.end_of(batch)
        self._waits |= note_waits(self.services, folder.waits, self._waits)
        self._failures = 0
        if self.batch < self.services.batch:
            self.batch = min(self.services.batch, self.batch * 2)
        _add(self.totals, report)

    def _corner(self, folder: Folder, batches: Sequence[Batch]) -> None:
        """An unforeseen error of the fold: make batches smaller until one record is left, then set it aside."""
        if self.batch > 1:
            self.batch = max(1, self.batch // 8)
            log.exception("a batch cannot be folded: trying with %d records a partition", self.batch)
            return
        self._failures += 1
        if self._failures < TRIES * len(batches):
            return
        for batch in batches:  # with one record a partition: which of them fails alone?
            try:
                folder.run([batch], 0)
                self._next[batch.partition] = folder.end_of(batch)
            except TouchfoldError:
                raise
            except Exception:
                log.exception("partition %d offset %d is set aside", batch.partition, batch.start)
                folder.poison.add((batch.partition, batch.start))
        self._failures = 0


class Worker:
    """The embedded worker: the live loop, the building revision in its pauses, watermarks for those who read."""

    def __init__(
        self,
        services: Services,
        build: "Build",
        index: SearchIndexer | None = None,
        figures: "KeepsFigures | None" = None,
    ) -> None:
        self._services = services
        self.build = build
        self._index = index
        self._figures = figures
        self.live = LiveLoop(services, build.shadows, services.batch)
        self._saved_at: datetime | None = None

    def step(self) -> bool:
        """Everything once; True if there was work. An idle step is one query.

        Raises DiskFull before it begins with work for which there is no room.
        """
        live, began = self.live, time.monotonic()
        revision = live.compiled.revision.revision
        pulse = self._services.control.pulse(revision)
        if pulse.live != revision:
            live.forget()
            return True
        now = self._services.clock.now()
        waiting = live.waits_behind(pulse.ends, pulse.set_aside)
        due = pulse.due_us is not None and pulse.due_us <= to_us(now - GRACE)
        if waiting or due or pulse.marks or pulse.search or pulse.building is not None:
            self._services.check_room()
        worked = (waiting or due or pulse.marks) and live.step()
        if due and (not worked or live.waits):  # its watermark stands still, however busy the others are
            worked = live.decide_late(to_us(now - MAX_WAIT)) or worked
        built = pulse.building is not None and self.build(live)
        indexed = pulse.search and self._index_some(time.monotonic() - began)
        counted = self._keep_figures(pulse.figures)
        self._save_watermarks()
        return worked or built or indexed or counted

    def _keep_figures(self, waiting: bool) -> bool:
        if self._figures is None:
            return False
        counted = waiting and self._figures.step(self.live.compiled)
        return self._figures.compact(self.live.compiled) or counted

    def _index_some(self, worked_s: float) -> bool:
        """Some of what the search index lacks."""
        compiled = self.live.compiled
        if self._index is None:
            return False
        return self._index.keep_up(compiled.revision.revision, compiled.fold, compiled.evaluator, worked_s) > 0

    def _save_watermarks(self) -> None:
        now = self._services.clock.now()
        if self._saved_at is None or (now - self._saved_at).total_seconds() >= WATERMARK_EVERY_S:
            marks = [self.live._watermark(part, now) for part in range(self._services.log.partitions)]
            self._services.control.save_watermarks(self.live.compiled.revision.revision, marks)
            self._saved_at = now

    def run(self, stop: threading.Event) -> None:
        """Until `stop`. An outage is waited out; an error of disposition STOP ends the process."""
        idle, told = 0, ""
        while not stop.is_set():
            try:
                idle = 0 if self.step() else idle + 1
                told = ""
            except TouchfoldError as err:
                if err.disposition is not Disposition.RETRY:
                    raise
                if err.code != told:  # once: a full disk may last for days
                    log.warning("waiting: %s", err.message)
                told = err.code
                self.live.forget()
                stop.wait(FULL_S if isinstance(err, DiskFull) else AWAY_S)
            if idle:
                stop.wait(0.02 if idle < 250 else 0.1)  # an idle poll costs 0.3 ms: 1.5 % of a core, then 0.3 %


class KeepsFigures(Protocol):
    """What the worker does for the overview's figures in its pauses; see `processors.live.figure_keeper`."""

    def step(self, compiled: Compiled) -> bool:
        """A slice of what waits to be counted; True if there was any."""

    def compact(self, compiled: Compiled) -> bool:
        """True if there is more to add up."""


class Build(Protocol):
    """What the worker does for a building revision in the live loop's pauses; see `processors.rebuild.builder`."""

    def shadows(self) -> Sequence[int]:
        """Revisions that identity changes must be marked for."""

    def __call__(self, live: LiveLoop) -> bool:
        """A slice of work; True if there was any."""

    def resign(self) -> None:
        """Leave building to others."""


def decide_on(look: Callable[[], Outcome], store: ProjectionStore, *, until_none: bool) -> bool:
    """Look again while there may be more, then number the feed; True if there was work.

    `until_none`: until a look finds nothing; else what one left for later is found by the next step.
    """
    some = False
    while True:
        outcome = look()
        some = some or outcome.some
        if not outcome.some or not (until_none or outcome.more):
            break
    if some:
        store.number_feed()
    return some


def epochs_of(progress: Sequence[Progress]) -> dict[int, int]:
    return {each.partition: each.epoch for each in progress}


def watermark_before(record: Stored, now: datetime) -> int:
    """The watermark of a partition whose next record this is; 0 where it does not say: it stays where it is.

    One that was received later than `now`, the clock's, is as none: a deployment whose clock is set to a past instant
    decides as of that instant, and receipts keep the real time.
    """
    received = received_us(record.value) or 0
    return received if received <= to_us(now) else to_us(now - GRACE)


def note_waits(services: Services, found: Mapping[int, Wait], known: Mapping[int, Wait]) -> dict[int, Wait]:
    """Raise the alarm for partitions that wait now; returns the waits found."""
    for partition, wait in found.items():
        if known.get(partition) != wait:
            log.error("%s waits, the other partitions go on: %s", wait.place, wait.reason)
            services.control.note_wait(WORKER, wait, services.clock.now())
    return dict(found)


def refold_or_note(services: Services, folder: Folder) -> int | None:
    """Work off refold marks; None, and an alarm, where a record they need cannot be read or folded now."""
    try:
        done = refold_marked(folder)
    except FoldFailed as err:
        log.error("states are not made anew: %s", err.message)
        services.control.note_wait(REFOLD, Wait(0, 0, err.code, err.message), services.clock.now())
        return None
    if done:
        services.control.end_wait(REFOLD, 0)
    return done


def _add(totals: Report, report: Report) -> None:
    for name, value in vars(report).items():
        setattr(totals, name, getattr(totals, name) + value)
