"""The timeline on a customer's page: events of all channels in plain words, by local day, filtered, page by page."""

import json
from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from nicegui import ui

from infra.drivers.pages import words
from infra.drivers.pages.services import Services, Viewer
from infra.drivers.pages.shell import empty
from query.people.plain_words import CHANNELS, in_words, types_of
from schemas.errors import TouchfoldError
from schemas.roles import PERSONAL
from schemas.touchpoints import TYPES

PAGE: Final = 30
MOST: Final = 60  # fields of an event shown at most
_LABELS: Final = {
    "e-mail": "E-mail and push",
    "phone and chat": "Phone and chat",
    "web": "Web and app",
    "staff": "Notes",
}
Item = dict[str, Any]


class Timeline:
    """Drawn where it is constructed. `read` reads, in a thread; `draw` shows. `place` holds the dialogs."""

    def __init__(self, services: Services, viewer: Viewer, profile_id: bytes, place: ui.element) -> None:
        self._services = services
        self._viewer = viewer
        self._profile_id = profile_id
        self._place = place
        self._personal = viewer.may(PERSONAL)
        self._zone = ZoneInfo(services.time_zone)
        self._channel: str | None = None
        self._items: list[Item] = []
        self._next: str | None = None
        self._known: set[str] = set()
        self._day: date | None = None
        self._buttons: dict[str | None, ui.button] = {}
        self._filters = ui.element("div").classes("tf-filters").props('role=group aria-label="Kinds of events"')
        with self._filters:
            self._button(None, "All")
            for channel in CHANNELS:
                self._button(channel, _LABELS.get(channel, words.title(channel)))
        self._list = ui.element("div").classes("tf-list")
        self._more = ui.button("Show more", on_click=self._show_more).props("flat no-caps").classes("self-center")

    def read(self) -> Item:
        """The newest events, as many as are shown now."""
        return self._page(None, max(PAGE, len(self._items)))

    def _page(self, cursor: str | None, limit: int) -> Item:
        types = None if self._channel is None else types_of(self._channel, TYPES)
        timeline = self._services.reading.timeline
        return timeline.page(self._profile_id, cursor, limit, personal=self._personal, types=types)

    def draw(self, page: Item) -> None:
        """Show a page from the top; events that were not there before are marked."""
        before, self._known = self._known, {item["id"] for item in page["items"]}
        self._items, self._next, self._day = page["items"], page["next"], None
        self._list.clear()
        with self._list:
            for item in self._items:
                self._event(item, new=bool(before) and item["id"] not in before)
            if not self._items:
                self._nothing()
        self._more.set_visibility(self._next is not None)

    def _nothing(self) -> None:
        if self._channel is None:
            empty("history", "No events", "No event received so far is this customer's alone.")
        else:
            empty("filter_list_off", "No events of this kind", "Choose another kind, or all of them.")

    def _button(self, channel: str | None, label: str) -> None:
        button = ui.button(label, on_click=lambda: self._filter(channel)).props("flat dense no-caps")
        button.props(f"aria-pressed={'true' if channel is None else 'false'}")
        if channel is None:
            button.classes("tf-on")
        self._buttons[channel] = button

    async def _filter(self, channel: str | None) -> None:
        self._buttons[self._channel].classes(remove="tf-on").props("aria-pressed=false")
        self._buttons[channel].classes("tf-on").props("aria-pressed=true")
        self._channel, self._items, self._known = channel, [], set()
        page = await self._noted(self.read)
        if page is not None and channel == self._channel:
            self.draw(page)

    async def _noted(self, read: Callable[[], Item]) -> Item | None:
        """Audit, then read; None if that fails, in which case the page says so."""
        try:
            page = await self._services.run(read)
            await self._services.note(self._viewer, "timeline.viewed", self._profile_id)
        except TouchfoldError as err:
            ui.notify(err.message, type="negative")
            return None
        return page

    async def _show_more(self) -> None:
        cursor, channel = self._next, self._channel
        page = await self._noted(lambda: self._page(cursor, PAGE))
        if page is None or (cursor, channel) != (self._next, self._channel):
            return
        self._items += page["items"]
        self._known |= {item["id"] for item in page["items"]}
        self._next = page["next"]
        with self._list:
            for item in page["items"]:
                self._event(item, new=False)
        self._more.set_visibility(self._next is not None)

    # --- one event ---------------------------------------------------------------------------------------------------

    def _event(self, item: Item, *, new: bool) -> None:
        at = datetime.fromisoformat(item["occurred_at"]).astimezone(self._zone)
        if at.date() != self._day:
            self._day = at.date()
            ui.label(self._day_words(self._day)).classes("tf-day").props("role=heading aria-level=3")
        told = in_words(item, currency=self._services.currency)
        row = ui.element("div").classes("tf-event" + (" tf-new" if new else "")).props("role=button tabindex=0")
        row.on("click", lambda: self._show(item), args=[])
        row.on("keydown.enter", lambda: self._show(item), args=[])
        with row:
            ui.icon(told.icon)
            with ui.element("div").style("min-width: 0"):
                ui.label(told.words).classes("tf-lines").props("dir=auto")
                ui.label(words.title(item["source"])).classes("tf-muted tf-cut")
            ui.label(f"{at:%H:%M}").classes("tf-time")

    def _day_words(self, day: date) -> str:
        today = self._services.session.door_clock.now().astimezone(self._zone).date()
        name = {today: "Today, ", today - timedelta(days=1): "Yesterday, "}.get(day, "")
        return f"{name}{day:%A} {day.day} {day:%B}" + (f" {day.year}" if day.year != today.year else "")

    def _show(self, item: Item) -> None:
        """Show everything known about an event."""
        told = in_words(item, currency=self._services.currency)
        zone = self._services.time_zone
        with self._place, ui.dialog() as dialog, ui.card().classes("tf-sheet"):
            with ui.element("div").classes("tf-line").style("flex-wrap: nowrap; width: 100%"):
                ui.icon(told.icon).classes("text-xl")
                ui.label(told.words).classes("tf-strong tf-grow tf-lines").props("dir=auto")
                ui.button(icon="close", on_click=dialog.close).props('flat round dense aria-label="Close"')
            _pairs(
                {
                    "When": f"{words.moment(item['occurred_at'], zone, seconds=True)} ({zone})",
                    "Received": words.moment(item["received_at"], zone, seconds=True),
                    "Source": item["source"],
                    "Type": item["type"],
                    "Name": item["name"] if item["name"] != item["type"] else None,
                }
            )
            kinds: dict[str, str] = {}
            for each in item["identifiers"]:
                value = words.MASKED if each["value"] is None else each["value"]
                kinds[each["kind"]] = ", ".join(filter(None, (kinds.get(each["kind"]), value)))
            for heading, fields in (
                ("What was sent", item["properties"]),
                ("Details given", item["traits"]),
                ("Known by", kinds),
                ("Around it", item["context"]),
            ):
                if fields:
                    ui.label(heading).classes("tf-panel-title")
                    _pairs(fields)
            if item["sealed_names"] and not self._personal:
                ui.label(f"{len(item['sealed_names'])} personal values are hidden.").classes("tf-muted")
            _pairs({"Event id": item["id"], "Message id": item["message_id"]})
        dialog.on("hide", dialog.delete)
        dialog.open()


def _pairs(fields: Mapping[str, Any]) -> None:
    with ui.element("div").classes("tf-detail"):
        for name, value in list(fields.items())[:MOST]:
            if value is None:
                continue
            ui.label(name[:120]).classes("tf-muted").props("dir=auto")
            whole = json.dumps(value, ensure_ascii=False, indent=1) if isinstance(value, list | dict) else None
            ui.label(words.shortened(whole or words.value(value), 2_000)).classes("tf-wrap").props("dir=auto")
        if len(fields) > MOST:
            ui.label("…")
            ui.label(f"{len(fields) - MOST} more").classes("tf-muted")
