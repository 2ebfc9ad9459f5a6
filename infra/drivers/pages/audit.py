"""Audit: who signed in, looked at whom and did what, for admins and privacy officers; and whether the log is intact."""

from typing import Final
from uuid import UUID

from nicegui import ui

from infra.adapters.postgres.audit import AuditRow
from infra.app.auditing import searches_for
from infra.drivers.pages import words
from infra.drivers.pages.services import Services, Viewer
from infra.drivers.pages.shell import STYLES_OF_OPERATORS, empty, page, panel, text
from schemas.errors import TouchfoldError
from schemas.roles import AUDIT

PAGE: Final = 50
_HINT: Final = "Search words used by anybody"


def register(services: Services) -> None:
    """Declare the page."""

    @page(services, "/audit", title="Audit", right=AUDIT)
    async def audit(viewer: Viewer) -> None:
        ui.add_head_html(STYLES_OF_OPERATORS)
        await _Audit(services).build()


class _Audit:
    """One open page."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._last = 0

    async def build(self) -> None:
        with panel("Integrity", note="checks that no entry was altered or removed, also against the ledger"):
            with ui.element("div").classes("tf-form"):
                self._check = ui.button("Check now", icon="policy", on_click=self._verify)
                self._check.props("no-caps unelevated")
            self._said = ui.element("div").classes("tf-stack")
        with panel("Entries", note="newest first"):
            with ui.element("div").classes("tf-form"):
                self._profile = ui.input(placeholder="Profile id", on_change=self._draw)
                self._profile.props('dense outlined clearable debounce=300 aria-label="Profile id"')
                self._words = ui.input(placeholder=_HINT, on_change=self._draw)
                self._words.props(f'dense outlined clearable debounce=500 autocomplete=off aria-label="{_HINT}"')
            self._table = ui.element("div").classes("tf-table")
            more = ui.button("Show older", on_click=self._older).props("flat no-caps").classes("self-center")
            self._more = more
        await self._draw()

    async def _verify(self) -> None:
        self._check.props("loading")
        try:
            problems = await self._services.run(self._services.audit.verify)
        except TouchfoldError as err:
            problems = [err.message]
        finally:
            self._check.props(remove="loading")
        self._said.clear()
        with self._said:
            if not problems:
                with ui.element("div").classes("tf-line"):
                    ui.icon("check_circle")
                    ui.label("The audit log is intact.").classes("tf-strong")
            for problem in problems[:20]:
                with ui.element("div").classes("tf-line").props("role=alert"):
                    ui.icon("warning")
                    ui.label(problem).classes("tf-break")

    async def _draw(self) -> None:
        found = await self._read(None)
        if found is None:
            return
        self._table.clear()
        with self._table, ui.element("div").classes("tf-row tf-head tf-audit"):
            for label in ("When", "Who", "Role", "Did", "Customer"):
                ui.label(label)
        self._add(found)
        if not found:
            with self._table:
                empty("policy", "No entries", "Nothing in the audit log matches.")

    async def _older(self) -> None:
        found = await self._read(self._last)
        if found is not None:
            self._add(found)

    async def _read(self, before: int | None) -> list[AuditRow] | None:
        """Entries; None if they cannot be read, in which case the page says so."""
        services, sought = self._services, (self._words.value or "").strip()
        try:
            profile = UUID(self._profile.value.strip()).bytes if (self._profile.value or "").strip() else None
            if sought:
                return await services.run(lambda: searches_for(services.session, services.audit, sought, before, PAGE))
            return await services.run(lambda: services.audit.page(before, PAGE, profile))
        except ValueError:
            ui.notify("That is not a profile id: profile ids are UUIDs.", type="negative")
        except TouchfoldError as err:
            ui.notify(err.message, type="negative")
        return None

    def _add(self, entries: list[AuditRow]) -> None:
        zone = self._services.time_zone
        with self._table:
            for entry in entries:
                with ui.element("div").classes("tf-row tf-audit"):
                    ui.label(words.moment(entry.at, zone, seconds=True)).classes("tf-muted tf-number tf-cut")
                    text(entry.who)
                    ui.label(words.title(entry.role)).classes("tf-muted")
                    ui.label(words.title(entry.action.replace(".", " "))).classes("tf-cut")
                    with ui.element("div").classes("tf-line"):
                        if entry.profile_id:
                            ui.link(entry.profile_id[:8], f"/customers/{entry.profile_id}")
                        said = ", ".join(f"{key} {_value(value)}" for key, value in entry.detail.items())
                        if said:
                            text(said, "tf-muted tf-grow")
        if entries:
            self._last = entries[-1].seq
        self._more.set_visibility(len(entries) == PAGE)


def _value(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
