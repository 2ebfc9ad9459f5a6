"""Team: people who sign in, and the audit log of who looked at whom."""

from typing import Any, Final

from nicegui import context, ui

from infra.drivers.ui import words
from infra.drivers.ui.services import Services, Viewer
from infra.drivers.ui.shell import chip, code, page, panel, text
from schemas.errors import TouchfoldError
from schemas.roles import PEOPLE, ROLES

_ROW: Final = "grid-template-columns: minmax(0, 2fr) 150px 110px minmax(0, 2fr) 190px"
_AUDIT: Final = "grid-template-columns: 170px minmax(0, 2fr) 100px minmax(0, 2fr) minmax(0, 2fr)"
_MEANS: Final = {
    "admin": "everything", "marketer": "segments, exports, customers", "analyst": "SQL and figures; persons are masked",
    "staff": "looks customers up and writes notes, calls, complaints, corrections",
    "privacy": "erasure and the audit log", "service": "other systems, by token",
}  # fmt: skip


def register(services: Services) -> None:
    """Declare the page."""

    @page(services, "/team", title="Team", right=PEOPLE)
    async def team(viewer: Viewer) -> None:
        await _Team(services, viewer).build()


class _Team:
    def __init__(self, services: Services, viewer: Viewer) -> None:
        self._services = services
        self._viewer = viewer
        request = context.client.request
        self._url = f"{request.headers.get('x-forwarded-proto', 'http')}://{request.headers.get('host', '')}"

    async def build(self) -> None:
        with panel("People"):
            with ui.element("div").classes("tf-line"):
                self._name = ui.input(placeholder="Sign-in name").props("dense outlined maxlength=64")
                options = {role: f"{words.title(role)}: {_MEANS[role]}" for role in ROLES if role != "service"}
                self._role = (
                    ui.select(options, value="staff").props("dense outlined options-dense").style("min-width: 280px")
                )
                ui.button("Invite", icon="person_add", on_click=self._invite).props("no-caps unelevated")
            self._link = ui.element("div")
            self._list = ui.element("div").classes("tf-table")
        with panel("Audit log", note="the latest; touchfold audit --verify proves that it is whole"):
            self._audit = ui.element("div").classes("tf-table")
        await self._draw()

    async def _draw(self) -> None:
        services = self._services

        def look() -> tuple[list[Any], list[Any]]:
            return services.people.overview(), services.audit.page(limit=50)

        people, entries = await services.run(look)
        now = services.session.door_clock.now()
        self._list.clear()
        with self._list:
            for row in people:
                with ui.element("div").classes("tf-row").style(_ROW):
                    ui.label(row.name).classes("tf-cut tf-strong").props("dir=auto")
                    picker = ui.select(list(ROLES), value=row.role).props(
                        'dense outlined options-dense aria-label="Role"'
                    )
                    picker.on_value_change(lambda event, name=row.name: self._set_role(name, event.value))
                    with ui.element("div"):
                        state = "disabled" if row.disabled_at else "active" if row.has_password else "invited"
                        chip(state, {"active": "green", "invited": "blue"}.get(state, "grey"))
                    ui.label(f"seen {words.ago(row.seen_at, now)}").classes("tf-muted tf-cut")
                    with ui.element("div").classes("tf-line"):
                        for label, work in (("New link", self._new_link), ("Disable", self._disable)):
                            button = ui.button(label, on_click=lambda work=work, name=row.name: work(name))
                            button.props("flat no-caps dense")
        self._audit.clear()
        with self._audit:
            for entry in entries:
                with ui.element("div").classes("tf-row").style(_AUDIT):
                    ui.label(words.moment(entry.at, services.time_zone, seconds=True)).classes("tf-muted tf-number")
                    text(entry.who)
                    ui.label(entry.role).classes("tf-muted")
                    ui.label(entry.action).classes("tf-cut")
                    if entry.profile_id:
                        ui.link(entry.profile_id[:8], f"/customers/{entry.profile_id}")
                    else:
                        text(", ".join(f"{key} {value}" for key, value in entry.detail.items()), "tf-muted")

    async def _try(self, action: str, name: str, work: Any) -> Any:
        try:
            if not await self._services.still(self._viewer, PEOPLE):
                raise TouchfoldError("Your session has ended, or your role may not do this any more.")
            found = await self._services.run(work)
        except TouchfoldError as err:
            ui.notify(err.message, type="negative", position="bottom")
            return None
        self._services.audit.note(self._viewer.name, self._viewer.role, action, None, {"person": name})
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
            ui.label(f"Give this link to {name}: it sets their password, works once, for 24 hours.").classes("tf-muted")
            code(f"{self._url}/welcome/{secret}")

    async def _set_role(self, name: str, role: str) -> None:
        await self._try("person.role_set", name, lambda: self._services.people.set_role(name, role))
        await self._draw()

    async def _disable(self, name: str) -> None:
        now = self._services.session.door_clock.now()
        await self._try("person.disabled", name, lambda: self._services.people.disable(name, now))
        await self._draw()
