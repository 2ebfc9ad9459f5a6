"""Segments: what they mean, their size and trend; members, export, how to add one."""

import asyncio
from typing import Any, Final
from urllib.parse import quote
from uuid import UUID

from nicegui import ui

from infra.app.auditing import coded
from infra.drivers.pages import words
from infra.drivers.pages.services import Services, Viewer
from infra.drivers.pages.shell import chip, code, empty, page, panel, risk_chip, sparkline, stage_chip
from schemas.errors import TouchfoldError
from schemas.roles import EXPORT, PERSONAL

PAGE: Final = 50
LISTED: Final = 50  # segments listed at a time: a row costs 1.5 ms of CPU
PAUSE_S: Final = 0.2
PAGES_SEARCHED: Final = 8  # of a hundred hits each
_EXAMPLE: Final = """segments:
  spring_buyers:
    description: Bought for 100 or more in the last 90 days
    when:
      all:
        - {trait: revenue_90d, op: gte, value: 100}
        - {not: {lifecycle: at_risk}}
"""
_OPERATORS: Final = {
    "eq": "=", "ne": "≠", "lt": "<", "lte": "≤", "gt": ">", "gte": "≥", "not_in": "not in", "starts_with": "starts with"
}  # fmt: skip
MOVES: Final = 8
_LIST: Final = "grid-template-columns: minmax(0, 5fr) 130px 90px 120px"
_MEMBERS: Final = "grid-template-columns: minmax(0, 3fr) minmax(0, 3fr) minmax(0, 2fr) 110px 120px"


def register(services: Services) -> None:
    """Declare the pages."""

    @page(services, "/segments", title="Segments")
    async def segments(viewer: Viewer) -> None:
        await _list(services)

    @page(services, "/segments/{name}", title="Segment")
    async def segment(viewer: Viewer, name: str) -> None:
        await _Segment(services, viewer, name).build()


async def _list(services: Services) -> None:
    found, total = await services.run(lambda: services.reading.segments.listed(0, LISTED))
    with panel("All segments", note=_as_of(services, found)):
        if not found:
            empty("donut_small", "No segments yet", "Define one below. It covers all past events from the start.")
        table = ui.element("div").classes("tf-table")
        with table, ui.element("div").classes("tf-row tf-head tf-listed").style(_LIST):
            for name, side in (("Segment", ""), ("30 days", ""), ("Members", "tf-right"), ("Today", "tf-right")):
                ui.label(name).classes(side)
        _rows_of(services, table, found, len(found), total)
    _how_to()


def _rows_of(services: Services, table: ui.element, found: list[dict[str, Any]], shown: int, total: int) -> None:
    """Add rows to the list, and a button for the next ones if there are more."""
    with table:
        for each in found:
            _row(each)
        if shown >= total:
            return
        button = ui.button(f"Show more ({words.count(total - shown)} left)").props("flat no-caps")

    async def go_on() -> None:
        button.delete()
        more, now = await services.run(lambda: services.reading.segments.listed(shown, LISTED))
        _rows_of(services, table, more, shown + len(more), now if more else shown)

    button.on_click(go_on)


def _row(each: dict[str, Any]) -> None:
    with ui.link(target=f"/segments/{each['name']}").classes("tf-row tf-listed").style(_LIST):
        with ui.element("div").style("min-width: 0"):
            with ui.element("div").classes("tf-line"):
                ui.label(words.title(each["name"])).classes("tf-strong")
                if each["state"] != "live":
                    chip(each["state"], "blue")
            if each["description"]:
                ui.label(each["description"]).props("dir=auto")
            ui.label(each["sentence"]).classes("tf-muted").props("dir=auto")
        sparkline(each["trend"])
        ui.label(words.count(each["size"])).classes("tf-right tf-number tf-strong")
        ui.label(f"+{words.count(each['entered_today'])} −{words.count(each['left_today'])}").classes(
            "tf-right tf-number tf-muted"
        )


def _as_of(services: Services, found: list[dict[str, Any]]) -> str:
    latest = max((each["as_of"] for each in found if each["as_of"]), default=None)
    return f"as of {words.moment(latest, services.time_zone)}" if latest else ""


def _how_to() -> None:
    with panel("Add a segment"):
        ui.label("Write it as YAML and apply the folder. It is checked, built from all past events while the current"
                 " segments stay live, then swapped in. The command shows progress.").classes("tf-muted")  # fmt: skip
        code(_EXAMPLE)
        code("touchfold apply definitions/")


