"""SDKs as they come from their registries: what they were told is in the log, times included, once each.

`story.json` is what each is told, `STORY` what must be in the log then. Browser SDKs run in Chromium, on a site of
another origin than the door's.
"""

import json
import subprocess
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from infra.drivers.pages.snippets import snippet
from tests.sdks.table import Table
from tests.sdks.world import SENDERS, Event, Site, World, ended, sdks, sender, until

TOLD: Final = json.loads((Path(__file__).parent / "story.json").read_text())
SERVERS: Final = ("segment_node.mjs", "rudder_node.mjs", "segment_python.py", "rudder_python.py")
BROWSERS: Final = ("segment_snippet", "our_snippet", "segment_npm", "rudder_js", "jitsu_js")
CALLS: Final = {  # what an SDK has no call for is not sent
    "rudder_js": ("identify", "track", "page", "group", "alias"),
    "jitsu_js": ("identify", "track", "page", "group"),
    "jitsu_node.mjs": ("identify", "track", "page", "group"),
}
ALL: Final = ("identify", "track", "page", "screen", "group", "alias")


class Wanted(NamedTuple):
    """What the log must hold of one call. `at`: as the caller gave it."""

    type: str
    name: str | None
    ids: dict[str, list[str]]
    properties: dict[str, Any]
    traits: dict[str, Any]
    at: datetime


def at(second: int, ms: int) -> datetime:
    return datetime(2026, 2, 3, 4, 5, second, ms * 1_000, UTC)


ADA: Final = {"user_id": ["ada-1"]}
STORY: Final = {  # amounts of money are kept as decimal texts
    "identify": Wanted(
        "profile.identified", None, {"user_id": ["ada-1"], "email": ["ada@shop.example"]}, {},
        {"email": "ada@shop.example", "plan": "pro", "address": {"city": "Turin"}}, at(1, 123),
    ),
    "track": Wanted(
        "purchase.completed", "Order Completed", ADA,
        {
            "order_id": "o-77", "revenue": "42.1", "currency": "EUR", "coupon": "SPRING", "gift": True,
            "note": "Grüße 🫖",
            "products": [
                {"product_id": "p-1", "name": "Kettle", "price": "20.05", "quantity": 2},
                {"product_id": "p-2", "name": "Tea", "price": "2", "quantity": 1},
            ],
        },
        {}, at(2, 234),
    ),
    "page": Wanted("web.page_viewed", "Pricing", ADA, {"variant": "b", "category": "Docs"}, {}, at(3, 345)),
    "screen": Wanted("app.screen_viewed", "Cart", ADA, {"lines": 3}, {}, at(4, 456)),
    "group": Wanted("group.joined", None, ADA, {"group_id": "acme", "traits": {"seats": 12}}, {}, at(5, 567)),
    "alias": Wanted("identity.aliased", None, ADA, {}, {}, at(6, 678)),
}  # fmt: skip
DROPPED: Final = ("path", "url", "referrer", "search", "title", "name", "width", "height", "hash", "initial_referrer",
                  "initial_referring_domain", "referring_domain", "tab_url", "autotrack")  # fmt: skip
"""What browser SDKs add to the properties of a page."""


