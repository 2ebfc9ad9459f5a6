"""Parts of a customer's page that need nothing of it: an identifier, and the receipt of an erasure."""

from typing import Any, Final

from nicegui import ui

from infra.drivers.pages import words
from infra.drivers.pages.shell import text

_KINDS: Final = {
    "user_id": "person", "email": "mail", "phone": "phone", "loyalty_card": "card_membership", "device_id": "devices",
    "anonymous_id": "public", "push_token": "notifications",
}  # fmt: skip
Answer = dict[str, Any]


def show_identifier(each: Answer) -> None:
    """One line of the list: a former one says so."""
    kind = words.title(each["kind"])
    with ui.element("div").classes("tf-item"):
        ui.icon(_KINDS.get(each["kind"], "tag"))
        with ui.element("div").classes("tf-item-text"):
            text(words.MASKED if each["value"] is None else each["value"], "tf-number")
            ui.label(f"{kind}, formerly" if "former" in each else kind).classes("tf-muted tf-cut")


def show_receipt(done: Answer, zone: str) -> None:
    """What was erased, and the receipt to keep."""
    ui.label(f"{words.count(done['identifiers'])} identifiers were destroyed;"
             f" {words.count(done['events'])} events no longer belong to anyone.")  # fmt: skip
    if "others" in done:
        ui.label(done["others"][:1].upper() + done["others"][1:] + ".").classes("tf-muted")
    ui.label("Keep this receipt. It contains no personal data.").classes("tf-muted")
    with ui.element("div").classes("tf-receipt tf-detail"):
        for name, value in (done["receipt"] or {}).items():
            ui.label(words.title(name)).classes("tf-muted")
            text(_of_receipt(name, value, zone), "tf-number")
    ui.link("Back to customers", "/customers")


def _of_receipt(name: str, value: Any, zone: str) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{number} {kind.replace('_', ' ')}" for kind, number in value.items())
    is_time = name == "at" or name.endswith("_at")
    return words.moment(value, zone, seconds=True) if is_time else words.value(value)
