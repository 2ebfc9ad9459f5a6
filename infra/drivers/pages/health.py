"""Health: what needs attention, then lag, rates, dead letters, timers, archive, disk and processes."""

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, cast

from nicegui import ui

from infra.adapters.backup.notes import BackupNotes, Note
from infra.adapters.machine.meter import BUCKETS, Latency, Totals
from infra.adapters.machine.processes import Process
from infra.adapters.postgres.database import Database
from infra.app import checks
from infra.app.checks import AS_TOLD
from infra.drivers.pages import words
from infra.drivers.pages.services import Services, Viewer
from infra.drivers.pages.shell import STYLES_OF_OPERATORS, chip, connected, empty, every, page, panel
from schemas.dead_letters import remedies
from schemas.errors import StoreUnavailable
from schemas.roles import OPERATE
from schemas.waits import WORKER

EVERY_S: Final = 3.0
MUCH_LAG: Final = 100_000  # events
LATE_S: Final = 300.0  # of the watermark
_DOCS: Final = (
    ("API, with examples to try", "/api/v1/docs"), ("State as JSON", "/health"),
    ("Figures as JSON", "/api/v1/operations"), ("OpenAPI", "/api/v1/openapi.json"),
)  # fmt: skip
_COMMANDS: Final = (
    ("touchfold doctor", "checks folder, database, vault, ports"), ("touchfold status", "how far processing has come"),
    ("touchfold dead-letters list", "all that was set aside"), ("touchfold rebuild --check", "fold again and compare"),
)  # fmt: skip


class _Look(NamedTuple):
    """One reading. `at`: monotonic time in seconds."""

    at: float
    state: Mapping[str, Any]
    totals: Totals
    processes: Sequence[Process]
    letters: list[dict[str, Any]]
    problems: Sequence[Mapping[str, str]]  # of /health
    backups: Sequence[Note]


class _Card(NamedTuple):
    name: str
    value: str
    note: str
    wrong: str = ""  # what to do; empty if all is well
    checks: tuple[str, ...] = ()  # problems of /health that this card is about


def register(services: Services) -> None:
    """Declare the page."""

    @page(services, "/system", title="Health", right=OPERATE)
    async def health(viewer: Viewer) -> None:
        ui.add_head_html(STYLES_OF_OPERATORS)
        await _Health(services).build()


