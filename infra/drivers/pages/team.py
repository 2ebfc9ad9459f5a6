"""Team: people who sign in."""

from datetime import datetime
from typing import Any, Final

from nicegui import ui

from infra.adapters.postgres.people import PersonRow
from infra.drivers.pages import words
from infra.drivers.pages.services import Services, Viewer
from infra.drivers.pages.shell import STYLES_OF_OPERATORS, ask, chip, code, our_url, page, panel
from schemas.errors import TouchfoldError
from schemas.roles import PEOPLE, ROLES

_MEANS: Final = {
    "admin": "everything", "marketer": "segments, exports, customers",
    "analyst": "SQL, lists and figures; sees only ids and cannot search for people",
    "staff": "looks customers up and writes notes, calls, complaints, corrections",
    "privacy": "erasure and the audit log", "service": "other systems, by token",
}  # fmt: skip


def register(services: Services) -> None:
    """Declare the page."""

    @page(services, "/team", title="Team", right=PEOPLE)
    async def team(viewer: Viewer) -> None:
        ui.add_head_html(STYLES_OF_OPERATORS)
        await _Team(services, viewer).build()


class _Team:
    def __init__(self, services: Services, viewer: Viewer) -> None:
        self._services = services
        self._viewer = viewer
        self._url = our_url()

    async def build(self) -> None:
        with panel("People", note="who may sign in here"):
            with ui.element("div").classes("tf-form"):
                self._name = ui.input(placeholder="Sign-in name")
                self._name.props('dense outlined maxlength=64 autocapitalize=none aria-label="Sign-in name"')
                self._name.on("keydown.enter", self._invite, args=[])
                choices = {role: words.title(role) for role in ROLES if role != "service"}
                self._role = ui.select(choices, value="staff", on_change=self._explain).classes("tf-pick")
                self._role.props('dense outlined options-dense aria-label="Role of the new person"')
                ui.button("Invite", icon="person_add", on_click=self._invite).props("no-caps unelevated")
                self._means = ui.label(_MEANS["staff"]).classes("tf-muted")
            self._link = ui.element("div").classes("tf-stack")
            self._list = ui.element("div").classes("tf-table")
        await self._draw()

    def _explain(self) -> None:
        self._means.text = _MEANS[self._role.value]

    async def _draw(self) -> None:
        services = self._services
        people = await services.run(services.people.overview)
        now = services.session.door_clock.now()
        self._list.clear()
        with self._list:
            with ui.element("div").classes("tf-row tf-head tf-person"):
                for label in ("Name", "Role", "State", "Last seen", ""):
                    ui.label(label)
            for row in people:
                self._person(row, now)

    def _person(self, row: PersonRow, now: datetime) -> None:
        with ui.element("div").classes("tf-row tf-person"):
            ui.label(row.name).classes("tf-cut tf-strong").props("dir=auto")
            picker = ui.select({role: words.title(role) for role in ROLES}, value=row.role)
            picker.props(f'dense outlined options-dense aria-label="Role of {row.name}"')
            picker.on_value_change(lambda event: self._set_role(row.name, event.value))
            picker.set_enabled(row.disabled_at is None)
            with ui.element("div"):
                state = "disabled" if row.disabled_at else "active" if row.has_password else "invited"
                chip(state, {"active": "green", "invited": "blue"}.get(state, "grey"))
            ui.label(words.ago(row.seen_at, now)).classes("tf-muted tf-cut")
            with ui.element("div").classes("tf-acts"):
                if row.disabled_at is None:
                    ui.button("New link", on_click=lambda: self._new_link(row.name)).props("flat no-caps dense")
                    ui.button("Disable", on_click=lambda: self._disable(row.name)).props("flat no-caps dense")

    async def _try(self, action: str, name: str, work: Any) -> Any:
        try:
            if not await self._services.still(self._viewer, PEOPLE):
                raise TouchfoldError("Your session has ended, or your role may not do this any more.")
            found = await self._services.run(work)
            await self._services.note(self._viewer, action, person=name)
        except TouchfoldError as err:
            ui.notify(err.message, type="negative", position="bottom")
            return None
        return found or True

    async def _invite(self) -> None:
        name, role = (self._name.value or "").strip(), self._role.value
        now = self._services.session.door_clock.now()
        secret = await self._try("person.invited", name, lambda: self._services.people.invite(name, role, now))
        if secret:
            self._name.value = ""
            self._show_link(name, secret)
            await self._draw()

    async def _new_link(self, name: str) -> None:
        now = self._services.session.door_clock.now()
        secret = await self._try("person.linked", name, lambda: self._services.people.link(name, now))
        if secret:
            self._show_link(name, secret)

    def _show_link(self, name: str, secret: str) -> None:
        self._link.clear()
        with self._link:
            ui.label(f"Give this link to {name} to set a password. It works once, within 24 hours.").classes("tf-muted")
            code(f"{self._url}/welcome/{secret}")

    async def _set_role(self, name: str, role: str) -> None:
        await self._try("person.role_set", name, lambda: self._services.people.set_role(name, role))
        await self._draw()

    async def _disable(self, name: str) -> None:
        if await ask(f"Disable {name}?", "Their sessions end immediately and they can no longer sign in.", "Disable"):
            now = self._services.session.door_clock.now()
            await self._try("person.disabled", name, lambda: self._services.people.disable(name, now))
            await self._draw()
