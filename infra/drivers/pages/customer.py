"""Customer: who they are, what they did, why they are at risk; and what staff record about them."""

import asyncio
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from nicegui import ui

from infra.drivers.pages import words
from infra.drivers.pages.customer_acts import Acts
from infra.drivers.pages.customer_parts import show_identifier, show_receipt
from infra.drivers.pages.customer_timeline import Timeline
from infra.drivers.pages.customers import STYLES
from infra.drivers.pages.recent import RECENT
from infra.drivers.pages.services import Services, Viewer
from infra.drivers.pages.shell import chip, connected, empty, on_changes, page, panel, risk_chip, stage_chip, text
from query.people.actions import COMPLAINTS, OpenComplaint, open_complaints
from query.people.cards import name_of
from schemas.errors import Erased, NotFound, StoreUnavailable
from schemas.record import uuid_text
from schemas.roles import ACT, DISCLOSE, ERASE, PERSONAL

NOTED_S: Final = 60.0
RECORDED_S: Final = 10.0  # an event written by staff is shown within this time, or later when it arrives
LACKING: Final = {"missing_rate": "without an exchange rate", "unreadable_amounts": "that could not be read"}
"""What a customer's sums leave out; where nothing else is in one, it is unknown, not zero."""
HEADLINES: Final = ("lifetime_revenue", "lifetime_orders", "average_order", "last_order_at", "revenue_365d")
_FEW: Final = 6  # of a list before "Show all"
Answer = dict[str, Any]


def register(services: Services) -> None:
    """Declare the page."""

    @page(services, "/customers/{profile_id}", title="Customer")
    async def customer(viewer: Viewer, profile_id: str) -> None:
        ui.add_head_html(STYLES)
        try:
            key = UUID(profile_id).bytes
        except ValueError:
            empty("person_off", "No such customer", "There is no customer id in this address.")
            return
        try:
            living, _, _ = await services.run(lambda: services.reading.profiles.standing(key))
        except (Erased, NotFound) as err:
            _gone(err)
            return
        if living != key:  # merged: every id ever given out leads to the current profile
            ui.navigate.to(f"/customers/{uuid_text(living)}")
            return
        await _Customer(services, viewer, key).build()


