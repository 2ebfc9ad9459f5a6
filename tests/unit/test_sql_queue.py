"""Whose statement runs next, and what is not taken."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from infra.drivers.sql.queue import QueueFull, SqlQueue
from schemas.errors import TooMany


class Bench:
    """Statements that run until they are told to end."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.ends: dict[str, asyncio.Event] = {}

    def work(self, name: str) -> Callable[[], Awaitable[str]]:
        async def run() -> str:
            self.started.append(name)
            self.ends[name] = asyncio.Event()
            await self.ends[name].wait()
            return name

        return run


async def enter(queue: SqlQueue, bench: Bench, *names: str) -> list[asyncio.Task[str]]:
    """A statement for each name; its first letter is the person."""
    tasks = [asyncio.create_task(queue.run(name[0], name, bench.work(name))) for name in names]
    await turns()
    return tasks


async def turns() -> None:
    """Let every task that can go on do so."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_people_take_turns_whatever_one_of_them_sends() -> None:
    async def scene() -> None:
        queue, bench = SqlQueue(slots=1), Bench()
        tasks = await enter(queue, bench, "a1", "a2", "a3", "b1", "c1", "b2")
        assert bench.started == ["a1"]
        assert [(each.statement, each.place) for each in queue.places("a")] == [("a1", 0), ("a2", 1), ("a3", 4)]
        assert [(each.statement, each.place) for each in queue.places("b")] == [("b1", 2), ("b2", 5)]
        assert (queue.running, queue.waiting) == (1, 5)
        for _ in tasks:
            bench.ends[bench.started[-1]].set()
            await turns()
        assert bench.started == ["a1", "a2", "b1", "c1", "a3", "b2"]
        assert [await each for each in tasks] == ["a1", "a2", "a3", "b1", "c1", "b2"]
        assert (queue.running, queue.waiting) == (0, 0)

    asyncio.run(scene())


def test_one_persons_many_are_refused_and_anothers_one_is_not() -> None:
    async def scene() -> None:
        queue, bench = SqlQueue(slots=1, per_person=3, most=3), Bench()
        tasks = await enter(queue, bench, "a1", "a2", "a3")
        with pytest.raises(TooMany, match="3 of your statements"):
            await queue.run("a", "a4", bench.work("a4"))
        tasks += await enter(queue, bench, "b1")
        with pytest.raises(QueueFull, match="3 statements are already waiting"):
            await queue.run("c", "c1", bench.work("c1"))
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (queue.running, queue.waiting) == (0, 0)

    asyncio.run(scene())


def test_who_waits_too_long_is_told_the_place_and_leaves() -> None:
    async def scene() -> None:
        queue, bench = SqlQueue(slots=1, wait_s=0.01), Bench()
        [first] = await enter(queue, bench, "a1")
        with pytest.raises(QueueFull, match="place 1 of 1"):
            await queue.run("b", "b1", bench.work("b1"))
        assert bench.started == ["a1"]
        bench.ends["a1"].set()
        assert await first == "a1"

    asyncio.run(scene())


def test_a_statement_that_fails_gives_its_place_to_the_next() -> None:
    async def scene() -> None:
        queue = SqlQueue(slots=1)

        async def fail() -> None:
            raise ZeroDivisionError

        async def answer() -> int:
            return 1

        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                await queue.run("a", "x", fail)
        assert await queue.run("a", "y", answer) == 1

    asyncio.run(scene())
