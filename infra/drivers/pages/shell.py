"""The frame of every page: navigation, search, the signed-in user. And small parts that pages share."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from nicegui import Client, context, ui

from infra.drivers.http.our_address import our_address
from infra.drivers.pages.services import Services, Viewer
from infra.drivers.pages.words import LEVELS, STAGES, title
from schemas.errors import TouchfoldError
from schemas.roles import AUDIT, OPERATE, PEOPLE, PERSONAL, READ, SOURCES, may

Builder = Callable[..., Awaitable[None]]
VIEWER: Final = "touchfold.viewer"  # key of the ASGI scope, set by the gate
NAVIGATION: Final = (
    ("/", "Overview", "insights", READ),
    ("/customers", "Customers", "people", READ),
    ("/segments", "Segments", "donut_small", READ),
    ("/live", "Live", "bolt", OPERATE),
    ("/sources", "Sources", "input", SOURCES),
    ("/system", "Health", "monitor_heart", OPERATE),
    ("/team", "Team", "badge", PEOPLE),
    ("/audit", "Audit", "policy", AUDIT),
)
_HEAD: Final = '<link rel="stylesheet" href="/assets/touchfold.css"><script src="/assets/touchfold.js"></script>'
STYLES_OF_OPERATORS: Final = '<link rel="stylesheet" href="/assets/operate.css">'
FAREWELL_S: Final = 0.2  # until an open page notices that its session has ended
log = logging.getLogger("touchfold.ui")
ANSWER_S: Final = 50.0  # to build a page, else 500; the proxy in front waits 60 s


def viewer_now() -> Viewer:
    """The person this page is built for."""
    found = context.client.request.scope[VIEWER]
    assert isinstance(found, Viewer), "the gate lets only signed-in people in"
    return found


def our_url() -> str:
    """The base URL by which the viewer's browser reached us, as the door saw it."""
    request = context.client.request
    return our_address(request.scope, request.headers)


def page(services: Services, path: str, *, title: str, right: str = READ) -> Callable[[Builder], Builder]:
    """Declare a page; its function gets the viewer and the path's parameters, and runs inside the frame."""

    def declare(build: Builder) -> Builder:
        async def framed(**parameters: str) -> None:
            viewer, client = viewer_now(), context.client
            _end_with_session(services, viewer, client)
            _end_with_client(client)
            with frame(viewer, path, title):
                if not viewer.may(right):
                    empty(
                        "lock",
                        "Your role cannot see this page",
                        f"This page is not available to the role {viewer.role}.",
                    )
                    return
                try:
                    await build(viewer, **parameters)
                except TouchfoldError as err:
                    empty("error_outline", title, err.message)
                except Exception:
                    if client.is_deleted:
                        return  # the viewer is gone, and the page with them
                    log.exception("the page %s failed", path)
                    empty("error_outline", "This page cannot be shown right now", "The log says why.")

        framed.__annotations__ = dict.fromkeys(_parameters(path), str) | {"return": None}
        framed.__signature__ = _signature(path)  # type: ignore[attr-defined]
        ui.page(path, title=f"{title} · Touchfold", dark=None, response_timeout=ANSWER_S)(framed)
        return build

    return declare


def _end_with_session(services: Services, viewer: Viewer, client: Client) -> None:
    """Reload an open page, and show nothing more on it, once its session has ended or its role has changed."""
    watched = services.watch_session(viewer)
    client.on_delete(watched.end)

    def over() -> None:
        client.run_javascript("window.location.reload()")
        asyncio.get_running_loop().call_later(FAREWELL_S, _delete, client)

    watched.when_over(over)


def _end_with_client(client: Client) -> None:
    """The task that builds the page keeps running after the browser has it; end it once the browser has left."""
    task = asyncio.current_task()
    assert task is not None, "each page is built in its own task"
    client.on_delete(task.cancel)


def _delete(client: Client) -> None:
    if not client.is_deleted:
        client.delete()


def _parameters(path: str) -> list[str]:
    return [part[1:-1] for part in path.split("/") if part.startswith("{")]


def _signature(path: str) -> Any:
    from inspect import Parameter, Signature  # noqa: PLC0415

    return Signature([Parameter(name, Parameter.KEYWORD_ONLY, annotation=str) for name in _parameters(path)])


@contextmanager
def frame(viewer: Viewer, path: str, heading: str) -> Iterator[None]:
    """Header, navigation and the column that a page fills."""
    ui.add_head_html(_HEAD)
    ui.colors(primary="#0f766e", secondary="#334155", accent="#7c3aed", positive="#15803d", negative="#b91c1c",
              warning="#b45309", info="#0369a1")  # fmt: skip
    cookies = context.client.request.cookies
    ui.dark_mode(value={"dark": True, "light": False}.get(cookies.get("touchfold_theme", "")))
    with (
        ui.left_drawer(top_corner=True, bordered=True, value=None)
        .props("width=208 breakpoint=900")
        .classes("tf-drawer") as drawer
    ):
        with ui.link(target="/").classes("tf-brand"):
            ui.element("div").classes("tf-mark")
            ui.label("Touchfold")
        with ui.element("nav").props('aria-label="Pages"').classes("tf-nav"):
            for target, name, icon, right in NAVIGATION:
                if may(viewer.role, right):
                    here = path == target or (target != "/" and path.startswith(f"{target}/"))
                    link = ui.link(target=target).classes("tf-link" + (" tf-here" if here else ""))
                    if here:
                        link.props('aria-current="page"')
                    with link:
                        ui.icon(icon)
                        ui.label(name)
    with ui.header(elevated=False).classes("tf-header"):
        ui.button(color=None, icon="menu", on_click=drawer.toggle).props('flat round dense aria-label="Menu"').classes(
            "tf-menu"
        )
        ui.label(heading).classes("tf-heading").props("role=heading aria-level=1")
        ui.space()
        if path != "/customers" and viewer.may(PERSONAL):
            with ui.link(target="/customers").classes("tf-find").props('aria-label="Search customers"'):
                ui.icon("search")
                ui.label("Search customers").classes("tf-find-words")
                ui.label("/").classes("tf-key tf-find-words").props("aria-hidden=true")
        with (
            ui.button(color=None, icon="contrast")
            .props('flat round dense aria-label="Light or dark"')
            .classes("tf-tool") as theme
        ):
            ui.tooltip("Light or dark")
        theme.on("click", js_handler="() => window.touchfoldTheme()")
        account = (
            ui.button(color=None, icon="account_circle")
            .props('flat round dense aria-label="Account"')
            .classes("tf-tool")
        )
        with account, ui.menu(), ui.column().classes("tf-account"):
            ui.label(viewer.name).classes("tf-strong tf-cut").props("dir=auto")
            ui.label(f"Role: {viewer.role}").classes("tf-muted")
            ui.separator()
            button = ui.button("Sign out", icon="logout").props("flat no-caps dense")
            button.on("click", js_handler="() => window.touchfoldSignOut()")
    with ui.element("main").classes("tf-main"):
        yield


