"""The loop of the embedded worker: read, FOLD, DECIDE, number the feed; beside it the building revision.

All the I/O and the order of steps; what is computed lives in `fold_batch`, `decide_batch` and the projections.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

import msgspec

from processors.decide_batch import Decider, Outcome, Sharing
from processors.direct_traits import open_direct
from processors.fold_batch import Batch, Folder, LetterMaker, Report
from processors.fresh import Fresh
from processors.refold import refold_marked, uncapped_state
from processors.resolve import Identity
from processors.search_index import SearchIndexer
from projections.evaluate import Evaluator, compile_evaluator
from projections.fold import Fold, compile_fold
from projections.state import State
from schemas.control import Control, Progress, Revision
from schemas.definition_files import from_json
from schemas.definitions import Definitions
from schemas.errors import Disposition, ProgressConflict, TouchfoldError
from schemas.identity_rules import DEFAULT_RULES
from schemas.ports import Clock, EventLog, Sealer
from schemas.record import Stored, decode, to_us
from schemas.store import DecideTx, ProjectionStore

log = logging.getLogger("touchfold.worker")

BATCH: Final = 5_000  # records of a partition in one FOLD; four partitions make 20,000 when behind
GRACE: Final = timedelta(seconds=2)  # how far an idle partition's watermark stays behind the clock (design C8)
MAX_WAIT: Final = timedelta(minutes=1)  # how long a due profile waits for a partition that is behind
MARKS: Final = 64  # of one look of DECIDE
DUE: Final = 2_000
WATERMARK_EVERY_S: Final = 5.0
TRIES: Final = 3  # of a record that makes the fold fail, before it is set aside


@dataclass(frozen=True)
class Services:
    """What the processors work with; made by `infra.bootstrap`."""

    log: EventLog
    store: ProjectionStore
    control: Control
    sealer: Sealer
    letter: LetterMaker
    clock: Clock
    time_zone: str
    currency: str


@dataclass(frozen=True)
class Compiled:
    """A revision with its generated functions."""

    revision: Revision
    definitions: Definitions
    fold: Fold
    evaluator: Evaluator

    @classmethod
    def of(cls, revision: Revision, time_zone: str, currency: str) -> "Compiled":
        definitions = from_json(msgspec.json.encode(revision.definitions))
        fold = compile_fold(definitions, time_zone=time_zone, currency=currency)
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

    def uncapped(tx: DecideTx, signatures: Sequence[bytes]) -> State:
        zone, currency = services.time_zone, services.currency
        fold = compile_fold(compiled.definitions, time_zone=zone, currency=currency, order_cap=None)
        return uncapped_state(folder_of(services, replace(compiled, fold=fold), {}), tx, signatures)

    number = compiled.revision.revision
    identity = Identity(DEFAULT_RULES, number, shadows, sharing is not None, alive)
    return Decider(
        *(services.store, compiled.fold, compiled.evaluator, identity, direct, uncapped),
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

    def load(self) -> Compiled:
        """Take up the live revision where its progress is; again after a swap or a conflict."""
        services = self.services
        revision = services.control.live()
        progress = services.control.progress(revision.revision)
        self._compiled = Compiled.of(revision, services.time_zone, services.currency)
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

    def refold_wanted(self, folder: Folder) -> bool:
        """Work off refold marks; FOLD leaves them rarely, commands sometimes."""
        return self.services.control.open_marks(folder.revision, "refold") > 0 and refold_marked(folder) > 0

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
        return _received_us(waiting[0]) if waiting else to_us(before - GRACE)

    def _read(self) -> tuple[list[Batch], list[int]]:
        """The next batch of each partition, and every partition's watermark after it."""
        source = self.services.log
        before = self.services.clock.now()
        batches, watermarks = [], []
        for partition, start in enumerate(self._next):
            records = source.read(partition, start, self.batch + 1)  # one more tells the watermark
            if len(records) > self.batch:
                watermark = _received_us(records[-1])
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
            self._next[batch.partition] = batch.end
        self._failures = 0
        if self.batch < BATCH:
            self.batch = min(BATCH, self.batch * 2)
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
                self._next[batch.partition] = batch.end
            except TouchfoldError:
                raise
            except Exception:
                log.exception("partition %d offset %d is set aside", batch.partition, batch.start)
                folder.poison.add((batch.partition, batch.start))
        self._failures = 0


class Worker:
    """The embedded worker: the live loop, the building revision in its pauses, watermarks for those who read."""

    def __init__(self, services: Services, build: "Build", index: SearchIndexer | None = None) -> None:
        self._services = services
        self._build = build
        self._index = index
        self.live = LiveLoop(services, build.shadows)
        self._saved_at: datetime | None = None

    def step(self) -> bool:
        """Everything once; True if there was work. An idle step is one query."""
        live, began = self.live, time.monotonic()
        revision = live.compiled.revision.revision
        pulse = self._services.control.pulse(revision)
        if pulse.live != revision:
            live.forget()
            return True
        now = self._services.clock.now()
        waiting = any(end > start for end, start in zip(pulse.ends, live.next_offsets, strict=True))
        due = pulse.due_us is not None and pulse.due_us <= to_us(now - GRACE)
        worked = (waiting or due or pulse.marks) and live.step()
        if due and not worked:
            worked = live.decide_late(to_us(now - MAX_WAIT))
        built = pulse.building is not None and self._build(live)
        indexed = pulse.search and self._index_some(time.monotonic() - began)
        self._save_watermarks()
        return worked or built or indexed

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
        idle = 0
        while not stop.is_set():
            try:
                idle = 0 if self.step() else idle + 1
            except TouchfoldError as err:
                if err.disposition is not Disposition.RETRY:
                    raise
                log.warning("waiting: %s", err.message)
                idle = 10
                self.live.forget()
            if idle:
                stop.wait(0.02 if idle < 250 else 0.1)  # an idle poll costs 0.3 ms: 1.5 % of a core, then 0.3 %


class Build(Protocol):
    """What the worker does for a building revision in the live loop's pauses; see `processors.rebuild`."""

    def shadows(self) -> Sequence[int]:
        """Revisions that identity changes must be marked for."""

    def __call__(self, live: LiveLoop) -> bool:
        """A slice of work; True if there was any."""


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


def _received_us(record: Stored) -> int:
    return to_us(decode(record.value).received_at)


def _add(totals: Report, report: Report) -> None:
    for name, value in vars(report).items():
        setattr(totals, name, getattr(totals, name) + value)
