"""Customers: search as you type, or a list (`customer_list`) for roles that see no personal values."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from nicegui import events, ui

from infra.app.auditing import coded
from infra.drivers.pages import words
from infra.drivers.pages.customer_list import CustomerList
from infra.drivers.pages.recent import RECENT
from infra.drivers.pages.services import Services, Viewer
from infra.drivers.pages.shell import empty, page, panel, risk_chip, stage_chip
from schemas.errors import TouchfoldError
from schemas.roles import PERSONAL

PAUSE_S: Final = 0.15  # after the last keystroke
PAGE: Final = 25
STYLES: Final = '<link rel="stylesheet" href="/assets/customers.css">'
_HINT: Final = "Type at least two letters of a name or e-mail address, or four digits of a phone or card number."
Card = dict[str, Any]


def register(services: Services) -> None:
    """Declare the page."""

    @page(services, "/customers", title="Customers")
    async def customers(viewer: Viewer) -> None:
        ui.add_head_html(STYLES)
        await (_Customers(services, viewer) if viewer.may(PERSONAL) else CustomerList(services, viewer)).build()


class _Customers:
    """One open page. What is typed stays here, never in an address or a log."""

    def __init__(self, services: Services, viewer: Viewer) -> None:
        self._services = services
        self._viewer = viewer
        self._asked = 0  # incremented with every change of the text; answers to older ones are dropped
        self._answered = 0
        self._text = ""
        self._items: list[Card] = []
        self._rows: list[ui.link] = []
        self._chosen = -1
        self._next: str | None = None

    async def build(self) -> None:
        field = ui.input(placeholder="Name, e-mail, phone, last digits of a card, or an id")
        field.props('outlined autofocus clearable autocomplete=off spellcheck=false aria-label="Search customers"')
        field.classes("tf-search")
        with field.add_slot("prepend"):
            ui.icon("search")
        field.on_value_change(lambda event: self._typed(event.value or ""))
        field.on("keydown.enter", self._enter, args=[])
        field.on("keydown.down.prevent", lambda: self._move(1), args=[])
        field.on("keydown.up.prevent", lambda: self._move(-1), args=[])
        self._found = ui.element("div").classes("tf-stack")
        await self._start()

    async def _start(self) -> None:
        """Before anything is typed: the customers this session viewed last."""
        asked, ids = self._asked, RECENT.of(self._viewer.secret)
        items: list[Card] = []
        if ids:
            cards = self._services.reading.search.cards_of
            items = await self._services.run(lambda: cards(ids, personal=True))
            await self._services.note(self._viewer, "customers.listed", lately=True, shown=len(items))
        if asked == self._asked:
            self._answered, self._next = asked, None
            self._show(items, "Recently viewed", ("person_search", "Find a customer", _HINT))

    async def _typed(self, text: str) -> None:
        self._asked += 1
        asked, self._text = self._asked, text.strip()
        await asyncio.sleep(PAUSE_S)
        if asked == self._asked:  # otherwise more was typed meanwhile
            await self._answer()

    async def _answer(self) -> None:
        """Search for the current text."""
        asked, text = self._asked, self._text
        if not text:
            await self._start()
            return
        found = await self._search(text, None)
        if found is None or asked != self._asked:
            return  # an older answer never overwrites a newer one
        self._answered, self._next = asked, found["next"]
        again = "Try fewer letters, another spelling, or the last four digits." if len(text) > 1 else _HINT
        many = len(found["items"])
        heading = f"{many}{'+' if self._next else ''} {'customer' if many == 1 else 'customers'}"
        self._show(found["items"], heading, ("search_off", "No customer found", again))

    async def _search(self, text: str, cursor: str | None) -> dict[str, Any] | None:
        find, session = self._services.reading.search.find, self._services.session

        def look() -> tuple[dict[str, Any], list[str]]:
            return find(text, limit=PAGE, cursor=cursor), coded(session, text)

        try:
            found, coded_words = await self._services.run(look)
            await self._services.note(self._viewer, "customers.searched", shown=len(found["items"]), words=coded_words)
        except TouchfoldError as err:
            ui.notify(err.message, type="negative")
            return None
        return found

    async def _more(self) -> None:
        asked, cursor = self._asked, self._next
        found = await self._search(self._text, cursor)
        if found is None or asked != self._asked or cursor != self._next:
            return
        self._next = found["next"]
        self._add(found["items"])

    # --- drawing -----------------------------------------------------------------------------------------------------

    def _show(self, items: Sequence[Card], heading: str, nothing: tuple[str, str, str]) -> None:
        self._items, self._rows, self._chosen = [], [], -1
        self._found.clear()
        with self._found, panel(heading if items else ""):
            if not items:
                empty(*nothing)
                return
            self._table = ui.element("div").classes("tf-table")
            with self._table, ui.element("div").classes("tf-row tf-head tf-hit").props("aria-hidden=true"):
                for name in ("Name", "Phone", "E-mail", "Last purchase", "Stage", "Risk"):
                    ui.label(name)
            self._button = ui.button("Show more", on_click=self._more).props("flat no-caps").classes("self-center")
            self._add(items)

    def _add(self, items: Sequence[Card]) -> None:
        with self._table:
            for item in items:
                row = ui.link(target=f"/customers/{item['id']}").classes("tf-row tf-hit")
                self._rows.append(row)
                with row:
                    self._cells(item)
        self._items += items
        self._button.set_visibility(self._next is not None)

    def _cells(self, item: Card) -> None:
        with ui.element("div").style("min-width: 0"):
            ui.label(called(item)[:300]).classes("tf-cut tf-strong").props("dir=auto")
        ui.label((item["phone"] or "–")[:100]).classes("tf-cut tf-number tf-opt")
        ui.label((item["email"] or "–")[:300]).classes("tf-cut tf-hit-contact").props("dir=auto")
        ui.label(words.day(item["last_purchase_at"], self._services.time_zone)).classes("tf-cut tf-number tf-opt")
        with ui.element("div").classes("tf-hit-stage"):
            stage_chip(item["lifecycle"])
        with ui.element("div").classes("tf-hit-risk"):
            risk_chip(item["risk"])

    # --- keys --------------------------------------------------------------------------------------------------------

    async def _enter(self, _event: events.GenericEventArguments) -> None:
        """Open the selected hit, or the only one, after looking up what was typed last."""
        if self._answered != self._asked:
            self._asked += 1  # the delayed search is no longer needed
            await self._answer()
        if self._chosen >= 0 or (self._text and len(self._items) == 1):
            ui.navigate.to(f"/customers/{self._items[max(0, self._chosen)]['id']}")

    def _move(self, step: int) -> None:
        if not self._rows:
            return
        if self._chosen >= 0:
            self._rows[self._chosen].classes(remove="tf-chosen")
            at = (self._chosen + step) % len(self._rows)
        else:
            at = 0 if step > 0 else len(self._rows) - 1
        self._chosen = at
        self._rows[at].classes("tf-chosen")
        ui.run_javascript(f"getHtmlElement({self._rows[at].id})?.scrollIntoView({{block: 'nearest'}})")


def called(item: Card) -> str:
    """What a customer is called in lists."""
    return item["name"] or item["email"] or item["phone"] or f"Customer {item['id'][:8]}"
