"""The change feed over HTTP: pages, long polling without a thread, and server-sent events."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Final

from fastapi import FastAPI, Header, Query
from fastapi.responses import Response, StreamingResponse

from infra.drivers.http.api import examples
from infra.drivers.http.api.answers import ENCODER, answer
from infra.drivers.http.api.core import PREFIX, Api, Caller, Limit, need
from infra.drivers.http.revocation import Watched
from query.changes import Page
from schemas.roles import READ

MAX_WAIT_S: Final = 60.0
STREAM_PAGE: Final = 500
STREAM_QUIET_S: Final = 15.0  # keep-alive of a stream

After = Annotated[str | None, Query(max_length=100, description="a cursor; omit it to start at the first change")]
Types = Annotated[
    list[str] | None,
    Query(alias="type", description="only these types of change; repeat the parameter, or separate with commas"),
]


def _types(given: list[str] | None) -> list[str]:
    return [each for text in given or () for each in text.split(",") if each]


def mount(app: FastAPI, api: Api) -> None:
    """Add the routes of this area."""
    reader = need(api, READ)

    @app.get(f"{PREFIX}/changes", tags=["changes"], responses=examples.ok(examples.CHANGES))
    async def list_changes(
        after: After = None,
        limit: Limit = 100,
        wait_s: Annotated[
            float, Query(ge=0, le=MAX_WAIT_S, description="wait up to this long for a first change")
        ] = 0.0,
        type_: Types = None,
        caller: Caller = reader,
    ) -> Response:
        """List changes after a cursor, in order. Pass `next` as `after` to continue."""
        return answer((await _page_in_time(api, caller, after, limit, _types(type_), wait_s)).answer())

    @app.get(
        f"{PREFIX}/changes/stream",
        tags=["changes"],
        response_class=EventStream,
        responses={200: {"content": {"text/event-stream": {"example": examples.STREAM}}}},
    )
    async def stream_changes(
        after: After = None,
        type_: Types = None,
        last_event_id: Annotated[str | None, Header(max_length=100)] = None,
        caller: Caller = reader,
    ) -> Response:
        """Stream changes as server-sent events. `id` is the cursor, so a reconnect continues where it left off."""
        start, types = last_event_id or after, _types(type_)
        first = await api.run(lambda: api.reading.changes.page(start, STREAM_PAGE, types))  # refuses a bad cursor
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return EventStream(_stream(api, caller, first, types), headers=headers)


class EventStream(StreamingResponse):
    """Server-sent events."""

    media_type = "text/event-stream"


@asynccontextmanager
async def _rings(api: Api) -> AsyncIterator[asyncio.Event]:
    """An event that is set whenever the feed grows, and at shutdown."""
    loop, event = asyncio.get_running_loop(), asyncio.Event()

    def ring() -> None:
        with suppress(RuntimeError):  # the loop has ended: nobody is waiting
            loop.call_soon_threadsafe(event.set)

    api.reading.notifier.subscribe(ring)
    done = api.waits(event)
    try:
        yield event
    finally:
        done()
        api.reading.notifier.unsubscribe(ring)


async def _heard(event: asyncio.Event, timeout_s: float) -> bool:
    try:
        await asyncio.wait_for(event.wait(), timeout_s)
    except TimeoutError:
        return False
    return True


async def _page_in_time(
    api: Api, caller: Caller, after: str | None, limit: int, types: list[str], wait_s: float
) -> Page:
    """A page, immediately or as soon as there are changes; an empty page after `wait_s`.

    Raises Unauthorized as soon as the waiting caller loses access.
    """
    deadline = time.monotonic() + wait_s
    async with _rings(api) as event:
        if wait_s == 0:
            return await api.run(lambda: api.reading.changes.page(after, limit, types))
        with api.watch(caller) as watched:
            watched.when_over(event.set)
            return await _waited(api, watched, event, after, limit, types, deadline)


async def _waited(
    api: Api,
    watched: Watched[tuple[str, bool]],
    event: asyncio.Event,
    after: str | None,
    limit: int,
    types: list[str],
    deadline: float,
) -> Page:
    while True:
        event.clear()
        start = after
        page = await api.run(lambda: api.reading.changes.page(start, limit, types))  # noqa: B023  # awaited here
        watched.check()
        left = deadline - time.monotonic()
        if page.items or left <= 0 or api.stopping:
            return page
        after = page.next
        await _heard(event, left)


async def _stream(api: Api, caller: Caller, page: Page, types: list[str]) -> AsyncIterator[bytes]:
    """Pages as events, until shutdown or, within a second, until the caller loses access."""
    async with _rings(api) as event:
        with api.watch(caller) as watched:
            watched.when_over(event.set)
            yield b"retry: 2000\n\n"
            while not api.stopping:
                for item in page.items:
                    if watched.over:
                        return
                    yield b"id: %s\ndata: %s\n\n" % (item["cursor"].encode(), ENCODER.encode(item))
                after = page.next
                if len(page.items) < STREAM_PAGE and not await _heard(event, STREAM_QUIET_S):
                    yield b": still here\n\n"
                event.clear()
                if watched.over:
                    return
                page = await api.run(lambda: api.reading.changes.page(after, STREAM_PAGE, types))  # noqa: B023
