"""What still builds a page, or would begin to renew it, ends when the browser has left."""

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

from nicegui import Client, core, ui
from nicegui.elements.timer import Timer

from infra.drivers.pages.services import Services
from infra.drivers.pages.shell import _end_with_client, every

NO_SERVICES = cast(Services, SimpleNamespace())


def on_a_page(look: Callable[[Client], Awaitable[None]]) -> None:
    async def opened() -> None:
        core.loop = asyncio.get_running_loop()
        with Client(ui.page("/left"), request=None) as client:
            await look(client)

    asyncio.run(opened())


def test_a_page_that_is_left_while_it_is_built_draws_nothing_more() -> None:
    async def look(client: Client) -> None:
        began, read = asyncio.Event(), asyncio.Event()
        drawn: list[Any] = []

        async def build() -> None:
            _end_with_client(client)
            began.set()
            await read.wait()
            drawn.append("counters")

        building = asyncio.create_task(build())
        await began.wait()
        client.delete()
        read.set()
        await asyncio.wait([building])
        assert building.cancelled()
        assert drawn == []

    on_a_page(look)


def test_no_timer_begins_on_a_page_that_is_left() -> None:
    async def look(client: Client) -> None:
        async def work() -> None:
            raise AssertionError("nobody looks")

        every(NO_SERVICES, 60, work)
        assert [type(each) for each in client.elements.values() if isinstance(each, Timer)] == [Timer]
        with client.content:
            client.delete()
            every(NO_SERVICES, 60, work)
        assert not [each for each in client.elements.values() if isinstance(each, Timer)]

    on_a_page(look)
