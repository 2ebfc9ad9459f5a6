"""A fair queue for SQL statements: people take turns, so that one person's many statements do not hold up the others.

Bounded per person, in total, and in waiting time. Lives in the event loop of one HTTP process; runs nothing itself.
"""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Final, NamedTuple, TypeVar

from schemas.errors import StoreUnavailable, TooMany

SLOTS: Final = 2  # statements running at a time: each may take 1 GB and both cores
PER_PERSON: Final = 10  # waiting or running, per person
MOST: Final = 200  # waiting, in total
WAIT_S: Final = 120.0
T = TypeVar("T")


class QueueFull(StoreUnavailable):
    """Too many statements are waiting, or this one has waited too long. The message names its place."""

    code = "busy"


class Place(NamedTuple):
    """A person's statement. `place`: 0 is running, 1 is next; `for_s`: how long it has been waiting or running."""

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
    """Call `run` in the loop; `monotonic` is the clock for waiting times."""

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
        self._waiting: OrderedDict[str, deque[_Entry]] = OrderedDict()  # in the order of their turns
        self._running: list[_Entry] = []
        self._numbers = count(1)

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        return sum(len(each) for each in self._waiting.values())

    async def run(self, person: str, statement: str, work: Callable[[], Awaitable[T]]) -> T:
        """Wait for this person's turn, then do the work. Raises TooMany, QueueFull, and whatever the work raises."""
        entry = self._enter(person, statement)
        try:
            await self._turn(entry)
            return await work()
        finally:
            self._leave(entry)

    def places(self, person: str) -> list[Place]:
        """This person's statements, running ones first."""
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
            raise TooMany(
                f"{own} of your statements are already running or waiting: wait for one to finish", retry_after_s=5
            )
        if self.waiting >= self._most:
            raise QueueFull(f"{self.waiting} statements are already waiting: try again later", retry_after_s=15)
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
            message = f"still in place {place} of {self.waiting} after {self._wait_s:.0f} s: try again later"
            raise QueueFull(message, retry_after_s=15) from None

    def _order(self) -> list[_Entry]:
        """The waiting statements, in the order of their turns."""
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
