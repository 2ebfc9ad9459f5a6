"""Staff actions on a customer's page: notes, calls, complaints, corrections and erasure, each with a dialog."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from nicegui import ui

from infra.app.erasing import erase_person
from infra.drivers.pages import words
from infra.drivers.pages.person_download import address, done_of
from infra.drivers.pages.services import Services, Viewer
from infra.drivers.pages.shell import every
from query.people.actions import OpenComplaint, confirms, trait_value
from schemas.errors import ErasureRefused, TouchfoldError
from schemas.record import uuid_text
from schemas.roles import ACT, DISCLOSE, ERASE

Answer = dict[str, Any]
_GONE: Final = "Your session has ended, or your role may not do this any more. Sign in again."


class Acts:
    """Calls `recorded` with the id of each event written, and `erased` with the result of an erasure.

    `place` holds the dialogs, so that redrawing the page does not remove them.
    """

    def __init__(
        self,
        services: Services,
        viewer: Viewer,
        profile_id: bytes,
        place: ui.element,
        recorded: Callable[[str], Awaitable[None]],
        erased: Callable[[Answer], None],
    ) -> None:
        self._services = services
        self._viewer = viewer
        self._id = profile_id
        self._place = place
        self._recorded = recorded
        self._erased = erased

    # --- dialogs -----------------------------------------------------------------------------------------------------

    def note(self) -> None:
        acting, key, who = self._services.acting, self._id, self._viewer.name
        with self._dialog("Add a note") as dialog:
            said = _area("What should colleagues know?").props("autofocus")
            self._ends(dialog, "Save note", "note.added", lambda: acting.note(key, who, said.value or ""))

    def call(self) -> None:
        acting, key, who = self._services.acting, self._id, self._viewer.name
        with self._dialog("Record a call") as dialog:
            way = ui.toggle({"in": "They called", "out": "We called"}, value="in").props("no-caps unelevated")
            topic = _line("What about?", 200).props("autofocus")
            said = _area("Notes (optional)")
            self._ends(
                dialog,
                "Record call",
                "call.recorded",
                lambda: acting.call(key, who, direction=way.value, topic=topic.value or "", text=said.value or ""),
            )

    def complaint(self) -> None:
        acting, key, who = self._services.acting, self._id, self._viewer.name
        with self._dialog("Open a complaint") as dialog:
            topic = _line("What about?", 200).props("autofocus")
            said = _area("What happened (optional)")
            self._ends(
                dialog,
                "Open complaint",
                "complaint.opened",
                lambda: acting.complaint(key, who, topic=topic.value or "", text=said.value or ""),
            )

    def resolve(self, complaint: OpenComplaint) -> None:
        acting, key, who = self._services.acting, self._id, self._viewer.name
        with self._dialog("Resolve the complaint") as dialog:
            ui.label(words.title(complaint.topic) or complaint.complaint_id).classes("tf-lines").props("dir=auto")
            said = _area("How was it resolved? (optional)").props("autofocus")
            self._ends(
                dialog,
                "Resolve",
                "complaint.resolved",
                lambda: acting.resolve_complaint(key, who, complaint_id=complaint.complaint_id, text=said.value or ""),
            )

    def correct(self, name: str, now: object, type_: str | None) -> None:
        """Correct a trait; with `name` "" the dialog asks for its name."""
        acting, key, who = self._services.acting, self._id, self._viewer.name
        with self._dialog(f"Correct {words.title(name).lower()}"[:120] if name else "Add a detail") as dialog:
            asked = None if name else _line("Name, such as city", 100).props("autofocus")
            value = _line("Correct value", 500)
            if name:
                value.props("autofocus")
                value.value = "" if now is None else words.value(now) if isinstance(now, bool) else str(now)
            ui.label("This overrides every source until you correct it again or undo it.").classes("tf-muted")

            def work() -> str:
                of = name or str(asked.value if asked else "").strip().lower().replace(" ", "_")
                return acting.correct_trait(key, who, of, trait_value(value.value or "", type_, now))

            self._ends(dialog, "Save", "trait.corrected", work)

    def withdraw(self, name: str) -> None:
        acting, key, who = self._services.acting, self._id, self._viewer.name
        with self._dialog("Undo the correction") as dialog:
            ui.label(f"{words.title(name)} will again show what the sources say.").props("dir=auto")
            self._ends(dialog, "Undo", "correction.withdrawn", lambda: acting.withdraw_correction(key, who, name))

    def export(self) -> None:
        """Stream everything stored about the person to the browser as a ZIP."""
        services, key, viewer = self._services, self._id, self._viewer
        with self._dialog("Export this person's data") as dialog:
            ui.label(
                "A ZIP with a page to read and the same data as JSON. Give it only to this person. The export is"
                " recorded in the audit log."
            )
            bar = ui.linear_progress(0.0, show_value=False).props("rounded aria-label=Progress")
            told = ui.label("").classes("tf-muted").props("role=status")
            bar.set_visibility(False)

            async def begin() -> None:
                if not await services.still(viewer, DISCLOSE):
                    ui.notify(_GONE, type="negative")
                    return
                button.disable()
                bar.set_visibility(True)
                number = services.exports.begin(viewer.name)
                ui.download.from_url(address(key, number))

                async def look() -> None:
                    done, words_ = done_of(services.exports, number)
                    bar.value = done
                    told.text = words_
                    if done >= 1:
                        button.enable()

                every(services, 0.3, look)

            with ui.element("div").classes("tf-ends"):
                ui.button("Close", on_click=dialog.close).props("flat no-caps")
                button = ui.button("Export", on_click=begin).props("no-caps unelevated")

    def erase(self, name: str) -> None:
        """Ask for the name or the id, then erase the person."""
        short = uuid_text(self._id)[:8]
        with self._dialog("Erase this person") as dialog:
            with ui.element("div").classes("tf-warn").props("role=alert"):
                ui.icon("warning").classes("text-xl")
                ui.label(
                    "Their identifiers, personal values and profile are destroyed for good. Events still count in"
                    " totals, but belong to nobody. This cannot be undone."
                )
            ask = f"Type {short} to confirm" if not name else f"Type the full name, or {short}, to confirm"
            typed = _line(ask, 300).props("autofocus")
            refuse = ui.checkbox("Refuse new events from this person from now on").props("dense")
            force = ui.checkbox("Erase even though this may be more than one person").props("dense")
            force.set_visibility(False)
            said = _problem()

            async def erase() -> None:
                if not confirms(typed.value or "", name, uuid_text(self._id)):
                    said("That is neither the name nor the id.")
                    return
                button.props("loading")
                try:
                    await self._erase(dialog, force=force.value, suppress=refuse.value)
                except ErasureRefused as err:
                    said(" ".join([f"{err.message}:", *(problem.reason for problem in err.problems[:5])]))
                    force.set_visibility(True)
                except TouchfoldError as err:
                    said(err.message)
                finally:
                    if not button.is_deleted:
                        button.props(remove="loading")

            with ui.element("div").classes("tf-ends"):
                ui.button("Cancel", on_click=dialog.close).props("flat no-caps")
                button = ui.button("Erase for good", on_click=erase).props("no-caps unelevated color=negative")

    async def _erase(self, dialog: ui.dialog, *, force: bool, suppress: bool) -> None:
        if not await self._services.still(self._viewer, ERASE):
            raise TouchfoldError(_GONE)
        session, text = self._services.session, uuid_text(self._id)
        done = await self._services.run(lambda: erase_person(session, "profile", text, force=force, suppress=suppress))
        detail = {"identifiers": done["identifiers"], "events": done["events"]}
        await self._services.note(self._viewer, "profile.erased", self._id, **detail)
        dialog.close()
        with self._place:
            self._erased(done)

    @contextmanager
    def _dialog(self, heading: str) -> Iterator[ui.dialog]:
        """A dialog that opens once filled and is removed when closed."""
        with self._place, ui.dialog() as dialog, ui.card().classes("tf-dialog"):
            ui.label(heading).classes("tf-panel-title").props("role=heading aria-level=2 dir=auto")
            yield dialog
        dialog.on("hide", dialog.delete)
        dialog.open()

    # --- parts -------------------------------------------------------------------------------------------------------

    def _ends(self, dialog: ui.dialog, label: str, action: str, work: Callable[[], str]) -> None:
        """The buttons of a dialog; `work` writes an event and returns its id."""
        said = _problem()

        async def save() -> None:
            button.props("loading")
            try:
                if not await self._services.still(self._viewer, ACT):
                    raise TouchfoldError(_GONE)
                event_id = await self._services.run(work)
                await self._services.note(self._viewer, action, self._id)
            except TouchfoldError as err:
                said("; ".join(f"{each.path.capitalize()} {each.reason}" for each in err.problems) or err.message)
                return
            finally:
                button.props(remove="loading")
            dialog.close()
            with self._place:  # the dialog is gone, and its button with it
                await self._recorded(event_id)

        with ui.element("div").classes("tf-ends"):
            ui.button("Cancel", on_click=dialog.close).props("flat no-caps")
            button = ui.button(label, on_click=save).props("no-caps unelevated")


def _line(label: str, most: int) -> ui.input:
    return ui.input(label).props(f"outlined dense maxlength={most} autocomplete=off").classes("full-width")


def _area(label: str) -> ui.textarea:
    return ui.textarea(label).props("outlined dense autogrow maxlength=4000").classes("full-width")


def _problem() -> Callable[[str], None]:
    """A line for an error message."""
    label = ui.label("").classes("tf-down tf-break").props("role=alert")
    label.set_visibility(False)

    def say(words_: str) -> None:
        label.text = words_
        label.set_visibility(True)

    return say