class _Health:
    def __init__(self, services: Services) -> None:
        self._services = services
        self._before: _Look | None = None
        self._letters: list[dict[str, Any]] | None = None

    async def build(self) -> None:
        self._summary = ui.element("div").classes("full-width")
        self._cards = ui.element("div").classes("tf-cards")
        self._panel = ui.element("div").classes("tf-stack")
        self._processes = ui.element("div").classes("tf-stack")
        with panel("Further"):
            with ui.element("div").classes("tf-docs"):
                for name, target in _DOCS:
                    ui.link(name, target, new_tab=True)
            with ui.element("div").classes("tf-docs"):
                for command, means in _COMMANDS:
                    with ui.element("div"):
                        ui.label(command).classes("tf-pre")
                        ui.label(means).classes("tf-muted")
        await self._look()
        if await connected():
            every(self._services, EVERY_S, self._look)

    def _backups(self) -> Sequence[Note]:
        """None if PostgreSQL is not ours to back up."""
        session = self._services.session
        if session.settings.database is not None:
            return ()
        with closing(Database(session.vault_dsn, "touchfold health page")) as database:
            return BackupNotes(database).read()

    async def _look(self) -> None:
        services = self._services
        now = services.session.clock.now()

        def read() -> _Look:
            operations = services.operations
            state, letters = operations.state(now), operations.letters(50)
            totals, processes = services.meter.totals(), operations.processes()
            tokens = checks.tokens(services.tokens.overview(), services.session.door_clock.now())
            expiring = [] if tokens.ok else [{"check": tokens.check, "detail": tokens.detail, "fix": tokens.fix}]
            wrong = [*problems(), *expiring]
            return _Look(time.monotonic(), state, totals, processes, letters, wrong, self._backups())

        def problems() -> list[Mapping[str, str]]:
            return cast(list[Mapping[str, str]], services.health.look()["problems"])

        try:
            found = await services.run(read)
        except StoreUnavailable as err:  # there are no figures, but what is wrong is known all the same
            wrong = await services.run(problems)
            self._draw([], wrong or [{"check": "figures", "detail": err.message, "fix": "run touchfold doctor"}])
            return
        cards = _cards(found, self._before, services.time_zone, unknown_clear=services.session.unknown_clear)
        self._draw(cards, found.problems)
        self._draw_processes(found, self._before)
        if found.letters != self._letters:
            self._letters = found.letters
            self._draw_letters(found.letters)
        self._before = found

    def _draw(self, cards: Sequence[_Card], problems: Sequence[Mapping[str, str]]) -> None:
        told = {each["check"] for each in problems}
        wrong = [card for card in cards if card.wrong and told.isdisjoint(card.checks)]
        self._summary.clear()
        with self._summary, ui.element("section").classes("tf-panel" + (" tf-bad" if wrong or problems else "")):
            with ui.element("div").classes("tf-line"):
                bad = bool(wrong or problems)
                ui.icon("warning_amber" if bad else "check_circle", color="warning" if bad else "positive")
                ui.label("Needs attention" if bad else "Everything is running").classes("tf-panel-title")
            for each in problems:
                remedy = "" if each["fix"] == AS_TOLD else f" Do: {each['fix']}."
                text = f"{each['check'].capitalize()}: {each['detail']}.{remedy}"
                ui.label(text).classes("tf-how tf-wrap")
            for card in wrong:
                ui.label(f"{card.name}: {card.value}. {card.wrong}").classes("tf-how tf-wrap")
        self._cards.clear()
        with self._cards:
            for card in cards:
                with ui.element("div").classes(
                    "tf-card" + (" tf-bad" if card.wrong or not told.isdisjoint(card.checks) else "")
                ):
                    ui.label(card.name).classes("tf-muted")
                    ui.label(card.value).classes("tf-big tf-number tf-cut")
                    ui.label(card.note).classes("tf-muted")

    def _draw_processes(self, found: _Look, before: _Look | None) -> None:
        self._processes.clear()
        if not found.processes:
            return
        cpu = {each.pid: each.cpu_s for each in before.processes} if before else {}
        passed = found.at - before.at if before else 0.0
        with self._processes, panel("Processes"), ui.element("div").classes("tf-table"):
            with ui.element("div").classes("tf-row tf-head tf-process"):
                for label in ("Role", "CPU", "Memory", "Process", "Uptime"):
                    ui.label(label)
            for each in found.processes:
                with ui.element("div").classes("tf-row tf-process"):
                    ui.label(each.role).classes("tf-strong tf-cut")
                    used = (each.cpu_s - cpu[each.pid]) / passed if each.pid in cpu and passed > 0 else None
                    ui.label("…" if used is None else words.percent(used, 0)).classes("tf-number")
                    ui.label(words.size(each.memory)).classes("tf-number")
                    ui.label(str(each.pid)).classes("tf-number tf-muted tf-opt")
                    ui.label(_span(each.lives_s)).classes("tf-muted tf-opt")

    def _draw_letters(self, letters: list[dict[str, Any]]) -> None:
        self._panel.clear()
        note = "what was refused, why, and what to do about it" if letters else ""
        with self._panel, panel("Dead letters", note=note):
            if not letters:
                empty("mark_email_read", "None", "Nothing has been refused.")
                return
            with ui.element("div").classes("tf-table"):
                with ui.element("div").classes("tf-row tf-head tf-letter"):
                    for label in ("Received", "Source", "Rule", "Reason", "Where"):
                        ui.label(label)
                for letter in letters:
                    self._letter(letter)
            for each in remedies((letter["stage"], letter["rule"]) for letter in letters):
                ui.label(each).classes("tf-how tf-wrap")

    def _letter(self, letter: Mapping[str, Any]) -> None:
        with ui.element("div").classes("tf-row tf-letter"):
            received = words.moment(letter["received_at"], self._services.time_zone)
            ui.label(received).classes("tf-muted tf-cut tf-number")
            ui.label(words.shortened(letter["source"], 80)).classes("tf-cut").props("dir=auto")
            ui.label(letter["rule"]).classes("tf-cut tf-kind")
            reason = f"{letter['path']} {letter['reason']}".strip()[:400]
            ui.label(reason).classes("tf-cut tf-what").props("dir=auto").tooltip(reason)
            with ui.element("div"):
                chip(letter["stage"])


