"""Health: lag, rates, letters, timers, archive, disk; what an operator looks at first."""

import time
from typing import Any, Final

from nicegui import ui

from infra.drivers.ui import words
from infra.drivers.ui.services import Services, Viewer
from infra.drivers.ui.shell import chip, connected, empty, every, page, panel
from schemas.roles import OPERATE

EVERY_S: Final = 3.0
_ROW: Final = "grid-template-columns: 150px 110px 150px minmax(0, 4fr) 110px"


def register(services: Services) -> None:
    """Declare the page."""

    @page(services, "/system", title="Health", right=OPERATE)
    async def health(viewer: Viewer) -> None:
        await _Health(services).build()


class _Health:
    def __init__(self, services: Services) -> None:
        self._services = services
        self._before: tuple[float, int] | None = None
        self._rate: float | None = None
        self._letters: list[dict[str, Any]] | None = None

    async def build(self) -> None:
        self._cards = ui.element("div").classes("tf-cards")
        self._panel = ui.element("div").classes("tf-stack")
        with panel("Further"), ui.element("div").classes("tf-line"):
            ui.link("/health (JSON)", "/health", new_tab=True)
            ui.link("API and its documentation", "/api/v1/docs", new_tab=True)
            ui.label("On the machine: touchfold doctor, touchfold status, touchfold dead-letters list").classes(
                "tf-muted"
            )
        await self._look()
        if await connected():
            every(self._services, EVERY_S, self._look)

    async def _look(self) -> None:
        services = self._services
        now = services.session.clock.now()

        def read() -> tuple[dict[str, Any], list[dict[str, Any]]]:
            return services.operations.state(now), services.operations.letters(50)

        state, letters = await services.run(read)
        at = time.monotonic()
        if self._before is not None and at > self._before[0]:
            self._rate = (state["accepted"] - self._before[1]) / (at - self._before[0])
        self._before = at, state["accepted"]
        self._draw(state)
        if letters != self._letters:
            self._letters = letters
            self._draw_letters(letters)

    def _draw(self, state: dict[str, Any]) -> None:
        lag = state["accepted"] - state["applied"]
        self._cards.clear()
        with self._cards:
            _card("Lag", words.count(lag), "events accepted and not yet applied", bad=lag > 100_000)
            _card("Arriving", "…" if self._rate is None else f"{max(0.0, self._rate):,.1f}/s", "events a second, now")
            _card("Accepted", words.count(state["accepted"]), f"{words.count(state['profiles'])} profiles, about")
            _card("Waiting", words.count(state["waiting"]), "signatures to be decided")
            _card("Timers", words.count(state["due"]), "profiles that time moves within a day")
            _card("Dead letters", words.count(state["dead_letters"]), "open, see below", bad=state["dead_letters"] > 0)
            _card(
                "Archived", words.count(state["archived"]), f"events, {words.size(state['archive_bytes'])} of Parquet"
            )
            free = state["disk_free"]
            _card("Disk", words.percent(free, 0), "free", bad=free < 0.1)
            _card("Database", words.size(state["database_bytes"]), f"revision {state['revision']}")
            _card(
                "Vault",
                "open" if state["vault_lease"] else "closed",
                "lease of this process",
                bad=not state["vault_lease"],
            )
            age = state["watermark_age_s"]
            _card("Watermark", "–" if age is None else f"{age:,.0f} s", "behind the clock", bad=(age or 0) > 300)
            building = state["building"]
            if building is not None:
                _card("Building", f"{building['done'] * 100:.0f} %", f"revision {building['revision']}")

    def _draw_letters(self, letters: list[dict[str, Any]]) -> None:
        self._panel.clear()
        with (
            self._panel,
            panel("Dead letters", note="what was refused, and why; retry with touchfold dead-letters retry"),
        ):
            if not letters:
                empty("mark_email_read", "None", "Everything that came was understood.")
                return
            with ui.element("div").classes("tf-table"):
                with ui.element("div").classes("tf-row tf-head").style(_ROW):
                    for label in ("Received", "Source", "Rule", "Reason", "Stage"):
                        ui.label(label)
                for letter in letters:
                    with ui.element("div").classes("tf-row").style(_ROW):
                        ui.label(words.moment(letter["received_at"], self._services.time_zone)).classes(
                            "tf-muted tf-cut"
                        )
                        ui.label(letter["source"][:80]).classes("tf-cut").props("dir=auto")
                        ui.label(letter["rule"]).classes("tf-cut")
                        ui.label(f"{letter['path']} {letter['reason']}".strip()[:400]).classes("tf-cut").props(
                            "dir=auto"
                        )
                        with ui.element("div"):
                            chip(letter["stage"])


def _card(name: str, value: str, note: str, *, bad: bool = False) -> None:
    with ui.element("div").classes("tf-card"):
        with ui.element("div").classes("tf-line").style("justify-content: space-between"):
            ui.label(name).classes("tf-muted")
            if bad:
                chip("look", "orange")
        ui.label(value).classes("tf-big tf-number tf-cut")
        ui.label(note).classes("tf-muted")
