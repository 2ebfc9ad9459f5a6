"""Sources: who may send. Write keys, snippets to paste, what each has sent."""

from contextlib import closing
from typing import Any, Final
from zoneinfo import ZoneInfo

from nicegui import ui

from infra.adapters.postgres.control import PostgresControl
from infra.adapters.postgres.sources import SourceRow
from infra.app.undeclared import declare, of_session
from infra.drivers.http.browser_files import FOLDER, BrowserFiles
from infra.drivers.pages import words
from infra.drivers.pages.blocked import draw_blocked
from infra.drivers.pages.services import Services, Viewer
from infra.drivers.pages.shell import STYLES_OF_OPERATORS, ask, chip, code, connected, empty, our_url, page, panel
from infra.drivers.pages.snippets import HTML, PLATFORMS, note_of, snippet
from infra.drivers.pages.source_settings import ask_settings
from query.reports.sources import since_midnight
from query.reports.undeclared import Undeclared
from schemas.errors import TouchfoldError
from schemas.roles import SOURCES

Counts = tuple[int | None, int, str | None]  # events today, refused today, the newest event; None: not counted yet
NO_SCRIPT: Final = (
    "This server has no analytics.js yet, so this does not work: see docs/sdks.md, “The script for browsers”."
)
FIRST: Final = "curl"  # the platform shown before one is chosen


def register(services: Services) -> None:
    """Declare the page."""

    @page(services, "/sources", title="Sources", right=SOURCES)
    async def sources(viewer: Viewer) -> None:
        ui.add_head_html(STYLES_OF_OPERATORS)
        await _Sources(services, viewer).build()


