"""Sources: who may send. Write keys, snippets to paste, what came from each."""

from datetime import datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

from nicegui import context, ui

from infra.drivers.ui import words
from infra.drivers.ui.services import Services, Viewer
from infra.drivers.ui.shell import chip, code, connected, empty, page, panel
from schemas.errors import TouchfoldError
from schemas.roles import SOURCES

_ROW: Final = "grid-template-columns: minmax(0, 2fr) 90px 90px minmax(0, 2fr) 190px"
SNIPPETS: Final = {
    "curl": """curl -u {key}: {url}/v1/track -H 'Content-Type: application/json' -d '{{
  "userId": "u-1", "event": "Order Completed",
  "properties": {{"order_id": "o-1", "revenue": 42.10, "currency": "{currency}"}}
}}'""",
    "Python": """# pip install segment-analytics-python
import segment.analytics as analytics

analytics.write_key = "{key}"
analytics.host = "{url}"
analytics.track("u-1", "Order Completed", {{"order_id": "o-1", "revenue": 42.10, "currency": "{currency}"}})
analytics.flush()""",
    "Node": """// npm install @segment/analytics-node
import {{ Analytics }} from "@segment/analytics-node";

const analytics = new Analytics({{ writeKey: "{key}", host: "{url}" }});
analytics.track({{
  userId: "u-1", event: "Order Completed",
  properties: {{ order_id: "o-1", revenue: 42.10, currency: "{currency}" }},
}});
await analytics.closeAndFlush();""",
    "Browser": """<script>
  function touchfold(call, body) {{
    body.anonymousId = localStorage.tf_id = localStorage.tf_id || crypto.randomUUID();
    body.writeKey = "{key}";
    body.context = {{ page: {{ path: location.pathname, url: location.href }} }};
    navigator.sendBeacon("{url}/v1/" + call, JSON.stringify(body));
  }}
  touchfold("page", {{ properties: {{ title: document.title, path: location.pathname }} }});
</script>""",
}


def register(services: Services) -> None:
    """Declare the page."""

    @page(services, "/sources", title="Sources", right=SOURCES)
    async def sources(viewer: Viewer) -> None:
        await _Sources(services, viewer).build()


class _Sources:
    def __init__(self, services: Services, viewer: Viewer) -> None:
        self._services = services
        self._viewer = viewer
        self._counts: dict[str, tuple[int, str | None]] = {}
        request = context.client.request
        scheme = request.headers.get("x-forwarded-proto", "http")
        self._url = f"{scheme}://{request.headers.get('host', '127.0.0.1:8700')}"

    async def build(self) -> None:
        with panel("Sources", note="a source is one system that sends: a shop, a till, a call centre"):
            with ui.element("div").classes("tf-line"):
                self._name = ui.input(placeholder="Name of a new source, such as web").props(
                    "dense outlined maxlength=64"
                )
                self._name.style("width: 300px").on("keydown.enter", self._create)
                ui.button("Create", icon="add", on_click=self._create).props("no-caps unelevated")
            self._list = ui.element("div").classes("tf-table")
        self._shown = ui.element("div").classes("tf-stack")
        with self._shown, panel("Snippets", note="put your write key where WRITE_KEY stands"):
            self._snippets("WRITE_KEY")
        await self._draw()
        if await connected():
            await self._count()

    async def _draw(self) -> None:
        rows = await self._services.run(self._services.sources.list)
        self._list.clear()
        with self._list:
            if not rows:
                empty("input", "No sources yet", "Create one; it has a write key of its own, shown once.")
                return
            with ui.element("div").classes("tf-row tf-head").style(_ROW):
                for label in ("Name", "Keys", "Today", "Last event", ""):
                    ui.label(label)
            for row in rows:
                with ui.element("div").classes("tf-row").style(_ROW):
                    ui.label(row.name).classes("tf-cut tf-strong").props("dir=auto")
                    with ui.element("div"):
                        chip(f"{row.keys} key{'' if row.keys == 1 else 's'}", "green" if row.keys else "grey")
                    count, last = self._counts.get(row.name, (None, None))
                    ui.label("…" if count is None else words.count(count)).classes("tf-number")
                    ui.label(words.moment(last, self._services.time_zone) if last else "–").classes("tf-muted tf-cut")
                    with ui.element("div").classes("tf-line"):
                        for label, work in (("New key", self._rotate), ("Revoke", self._revoke)):
                            button = ui.button(label, on_click=lambda work=work, name=row.name: work(name))
                            button.props("flat no-caps dense")

    async def _count(self) -> None:
        """Events of each source today, by SQL over the log."""
        zone = ZoneInfo(self._services.time_zone)
        now = self._services.session.clock.now().astimezone(zone)
        midnight = datetime.combine(now.date(), datetime.min.time(), zone).timestamp()
        statement = (
            "select source, count(*) filter (where received_at >= to_timestamp("
            f"{midnight:.0f})), max(received_at) from events group by 1"
        )
        try:
            found = await self._services.run(lambda: self._services.run_sql(statement, 10_000))
        except TouchfoldError:
            return
        names: list[Any] = [row.name for row in await self._services.run(self._services.sources.list)]
        self._counts = dict.fromkeys(names, (0, None))
        self._counts |= {source: (int(count), str(last)) for source, count, last in found["rows"]}
        await self._draw()

    async def _create(self) -> None:
        name = (self._name.value or "").strip()
        await self._keyed(name, lambda now: self._services.sources.create(name, now), "source.created")

    async def _rotate(self, name: str) -> None:
        await self._keyed(name, lambda now: self._services.sources.rotate(name, now), "source.rotated")

    async def _keyed(self, name: str, work: Any, action: str) -> None:
        now = self._services.session.door_clock.now()
        try:
            await self._allowed()
            key = await self._services.run(lambda: work(now))
        except TouchfoldError as err:
            ui.notify(err.message, type="negative", position="bottom")
            return
        self._services.audit.note(self._viewer.name, self._viewer.role, action, None, {"source": name})
        self._name.value = ""
        self._shown.clear()
        with self._shown, panel(f"The write key of {name}", note="it is not shown again"):
            code(key)
            self._snippets(key)
        await self._draw()

    async def _revoke(self, name: str) -> None:
        now = self._services.session.door_clock.now()
        try:
            await self._allowed()
            await self._services.run(lambda: self._services.sources.revoke(name, now))
        except TouchfoldError as err:
            ui.notify(err.message, type="negative", position="bottom")
            return
        self._services.audit.note(self._viewer.name, self._viewer.role, "source.revoked", None, {"source": name})
        ui.notify(f"The keys of {name} end within five seconds", position="bottom")
        await self._draw()

    async def _allowed(self) -> None:
        if not await self._services.still(self._viewer, SOURCES):
            raise TouchfoldError("Your session has ended, or your role may not do this any more.")

    def _snippets(self, key: str) -> None:
        with ui.tabs().props("dense no-caps align=left") as tabs:
            for name in SNIPPETS:
                ui.tab(name)
        with ui.tab_panels(tabs, value="curl").classes("full-width").style("background: transparent"):
            for name, template in SNIPPETS.items():
                with ui.tab_panel(name).style("padding: 8px 0"):
                    code(template.format(key=key, url=self._url, currency=self._services.currency))
