"""Whether the loops of a supervisor and its processes turn: what liveness means. No clock, socket or process here.

An outage of PostgreSQL or Kafka never makes a role not live: while one is away, a loop may stand in a call to it. What
is not live is a process that hangs although they answer, and one that ends again and again.
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
    """What was heard of each loop. Any thread. `hangs_s`: silence after which a loop counts as hung."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic, hangs_s: float = HANGS_S) -> None:
        self._monotonic = monotonic
        self._hangs_s = hangs_s
        self._lock = threading.Lock()
        self._loops: dict[str, _Loop] = {}
        self._excused_at = float("-inf")

    def started(self, name: str) -> None:
        """A process was started; until its loop turns first, its start is what may hang."""
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
        """A process ended. Expected: it was asked to, or a backend is away."""
        with self._lock:
            loop = self._loops.setdefault(name, _Loop(self._monotonic()))
            loop.runs = False
            if unexpected and self._monotonic() - self._excused_at > self._hangs_s:
                loop.ends.append(self._monotonic())

    def excuse(self) -> None:
        """A backend is away just now."""
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
        """By loop: whether it runs, seconds since it turned last, starts."""
        with self._lock:
            now = self._monotonic()
            return {
                name: (loop.runs, max(0.0, now - loop.turned_at), loop.starts) for name, loop in self._loops.items()
            }