class _Sources:
    def __init__(self, services: Services, viewer: Viewer) -> None:
        self._services = services
        self._viewer = viewer
        self._counts: dict[str, Counts] = {}
        self._figures: dict[str, tuple[ui.label, ui.element, ui.label]] = {}  # for the rows shown
        self._url = our_url()

    async def build(self) -> None:
        with panel("Sources", note="a source is a system that sends events: a shop, a till, a call centre"):
            with ui.element("div").classes("tf-form"):
                self._name = ui.input(placeholder="Name of a new source, such as web")
                self._name.props('dense outlined maxlength=64 aria-label="Name of a new source"')
                self._name.on("keydown.enter", self._create, args=[])
                ui.button("Create", icon="add", on_click=self._create).props("no-caps unelevated")
            self._list = ui.element("div").classes("tf-table")
        self._shown = ui.element("div").classes("tf-stack")
        with self._shown, panel("Send an event", note="replace WRITE_KEY with your write key"):
            self._snippets("WRITE_KEY")
        self._blocked = ui.element("div").classes("tf-stack")
        self._fields = ui.element("div").classes("tf-stack")
        await self._draw()
        if await connected():
            await self._count()
            await self._draw_blocked()
            await self._draw_fields()

    async def _draw(self) -> None:
        rows = await self._services.run(self._services.sources.list)
        self._list.clear()
        self._figures.clear()
        with self._list:
            if not rows:
                empty("input", "No sources yet", "Create one. Its write key is shown only once.")
                return
            with ui.element("div").classes("tf-row tf-head tf-source"):
                for label in ("Name", "Keys", "Today", "Refused", "Last event", ""):
                    ui.label(label)
            for row in rows:
                self._row(row)

    def _row(self, row: SourceRow) -> None:
        with ui.element("div").classes("tf-row tf-source"):
            ui.label(row.name).classes("tf-cut tf-strong").props("dir=auto")
            with ui.element("div").classes("tf-line"):
                if not row.settings.get("enabled", True):
                    chip("off", "orange")
                chip(f"{row.keys} key{'' if row.keys == 1 else 's'}", "green" if row.keys else "grey")
            today = ui.label().classes("tf-number tf-figure").props("data-what=today")
            refused = ui.element("div").classes("tf-figure").props("data-what=refused")
            self._figures[row.name] = (today, refused, ui.label().classes("tf-muted tf-cut"))
            self._figure(row.name)
            with ui.element("div").classes("tf-acts"):
                ui.button("Settings", on_click=lambda: self._settings(row)).props("flat no-caps dense")
                ui.button("New key", on_click=lambda: self._rotate(row)).props("flat no-caps dense")
                revoke = ui.button("Revoke", on_click=lambda: self._revoke(row)).props("flat no-caps dense")
                revoke.set_enabled(row.keys > 0)

    def _figure(self, name: str) -> None:
        """Show a source's counters in its row."""
        count, number, last = self._counts.get(name, (None, 0, None))
        today, refused, newest = self._figures[name]
        today.text = "…" if count is None else words.count(count)
        newest.text = words.moment(last, self._services.time_zone) if last else "–"
        refused.clear()
        with refused:
            chip(words.count(number), "orange") if number else ui.label("0").classes("tf-number tf-muted")

    async def _count(self) -> None:
        """Today's events of each source, by SQL over the log, and how many were refused."""
        zone = ZoneInfo(self._services.time_zone)
        midnight, statement = since_midnight(self._services.session.clock.now(), zone)
        operations = self._services.operations
        try:
            found = await self._services.run(lambda: self._services.run_sql(statement, 10_000))
        except TouchfoldError as err:
            ui.notify(f"The counters are not available: {err.message}", type="warning", position="bottom")
            return
        rows, refused = await self._services.run(
            lambda: (self._services.sources.list(), operations.refused_since(midnight))
        )
        self._counts = {row.name: (0, refused.get(row.name, 0), None) for row in rows}
        for source, count, last in found["rows"]:
            self._counts[source] = (int(count), refused.get(source, 0), str(last))
        for name in self._figures:
            self._figure(name)

    async def _draw_blocked(self) -> None:
        found = await self._services.run(self._services.sources.blocked)
        with self._blocked:
            draw_blocked(found, self._services.time_zone)

    async def _draw_fields(self) -> None:
        """Undeclared sealed fields, each with two buttons to decide what it is."""
        services = self._services

        def read() -> list[Undeclared]:
            return of_session(services.session, services.run_sql)

        try:
            found = await services.run(read)
        except TouchfoldError as err:
            ui.notify(f"Undeclared fields are not available: {err.message}", type="warning", position="bottom")
            return
        self._fields.clear()
        note = "not declared personal or not: until you decide, they are sealed and not in SQL"
        with self._fields, panel("Undeclared fields", note=note), ui.element("div").classes("tf-table"):
            if not found:
                empty("lock", "None", "Every field received so far is declared.")
                return
            with ui.element("div").classes("tf-row tf-head tf-undeclared"):
                for label in ("Event", "Field", "Kind", "Events", "Filled", ""):
                    ui.label(label)
            for each in found:
                self._field_row(each)

    def _field_row(self, each: Undeclared) -> None:
        with ui.element("div").classes("tf-row tf-undeclared"):
            ui.label(each.event).classes("tf-cut").props("dir=auto")
            ui.label(each.field).classes("tf-cut tf-strong").props("dir=auto")
            ui.label(each.kind or "–").classes("tf-muted")
            ui.label(words.count(each.filled)).classes("tf-number")
            ui.label(words.percent(each.share, 0)).classes("tf-number")
            with ui.element("div").classes("tf-acts"):
                clear = ui.button("Not personal", on_click=lambda: self._decide(each, personal=False))
                kept = ui.button("Personal", on_click=lambda: self._decide(each, personal=True))
                for button in (clear, kept):
                    button.props("flat no-caps dense")

    async def _decide(self, each: Undeclared, *, personal: bool) -> None:
        """Declare a field; ask for confirmation if it becomes readable."""
        name = f"{words.shortened(each.field, 60)} of {words.shortened(each.event, 60)}"
        if not personal and not await ask(
            f"Declare {name} as not personal?",
            "It becomes readable in SQL and in the archive, in past events too, and analysts can see it.",
            "Declare not personal",
        ):
            return
        now = self._services.session.clock.now()

        def work() -> None:
            with closing(PostgresControl(self._services.session.dsn)) as control:
                declare(control, each.event, each.field, now, personal=personal)

        try:
            await self._allowed()
            await self._services.run(work)
            detail = {"event": each.event, "field": each.field, "personal": personal}
            await self._services.note(self._viewer, "field.declared", **detail)
        except TouchfoldError as err:
            ui.notify(err.message, type="negative", position="bottom")
            return
        ui.notify(f"{name} is {'personal' if personal else 'readable from now on'}", position="bottom")
        await self._draw_fields()

    async def _create(self) -> None:
        name = (self._name.value or "").strip()
        await self._keyed(name, lambda now: self._services.sources.create(name, now), "source.created")

    async def _rotate(self, row: SourceRow) -> None:
        name = row.name
        if row.keys and not await ask(
            f"Create a new key for {words.shortened(name, 60)}?",
            "The current key stops working within a second. Put the new one into the system that uses it.",
            "Create a new key",
        ):
            return
        await self._keyed(name, lambda now: self._services.sources.rotate(name, now), "source.rotated")

    async def _keyed(self, name: str, work: Any, action: str) -> None:
        now = self._services.session.door_clock.now()
        try:
            await self._allowed()
            key = await self._services.run(lambda: work(now))
            await self._services.note(self._viewer, action, source=name)
        except TouchfoldError as err:
            ui.notify(err.message, type="negative", position="bottom")
            return
        self._name.value = ""
        await self._draw()
        self._shown.clear()
        with self._shown, panel(f"The write key of {name}", note="it is not shown again"):
            code(key)
            self._snippets(key)

    async def _revoke(self, row: SourceRow) -> None:
        name = row.name
        if not await ask(
            f"Revoke {'the key' if row.keys == 1 else f'all {row.keys} keys'} of {words.shortened(name, 60)}?",
            "Anything still sent with it will be refused. You can create a new key at any time."
            if row.keys == 1
            else "Anything still sent with one of them will be refused. You can create a new key at any time.",
            "Revoke for good",
        ):
            return
        now = self._services.session.door_clock.now()
        try:
            await self._allowed()
            await self._services.run(lambda: self._services.sources.revoke(name, now))
            await self._services.note(self._viewer, "source.revoked", source=name)
        except TouchfoldError as err:
            ui.notify(err.message, type="negative", position="bottom")
            return
        ui.notify(f"The keys of {words.shortened(name, 60)} stop working within a second", position="bottom")
        await self._draw()

    async def _settings(self, row: SourceRow) -> None:
        """Show a source's settings in a dialog, and change them unless cancelled."""
        if (changes := await ask_settings(row)) is None:
            return
        try:
            await self._allowed()
            await self._services.run(lambda: self._services.sources.change(row.name, changes))
            await self._services.note(self._viewer, "source.changed", source=row.name, settings=sorted(changes))
        except TouchfoldError as err:
            ui.notify(err.message, type="negative", position="bottom")
            return
        ui.notify(f"The settings of {words.shortened(row.name, 60)} take effect within a second", position="bottom")
        await self._draw()

    async def _allowed(self) -> None:
        if not await self._services.still(self._viewer, SOURCES):
            raise TouchfoldError("Your session has ended, or your role may not do this any more.")

    def _snippets(self, key: str) -> None:
        """What to paste, for the platform that is chosen."""
        choice = ui.select(list(PLATFORMS), value=FIRST, label="Platform")
        script = BrowserFiles(self._services.session.settings.analytics_js or FOLDER)
        choice.props("dense outlined options-dense").classes("tf-platform")
        shown = ui.element("div")

        def draw() -> None:
            shown.clear()
            with shown, ui.element("div").props(f'data-platform="{choice.value}"'):
                ui.label(note_of(choice.value)).classes("tf-muted")
                if choice.value == HTML and not script.there():
                    ui.label(NO_SCRIPT).classes("tf-strong")
                code(snippet(choice.value, key, self._url, self._services.currency))

        choice.on_value_change(draw)
        draw()
