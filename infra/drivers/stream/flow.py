"""From fetched records to `PartitionWork`: what both Kafka runners share. Knows no client library.

A runner supplies records (`step`) and reports assignments (`assign`, `revoke`); the flow claims partitions, checks
that nothing is missing, applies whole fetches in one call, waits out outages, sets poison records aside, and keeps
watermarks. All coroutines run in one loop; the work runs in one separate thread, one call at a time.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import repeat
from operator import attrgetter
from typing import Any, Final, NamedTuple

from infra.drivers.stream.client import Client
from infra.drivers.stream.log_ends import LogEnds
from infra.drivers.stream.pace import Pace
from infra.drivers.stream.watchdog import Watchdog
from infra.drivers.stream.work_thread import GivenUp, WorkThread
from schemas.errors import Disposition, ProgressConflict, ServiceFailed, StoreUnavailable, TouchfoldError
from schemas.ports import Clock
from schemas.record import Stored
from schemas.work import Fetched, PartitionWork

OLDER_LIMIT: Final = 5_000  # records per slice read from the archive
_BEYOND_TRIES: Final = 5  # a new leader may not know its followers' progress yet

_log = logging.getLogger("touchfold.runner")
_OFFSET, _VALUE = attrgetter("offset"), attrgetter("value")
_stored: Callable[[Iterable[Any]], Stored] = partial(
    tuple.__new__, Stored
)  # takes a quarter less time than calling Stored

Older = Callable[[int, int, int], Sequence[Stored]]
Fetch = Callable[[float], Awaitable[Mapping[int, Sequence[Any]]]]


class _Held(NamedTuple):
    """A batch waiting for a retry: it failed on its own, or starts with a record that cannot be read yet."""

    batch: Fetched
    tries: int
    due: float


class BatchFlow:
    """One worker's partitions. Call `step` repeatedly while not `ending`, then `close`.

    `older(partition, start, limit)` reads what retention removed from the topic; what it leaves out never existed.
    """

    def __init__(
        self,
        work: PartitionWork,
        clock: Clock,
        watchdog: Watchdog,
        older: Older | None = None,
        pace: Pace | None = None,
    ) -> None:
        self._work = work
        work.watched_by(watchdog.excuse)
        self._clock = clock
        self._watchdog = watchdog
        self._older = older
        self._pace = pace or Pace()
        self._thread = WorkThread(watchdog.excuse, self._pace)
        self._client: Client | None = None
        self._busy = asyncio.Lock()
        self._generation = 0
        self._new: set[int] = set()  # assigned, not claimed
        self._next: dict[int, int] = {}  # owned: the next offset
        self._known: dict[int, int] = {}  # nothing is missing up to here, even without a record as proof
        self._probe: dict[int, tuple[int, int]] = {}  # (next, first) of a gap seen once
        self._seek: set[int] = set()
        self._doubt: set[int] = set()
        self._beyond: dict[int, int] = {}
        self._held: dict[int, _Held] = {}
        self._behind: dict[int, int] = {}  # read from the archive up to here
        self.ends = LogEnds(clock, self._pace.ends_s)
        self._conflicts = 0
        self._idle_due = 0.0
        self._wait_s = 0.0
        self._quiet = False
        self.failure: BaseException | None = None

    @property
    def ending(self) -> bool:
        return self._thread.ending

    async def ended(self) -> None:
        """Until `stop` or `fail`."""
        await self._thread.ended()

    def attach(self, client: Client) -> None:
        """Set the client to use from now on."""
        self._client = client

    def stop(self) -> None:
        """Accept no more records; finish what is being applied."""
        self._thread.stop()

    def fail(self, error: BaseException) -> None:
        """End with this error; the first one counts."""
        self.failure = self.failure or error
        self.stop()

    # --- assignments

    def assign(self, partitions: Collection[int]) -> None:
        """These partitions are ours from now on; they are claimed at the next step."""
        self._generation += 1
        self._new = set(partitions)
        for partition in partitions:
            self._watchdog.mark(partition, None)

    async def revoke(self) -> None:
        """Give all partitions back: wait for the batch in flight, release, commit hints."""
        self._generation += 1
        with self._thread.revoking():
            async with self._busy:
                offsets = self._reached()
                self._forget(set(self._next) | self._new)
                self._new.clear()
                if offsets:
                    await self._thread.once(partial(self._work.release, list(offsets)))
                    await self._hint(offsets)

    async def close(self) -> None:
        """After `stop`: give all partitions back and end the work thread."""
        self.stop()
        await self.revoke()
        self._thread.close()

    def out_of_range(self, partitions: Collection[int]) -> None:
        """The brokers do not have the offset we asked for."""
        self._doubt |= self._next.keys() & set(partitions)

    def rewind(self) -> None:
        """A fetch failed midway: what it took is fetched again."""
        self._seek |= self._next.keys()

    # --- the loop

    async def step(self, fetch: Fetch) -> None:
        """Claim new partitions, fetch once and apply; or take an idle turn. Raises errors that must end the worker."""
        with suppress(GivenUp):
            async with self._busy:
                await self._ready()
            generation = self._generation
            wait_s = 0.0 if self._behind.keys() - self._held.keys() else self._wait_s
            delivered = await self._thread.unless_ending(fetch(wait_s))
            async with self._busy:
                if generation == self._generation and not self.ending:
                    await self._turn(delivered)

    async def _ready(self) -> None:
        """Claims and seeks that are due."""
        if self._new:
            if self._conflicts:
                await self._thread.pause(min(self._pace.conflict_s * 2.0**self._conflicts / 2, self._pace.retry_most_s))
            await self._claim(set(self._new))
        if self._doubt:
            await self._place(self._doubt)
            await self._not_beyond(self._doubt)
            self._doubt.clear()
        if self._seek:
            wanted = {p: self._expected(p) for p in self._seek if p in self._next and p not in self._behind}
            await self._thread.lasting(partial(self._kafka.seek, wanted))
            self._seek.clear()

    async def _turn(self, delivered: Mapping[int, Sequence[Any]]) -> None:
        batches = [batch for p, records in delivered.items() if (batch := self._checked(p, records)) is not None]
        for partition in self._behind.keys() - self._held.keys():
            batches += await self._from_archive(partition)
        if batches:
            await self._apply(batches)
        for partition, held in list(self._held.items()):
            if held.due <= time.monotonic() and partition in self._held:
                await self._alone(held.batch, held.tries)
        if not batches or time.monotonic() >= self._idle_due:
            await self._idle()
        if not batches and not self._quiet:
            self.ends.ask()
        self._quiet = not batches
        if batches:
            self._wait_s = self._pace.busy_s

    def _expected(self, partition: int) -> int:
        return max(self._next[partition], self._known.get(partition, 0))

    def _checked(self, partition: int, records: Sequence[Any]) -> Fetched | None:
        """The batch, if it is the next one. Otherwise it is fetched again; a gap seen twice is real."""
        if partition not in self._next or partition in self._held or partition in self._behind or not records:
            return None
        expected, first = self._expected(partition), records[0].offset
        if first < expected or (first > expected and self._probe.get(partition) != (expected, first)):
            _log.info("partition %d: fetched from %d, expected %d: fetched again", partition, first, expected)
            self._probe[partition] = (expected, first)
            self._seek.add(partition)
            return None
        values = [*map(_VALUE, records)]
        if None in values:  # a tombstone is not a record, but it has an offset
            values = [value or b"" for value in values]
        stored = list(map(_stored, zip(repeat(partition), map(_OFFSET, records), values, strict=False)))
        return self._batch(partition, stored, self._position(partition))

    def _batch(self, partition: int, stored: Sequence[Stored], position: int) -> Fetched:
        end = stored[-1].offset + 1
        known = self.ends.known.get(partition)
        caught_up_us = known[1] if known is not None and max(end, position) >= known[0] else None
        return Fetched(partition, self._next[partition], end, stored, caught_up_us)

    async def _from_archive(self, partition: int) -> list[Fetched]:
        """A slice of what the topic no longer has; None once the topic's start is reached."""
        start, low = self._next[partition], self._behind[partition]
        assert self._older is not None, "only a flow with an archive is behind"
        stored: Sequence[Stored] = ()
        if start < low:
            stored = await self._thread.do(partial(self._older, partition, start, OLDER_LIMIT))
        if stored and stored[0].offset < start:
            raise ServiceFailed(f"the archive of partition {partition} gave {stored[0].offset} for {start}")
        if stored and stored[0].offset < low:
            return [self._batch(partition, stored, 0)]
        _log.info("partition %d: read from the archive up to %d", partition, low)
        self._known[partition] = low
        await self._place({partition})
        return []

    # --- claims

    async def _claim(self, partitions: Collection[int]) -> None:
        starts = await self._thread.do(partial(self._work.claim, sorted(partitions)))
        self._forget(partitions)
        self._next.update(starts)
        self._new.difference_update(partitions)
        for partition, start in starts.items():
            self._watchdog.mark(partition, start)
        _log.info("claimed %s", dict(starts))
        await self._place(starts.keys())

    async def _place(self, partitions: Collection[int]) -> None:
        """Seek to where each partition continues, or switch to the archive if the log starts later."""
        lows = await self._thread.lasting(partial(self._kafka.starts, partitions))
        for partition in partitions:
            low, start = lows[partition], self._expected(partition)
            if start >= low:
                if self._behind.pop(partition, None) is not None:
                    self._kafka.resume({partition})
                self._seek.add(partition)
            elif self._older is None:
                raise ServiceFailed(
                    f"partition {partition} continues at offset {start}, but the log begins at {low}: retention took "
                    "records that were never folded, and there is no archive to read them from"
                )
            else:
                _log.warning(
                    "partition %d continues at %d, but the log begins at %d: reading the archive", partition, start, low
                )
                self._kafka.pause({partition})
                self._behind[partition] = low
                await self._thread.lasting(partial(self._kafka.seek, {partition: low}))  # a position that it has

    async def _not_beyond(self, partitions: Collection[int]) -> None:
        """A log that ends before our offset was replaced, although a new leader may report that for a moment."""
        ends = await self._thread.lasting(partial(self._kafka.ends, partitions))
        for partition in partitions:
            if self._next[partition] <= ends[partition]:
                self._beyond.pop(partition, None)
                continue
            self._beyond[partition] = self._beyond.get(partition, 0) + 1
            if self._beyond[partition] >= _BEYOND_TRIES:
                raise ServiceFailed(
                    f"partition {partition} continues at offset {self._next[partition]}, but the log ends at "
                    f"{ends[partition]}: it was replaced. Start a new log generation"
                )
            await self._thread.pause(self._pace.ends_s)

    def _forget(self, partitions: Collection[int]) -> None:
        for place in (self._next, self._known, self._probe, self._beyond, self._held, self._behind, self.ends.known):
            for partition in partitions:
                place.pop(partition, None)
        self._seek.difference_update(partitions)
        self._doubt.difference_update(partitions)
        self._watchdog.drop(partitions)

    # --- apply

    async def _apply(self, batches: Sequence[Fetched]) -> None:
        """All in one transaction; each on its own if that fails because of the records."""
        try:
            waits = await self._thread.do(partial(self._work.apply, batches))
        except ProgressConflict as err:
            self._conflicted([batch.partition for batch in batches], err)
        except Exception as err:
            _raise_stop(err)
            _log.exception("a fetch of %d partitions could not be applied", len(batches))
            if len(batches) == 1:
                self._hold(batches[0], 1)
                return
            for batch in batches:
                await self._alone(batch, 0)
        else:
            for batch in batches:
                self._advance(batch, waits)

    async def _alone(self, batch: Fetched, tries: int) -> None:
        try:
            waits = await self._thread.do(partial(self._work.apply, [batch]))
        except ProgressConflict as err:
            self._conflicted([batch.partition], err)
        except Exception as err:
            _raise_stop(err)
            _log.exception("partition %d [%d, %d) could not be applied", batch.partition, batch.start, batch.end)
            if tries + 1 < self._pace.poison_tries:
                self._hold(batch, tries + 1)
            else:
                await self._isolate(batch)
        else:
            self._advance(batch, waits)

    async def _isolate(self, batch: Fetched) -> None:
        place = f"partition {batch.partition} [{batch.start}, {batch.end})"
        _log.error("%s failed %d times: record by record", place, self._pace.poison_tries)
        try:
            waits = await self._thread.do(partial(self._work.isolate, batch))
        except ProgressConflict as err:
            self._conflicted([batch.partition], err)
        except Exception as err:
            _raise_stop(err)
            raise ServiceFailed(f"{place} can be neither folded nor set aside ({type(err).__name__})") from err
        else:
            self._advance(batch, waits)

    def _hold(self, batch: Fetched, tries: int) -> None:
        """The partition waits while the others continue."""
        self._kafka.pause({batch.partition})
        self._watchdog.mark(batch.partition, batch.start)  # it waits for a reason that is known and logged
        due = time.monotonic() + self._pace.poison_s * 2.0 ** (tries - 1)
        self._held[batch.partition] = _Held(batch, tries, due)

    def _advance(self, batch: Fetched, waits: Mapping[int, int]) -> None:
        """The batch is applied; if its partition waits at a record, up to there."""
        partition = batch.partition
        reached = waits.get(partition, batch.end)
        self._next[partition] = reached
        self._probe.pop(partition, None)
        self._conflicts = 0
        self._watchdog.mark(partition, reached)
        if partition in waits:
            self._kafka.pause({partition})
            rest = [record for record in batch.records if record.offset >= reached]
            due = time.monotonic() + self._pace.waiting_s
            self._held[partition] = _Held(batch._replace(start=reached, records=rest), 0, due)
            return
        if self._held.pop(partition, None) is not None:
            if partition not in self._behind:
                self._kafka.resume({partition})
            self._seek.add(partition)

    def _conflicted(self, partitions: Collection[int], err: ProgressConflict) -> None:
        _log.warning("claimed again: %s", err.message)
        self._kafka.resume(set(partitions) & (self._held.keys() | self._behind.keys()))
        self._forget(partitions)
        self._new.update(partitions)
        self._conflicts += 1
        for partition in partitions:
            self._watchdog.mark(partition, None)

    @property
    def client(self) -> Client | None:
        """The client in use; None before the first `attach`."""
        return self._client

    def owned(self) -> tuple[int, list[int]]:
        """The partitions that are claimed, with a number that changes with every assignment."""
        return self._generation, list(self._next)

    # --- idle turns, watermarks, hints

    async def _idle(self) -> None:
        """`caught_up` holds the time before the end offset was requested: a later one could hide records."""
        reached = self._reached()
        caught_up = {p: since for p, (end, since) in self.ends.known.items() if p in reached and reached[p] >= end}
        for partition in caught_up:
            self._watchdog.mark(partition, reached[partition])
        try:
            more = await self._thread.do(partial(self._work.idle, caught_up))
        except ProgressConflict as err:
            self._conflicted(list(self._next), err)
            return
        self._idle_due = time.monotonic() + (self._pace.idle_again_s if more else self._pace.idle_every_s)
        self._wait_s = self._pace.busy_s if more else self._pace.idle_s

    def _position(self, partition: int) -> int:
        return self._kafka.positions().get(partition, 0)

    def _reached(self) -> dict[int, int]:
        """Progress per owned partition, including markers after the last record. Not while a batch is in flight."""
        positions = {} if self._client is None else self._client.positions()
        apart = self._held.keys() | self._behind.keys() | self._seek | self._doubt
        return {p: at if p in apart else max(at, positions.get(p, 0)) for p, at in self._next.items()}

    async def mind_hints(self) -> None:
        """Commits our progress to the group. Runs alongside the steps."""
        while True:
            await asyncio.sleep(self._pace.hint_s)
            await self._hint(self._next if self._busy.locked() else self._reached())

    async def _hint(self, offsets: Mapping[int, int]) -> None:
        if not offsets or self._client is None:
            return
        try:
            await self._client.hint(dict(offsets))
        except StoreUnavailable as err:
            _log.info("lag hint: %s", err.message)

    @property
    def _kafka(self) -> Client:
        assert self._client is not None, "attach comes first"
        return self._client


def _raise_stop(err: Exception) -> None:
    if isinstance(err, TouchfoldError) and err.disposition is Disposition.STOP:
        raise err
    if isinstance(err, GivenUp):
        raise err
