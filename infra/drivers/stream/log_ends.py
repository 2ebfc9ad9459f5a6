"""Where the log's partitions end, asked periodically beside the flow's steps."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from infra.drivers.stream.client import Client
from schemas.errors import StoreUnavailable
from schemas.ports import Clock
from schemas.record import to_us

_log = logging.getLogger("touchfold.runner")


class LogEnds:
    """`known`: by partition, its end and since when that is known (µs). The flow forgets what it gives up."""

    def __init__(self, clock: Clock, every_s: float) -> None:
        self.known: dict[int, tuple[int, int]] = {}
        self._clock = clock
        self._every_s = every_s
        self._asked = asyncio.Event()

    def ask(self) -> None:
        """Refresh now: the flow became idle."""
        self._asked.set()

    async def mind(self, client: Callable[[], Client | None], owned: Callable[[], tuple[int, list[int]]]) -> None:
        """Refreshes the ends of the owned partitions. `owned`: the number of the assignment, and its partitions.

        The time kept is the one before the question: a later one could hide records.
        """
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._asked.wait(), self._every_s)
            self._asked.clear()
            generation, partitions = owned()
            asked = client()
            if not partitions or asked is None:
                continue
            since = to_us(self._clock.now())
            try:
                ends = await asked.ends(partitions)
            except StoreUnavailable as err:
                _log.info("%s", err.message)
                continue
            now, still = owned()
            if now == generation:
                self.known.update({p: (end, since) for p, end in ends.items() if p in still})