# --- parts -----------------------------------------------------------------------------------------------------------


@contextmanager
def panel(heading: str = "", *, note: str = "", classes: str = "") -> Iterator[None]:
    """A bordered card with a heading."""
    with ui.element("section").classes(f"tf-panel {classes}"):
        if heading:
            with ui.element("div").classes("tf-panel-head"):
                ui.label(heading).classes("tf-panel-title").props("role=heading aria-level=2")
                if note:
                    ui.label(note).classes("tf-muted")
        yield


def chip(text: str, colour: str = "grey") -> ui.label:
    return ui.label(text).classes(f"tf-chip tf-{colour}").props("dir=auto")


def stage_chip(stage: str) -> ui.label:
    return chip(title(stage), STAGES.get(stage, "grey"))


def risk_chip(level: str) -> ui.label:
    return chip(f"{title(level)} risk", LEVELS.get(level, "grey"))


def text(value: str, classes: str = "") -> ui.label:
    """A label for text that people wrote: truncated if too long, in full on hover, in its own direction."""
    found = ui.label(value[:2_000]).classes(f"tf-cut {classes}").props("dir=auto")
    if len(value) > 40:
        found.tooltip(value[:500])
    return found


def empty(icon: str, heading: str, words: str) -> None:
    """The text shown where there is nothing."""
    with ui.element("div").classes("tf-empty"):
        ui.icon(icon)
        ui.label(heading).classes("tf-strong")
        ui.label(words).classes("tf-muted")


async def ask(heading: str, words: str, act: str) -> bool:
    """Ask for confirmation."""
    # In the page, not in the row with the button: redrawing a list removes its rows' elements.
    with context.client.content, ui.dialog() as dialog, ui.card().classes("tf-dialog"):
        ui.label(heading).classes("tf-panel-title tf-wrap").props("dir=auto")
        ui.label(words).classes("tf-muted")
        with ui.element("div").classes("tf-line").style("justify-content: flex-end; width: 100%"):
            ui.button("Cancel", on_click=lambda: dialog.submit(None)).props("flat no-caps autofocus")
            ui.button(act, color="negative", on_click=lambda: dialog.submit(act)).props("no-caps unelevated")
    meant = await dialog
    if dialog.is_deleted or dialog.client.is_deleted:
        return False  # the page was left while the dialog was open
    dialog.delete()
    return bool(meant == act)


def code(content: str) -> None:
    """A code block with a copy button."""
    with ui.element("div").classes("tf-code"):
        ui.label(content).classes("tf-pre")
        button = ui.button(icon="content_copy").props('flat round dense size=sm aria-label="Copy"')
        button.on("click", lambda: ui.clipboard.write(content))
        button.on("click", lambda: ui.notify("Copied", position="bottom", timeout=1_000))


def sparkline(values: list[int], width: int = 120, height: int = 28) -> None:
    """A sparkline; the markup holds only numbers, never personal data."""
    if len(values) < 2:
        ui.label("–").classes("tf-muted")
        return
    low, high = min(values), max(values)
    span = (high - low) or 1
    points = " ".join(
        f"{i * width / (len(values) - 1):.1f},{height - 2 - (each - low) / span * (height - 4):.1f}"
        for i, each in enumerate(values)
    )
    ui.html(
        f'<svg class="tf-spark" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img"'
        f' aria-label="from {values[0]} to {values[-1]}"><polyline points="{points}"/></svg>',
        sanitize=False,
    )


async def connected() -> bool:
    """Wait until the browser shows the page; False if it has gone."""
    try:
        await context.client.connected(timeout=20)
    except TimeoutError:
        return False
    return not context.client.is_deleted


def every(services: Services, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
    """Run something periodically, only while this page is open."""
    if context.client.is_deleted:
        return  # it left while the caller was at work

    async def guarded() -> None:
        try:
            await work()
        except TouchfoldError as err:
            log.info("a page waits: %s", err.message)

    ui.timer(seconds, guarded, immediate=False)


async def on_changes(services: Services, work: Callable[[], Awaitable[None]], pause_s: float = 0.5) -> None:
    """Run `work` whenever the change feed grows while this page is open; at most twice a second."""
    event = services.watch()
    client = context.client

    async def loop() -> None:
        try:
            while True:
                await event.wait()
                await asyncio.sleep(pause_s)
                event.clear()
                if client.is_deleted:
                    return
                with client:
                    await work()
        finally:
            services.unwatch(event)

    task = asyncio.create_task(loop())
    client.on_delete(task.cancel)