class _Segment:
    def __init__(self, services: Services, viewer: Viewer, name: str) -> None:
        self._services = services
        self._viewer = viewer
        self._name = name
        self._next: str | None = None
        self._asked = 0

    async def build(self) -> None:
        reading, name = self._services.reading.segments, self._name

        cards_of, personal = self._services.reading.search.cards_of, self._viewer.may(PERSONAL)

        def look() -> tuple[dict[str, Any], list[tuple[str, int]], list[dict[str, Any]], dict[str, dict[str, Any]]]:
            moves = reading.moves(name, MOVES)
            cards = cards_of([UUID(each["id"]).bytes for each in moves], personal=personal)
            return (
                reading.show(name),
                reading.trends(90, [name]).get(name, []),
                moves,
                {card["id"]: card for card in cards},
            )

        found, trend, moves, cards = await self._services.run(look)
        if moves:
            await self._note_view()
        self._head(found)
        with ui.element("div").classes("tf-halves"):
            with panel("Members over time", note="since it was first loaded"):
                _trend_chart(trend)
            with panel("Condition"):
                ui.label(found["sentence"]).classes("tf-wrap").props("dir=auto")
                with ui.element("div").classes("tf-code"):
                    ui.label("\n".join(_tree(found["when"]))).classes("tf-pre").props("dir=auto")
        if moves:
            with panel("Entered and left today", note="latest first"):
                self._moves(moves, cards)
        with panel("Members"):
            if self._viewer.may(EXPORT):
                with ui.element("div").classes("tf-line"):
                    for format_, label in (("csv", "CSV"), ("parquet", "Parquet")):
                        button = ui.button(
                            f"Export {label}", icon="download", on_click=lambda format_=format_: self._export(format_)
                        )
                        button.props("outline no-caps dense padding='4px 12px'")
            if personal:  # otherwise searching for a name would reveal whose id it is
                field = ui.input(placeholder="Search the members").props(
                    'dense outlined clearable autocomplete=off aria-label="Search the members"'
                )
                field.style("width: min(360px, 100%)").on_value_change(lambda event: self._typed(event.value or ""))
            self._table = ui.element("div").classes("tf-table")
            await self._more()

    def _moves(self, moves: list[dict[str, Any]], cards: dict[str, dict[str, Any]]) -> None:
        for each in moves:
            card = cards.get(each["id"])  # None: merged into another or erased since
            with ui.element("div").classes("tf-line").style("flex-wrap: nowrap"):
                arrow, word, colour = ("▲", "entered", "tf-up") if each["entered"] else ("▼", "left", "tf-down")
                ui.label(f"{arrow} {word}").classes(f"{colour} tf-strong").style("width: 84px; flex: none")
                at = words.moment(each["at"], self._services.time_zone).rpartition(" ")[2]
                ui.label(at).classes("tf-muted tf-number").style("width: 56px; flex: none")
                if card is None:
                    ui.label("merged or erased since").classes("tf-muted")
                    continue
                name = card["name"] or card["email"] or f"Customer {card['id'][:8]}"
                with ui.link(target=f"/customers/{card['id']}").classes("tf-cut"):
                    ui.label(name[:300]).classes("tf-cut").props("dir=auto")

    async def _typed(self, text: str) -> None:
        self._asked += 1
        asked = self._asked
        await asyncio.sleep(PAUSE_S)
        if asked != self._asked:  # more was typed meanwhile
            return
        if not text.strip():
            self._next = None
            self._table.clear()
            await self._more()
            return
        try:
            cards, since, coded_words = await self._services.run(
                lambda: (*self._found(text), coded(self._services.session, text))
            )
            await self._services.note(
                self._viewer, "customers.searched", segment=self._name, shown=len(cards), words=coded_words
            )
        except TouchfoldError as err:
            ui.notify(err.message, type="negative")
            return
        if asked == self._asked:
            self._table.clear()
            with self._table:
                if cards:
                    self._rows(cards, since)
                else:
                    empty("search_off", "No member found", "Try fewer letters, or search all customers.")

    async def _note_view(self) -> None:
        """Audit first who sees members by name, as for viewing a single customer."""
        if self._viewer.may(PERSONAL):
            await self._services.note(self._viewer, "segment.members_viewed", segment=self._name)

    def _found(self, text: str) -> tuple[list[dict[str, Any]], dict[str, str | None]]:
        """Members among the customers found by a text; if there are very many hits, only the first are checked."""
        search, segments = self._services.reading.search, self._services.reading.segments
        cursor = None
        cards: list[dict[str, Any]] = []
        since: dict[str, str | None] = {}
        for _ in range(PAGES_SEARCHED):
            found = search.find(text, limit=100, cursor=cursor)
            since |= segments.among(self._name, [UUID(item["id"]).bytes for item in found["items"]])
            cards += [item for item in found["items"] if item["id"] in since]
            cursor = found["next"]
            if cursor is None or len(cards) >= PAGE:
                break
        return cards[:PAGE], since

    def _head(self, found: dict[str, Any]) -> None:
        with panel():
            with ui.element("div").classes("tf-line"):
                ui.label(words.title(found["name"])).classes("tf-big")
                chip(found["state"], "green" if found["state"] == "live" else "blue")
                chip(f"version {found['version']}")
            if found["description"]:
                ui.label(found["description"]).classes("tf-muted").props("dir=auto")
            with ui.element("div").classes("tf-line"):
                ui.label(f"{words.count(found['size'])} members").classes("tf-strong")
                for arrow, number, word, colour in (
                    ("▲", found["entered_today"], "entered", "tf-up"),
                    ("▼", found["left_today"], "left", "tf-down"),
                ):
                    ui.label(f"{arrow} {words.count(number)} {word} today").classes(colour if number else "tf-muted")
                if found["as_of"]:
                    ui.label(f"as of {words.moment(found['as_of'], self._services.time_zone)}").classes("tf-muted")

    async def _more(self) -> None:
        reading, search, name, cursor = (
            *(self._services.reading.segments, self._services.reading.search),
            *(self._name, self._next),
        )
        personal = self._viewer.may(PERSONAL)

        def look() -> tuple[dict[str, str | None], list[dict[str, Any]], str | None]:
            found = reading.members(name, cursor, PAGE)
            ids = [UUID(item["id"]).bytes for item in found["items"]]
            since = {item["id"]: item["since"] for item in found["items"]}
            return since, search.cards_of(ids, personal=personal), found["next"]

        since, cards, self._next = await self._services.run(look)
        if cards:
            await self._note_view()
        with self._table:
            if cursor is None and not cards:
                empty("group_off", "No members", "Customers enter as soon as they meet the condition.")
                return
            self._rows(cards, since, headed=cursor is None)
            if self._next:
                button = ui.button("Show more").props("flat no-caps")

                async def go_on() -> None:
                    button.delete()
                    await self._more()

                button.on_click(go_on)

    def _rows(self, cards: list[dict[str, Any]], since: dict[str, str | None], *, headed: bool = True) -> None:
        if headed:
            with ui.element("div").classes("tf-row tf-head tf-member").style(_MEMBERS):
                for label in ("Name", "E-mail", "Member since", "Stage", "Risk"):
                    ui.label(label)
        hidden = None if self._viewer.may(PERSONAL) else words.MASKED
        for card in cards:
            with ui.link(target=f"/customers/{card['id']}").classes("tf-row tf-member").style(_MEMBERS):
                name = card["name"] or hidden or f"Unnamed, {card['id'][:8]}"
                ui.label(name[:300]).classes("tf-cut tf-strong").props("dir=auto")
                ui.label((card["email"] or hidden or "–")[:300]).classes("tf-cut").props("dir=auto")
                at = since[card["id"]]
                ui.label(words.day(at, self._services.time_zone) if at else "at load").classes("tf-muted")
                with ui.element("div"):
                    stage_chip(card["lifecycle"])
                with ui.element("div"):
                    risk_chip(card["risk"])

    async def _export(self, format_: str) -> None:
        if not await self._services.still(self._viewer, EXPORT):
            ui.notify("Your session has ended, or your role may not do this any more.", type="negative")
            return
        # The API streams it, under the same session, and audits who downloaded it.
        ui.download.from_url(f"/api/v1/segments/{quote(self._name)}/export?format={format_}")