class _Customer:
    """One open page."""

    def __init__(self, services: Services, viewer: Viewer, key: bytes) -> None:
        self._services = services
        self._viewer = viewer
        self._key = key
        self._personal = viewer.may(PERSONAL)
        self._details: Answer = {}
        self._complaints: list[OpenComplaint] = []
        self._standing: tuple[bytes, int, int] = (key, 0, 0)
        self._whole: set[str] = set()  # lists that are expanded
        self._ended = False
        self._noted_at: float | None = None
        self._place = ui.element("div").style("display: contents")
        self._acts = Acts(services, viewer, key, self._place, self._recorded, self._erased)

    async def build(self) -> None:
        self._body = ui.element("div").classes("tf-stack")
        with self._body:
            self._head = ui.element("div")
            with ui.element("div").classes("tf-two tf-customer"):
                with panel("Timeline", note=self._services.time_zone.replace("_", " "), classes="tf-middle"):
                    timeline = Timeline(self._services, self._viewer, self._key, self._place)
                self._side = ui.element("div").classes("tf-stack tf-side")
        self._timeline = timeline
        try:
            await self._load()
        except (Erased, NotFound) as err:
            self._end(err)
            return
        RECENT.add(self._viewer.secret, self._key)
        if await connected():
            await on_changes(self._services, self._changed)

    async def _load(self) -> None:
        """Read and show everything."""
        profiles, key = self._services.reading.profiles, self._key
        details, page_ = await asyncio.gather(
            self._services.run(lambda: (profiles.standing(key), profiles.details(key, personal=self._personal))),
            self._services.run(self._timeline.read),
        )
        self._standing, self._details = details
        self._complaints = []
        if self._details["computed"].get("open_complaints", 1):
            self._complaints = await self._services.run(self._open_complaints)
        await self._note_view()
        self._timeline.draw(page_)
        self._head.clear()
        with self._head:
            self._header()
        self._draw_side()

    async def _note_view(self) -> None:
        """Audit the view before anything is drawn; at most once a minute while the page stays open and redraws."""
        now = asyncio.get_running_loop().time()
        if self._noted_at is None or now - self._noted_at > NOTED_S:
            await self._services.note(self._viewer, "profile.viewed", self._key)
            self._noted_at = now

    def _open_complaints(self) -> list[OpenComplaint]:
        timeline = self._services.reading.timeline
        found = timeline.page(self._key, None, 200, personal=self._personal, types=COMPLAINTS)
        return open_complaints(found["items"])

    async def _changed(self) -> None:
        """The change feed grew: reread if it concerns this customer."""
        if self._ended:
            return
        profiles, key = self._services.reading.profiles, self._key
        try:
            now = await self._services.run(lambda: profiles.standing(key))
            if now[0] != key:
                ui.navigate.to(f"/customers/{uuid_text(now[0])}")
            elif now != self._standing:
                await self._load()
        except (Erased, NotFound) as err:
            self._end(err)
        except StoreUnavailable:
            return  # keep what is shown; the next change tries again

    async def _recorded(self, event_id: str) -> None:
        """Show what staff wrote as soon as it is decided, without waiting for any other change."""
        reads, profiles, key = self._services.reading.reads, self._services.reading.profiles, self._key
        before, event_key = self._standing, UUID(event_id).bytes

        def there() -> bool:
            return bool(reads.registered([event_key])) and profiles.standing(key) != before

        notice = ui.notification("Recording…", spinner=True, timeout=None, position="bottom")
        loop = asyncio.get_running_loop()
        until = loop.time() + RECORDED_S
        done = False
        try:
            while not done and loop.time() < until:
                done = await self._services.run(there)
                if not done:
                    await asyncio.sleep(0.1)
            if done:
                await self._load()
        except (Erased, NotFound) as err:
            self._end(err)
            return
        except StoreUnavailable:
            done = False
        finally:
            notice.dismiss()
        if not done:
            ui.notify("Saved. It will appear here once it has been processed.", type="warning")
            return
        ui.notify("Recorded", type="positive", position="bottom", timeout=2_000, group=False)

    # --- the end -----------------------------------------------------------------------------------------------------

    def _end(self, err: Erased | NotFound) -> None:
        self._ended = True
        self._body.clear()
        with self._body:
            _gone(err)

    def _erased(self, done: Answer) -> None:
        """Show the receipt and remove everything about the person from the page."""
        self._ended = True
        RECENT.forget(self._key)
        self._details, self._complaints = {}, []
        self._body.clear()
        with self._body, panel("Erased"):
            show_receipt(done, self._services.time_zone)

    # --- the head ----------------------------------------------------------------------------------------------------

    @property
    def _name(self) -> str:
        return (name_of(self._details["traits"]) or "") if self._personal else ""

    def _header(self) -> None:
        details, zone = self._details, self._services.time_zone
        with panel():
            with ui.element("div").classes("tf-who"):
                with ui.element("div").classes("tf-face").props("aria-hidden=true"):
                    letters = "".join(part[0] for part in self._name.split()[:2] if part[0].isalpha()).upper()
                    if letters:
                        ui.label(letters)
                    else:
                        ui.icon("person")
                with ui.element("div").classes("tf-who-text"):
                    with ui.element("div").classes("tf-line"):
                        shown = self._name or f"Customer {details['id'][:8]}"
                        heading = ui.label(words.shortened(shown, 200)).classes("tf-name tf-cut")
                        heading.props("dir=auto role=heading aria-level=2")
                        stage_chip(details["lifecycle"]).tooltip(details["stage"] or "Stage")
                        risk_chip(details["risk"]["level"])
                    with ui.element("div").classes("tf-line tf-muted"):
                        ui.label(f"First seen {words.day(details['first_seen_at'], zone)}")
                        ui.label(f"Last seen {words.moment(details['last_seen_at'], zone)}")
                        ui.label(_many(details["event_count"], "event"))
                self._buttons()
            self._headlines()

    def _headlines(self) -> None:
        computed = self._details["computed"]
        names = [name for name in HEADLINES if name in computed]
        if not names:
            return
        with ui.element("div").classes("tf-facts"):
            for name in names:
                with ui.element("div").classes("tf-fact"):
                    ui.label(words.title(name)).classes("tf-muted")
                    ui.label(self._measured(name, computed[name], short=True)).classes("tf-fact-value tf-cut")
        for lacking, why in LACKING.items():
            if count := self._details.get(lacking):
                ui.label(f"Not in these sums: {_many(count, 'amount')} {why}.").classes("tf-muted")

    def _buttons(self) -> None:
        acts, viewer = self._acts, self._viewer
        with ui.element("div").classes("tf-acts"):
            if viewer.may(ACT):
                _button("Note", "sticky_note_2", acts.note)
                _button("Call", "call", acts.call)
                _button("Complaint", "report", acts.complaint)
            if viewer.may(DISCLOSE):
                _button("Export data", "download", acts.export)
            if viewer.may(ERASE):
                _button("Erase", "delete_forever", lambda: acts.erase(self._name)).props("color=negative")

    # --- the side ----------------------------------------------------------------------------------------------------

    def _draw_side(self) -> None:
        self._side.clear()
        with self._side:
            self._risk()
            self._identifiers()
            self._traits()
            self._segments()
            self._measures()

    def _risk(self) -> None:
        details = self._details
        points = sum(reason["points"] for reason in details["reasons"])
        with (
            panel("Risk of leaving", note=_many(points, "point"), classes="tf-first"),
            ui.element("div").classes("tf-list"),
        ):
            for reason in sorted(details["reasons"], key=lambda each: -each["points"]):
                with ui.element("div").classes("tf-item"):
                    ui.label(f"+{reason['points']}").classes("tf-points")
                    ui.label(reason["description"] or words.title(reason["code"])).classes("tf-item-text tf-break")
            if not details["reasons"]:
                with ui.element("div").classes("tf-item"):
                    ui.icon("check_circle")
                    ui.label("No sign of it.").classes("tf-item-text")
            for complaint in self._complaints:
                self._complaint(complaint)

    def _complaint(self, complaint: OpenComplaint) -> None:
        with ui.element("div").classes("tf-item"):
            ui.icon("report")
            with ui.element("div").classes("tf-item-text"):
                topic = words.title(complaint.topic) if complaint.topic else complaint.complaint_id
                ui.label(f"Open complaint: {words.shortened(topic, 160)}").classes("tf-break").props("dir=auto")
                since = f"since {words.day(complaint.opened_at, self._services.time_zone)}"
                ui.label(f"{since}, escalated" if complaint.escalated else since).classes("tf-muted")
            if self._viewer.may(ACT):
                resolve = ui.button("Resolve", on_click=lambda: self._acts.resolve(complaint))
                resolve.props("outline no-caps dense padding='2px 10px'")

    def _identifiers(self) -> None:
        found = self._details["identifiers"]
        with panel("Identifiers", note="" if self._personal else "masked"), ui.element("div").classes("tf-list"):
            for each in self._few("identifiers", found):
                show_identifier(each)
            self._rest("identifiers", found)

    def _traits(self) -> None:
        origins = self._details["trait_details"]
        with panel("Details"), ui.element("div").classes("tf-list"):
            for name in self._few("traits", sorted(origins)):
                self._trait(name, origins[name])
            self._rest("traits", sorted(origins))
            if not origins:
                ui.label("No details yet.").classes("tf-muted")
            if self._viewer.may(ACT):
                add = ui.button("Add a detail", icon="add", on_click=lambda: self._acts.correct("", None, None))
                add.props("flat no-caps dense").classes("self-start")

    def _trait(self, name: str, origin: Answer) -> None:
        zone, known = self._services.time_zone, name in self._details["traits"]
        value = self._details["traits"].get(name)
        with ui.element("div").classes("tf-item"):
            with ui.element("div").classes("tf-item-text"):
                text(words.title(name), "tf-muted")
                text(words.value(value, zone=zone) if known else words.MASKED, "tf-strong")
                source = (
                    origin["by"] or "staff"
                    if origin["corrected"]
                    else words.title(origin["source"] or "an erased event")
                )
                verb = "corrected by" if origin["corrected"] else "from"
                text(f"{verb} {source}, {words.moment(origin['at'], zone)}", "tf-muted")
            if self._viewer.may(ACT):
                if origin["corrected"]:
                    undo = ui.button(icon="undo", on_click=lambda: self._acts.withdraw(name))
                    undo.props('flat round dense size=sm aria-label="Undo the correction"').tooltip("Undo")
                edit = ui.button(icon="edit", on_click=lambda: self._acts.correct(name, value, origin["type"]))
                edit.props('flat round dense size=sm aria-label="Correct"').tooltip("Correct")

    def _segments(self) -> None:
        found = self._details["explained"]
        with panel("Segments", note=str(len(found)) if found else ""), ui.element("div").classes("tf-list"):
            for each in self._few("segments", found):
                with ui.element("div").classes("tf-segment"):
                    ui.link(words.title(each["name"]), f"/segments/{each['name']}").classes("tf-break")
                    ui.label(each["sentence"]).classes("tf-break")
                    with ui.element("div").classes("tf-values"):
                        for name, value in each["values"].items():
                            sealed = name in self._details["trait_details"] and value is None
                            shown = words.MASKED if sealed else self._measured(name, value)
                            chip(f"{words.title(name)}: {shown}"[:200])
            self._rest("segments", found)
            if not found:
                ui.label("In no segment.").classes("tf-muted")

    def _measures(self) -> None:
        details = self._details
        known = [name for name, value in details["computed"].items() if value is not None]
        telling = [name for name in known if details["computed"][name] not in (0, "0.0000", "0")]
        shown = known if "measures" in self._whole else telling
        with panel("Numbers"):
            with ui.element("div").classes("tf-numbers"):
                for name in shown:
                    about = details["measures"].get(name, {}).get("description", "")
                    ui.label(words.title(name)).classes("tf-break").tooltip(about or name)
                    ui.label(self._measured(name, details["computed"][name])).classes("tf-number tf-strong tf-right")
            if len(shown) < len(known):
                self._show_all("measures", f"Show {len(known) - len(shown)} with value zero")

    def _measured(self, name: str, value: Any, *, short: bool = False) -> str:
        """A value with its unit; `short` shows only the day of a time."""
        zone, currency = self._services.time_zone, self._services.currency
        unit = self._details["measures"].get(name, {}).get("unit")
        if value is None:
            return "–"
        if name == "lifecycle":
            return words.title(value)
        if unit == "money":
            partly = any(self._details.get(lacking) for lacking in LACKING)
            return "unknown" if partly and not Decimal(value) else words.money(value, currency)
        if unit == "days":
            return _many(value, "day")
        if unit == "time":
            return words.day(value, zone) if short else words.moment(value, zone)
        return words.value(value, zone=zone)

    def _few(self, key: str, items: Sequence[Any]) -> Sequence[Any]:
        """The first items of a long list, unless it is expanded."""
        return items if key in self._whole or len(items) <= _FEW + 1 else items[:_FEW]

    def _rest(self, key: str, items: Sequence[Any]) -> None:
        """After the `_few`: a button that shows all."""
        if len(self._few(key, items)) < len(items):
            self._show_all(key, f"Show all {len(items)}")

    def _show_all(self, key: str, label: str) -> None:
        def whole() -> None:
            self._whole.add(key)
            self._draw_side()

        ui.button(label, on_click=whole).props("flat no-caps dense").classes("self-start")


def _gone(err: Erased | NotFound) -> None:
    if isinstance(err, Erased):
        empty("no_accounts", "Erased", "This person's data has been erased. Nothing about them is stored any more.")
    else:
        empty("person_off", "No such customer", "No customer has this id, or ever had it.")


def _many(number: int, word: str) -> str:
    return f"{words.count(number)} {word}{'' if number == 1 else 's'}"


def _button(label: str, icon: str, work: Callable[[], None]) -> ui.button:
    return ui.button(label, icon=icon, on_click=work).props("outline no-caps dense padding='4px 12px'")
