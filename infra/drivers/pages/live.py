"""Live: events as they arrive, without personal values; look one up by its id."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from nicegui import ui

from infra.adapters.postgres.operations import Arrived
from infra.drivers.pages import words
from infra.drivers.pages.services import Services, Viewer
from infra.drivers.pages.shell import STYLES_OF_OPERATORS, chip, connected, empty, every, page, panel
from query.people.plain_words import in_words
from schemas.dead_letters import remedy
from schemas.errors import TouchfoldError
from schemas.roles import OPERATE, PERSONAL
from schemas.store_rows import Verdict

EVERY_S: Final = 1.0
SHOWN: Final = 40
LOOKED_AT: Final = 300  # per partition, when a filter leaves few
LETTERS: Final = 20
RESULTS: Final[Mapping[str, str]] = {
    "applied": "green", "pending": "blue", "duplicate": "grey", "conflict": "orange", "set aside": "red",
    "refused": "red", "erased": "grey",
}  # fmt: skip
_VERDICTS: Final = {
    Verdict.APPLIED: "applied", Verdict.DUPLICATE: "duplicate", Verdict.CONFLICT: "conflict",
    Verdict.QUARANTINED: "set aside", Verdict.ERASED: "erased",
}  # fmt: skip


class _Row(NamedTuple):
    """One row: an event of the log, or a dead letter of the door."""

    key: tuple[str, ...]  # changes with the result, so that the row is redrawn
    at: datetime
    source: str
    kind: str
    what: str
    result: str
    event: Arrived | None
    remedy: str = ""  # of a dead letter


def register(services: Services) -> None:
    """Declare the page."""

    @page(services, "/live", title="Live", right=OPERATE)
    async def live(viewer: Viewer) -> None:
        ui.add_head_html(STYLES_OF_OPERATORS)
        await _Live(services, viewer).build()


class _Live:
    """One open page. It polls once a second, and does nothing while nothing arrives."""

    def __init__(self, services: Services, viewer: Viewer) -> None:
        self._services = services
        self._personal = viewer.may(PERSONAL)
        self._ends: list[int] = []
        self._letters: list[dict[str, Any]] = []
        self._rows: list[_Row] = []
        self._drawn: dict[tuple[str, ...], ui.element] = {}
        self._paused_at: int | None = None
        self._shown_sources: set[str] = set()
        self._shown_kinds: set[str] = set()

    async def build(self) -> None:
        with panel(), ui.element("div").classes("tf-form"):
            self._pause = ui.button("Pause", icon="pause", on_click=self._toggle).props("outline no-caps")
            self._sources = self._picker("All sources", "Source")
            self._kinds = self._picker("All types", "Type")
            self._results = self._picker("All results", "Result", [each for each in RESULTS if each != "erased"])
            self._wanted = ui.input(placeholder="Event or message id").classes("tf-push")
            self._wanted.props('dense outlined aria-label="Event or message id"')
            self._wanted.on("keydown.enter", self._look_up, args=[])
            ui.button("Look up", on_click=self._look_up).props("flat no-caps")
        with panel("Arriving now", note="personal values are not shown here"):
            self._nothing = ui.element("div").classes("full-width")
            self._list = ui.element("div").classes("tf-table")
        await self._read()
        if await connected():
            every(self._services, EVERY_S, self._tick)

    def _picker(self, everything: str, label: str, options: list[str] | None = None) -> ui.select:
        choices = {"": everything, **{each: words.title(each) for each in options or []}}
        picker = ui.select(choices, value="", on_change=self._read).classes("tf-pick")
        return picker.props(f'dense outlined options-dense aria-label="{label}"')

    # --- reading -----------------------------------------------------------------------------------------------------

    async def _tick(self) -> None:
        operations = self._services.operations
        ends, letters = await self._services.run(lambda: (operations.ends(), operations.letters(LETTERS)))
        if self._paused_at is not None:
            came = sum(ends) - self._paused_at
            self._pause.text = f"Go on, {words.count(came)} new" if came else "Go on"
            return
        waiting = any(row.result == "pending" for row in self._rows)
        if ends != self._ends or letters != self._letters or waiting:
            await self._read()

    async def _read(self) -> None:
        """Read the newest events and draw what changed."""
        operations, source, kind, result = (
            self._services.operations, self._sources.value, self._kinds.value, self._results.value
        )  # fmt: skip
        most = LOOKED_AT if source or kind or result else SHOWN

        def look() -> tuple[list[int], list[Arrived], list[dict[str, Any]]]:
            ends = operations.ends()
            return ends, operations.arrived([max(0, end - most) for end in ends], most), operations.letters(LETTERS)

        self._ends, events, self._letters = await self._services.run(look)
        rows = [self._of_event(event) for event in events]
        rows += [
            _of_letter(letter) for letter in self._letters if letter["stage"] in {"door", "inbox"}
        ]  # others are events too
        self._offer({row.source for row in rows}, {event.type for event in events})
        rows = [
            row for row in rows if source in ("", row.source) and kind in ("", row.kind) and result in ("", row.result)
        ]
        self._rows = sorted(rows, key=lambda row: row.at, reverse=True)[:SHOWN]
        self._draw(filtered=bool(source or kind or result))

    def _offer(self, sources: set[str], kinds: set[str]) -> None:
        """Add sources and types seen so far to the filters, and keep them there."""
        for picker, seen, found, everything in (
            (self._sources, self._shown_sources, sources, "All sources"),
            (self._kinds, self._shown_kinds, kinds, "All types"),
        ):
            if not found <= seen:
                seen.update(found)
                picker.set_options({"": everything, **{each: words.shortened(each, 40) for each in sorted(seen)}})

    def _of_event(self, event: Arrived) -> _Row:
        result = _VERDICTS[Verdict(event.verdict)] if event.applied else "pending"
        item = {"type": event.type, "name": event.name, "properties": event.properties, "context": event.context,
                "sealed_names": event.sealed, "traits": {}}  # fmt: skip
        what = in_words(item, currency=self._services.currency).words[:300]
        key = (str(event.partition), str(event.offset), result)
        return _Row(key, event.received_at, event.source, event.type, what, result, event)

    def _toggle(self) -> None:
        going_on = self._paused_at is not None
        self._paused_at = None if going_on else sum(self._ends)
        self._ends = [] if going_on else self._ends
        self._pause.text = "Pause" if going_on else "Go on"
        self._pause.icon = "pause" if going_on else "play_arrow"

    # --- drawing -----------------------------------------------------------------------------------------------------

    def _draw(self, *, filtered: bool) -> None:
        wanted = {row.key for row in self._rows}
        for key in [key for key in self._drawn if key not in wanted]:
            self._drawn.pop(key).delete()
        for at, row in enumerate(self._rows):
            if row.key not in self._drawn:
                with self._list:
                    drawn = self._drawn[row.key] = self._line(row)
                if at < len(self._drawn) - 1:
                    drawn.move(target_index=at)
        self._nothing.clear()
        if not self._rows:
            with self._nothing:
                if filtered:
                    empty("filter_alt_off", "No such events lately", "Matching events appear here as they arrive.")
                else:
                    empty("bolt", "Nothing yet", "Events appear here shortly after they are accepted.")

    def _line(self, row: _Row) -> ui.element:
        line = ui.element("div").classes("tf-row tf-click tf-live").props("tabindex=0 role=button")
        line.on("click", lambda: self._show(row), args=[])
        line.on("keydown.enter", lambda: self._show(row), args=[])
        with line:
            at = words.moment(row.at, self._services.time_zone, seconds=True)[-8:]
            ui.label(at).classes("tf-number tf-muted")
            ui.label(words.shortened(row.source, 60)).classes("tf-cut").props("dir=auto")
            ui.label(row.kind).classes("tf-cut tf-muted tf-kind")
            ui.label(row.what).classes("tf-cut tf-what").props("dir=auto")
            with ui.element("div"):
                chip(row.result, RESULTS[row.result])
        return line

    async def _show(self, row: _Row) -> None:
        zone = self._services.time_zone
        if row.event is None:
            _dialog(row.kind, {"Source": row.source, "Received": words.moment(row.at, zone, seconds=True),
                               "Reason": row.what, "What to do": row.remedy, "All of it": f"touchfold dead-letters show {row.key[0]}"})  # fmt: skip
            return
        event = row.event
        about = {
            "What": row.what, "Source": event.source, "Name": event.name or "–", "Event id": event.id,
            "Message id": event.message_id or "–", "Occurred": words.moment(event.occurred_at, zone, seconds=True),
            "Received": words.moment(event.received_at, zone, seconds=True),
            "Position in the log": f"partition {event.partition}, offset {event.offset}",
            "Sealed": ", ".join(event.sealed) or "nothing",
        }  # fmt: skip
        became = await self._became(event.id)
        shown = {words.title(name): value for name, value in became.items() if name not in ("id", "profile_id")}
        parts = {"What became of it": shown, "Properties": event.properties, "Context": event.context}
        _dialog(event.type, about, parts, became.get("profile_id"))

    async def _became(self, wanted: str) -> dict[str, Any]:
        """What is known about an event; empty if nothing is, in which case the page says so."""
        try:
            return await self._services.run(
                lambda: self._services.reading.events.status(wanted, personal=self._personal)
            )
        except TouchfoldError as err:
            ui.notify(err.message, type="warning", position="bottom")
            return {}

    async def _look_up(self) -> None:
        wanted = (self._wanted.value or "").strip()[:512]
        if wanted and (found := await self._became(wanted)):
            shown = {words.title(name): value for name, value in found.items() if value not in (None, "")}
            _dialog("What became of it", shown, {}, found.get("profile_id"))


def _of_letter(letter: Mapping[str, Any]) -> _Row:
    what = f"{letter['path']} {letter['reason']}".strip()[:300]
    do = remedy(letter["stage"], letter["rule"])
    return _Row((letter["id"],), letter["received_at"], letter["source"], letter["rule"], what, "refused", None, do)


def _dialog(
    heading: str, about: Mapping[str, Any], parts: Mapping[str, Mapping[str, Any]] | None = None, profile: Any = None
) -> None:
    with ui.dialog() as dialog, ui.card().classes("tf-dialog"):
        ui.label(heading).classes("tf-panel-title tf-cut").props("dir=auto")
        _fields(about)
        for part, values in (parts or {}).items():
            shown = {key: value for key, value in list(values.items())[:60] if value is not None}
            if shown:
                ui.label(part).classes("tf-panel-title")
                _fields(shown)
        with ui.element("div").classes("tf-line full-width"):
            if profile:
                ui.link("Open the customer", f"/customers/{profile}")
            ui.space()
            ui.button("Close", on_click=dialog.close).props("flat no-caps")
    dialog.on("hide", dialog.delete)
    dialog.open()


def _fields(values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        with ui.element("div").classes("tf-field"):
            ui.label(f"{key[:200]}: ").classes("tf-muted tf-cut").props("dir=auto")
            ui.label(_plain(value)[:1_000]).classes("tf-wrap").props("dir=auto")


def _plain(value: Any) -> str:
    """A value of an event; a nested one reads `name: analytics.js, version: 2.1.0`."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_plain(each)}" for key, each in list(value.items())[:40])
    if isinstance(value, list | tuple):
        return "; ".join(_plain(each) for each in value[:40])
    return words.value(value)