def _cards(found: _Look, before: _Look | None, time_zone: str, *, unknown_clear: bool) -> list[_Card]:
    """The figures, with what to do about the bad ones."""
    state, totals = found.state, found.totals
    lag, age = state["accepted"] - state["applied"], state["watermark_age_s"]
    stand = {each["partition"] for each in state["partitions_waiting"] if each["reader"] == WORKER}  # they have cards
    lag_of_others = sum(each for partition, each in enumerate(state["partition_lags"]) if partition not in stand)
    passed = found.at - before.at if before else 0.0
    rate = None if before is None or passed <= 0 else max(0, state["accepted"] - before.state["accepted"]) / passed
    refused = sum(totals.refused.values())
    cards = [
        _Card("Arriving", "…" if rate is None else f"{rate:,.1f}/s", f"{words.count(state['accepted'])} in all"),
        _Card(
            "Lag", words.count(lag), "events accepted, not yet applied",
            "Events arrive faster than they are applied. The worker catches up, unless it has stopped (see Processes)."
            if lag_of_others > MUCH_LAG else "",
            ("work",),
        ),
        _Card("To be decided", words.count(state["waiting"]), f"of {words.count(state['profiles'])} profiles, about"),
        _Card(
            "Watermark", "–" if age is None else f"{age:,.0f} s", "behind the clock",
            "Timers have stopped: check whether the worker is running." if (age or 0) > LATE_S and not stand else "",
        ),
        _Card("Requests refused", words.count(refused), _refusals(totals)),
        _Card("Door, 99 of 100", _quantile(totals.latency["door"]), "answered within"),
        _Card("API, 99 of 100", _quantile(totals.latency["api"]), "answered within"),
        _Card(
            "Dead letters", words.count(state["dead_letters"]), "open",
            "See below for the reasons and what to do." if state["dead_letters"] else "",
        ),
        *_amount_cards(state),
        _Card("Timers", words.count(state["due"]), "profiles due to change within a day"),
        _archive_card(state),
        *([_backup_card(found.backups, datetime.now(UTC))] if found.backups else []),
        _Card("Database", words.size(state["database_bytes"]), f"revision {state['revision']}",
              checks=("database", "connections", "pages")),
        _Card("Disk", words.percent(state["disk_free"], 0), "free", checks=("disk",)),
        _Card(
            "Vault", "open" if state["vault_lease"] else "closed", f"{words.count(state['erased'])} identifiers erased",
            "" if state["vault_lease"] else "Personal data can be neither stored nor read: run touchfold doctor.",
            ("vault",),
        ),
    ]  # fmt: skip
    for waits in state["partitions_waiting"]:
        cards.append(
            _Card(f"Partition {waits['partition']}", f"stuck at {waits['offset']}",
                  f"since {words.moment(waits['since'], time_zone)}" if waits["since"] else "since when is unknown",
                  f"{waits['reason']}. {waits['remedy'].capitalize()}", ("records",))
        )  # fmt: skip
    if state["archive_rewriting"]:
        cards.append(
            _Card("Declared fields", words.count(state["archive_rewriting"]), "files of the archive still to rewrite")
        )
    if unknown_clear:
        cards.append(
            _Card("Unknown fields", "clear", "TOUCHFOLD_UNKNOWN=clear: numbers, booleans and times are not sealed")
        )
    if state["unmatched"]:
        cards.append(
            _Card("Unmatched orders", words.count(state["unmatched"]), "named by refunds, cancels or updates",
                  "No customer has them, or several do: the refunds stay with who sent them. See SQL's refunds"
                  " where profile_id is null, and check the order ids of each source.")
        )  # fmt: skip
    if state["unindexed"]:
        cards.append(_Card("Search", words.count(state["unindexed"]), "profiles still to index"))
    if state["building"] is not None:
        done = f"{state['building']['done'] * 100:.0f} %"
        cards.append(_Card("Building", done, f"revision {state['building']['revision']}"))
    return cards