def _tree(node: Any, depth: int = 0) -> list[str]:
    """A condition as indented lines."""
    pad = "  " * depth
    if isinstance(node, dict):
        for key in ("all", "any"):
            if key in node:
                return [f"{pad}{key} of", *(line for each in node[key] for line in _tree(each, depth + 1))]
        if "not" in node:
            return [f"{pad}not", *_tree(node["not"], depth + 1)]
        if "segment" in node:
            return [f"{pad}in segment {node['segment']}"]
        if "lifecycle" in node:
            return [f"{pad}in stage {node['lifecycle']}"]
        name = node.get("trait", node.get("property"))
        value = node.get("value")
        how = _OPERATORS.get(str(node.get("op")), str(node.get("op")))
        value = ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
        return [f"{pad}{name} {how}{'' if value is None else f' {value}'}"]
    return [f"{pad}{node}"]


def _trend_chart(trend: list[tuple[str, int]]) -> None:
    if len(trend) < 2:
        ui.label("The trend starts on the second day.").classes("tf-muted")
        return
    axis = {"color": "#7b8794"}
    ui.echart(
        {
            "grid": {"left": 50, "right": 12, "top": 12, "bottom": 26},
            "animation": False,
            "tooltip": {"trigger": "axis"},
            "xAxis": {"type": "category", "data": [day for day, _ in trend], "axisLabel": axis},
            "yAxis": {
                "type": "value",
                "axisLabel": axis,
                "minInterval": 1,
                "splitLine": {"lineStyle": {"color": "rgba(125,135,148,.18)"}},
            },
            "series": [
                {
                    "type": "line",
                    "showSymbol": False,
                    "data": [size for _, size in trend],
                    "areaStyle": {"opacity": 0.12},
                    "lineStyle": {"color": "#0f9488", "width": 2},
                    "itemStyle": {"color": "#0f9488"},
                }
            ],
        }
    ).style("height: 220px; width: 100%")
