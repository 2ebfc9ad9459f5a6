"""Overview: figures of a period compared with the previous one, charts, stages, segments with their trend."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

from nicegui import ui

from infra.drivers.pages import words
from infra.drivers.pages.services import Services, Viewer
from infra.drivers.pages.shell import empty, every, page, panel, sparkline
from query.reports.overview import Figure, Overview
from schemas.errors import FiguresPreparing, TouchfoldError
from schemas.figures import PERIODS

NAMES: Final = {7: "7 days", 30: "30 days", 90: "90 days", 365: "A year"}
COLOURS: Final = {
    "grey": "#94a3b8", "blue": "#3b82f6", "green": "#22a06b", "orange": "#e08a1e", "red": "#d14343", "violet": "#8b5cf6"
}  # fmt: skip


def register(services: Services) -> None:
    """Declare the page."""

    @page(services, "/", title="Overview")
    async def overview(viewer: Viewer) -> None:
        await _Overview(services, viewer).build()


class _Overview:
    def __init__(self, services: Services, viewer: Viewer) -> None:
        self._services = services
        self._viewer = viewer
        self._days = 30
        self._preparing = False

    async def build(self) -> None:
        with ui.element("div").classes("tf-line"):
            options = {days: NAMES[days] for days in PERIODS}
            picker = ui.toggle(options, value=self._days, on_change=lambda event: self._pick(event.value))
            picker.props('no-caps unelevated toggle-color=primary aria-label="Period"')
            self._note = ui.label("").classes("tf-muted")
        self._missing = ui.label("").classes("tf-muted")
        self._figures = ui.element("div").classes("tf-stack")
        self._now = ui.element("div").classes("tf-halves")
        await self._refresh()
        every(self._services, 3, self._again)

    async def _again(self) -> None:
        """While the figures are being prepared."""
        if self._preparing:
            await self._refresh()

    async def _pick(self, days: int) -> None:
        self._days = days
        await self._refresh()

    async def _refresh(self) -> None:
        days = self._days
        try:
            found = await self._services.run(lambda: self._services.reports.overview(days))
        except FiguresPreparing as err:
            self._preparing = True
            self._note.text = f"{err.message[:1].upper()}{err.message[1:]}."
            return
        except TouchfoldError as err:
            self._note.text = f"The figures are not available right now: {err.message}"
            return
        self._preparing = False
        if days == self._days:
            self._fill_figures(found)
            await self._fill_now(found.stages)

    def _fill_figures(self, found: Overview) -> None:
        self._figures.clear()
        with self._figures:
            zone = self._services.time_zone
            first = f"{found.period.first.day} {found.period.first:%b}"
            self._note.text = (
                f"{first} until now, compared with the previous {found.days} days · as of "
                + words.moment(found.as_of, zone)
            )
            self._missing.text = _left_out(found)
            if not found.customers and not found.events.now:
                _first_steps()
                return
            self._cards(found)
            with ui.element("div").classes("tf-two"):
                with panel("Revenue and orders", note=f"by day, {self._services.currency}"):
                    _orders_chart(found)
                with panel("Events by kind"):
                    _bars([(words.title(family), count) for family, count in found.by_family[:9]])

    def _cards(self, found: Overview) -> None:
        currency = self._services.currency
        minutes = max(1.0, (found.made_at - found.period.start).total_seconds() / 60)
        with ui.element("div").classes("tf-cards"):
            _card("Revenue", words.money(found.revenue.now, currency), found.revenue, "net of refunds")
            _card("Orders", words.count(found.orders.now), found.orders)
            _card("Average order", words.money(found.average_order.now, currency), found.average_order)
            _card("Repeat rate", words.percent(found.repeat_rate.now), found.repeat_rate, "of customers who ordered")
            _card(
                "New customers",
                words.count(found.new_customers.now),
                found.new_customers,
                f"{words.count(found.customers)} in all",
            )
            _card("Events per minute", f"{float(found.events.now) / minutes:,.2f}", found.events)
            with ui.element("div").classes("tf-card"):
                ui.label("Value at risk").classes("tf-muted")
                ui.label(words.money(found.at_risk_value, currency)).classes("tf-big tf-number")
                ui.label("spent so far by customers at risk").classes("tf-muted")

    async def _fill_now(self, stages: Sequence[tuple[str, str, int]]) -> None:
        """The current state, whatever the period: stages, risk, segments."""
        services = self._services

        def look() -> tuple[list[dict[str, Any]], dict[str, list[tuple[str, int]]]]:
            return services.reading.segments.overview(), services.reading.segments.trends(30)

        if not stages:
            return
        segments, trends = await services.run(look)
        self._now.clear()
        with self._now:
            with panel("Lifecycle"):
                _stages_chart(stages)
            with panel("Largest segments", note="the last 30 days"):
                for segment in sorted(segments, key=lambda each: (-each["size"], each["name"]))[:8]:
                    link = ui.link(target=f"/segments/{segment['name']}").classes("tf-row tf-link-row")
                    link.style("grid-template-columns: minmax(0, 1fr) 120px 70px")
                    with link:
                        ui.label(words.title(segment["name"])).classes("tf-cut")
                        sparkline([size for _, size in trends.get(segment["name"], [])])
                        ui.label(words.count(segment["size"])).classes("tf-right tf-number tf-strong")


def _left_out(found: Overview) -> str:
    """What the sums leave out, why, and what to do about it; empty if they are complete."""
    said = []
    for each in found.missing_rates:
        parts = [_number_of(each.orders, "order"), _number_of(each.refunds, "refund")]
        said.append(f"{' and '.join(part for part in parts if part)} in {each.currency}")
    text = ""
    if said:
        text = (
            f"{', '.join(said)} have no exchange rate to {found.currency} and are left out of the amounts. Add dated "
            "rates to the definitions (rates: [{currency, date, rate}]) and apply them; if all your amounts are in one "
            "currency, TOUCHFOLD_CURRENCY is the setting for it."
        )
    if found.unreadable_amounts:
        many = found.unreadable_amounts != 1
        text += (
            f" {words.count(found.unreadable_amounts)} {'amounts' if many else 'amount'} of orders or refunds could not be"
            f" read and {'are' if many else 'is'} in no sum. SQL shows them (unreadable_amounts of orders); a source may "
            "say how it writes numbers (sources: {NAME: {numbers: {decimal: ','}}})."
        )
    if found.unknown_customers:
        text += f" The orders of {_number_of(found.unknown_customers, 'customer')} are missing from all figures."
    return text.strip()


def _number_of(count: int, noun: str) -> str:
    return f"{words.count(count)} {noun}{'' if count == 1 else 's'}" if count else ""


def _card(name: str, value: str, figure: Figure, note: str = "") -> None:
    with ui.element("div").classes("tf-card"):
        ui.label(name).classes("tf-muted")
        ui.label(value).classes("tf-big tf-number tf-cut")
        with ui.element("div").classes("tf-line"):
            change = figure.change
            if change is None:
                ui.label("no earlier data" if figure.now else "–").classes("tf-muted")
            else:
                arrow, colour = ("▲", "tf-up") if change > 0 else ("▼", "tf-down") if change < 0 else ("=", "tf-muted")
                ui.label(f"{arrow} {abs(change) * 100:.1f} %").classes(f"{colour} tf-strong tf-number")
            if note:
                ui.label(note).classes("tf-muted")


def _orders_chart(found: Overview) -> None:
    days = [f"{day.day} {day:%b}" for day, _, _ in found.by_day]
    axis = {"axisLabel": {"color": "#7b8794"}, "splitLine": {"lineStyle": {"color": "rgba(125,135,148,.18)"}}}
    ui.echart(
        {
            "grid": {"left": 56, "right": 44, "top": 30, "bottom": 28},
            "legend": {"top": 0, "textStyle": {"color": "#7b8794"}},
            "animation": False,
            "tooltip": {"trigger": "axis"},
            "xAxis": {"type": "category", "data": days, "axisLabel": {"color": "#7b8794"}},
            "yAxis": [{"type": "value", **axis}, {"type": "value", **axis, "splitLine": {"show": False}}],
            "series": [
                {
                    "name": "Revenue",
                    "type": "bar",
                    "data": [round(float(amount), 2) for _, _, amount in found.by_day],
                    "itemStyle": {"color": "#0f9488", "borderRadius": [3, 3, 0, 0]},
                },
                {
                    "name": "Orders",
                    "type": "line",
                    "yAxisIndex": 1,
                    "showSymbol": False,
                    "data": [count for _, count, _ in found.by_day],
                    "lineStyle": {"color": "#7c3aed", "width": 2},
                    "itemStyle": {"color": "#7c3aed"},
                },
            ],
        }
    ).style("height: 260px; width: 100%")


def _stages_chart(stages: Sequence[tuple[str, str, int]]) -> None:
    sums: dict[str, int] = {}
    for stage, _, count in stages:
        sums[stage] = sums.get(stage, 0) + count
    ordered = [name for name in words.STAGES if name in sums] + sorted(sums.keys() - words.STAGES.keys())
    risky = sum(count for _, level, count in stages if level != "low")
    _bars([(words.title(name), sums[name]) for name in ordered], [words.STAGES.get(name, "grey") for name in ordered])
    total = sum(sums.values())
    ui.label(
        f"{words.count(risky)} of {words.count(total)} customers are at medium or high risk"
        f" ({words.percent(Decimal(risky) / total if total else 0)})"
    ).classes("tf-muted")


def _bars(rows: list[tuple[str, int]], colours: list[str] | None = None) -> None:
    most = max((count for _, count in rows), default=1) or 1
    for place, (name, count) in enumerate(rows):
        with ui.element("div").classes("tf-line").style("flex-wrap: nowrap"):
            ui.label(name).classes("tf-cut").style("width: 104px; flex: none")
            with ui.element("div").classes("tf-bar-track"):
                bar = ui.element("div").classes("tf-bar").style(f"width: {100 * count / most:.1f}%")
                if colours:
                    bar.style(f"background: {COLOURS[colours[place]]}")
            ui.label(words.count(count)).classes("tf-number tf-right").style("width: 72px; flex: none")


def _first_steps() -> None:
    with panel():
        empty("waving_hand", "Nothing has arrived yet", "This page comes to life with your first event.")
        with ui.element("div").classes("tf-cards"):
            for icon, target, name, note in (
                ("input", "/sources", "Connect a source", "a write key, and snippets to paste"),
                ("upload_file", "/sources", "Import a file", "touchfold import tills.csv --mapping tills.yaml"),
                ("storefront", "/live", "Try the demo shop", "touchfold demo fills a folder with made-up customers"),
            ):
                with ui.link(target=target).classes("tf-card").style("color: inherit; text-decoration: none"):
                    ui.icon(icon).style("font-size: 24px")
                    ui.label(name).classes("tf-strong")
                    ui.label(note).classes("tf-muted")