def _amount_cards(state: Mapping[str, Any]) -> list[_Card]:
    """Amounts that no total includes, and what to do about them; none if there are none."""
    cards = []
    if state["unreadable_amounts"]:
        cards.append(
            _Card(
                "Unreadable amounts", words.count(state["unreadable_amounts"]), "orders and refunds; in no sum",
                "Correct them at their source, or say how it writes numbers: sources: {NAME: {numbers: {decimal: ','}}}.",
            )
        )  # fmt: skip
    if state["missing_rates"]:
        missing = state["missing_rates"]
        cards.append(
            _Card(
                "Without a rate", words.count(sum(missing.values())), f"amounts in {', '.join(missing)}; in no sum",
                "Add dated rates to the definitions (rates: [{currency, date, rate}]) and apply them, or set "
                "TOUCHFOLD_CURRENCY if all amounts are in one currency.",
            )
        )  # fmt: skip
    return cards


def _archive_card(state: Mapping[str, Any]) -> _Card:
    trouble = state["archive_trouble"]
    if trouble is not None:
        what = "cannot be read" if state["archived"] is None else "is damaged"
        return _Card("Archived", what, "the log keeps what is not in any file", f"{trouble}.", ("archive",))
    held = f"events in {words.count(state['archive_files'])} files, {words.size(state['archive_bytes'])} of Parquet"
    waits = state["archive_merging"]
    note = f"{held}; {words.count(waits)} to be merged" if waits else held
    return _Card("Archived", words.count(state["archived"]), note, checks=("archive",))


def _backup_card(notes: Sequence[Note], now: datetime) -> _Card:
    newest = notes[0]
    if newest.last_at is None:
        return _Card("Backup", "none yet", newest.destination)
    wal = "" if newest.until_at is None else f"; WAL of {_span((now - newest.until_at).total_seconds())} ago"
    return _Card("Backup", f"{_span((now - newest.last_at).total_seconds())} ago", f"{newest.destination}{wal}")


def _refusals(totals: Totals) -> str:
    """The most common statuses: `401: 12, 400: 3`."""
    by_status: dict[int, int] = {}
    for (_, status), number in totals.refused.items():
        by_status[status] = by_status.get(status, 0) + number
    most = sorted((number, status) for status, number in by_status.items() if number)[::-1][:3]
    return ", ".join(f"{status}: {words.count(number)}" for number, status in most) or "none so far"


def _quantile(latency: Latency, share: float = 0.99) -> str:
    """The upper bound on the latency of this share of all requests."""
    left = share * sum(latency.counts)
    if not left:
        return "–"
    for bound, count in zip(BUCKETS, latency.counts, strict=False):
        left -= count
        if left <= 0:
            return f"{bound * 1_000:g} ms" if bound < 1 else f"{bound:g} s"
    return f"over {BUCKETS[-1]:g} s"


def _span(seconds: float) -> str:
    """`3 hours`, in one unit."""
    for size, word in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds >= size:
            number = int(seconds // size)
            return f"{number} {word}{'s' if number > 1 else ''}"
    return f"{seconds:.0f} s"