class Shopper:
    """A page of the site with an SDK, in a browser context of its own; the browser finds nobody but site and door."""

    def __init__(self, browser: Browser, site: Site, world: World, which: str, key: str, **given: object) -> None:
        self.sent: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.said: list[str] = []
        self.strangers: list[str] = []
        self.context: BrowserContext = browser.new_context()
        self._ours = (world.url, site.url)
        self.page: Page = self.context.new_page()
        self.page.on("request", self._note)
        self.page.on("console", lambda said: self.said.append(said.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.goto(site.page(f"{which}-{key[-6:]}", _head(site, world, which, key, given)))
        self.page.wait_for_function("window.calls")

    def _note(self, request: Any) -> None:
        if not request.url.startswith(self._ours):
            self.strangers.append(request.url)
        if request.method == "POST" and request.post_data:
            self.paths.append(request.url.removeprefix(self._ours[0]))
            body = json.loads(request.post_data)
            self.sent += body.get("batch", [body])

    def close(self) -> None:
        self.context.close()


def _head(site: Site, world: World, which: str, key: str, given: dict[str, object]) -> str:
    """The scripts of a page: what was given, and the SDK as its documentation says to load it."""
    said = f"<script>window.given = {json.dumps({'door': world.url, 'key': key, **given})}</script>"
    if which == "segment_snippet":  # Segment's own, rendered by Segment's package, with the host changed
        host = world.url.removeprefix("http://")
        code = f"console.log(require('@segment/snippet').min({{apiKey: '{key}', host: '{host}', page: false}}))"
        done = subprocess.run(["node", "-e", code], cwd=sdks(), capture_output=True, text=True, check=True)
        assert f"https://{host}/analytics.js/v1/" in done.stdout.replace('"+', "").replace('+"', "")
        head = f"<script>{done.stdout.replace('https://', 'http://')}</script>"
        return said + head + _calls()
    if which == "our_snippet":
        return said + snippet("Website: HTML", key, world.url, "EUR") + _calls()
    return said + site.bundle(SENDERS / f"{which}.js")


def _calls() -> str:
    scripts = (Path(__file__).parent / "senders" / name for name in ("browser_common.js", "segment_calls.js"))
    code = "".join(script.read_text() for script in scripts)
    return f"<script>{code}window.calls = window.segmentCalls(() => window.analytics)</script>"


def check(found: list[Event], which: str, *, exact: bool) -> None:
    """That the log holds the story; of a browser's events more may be in properties of pages and in identifiers."""
    calls = CALLS.get(which, ALL)
    by_type = {event.type: event for event in found}
    assert sorted(by_type) == sorted(STORY[call].type for call in calls)
    assert len({event.message_id for event in found} - {None}) == len(found) == len(calls)
    for call in calls:
        event, wanted = by_type[STORY[call].type], STORY[call]
        properties = {name: value for name, value in event.properties.items() if exact or name not in DROPPED}
        assert (event.name, properties) == (wanted.name, wanted.properties)
        assert event.traits == wanted.traits
        if call == "alias":  # ada-0 is an anonymous id or a user's, whichever is known
            assert {"ada-0", "ada-1"} <= {value for values in event.ids.values() for value in values}
        else:
            ids = {kind: event.ids.get(kind) for kind in wanted.ids}
            assert (event.ids if exact else ids) == wanted.ids
        if "jitsu" not in which:  # it has no way to say when
            assert (event.occurred_at, event.original_at) == (wanted.at, wanted.at)


# --- the story --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", SERVERS)
def test_what_a_server_sdk_was_told_is_in_the_log(world: World, table: Table, which: str) -> None:
    key = world.source(which)
    ended(sender(which, world, key))
    check(world.events(which), which, exact=True)
    assert world.refused(which) == []
    table.told(which, ALL)


@pytest.mark.parametrize("which", BROWSERS)
def test_what_a_browser_sdk_was_told_is_in_the_log(
    browser: Browser, site: Site, world: World, table: Table, which: str
) -> None:
    key = world.source(which)
    shopper = Shopper(browser, site, world, which, key)
    calls = CALLS.get(which, ALL)
    shopper.page.evaluate("story => window.story(story)", TOLD)
    first = which == "our_snippet"  # it sends the page's view by itself
    found = world.wait_for(which, len(calls) + first)
    shopper.close()
    if first:
        views = sorted((each for each in found if each.type == "web.page_viewed"), key=lambda each: each.occurred_at)
        assert views[-1].properties["url"].startswith(site.url)
        found.remove(views[-1])
        shopper.sent = [each for each in shopper.sent if each["messageId"] != views[-1].message_id]
    check(found, which, exact=False)
    assert_as_sent(found, shopper.sent)
    assert world.refused(which) == []
    assert shopper.strangers == []  # nothing was asked of the SDK's maker
    table.told(which, calls)


def assert_as_sent(found: list[Event], sent: list[dict[str, Any]]) -> None:
    """That the log agrees with what went over the wire, whoever made it: ids, times, properties, page."""
    by_id = {each["messageId"]: each for each in sent}
    assert len(by_id) == len(found)
    for event in found:
        item = by_id[event.message_id]
        when = datetime.fromisoformat(item.get("originalTimestamp") or item["timestamp"])
        assert (event.occurred_at, event.original_at) == (when, when)
        if item["type"] in ("track", "screen"):
            assert event.properties == _kept(item["properties"])
        if item.get("anonymousId"):
            assert item["anonymousId"] in event.ids["anonymous_id"]
        assert event.context["library"] == item["context"]["library"]
        if "page" in item["context"]:
            assert event.context["page"] == item["context"]["page"]


def _kept(value: Any) -> Any:
    """As the log keeps what was sent: amounts as decimal texts."""
    if isinstance(value, dict):
        return {name: str(each) if name in ("revenue", "price") else _kept(each) for name, each in value.items()}
    return [_kept(each) for each in value] if isinstance(value, list) else value


def test_analytics_next_in_batches_is_in_the_log(browser: Browser, site: Site, world: World) -> None:
    key = world.source("batches")
    shopper = Shopper(browser, site, world, "segment_npm", key, batching=True)
    shopper.page.evaluate("story => window.story(story)", TOLD)
    found = world.wait_for("batches", len(ALL))
    shopper.close()
    check(found, "segment_npm", exact=False)
    assert_as_sent(found, shopper.sent)
    assert set(shopper.paths) == {"/v1/b"}


def test_jitsus_script_is_served_and_sends(browser: Browser, site: Site, world: World) -> None:
    key = world.source("jitsu_html")
    page = browser.new_page()
    page.goto(site.page("jitsu", f'<script async src="{world.url}/p.js" data-write-key="touchfold:{key}"></script>'))
    page.wait_for_function("window.jitsu")
    page.evaluate("jitsu.track('Bell Rung', {order_id: 'o-5'})")
    found = {event.name or event.type: event for event in world.wait_for("jitsu_html", 2)}
    page.close()
    assert found["Bell Rung"].properties == {"order_id": "o-5"}
    assert found["web.page_viewed"].context["page"]["url"].startswith(site.url)


def test_a_link_that_names_its_visitor_loads_the_part_that_reads_it(browser: Browser, site: Site, world: World) -> None:
    key = world.source("link")
    shopper = Shopper(browser, site, world, "our_snippet", key)
    shopper.page.goto(
        f"{shopper.page.url}?ajs_uid=ada-9&ajs_trait_plan=pro&ajs_event=Mail+Clicked&ajs_prop_mail=spring"
    )
    found = {event.name or event.type: event for event in world.wait_for("link", 4)}  # and two views
    shopper.close()
    assert found["profile.identified"].traits == {"plan": "pro"}
    assert found["Mail Clicked"].ids["user_id"] == ["ada-9"]
    assert found["Mail Clicked"].properties == {"mail": "spring"}
    assert shopper.strangers == []


def test_jitsu_on_a_server_is_in_the_log(world: World, table: Table) -> None:
    key = world.source("jitsu_node")
    began = datetime.now(UTC)
    assert ended(sender("jitsu_node.mjs", world, key)).split()[0] == "4"
    found = world.events("jitsu_node")
    check(found, "jitsu_node.mjs", exact=False)
    assert all(began - timedelta(seconds=1) < each.occurred_at <= datetime.now(UTC) for each in found)
    table.told("jitsu_node.mjs", CALLS["jitsu_node.mjs"])


def test_rudders_beacons_arrive_when_the_page_is_left(browser: Browser, site: Site, world: World) -> None:
    key = world.source("beacon")
    shopper = Shopper(browser, site, world, "rudder_js", key, beacon=True)
    shopper.page.evaluate("window.started")
    shopper.page.evaluate("window.calls.track({event: 'Left', properties: {order_id: 'o-9'}})")
    shopper.page.goto("about:blank")
    (event,) = world.wait_for("beacon", 1)
    shopper.close()
    assert shopper.paths == []  # Playwright sees every request but a beacon
    assert (event.name, event.properties) == ("Left", {"order_id": "o-9"})


@pytest.mark.parametrize(
    ("which", "says"),
    [
        ("segment_snippet", "invalid_write_key"),
        ("segment_npm", "the write key is unknown"),
        ("rudder_js", "400"),
        ("jitsu_js", "invalid_write_key"),
    ],
)
def test_a_wrong_key_is_told_in_the_browsers_console(
    browser: Browser, site: Site, world: World, which: str, says: str
) -> None:
    shopper = Shopper(browser, site, world, which, "wk_unknown")
    shopper.page.evaluate("void window.calls.track({event: 'Lost', properties: {}})")
    until(lambda: any(says in each for each in [*shopper.said, *_ticked(shopper)]), f"{says} in {shopper.said}")
    shopper.close()


def _ticked(shopper: Shopper) -> list[str]:
    shopper.page.evaluate("1")  # lets Playwright deliver what the console said
    return []


# --- a server that is killed ------------------------------------------------------------------------------------------

EVERY_MS: Final = 250


@pytest.mark.timeout(600)
def test_a_server_killed_in_the_middle_loses_and_doubles_nothing(
    browser: Browser, site: Site, world: World, table: Table, tmp_path: Path
) -> None:
    """All SDKs at once. Jitsu's sends each event once: of its events exactly those count that were acknowledged."""
    names = {name: f"kill-{name}" for name in (*SERVERS, *BROWSERS, "jitsu_node.mjs")}
    keys = {name: world.source(source) for name, source in names.items()}
    given = {"STOP": str(tmp_path / "enough"), "EVERY_MS": str(EVERY_MS)}
    shoppers = {name: Shopper(browser, site, world, name, keys[name]) for name in BROWSERS}
    running = {name: sender(name, world, keys[name], **given) for name in names if name not in shoppers}
    for shopper in shoppers.values():
        shopper.page.evaluate(f"void (window.done = window.stream({EVERY_MS}))")
    until(lambda: all(world.counts()[source] > 3 for source in names.values()), "some events of each")
    world.kill()
    world.start()
    (tmp_path / "enough").touch()
    sent = {name: int(shopper.page.evaluate("window.enough = true, window.done")) for name, shopper in shoppers.items()}
    told = {name: [int(word) for word in ended(process).split()] for name, process in running.items()}
    sent |= {name: words[-1] for name, words in told.items()}
    thanked = {"jitsu_node.mjs": told["jitsu_node.mjs"][0]}
    thanked["jitsu_js"] = int(shoppers["jitsu_js"].page.evaluate("window.thanked"))
    kept = [name for name in shoppers if name not in thanked]
    until(lambda: all(world.counts()[names[name]] >= sent[name] for name in kept), f"all events of {kept}")
    for shopper in shoppers.values():
        shopper.close()
    for name, source in names.items():
        steps = _steps(world, source)
        if name in thanked:
            assert thanked[name] <= len(steps) < sent[name], name
        else:
            assert sorted(steps) == list(range(sent[name])), name
        assert set(steps.values()) == {1}, name
        table.killed(name, sent[name], len(steps))
        assert world.counts()[source] == len(steps) + (name == "our_snippet"), name  # which sends the page's view
    assert world.counted() == {source: world.counts()[source] for source in world.counts()}


def _steps(world: World, source: str) -> Counter[int]:
    """How many different events there are of each number: a repeat under its message id is the same event."""
    events = {each.id: each for each in world.events(source) if each.name == "Step Taken"}
    return Counter(int(each.properties["number"]) for each in events.values())
