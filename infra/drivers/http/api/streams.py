"""Streamed responses: chunks of a reading generator, each produced in one of the API's threads."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import chain
from typing import Any, TypeVar

from infra.drivers.http.revocation import Watched

T = TypeVar("T")
Run = Callable[[Callable[[], bytes | None]], Awaitable[bytes | None]]


def begun(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The same chunks, with the first already produced, so that errors surface before the response starts."""
    first = next(chunks, None)
    return chain(() if first is None else (first,), chunks)


async def streamed(chunks: Iterator[bytes], run: Run, watch: Callable[[], Watched[Any]]) -> AsyncIterator[bytes]:
    """Keeps one chunk in memory; the next is produced once the network has taken the previous one.

    An error, also one because the caller lost access, is raised into the server, which then closes the connection
    before the last chunk.
    """
    with watch() as watched:
        while (chunk := await run(lambda: next(chunks, None))) is not None:
            watched.check()
            yield chunk
