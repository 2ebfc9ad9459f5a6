"""Who runs a SQL statement next: one of each person in turn, so that nobody's many keep another's one waiting.

Bounded: so many of a person, so many in all, and so long. In the event loop of one HTTP process; it runs nothing
itself.
"""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Final, NamedTuple, TypeVar

from schemas.errors import StoreUnavailable, TooMany

SLOTS: Final = 2  # statements at once: each may take a gigabyte and both cores
PER_PERSON: Final = 10  # waiting or running
MOST: Final = 200  # waiting, of everybody
WAIT_S: Final = 120.0
T = TypeVar("T")


class QueueFull(StoreUnavailable):
    """Too many statements wait, or one has waited too long. The message names its place."""

    code = "busy"


class Place(NamedTuple):
    """A statement of somebody. `place`: 0 runs, 1 is next; `for_s`: how long it waits or runs."""

    id: int
    statement: str
    place: int
    for_s: float


@dataclass(eq=False)
class _Entry:
    number: int
    person: str
    statement: str
    since: float
    turn: asyncio.Event = field(default_factory=asyncio.Event)


class SqlQueue:
    """Call `run` in the loop; `monotonic` is the clock of waiting times."""

    def __init__(
        self,
        *,
        slots: int = SLOTS,
        per_person: int = PER_PERSON,
        most: int = MOST,
        wait_s: float = WAIT_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._slots, self._per_person, self._most, self._wait_s = slots, per_person, most, wait_s
        self._monotonic = monotonic
        self._waiting: OrderedDict[str, deque[_Entry]] = OrderedDict()  # whose turn comes first stands first
        self._running: list[_Entry] = []
        self._numbers = count(1)

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        return sum(len(each) for each in self._waiting.values())

    async def run(self, person: str, statement: str, work: Callable[[], Awaitable[T]]) -> T:
        """Wait for this person's turn, then do the work. Raises TooMany, QueueFull, and what the work raises."""
        entry = self._enter(person, statement)
        try:
            await self._turn(entry)
            return await work()
        finally:
            self._leave(entry)

    def places(self, person: str) -> list[Place]:
        """This person's statements, those that run first."""
        now = self._monotonic()
        entries = [(each, 0) for each in self._running] + [(each, i) for i, each in enumerate(self._order(), 1)]
        return [
            Place(entry.number, entry.statement, place, now - entry.since)
            for entry, place in entries
            if entry.person == person
        ]

    def _enter(self, person: str, statement: str) -> _Entry:
        own = len(self._waiting.get(person, ())) + sum(each.person == person for each in self._running)
        if own >= self._per_person:
            raise TooMany(f"{own} of your statements run or wait already: wait for one of them", retry_after_s=5)
        if self.waiting >= self._most:
            raise QueueFull(f"{self.waiting} statements wait already: try again later", retry_after_s=15)
        entry = _Entry(next(self._numbers), person, statement, self._monotonic())
        self._waiting.setdefault(person, deque()).append(entry)
        self._start()
        return entry

    async def _turn(self, entry: _Entry) -> None:
        try:
            async with asyncio.timeout(self._wait_s):
                await entry.turn.wait()
        except TimeoutError:
            if entry.turn.is_set():  # in the same moment
                return
            place = self._order().index(entry) + 1
            message = f"place {place} of {self.waiting} after {self._wait_s:.0f} s: too much waits, try again later"
            raise QueueFull(message, retry_after_s=15) from None

    def _order(self) -> list[_Entry]:
        """Those that wait, in the order of their turns."""
        lines = [list(each) for each in self._waiting.values()]
        longest = max(map(len, lines), default=0)
        return [line[i] for i in range(longest) for line in lines if i < len(line)]

    def _start(self) -> None:
        while self._waiting and len(self._running) < self._slots:
            person, entries = next(iter(self._waiting.items()))
            entry = entries.popleft()
            if entries:
                self._waiting.move_to_end(person)
            else:
                del self._waiting[person]
            entry.since = self._monotonic()
            self._running.append(entry)
            entry.turn.set()

    def _leave(self, entry: _Entry) -> None:
        if entry in self._running:
            self._running.remove(entry)
        else:
            entries = self._waiting[entry.person]
            entries.remove(entry)
            if not entries:
                del self._waiting[entry.person]
        self._start()
