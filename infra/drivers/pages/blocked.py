"""The Sources page's panel of ids that named nobody: by source, kind and rule, with what each rule means."""

from collections.abc import Mapping, Sequence
from typing import Final

from nicegui import ui

from infra.adapters.postgres.sources import BlockedRow
from infra.drivers.pages import words
from infra.drivers.pages.shell import empty, panel
from schemas import placeholders

MEANINGS: Final[Mapping[str, str]] = {
    placeholders.WORD: "a word for nothing",
    placeholders.ZEROS: "only zeros and signs",
    placeholders.TEMPLATE: "a template that was never filled in",
    placeholders.SPREADSHEET: "digits that a spreadsheet destroyed",
    placeholders.OBJECT: "a program's object, not its id",
    placeholders.DEVICE: "an id that millions of devices share",
    placeholders.EMAIL: "an address that tills and testers write",
    placeholders.PHONE: "digits typed to be let through",
    placeholders.DEFINED: "blocked by your definitions",
    "not_an_email": "not an e-mail address",
    "not_a_phone": "no telephone has this number",
    "unusable": "too long, or not text",
}
_NOTE: Final = "these events were accepted, but the id joins nobody: a stranger would have shared it"


def draw_blocked(found: Mapping[str, Sequence[BlockedRow]], time_zone: str) -> None:
    """The panel, in the current slot."""
    with panel("Ids that name nobody", note=_NOTE), ui.element("div").classes("tf-table"):
        if not found:
            empty("person_off", "None", "Every id received so far could be somebody's.")
            return
        with ui.element("div").classes("tf-row tf-head tf-undeclared"):
            for label in ("Source", "Kind", "Value", "Times", "Last", "Why"):
                ui.label(label)
        for source, rows in found.items():
            for row in rows:
                _row(source, row, time_zone)


def _row(source: str, row: BlockedRow, time_zone: str) -> None:
    with ui.element("div").classes("tf-row tf-undeclared"):
        ui.label(source).classes("tf-cut").props("dir=auto")
        ui.label(row.kind).classes("tf-muted")
        ui.label(row.value or "–").classes("tf-cut tf-strong")
        ui.label(words.count(row.events)).classes("tf-number")
        ui.label(words.moment(row.last_at, time_zone)).classes("tf-muted tf-cut")
        ui.label(MEANINGS.get(row.rule, row.rule)).classes("tf-muted")
