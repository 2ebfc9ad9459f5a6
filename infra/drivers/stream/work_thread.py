"""The thread a worker on Kafka works in. It waits out outages; a stop or a revocation ends the wait."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from infra.drivers.stream.pace import Pace
from schemas.errors import Disposition, ProgressConflict, TouchfoldError

_log = logging.getLogger("touchfold.runner")
T = TypeVar("T")


class GivenUp(Exception):
    """A stop or revocation came while waiting."""


class WorkThread:
    """One call at a time, in one thread. `excuse`: reports failed attempts to the watchdog during outages."""

    def __init__(self, excuse: Callable[[], None], pace: Pace) -> None:
        self._excuse = excuse
        self._pace = pace
        self._thread = ThreadPoolExecutor(1, "work")
        self._wake = asyncio.Event()  # stop or revocation: ends waits
        self._ending = asyncio.Event()
        self._revoking = 0
        self._ender: asyncio.Future[Any] | None = None

    @property
    def ending(self) -> bool:
        return self._ending.is_set()

    async def ended(self) -> None:
        """Until `stop`."""
        await self._ending.wait()

    def stop(self) -> None:
        """End waits for good; the running call finishes."""
        self._ending.set()
        self._wake.set()

    def close(self) -> None:
        self._thread.shutdown()

    @contextmanager
    def revoking(self) -> Iterator[None]:
        """End waits for the duration of the block."""
        self._revoking += 1
        self._wake.set()
        try:
            yield
        finally:
            self._revoking -= 1
            if not self._revoking and not self.ending:
                self._wake.clear()

    async def once(self, call: Callable[[], T]) -> T:
        """A cancelled task still waits for the call, so that no transaction keeps running unnoticed."""
        future = asyncio.get_running_loop().run_in_executor(self._thread, _guarded, call)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait({future})
            raise

    async def do(self, call: Callable[[], T]) -> T:
        """Retry until done (see `lasting`)."""
        return await self.lasting(lambda: self.once(call))

    async def lasting(self, call: Callable[[], Awaitable[T]]) -> T:
        """Retry until done; outages only cost time. Raises GivenUp at stop or revocation.

        A failure that lasts longer may be our own fault, such as a client with stale state: the watchdog then ends the
        process.
        """
        tries, failing_since = 0, 0.0
        while True:
            if self._wake.is_set():
                raise GivenUp
            try:
                return await call()
            except TouchfoldError as err:
                if isinstance(err, ProgressConflict) or err.disposition is not Disposition.RETRY:
                    raise
                _log.warning("trying again: %s", err.message)
            failing_since = failing_since or time.monotonic()
            if time.monotonic() - failing_since < self._pace.outage_s:
                self._excuse()
            await self.pause(min(self._pace.retry_s * 2.0**tries, self._pace.retry_most_s))
            tries = min(tries + 1, 10)

    async def pause(self, seconds: float) -> None:
        """Raises GivenUp at stop or revocation."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), seconds)
            raise GivenUp

    async def unless_ending(self, question: Awaitable[T]) -> T:
        """The call's result; if stop or revocation comes first, cancels it and raises GivenUp."""
        if self._ender is None:
            self._ender = asyncio.ensure_future(self._ending.wait())
        task = asyncio.ensure_future(question)
        try:
            await asyncio.wait({task, self._ender}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise GivenUp
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
                if not task.cancelled():
                    task.exception()  # no longer of interest


def complete(main: Coroutine[Any, Any, None]) -> None:
    """Run to completion in its own loop. Unlike asyncio.run, it leaves the process's signals alone."""
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(main)
    finally:
        try:
            left = asyncio.all_tasks(loop)
            for task in left:
                task.cancel()
            if left:
                loop.run_until_complete(asyncio.wait(left, timeout=1))
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()


def _guarded(call: Callable[[], T]) -> T:
    """A future cannot hold StopIteration: a waiter would wait for ever."""
    try:
        return call()
    except StopIteration as err:
        raise RuntimeError("StopIteration escaped from the work thread") from err
