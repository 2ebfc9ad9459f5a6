"""The dialog for a source's settings, on the sources page. Settings are checked where they are stored."""

from typing import Any

from nicegui import context, ui

from infra.adapters.postgres.sources import SourceRow
from infra.drivers.pages import words


async def ask_settings(row: SourceRow) -> dict[str, Any] | None:
    """The changes to a source's settings; None if cancelled."""
    stored = row.settings
    with context.client.content, ui.dialog() as dialog, ui.card().classes("tf-dialog"):
        ui.label(f"Settings of {words.shortened(row.name, 60)}").classes("tf-panel-title tf-wrap").props("dir=auto")
        enabled = ui.switch("Accept events", value=bool(stored.get("enabled", True)))
        trusted = ui.switch("A server with a correct clock", value=bool(stored.get("trusted_clock", False)))
        rate = ui.number("Most events per second", value=stored.get("events_per_s"), min=0.001)
        burst = ui.number("Most events in one burst", value=stored.get("burst"), min=1)
        for each, hint in ((rate, "empty: no limit"), (burst, "empty: two seconds' worth")):
            each.props(f'dense outlined clearable hint="{hint}"').classes("full-width")
        origins = ui.textarea("Pages that may send, one origin per line", value="\n".join(stored.get("origins", ())))
        origins.props('dense outlined autogrow hint="such as https://shop.example; empty: all"').classes("full-width")
        with ui.element("div").classes("tf-line").style("justify-content: flex-end; width: 100%"):
            ui.button("Cancel", on_click=lambda: dialog.submit(None)).props("flat no-caps autofocus")
            ui.button("Save", on_click=lambda: dialog.submit("save")).props("no-caps unelevated")
    meant = await dialog == "save" and not (dialog.is_deleted or dialog.client.is_deleted)
    wanted = {
        "enabled": bool(enabled.value),
        "trusted_clock": bool(trusted.value),
        "events_per_s": rate.value,
        "burst": burst.value,
        "origins": (origins.value or "").split() or None,
    }
    if not dialog.is_deleted:
        dialog.delete()
    if not meant:
        return None
    defaults = {"enabled": True, "trusted_clock": False}
    return {key: value for key, value in wanted.items() if value != stored.get(key, defaults.get(key))}
