"""The change feed over HTTP: pages, waiting for the next one without a thread, and server-sent events."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Final

from fastapi import FastAPI, Header, Query
from fastapi.responses import Response, StreamingResponse

from infra.drivers import api_examples as examples
from infra.drivers.api_core import PREFIX, Api, Caller, Limit, need
from infra.drivers.api_http import ENCODER, answer
from query.changes import Page
from schemas.roles import READ

MAX_WAIT_S: Final = 60.0
STREAM_PAGE: Final = 500
STREAM_QUIET_S: Final = 15.0  # a stream says it lives, and its token is looked at again

After = Annotated[str | None, Query(max_length=100, description="a cursor; without one, from the first change")]
Types = Annotated[
    list[str] | None, Query(alias="type", description="only these types of change; repeat it or part by commas")
]


def _types(given: list[str] | None) -> list[str]:
    return [each for text in given or () for each in text.split(",") if each]


def mount(app: FastAPI, api: Api) -> None:
    """Add the addresses of this area."""
    reader = need(api, READ)

    @app.get(f"{PREFIX}/changes", tags=["changes"], responses=examples.ok(examples.CHANGES))
    async def list_changes(
        after: After = None,
        limit: Limit = 100,
        wait_s: Annotated[float, Query(ge=0, le=MAX_WAIT_S, description="wait so long for a first change")] = 0.0,
        type_: Types = None,
        _caller: Caller = reader,
    ) -> Response:
        """Changes after a cursor, in order; `next` goes on after them."""
        page = await _page_in_time(api, after, limit, _types(type_), wait_s)
        return answer(page.answer())

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
        """Changes as server-sent events; `id` is the cursor, so a reconnect goes on where it was."""
        start, types = last_event_id or after, _types(type_)
        first = await api.run(lambda: api.reading.changes.page(start, STREAM_PAGE, types))  # answers a bad cursor
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return EventStream(_stream(api, caller, first, types), headers=headers)


class EventStream(StreamingResponse):
    """Server-sent events."""

    media_type = "text/event-stream"


@asynccontextmanager
async def _rings(api: Api) -> AsyncIterator[asyncio.Event]:
    """An event that is set whenever the feed grows, and when we stop."""
    loop, event = asyncio.get_running_loop(), asyncio.Event()

    def ring() -> None:
        with suppress(RuntimeError):  # the loop has ended: nobody waits
            loop.call_soon_threadsafe(event.set)

    api.reading.bell.subscribe(ring)
    done = api.waits(event)
    try:
        yield event
    finally:
        done()
        api.reading.bell.unsubscribe(ring)


async def _heard(event: asyncio.Event, timeout_s: float) -> bool:
    try:
        await asyncio.wait_for(event.wait(), timeout_s)
    except TimeoutError:
        return False
    return True


async def _page_in_time(api: Api, after: str | None, limit: int, types: list[str], wait_s: float) -> Page:
    """A page at once, or as soon as there is something to say, or the empty one after `wait_s`."""
    deadline = time.monotonic() + wait_s
    async with _rings(api) as event:
        while True:
            event.clear()
            start = after
            page = await api.run(lambda: api.reading.changes.page(start, limit, types))  # noqa: B023  # awaited here
            left = deadline - time.monotonic()
            if page.items or left <= 0 or api.stopping:
                return page
            after = page.next
            await _heard(event, left)


async def _stream(api: Api, caller: Caller, page: Page, types: list[str]) -> AsyncIterator[bytes]:
    """Pages as events, without end; ends when the token is revoked, its session ends, or we stop."""
    async with _rings(api) as event:
        yield b"retry: 2000\n\n"
        while not api.stopping:
            for item in page.items:
                yield b"id: %s\ndata: %s\n\n" % (item["cursor"].encode(), ENCODER.encode(item))
            after = page.next
            if len(page.items) < STREAM_PAGE and not await _heard(event, STREAM_QUIET_S):
                if await api.run(lambda: api.look_up(caller.secret, by_cookie=caller.by_cookie)) != (
                    caller.name,
                    caller.role,
                ):
                    return
                yield b": still here\n\n"
            event.clear()
            page = await api.run(lambda: api.reading.changes.page(after, STREAM_PAGE, types))  # noqa: B023
