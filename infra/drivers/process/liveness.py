"""Liveness: whether the loops of a supervisor and its processes are running. No clock, socket or process here.

An outage of PostgreSQL or Kafka never makes a role not live: meanwhile a loop may block in a call to it. A process is
not live if it hangs although they answer, or if it keeps exiting.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

HANGS_S: Final = 60.0  # the longest step of a role (one large file of the archive, one merge) takes a few seconds
RESTARTS: Final = 5  # unexpected ends of one process ...
RESTARTS_S: Final = 300.0  # ... in this time
SUPERVISOR: Final = "supervisor"


@dataclass
class _Loop:
    turned_at: float
    runs: bool = True
    starts: int = 1
    ends: "deque[float]" = field(default_factory=lambda: deque(maxlen=RESTARTS))


class Vitals:
    """The last sign of life of each loop. Thread-safe. `hangs_s`: silence after which a loop counts as hung."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic, hangs_s: float = HANGS_S) -> None:
        self._monotonic = monotonic
        self._hangs_s = hangs_s
        self._lock = threading.Lock()
        self._loops: dict[str, _Loop] = {}
        self._excused_at = float("-inf")

    def started(self, name: str) -> None:
        """A process was started; until the first turn of its loop, it is the start that may hang."""
        with self._lock:
            loop = self._loops.get(name)
            if loop is None:
                self._loops[name] = _Loop(self._monotonic())
            else:
                loop.turned_at, loop.runs = self._monotonic(), True
                loop.starts += 1

    def turned(self, name: str = SUPERVISOR) -> None:
        """A loop turned."""
        with self._lock:
            loop = self._loops.setdefault(name, _Loop(self._monotonic()))
            loop.turned_at = self._monotonic()

    def ended(self, name: str, *, unexpected: bool = True) -> None:
        """A process ended. Expected: it was asked to, or a backend is unavailable."""
        with self._lock:
            loop = self._loops.setdefault(name, _Loop(self._monotonic()))
            loop.runs = False
            if unexpected and self._monotonic() - self._excused_at > self._hangs_s:
                loop.ends.append(self._monotonic())

    def excuse(self) -> None:
        """A backend is unavailable at the moment."""
        with self._lock:
            self._excused_at = self._monotonic()

    def problems(self) -> list[str]:
        """Why it is not live; empty when it is."""
        with self._lock:
            return [text for name, loop in self._loops.items() for text in self._of(name, loop)]

    def _of(self, name: str, loop: _Loop) -> list[str]:
        now = self._monotonic()
        found = []
        silent_s = now - max(loop.turned_at, self._excused_at)
        if loop.runs and silent_s > self._hangs_s:
            found.append(f"{name} hangs: its loop has not turned for {silent_s:.0f} s")
        if len(loop.ends) == RESTARTS and now - loop.ends[0] < RESTARTS_S:
            found.append(f"{name} ended {RESTARTS} times in {now - loop.ends[0]:.0f} s")
        return found

    def figures(self) -> dict[str, tuple[bool, float, int]]:
        """By loop: whether it is running, seconds since its last turn, starts."""
        with self._lock:
            now = self._monotonic()
            return {
                name: (loop.runs, max(0.0, now - loop.turned_at), loop.starts) for name, loop in self._loops.items()
            }
