"""Customers for roles that see no personal values: by segment, stage, risk and attribute, ordered by id.

There is no search by name, number or address: its results would reveal who is behind an id.
"""

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from nicegui import ui

from infra.app.auditing import listed_detail
from infra.drivers.pages import words
from infra.drivers.pages.services import Services, Viewer
from infra.drivers.pages.shell import STYLES_OF_OPERATORS, empty, panel, risk_chip, stage_chip
from query.people.listing import RISKS, Wanted, attribute_names
from schemas.errors import TouchfoldError

PAGE: Final = 50
_COLUMNS: Final = "grid-template-columns: minmax(0, 4fr) minmax(0, 2fr) minmax(0, 2fr) 120px 120px"
Card = dict[str, Any]


class CustomerList:
    """One open page."""

    def __init__(self, services: Services, viewer: Viewer) -> None:
        self._services = services
        self._viewer = viewer
        self._asked = 0  # incremented with every change of the filters; answers to older ones are dropped
        self._next: str | None = None

    async def build(self) -> None:
        view = await self._services.run(self._services.reading.segments.views.current)
        ui.add_head_html(STYLES_OF_OPERATORS)
        with ui.element("div").classes("tf-line tf-muted"):
            ui.icon("visibility_off")
            ui.label(
                f"The role {self._viewer.role} cannot see or search for names, numbers or addresses. Filter by"
                " segment, stage, risk or attribute."
            )
        with panel(), ui.element("div").classes("tf-form"):
            self._segment = self._picker("Any segment", "Segment", sorted(view.definitions.segments))
            self._stage = self._picker("Any stage", "Stage", view.definitions.stage_names)
            self._risk = self._picker("Any risk", "Risk", RISKS)
            names = attribute_names(view)
            self._attribute = self._picker("Any attribute", "Attribute", names)
            self._attribute.set_visibility(bool(names))
            self._value = ui.input(placeholder="Value", on_change=self._changed)
            self._value.props('dense outlined debounce=300 aria-label="Value of the attribute"')
            self._value.set_visibility(bool(names))
            self._wanted = ui.input(placeholder="Profile id").classes("tf-push")
            self._wanted.props('dense outlined autocomplete=off aria-label="Profile id"')
            self._wanted.on("keydown.enter", self._open, args=[])
        with panel("Customers", note="ordered by id"):
            self._table = ui.element("div").classes("tf-table")
            self._button = ui.button("Show more", on_click=self._more).props("flat no-caps").classes("self-center")
        await self._changed()

    def _picker(self, everything: str, label: str, options: Sequence[str]) -> ui.select:
        choices = {"": everything, **{each: words.title(each) for each in options}}
        picker = ui.select(choices, value="", on_change=self._changed).classes("tf-pick")
        return picker.props(f'dense outlined options-dense aria-label="{label}"')

    def _wanted_now(self) -> Wanted:
        name, value = self._attribute.value, (self._value.value or "").strip()
        attributes = {name: value} if name and value else {}
        return Wanted(self._segment.value or None, self._stage.value or None, self._risk.value or None, attributes)

    def _open(self) -> None:
        try:
            key = UUID((self._wanted.value or "").strip())
        except ValueError:
            ui.notify("That is not a profile id: profile ids are UUIDs.", type="negative")
            return
        ui.navigate.to(f"/customers/{key}")

    # --- the list ----------------------------------------------------------------------------------------------------

    async def _changed(self) -> None:
        """Start over with the current filters."""
        self._asked += 1
        found = await self._read(None)
        if found is None:
            return
        self._table.clear()
        with self._table, ui.element("div").classes("tf-row tf-head").style(_COLUMNS):
            for name in ("Customer", "Last purchase", "Last seen", "Stage", "Risk"):
                ui.label(name)
        self._add(found)
        if not found["items"] and found["next"] is None:
            with self._table:
                empty("group_off", "Nobody", "No customers match these filters.")

    async def _more(self) -> None:
        found = await self._read(self._next)
        if found is not None:
            self._add(found)

    async def _read(self, cursor: str | None) -> dict[str, Any] | None:
        """A page; None if the filters have changed meanwhile, or if it cannot be read (the page then says so)."""
        asked, wanted, page = self._asked, self._wanted_now(), self._services.reading.listing.page
        try:
            found = await self._services.run(lambda: page(wanted, cursor, PAGE, personal=False))
            await self._services.note(self._viewer, "customers.listed", **listed_detail(wanted, found))
        except TouchfoldError as err:
            ui.notify(err.message, type="negative")
            return None
        return found if asked == self._asked else None

    def _add(self, found: dict[str, Any]) -> None:
        zone = self._services.time_zone
        with self._table:
            for card in found["items"]:
                with ui.link(target=f"/customers/{card['id']}").classes("tf-row").style(_COLUMNS):
                    ui.label(card["id"]).classes("tf-cut tf-number")
                    ui.label(words.day(card["last_purchase_at"], zone)).classes("tf-cut tf-number")
                    ui.label(words.day(card["last_seen_at"], zone)).classes("tf-cut tf-number")
                    with ui.element("div"):
                        stage_chip(card["lifecycle"])
                    with ui.element("div"):
                        risk_chip(card["risk"])
        self._next = found["next"]
        self._button.set_visibility(self._next is not None)
