"""Answers that are made while they are sent: chunks of a generator that reads, each made in a thread of the API's."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import chain
from typing import Any, TypeVar

from infra.drivers.http.revocation import Watched

T = TypeVar("T")
Run = Callable[[Callable[[], bytes | None]], Awaitable[bytes | None]]


def begun(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The same chunks, the first of them made: what is wrong with the question is known before the answer begins."""
    first = next(chunks, None)
    return chain(() if first is None else (first,), chunks)


async def streamed(chunks: Iterator[bytes], run: Run, watch: Callable[[], Watched[Any]]) -> AsyncIterator[bytes]:
    """One chunk in memory at a time; the next is made when the one before was taken by the network.

    An error is raised into the server, which then closes the connection before the last chunk of the transfer: so is
    one that they may not be served any more.
    """
    with watch() as watched:
        while (chunk := await run(lambda: next(chunks, None))) is not None:
            watched.check()
            yield chunk
