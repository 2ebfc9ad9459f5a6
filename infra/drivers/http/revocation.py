"""Rechecks access during long requests: streams, long responses and open pages end when their token is revoked or
expires, their session ends, or their role changes.

All of them are checked together every 0.4 s, in a separate thread, so neither a busy reader pool nor heavy traffic
delays it. One per event loop; nothing runs while nobody is watched.
"""

import asyncio
import logging
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final, Generic, TypeVar

from infra.app.log_lines import described
from schemas.errors import TouchfoldError, Unauthorized

EVERY_S: Final = 0.4
K = TypeVar("K", bound=Hashable)
_log = logging.getLogger("touchfold.standing")


class Watched(Generic[K]):
    """One long request. `over` once access is lost; `end` stops watching it."""

    def __init__(self, standing: "Standing[K]", key: K, who: object) -> None:
        self._standing = standing
        self.key = key
        self.who = who
        self._over = asyncio.Event()
        self._calls: list[Callable[[], None]] = []

    @property
    def over(self) -> bool:
        return self._over.is_set()

    def check(self) -> None:
        """Raises Unauthorized once it is over."""
        if self.over:
            raise Unauthorized("this token was revoked or has expired, this session has ended, or its role has changed")

    async def wait(self) -> None:
        """Wait until it is over."""
        await self._over.wait()

    def when_over(self, call: Callable[[], None]) -> None:
        """Called in the loop, once; must not raise."""
        self._calls.append(call)

    def set_over(self) -> None:
        self._over.set()
        for call in self._calls:
            call()
        self._calls.clear()

    def end(self) -> None:
        self._calls.clear()
        self._standing.forget(self)

    def __enter__(self) -> "Watched[K]":
        return self

    def __exit__(self, *_error: object) -> None:
        self.end()


class Standing(Generic[K]):
    """`look`: whom a key passed to `watch` currently belongs to; None for nobody. Called in a thread."""

    def __init__(self, look: Callable[[K], object]) -> None:
        self._look = look
        self._watched: set[Watched[K]] = set()
        self._task: asyncio.Task[None] | None = None
        self._pool = ThreadPoolExecutor(1, "standing")

    def watch(self, key: K, who: object) -> Watched[K]:
        """Start watching; in the loop. Call `end` on the result, or use it in a `with`."""
        watched = Watched(self, key, who)
        self._watched.add(watched)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        return watched

    def forget(self, watched: Watched[K]) -> None:
        self._watched.discard(watched)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._watched:
            keys = {each.key for each in self._watched}
            with suppress(RuntimeError):  # closed meanwhile
                found = await loop.run_in_executor(self._pool, self._found, keys)
                for each in list(self._watched):
                    if each.key in found and found[each.key] != each.who:
                        self._watched.discard(each)
                        each.set_over()
            await asyncio.sleep(EVERY_S)

    def _found(self, keys: set[K]) -> dict[K, object]:
        """Only keys that could be looked up: while the database is away, nothing is shown and nobody is logged out."""
        found: dict[K, object] = {}
        for key in keys:
            try:
                found[key] = self._look(key)
            except TouchfoldError:
                continue
            except Exception as err:
                _log.error("a session cannot be looked up: %s", described(err, err.__traceback__))
        return found

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
