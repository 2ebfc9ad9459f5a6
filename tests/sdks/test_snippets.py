"""What the sources page shows for each platform works when it is pasted: read from the page, run as it stands."""

import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.sync_api import Browser

from infra.drivers.pages.snippets import PLATFORMS
from tests.integration.running import result
from tests.sdks.world import Site, World, sdks

SOURCE: Final = "pasted"
ORDERS: Final = ("Node: Segment", "Node: RudderStack", "Python: Segment", "Python: RudderStack", "curl")
PAGES: Final = ("Website: HTML", "Website: no library", "E-mail: image")
PACKAGES: Final = ("Website: Segment (npm)", "Website: RudderStack (npm)", "Website or Node: Jitsu (npm)")
NOT_RUN: Final = ("Go: Segment",)  # no Go here: its text alone is looked at


@pytest.fixture(scope="module")
def shown(browser: Browser, world: World) -> Iterator[dict[str, str]]:
    """What an admin sees after creating a source, by platform, chosen one after another."""
    token = result("token", "create", "--role", "admin", "--data", str(world.data))["token"]
    context = browser.new_context()
    context.add_cookies([{"name": "touchfold_session", "value": _session(world, token), "url": world.url}])
    page = context.new_page()
    page.goto(f"{world.url}/sources")
    page.get_by_placeholder("Name of a new source").fill(SOURCE)
    page.get_by_role("button", name="Create").click()
    page.get_by_text(f"The write key of {SOURCE}").wait_for()
    found: dict[str, str] = {"key": page.locator(".tf-pre").nth(0).inner_text()}
    for platform in PLATFORMS:
        page.get_by_label("Platform").click()
        page.get_by_role("option", name=platform, exact=True).click()
        page.wait_for_function(
            "said => document.querySelector('[data-platform]').dataset.platform == said", arg=platform
        )
        found[platform] = page.locator(".tf-pre").nth(1).inner_text()
    yield found
    context.close()


def _session(world: World, token: str) -> str:
    class NoRedirect(urllib.request.HTTPRedirectHandler):
        def http_error_303(self, req: Any, fp: Any, code: int, msg: str, headers: Any) -> Any:
            return fp

    request = urllib.request.Request(f"{world.url}/sign-in", f"token={token}".encode())
    with urllib.request.build_opener(NoRedirect).open(request) as answer:
        return str(answer.headers["set-cookie"]).split("=", 1)[1].split(";")[0]


def test_each_platform_is_tried_and_has_the_key_and_our_address(shown: dict[str, str], world: World) -> None:
    assert sorted(PLATFORMS) == sorted((*ORDERS, *PAGES, *PACKAGES, *NOT_RUN))
    assert len({shown[platform] for platform in PLATFORMS}) == len(PLATFORMS)
    for platform in PLATFORMS:
        assert shown["key"] in shown[platform]
        assert world.url in shown[platform]


@pytest.mark.parametrize("platform", ORDERS)
def test_a_pasted_order_is_in_the_log(shown: dict[str, str], world: World, tmp_path: Path, platform: str) -> None:
    before = world.counts()[SOURCE]
    tool = {"N": ["node", "run.mjs"], "P": [sys.executable, "run.py"], "c": ["bash", "run.sh"]}[platform[0]]
    (tmp_path / tool[1]).write_text(shown[platform])
    (tmp_path / "node_modules").symlink_to(sdks() / "node_modules")
    subprocess.run(tool, cwd=tmp_path, env=_environment(), check=True, capture_output=True)
    found = world.wait_for(SOURCE, before + 1)
    order = max(found, key=lambda event: event.occurred_at)
    assert (order.type, order.ids["user_id"]) == ("purchase.completed", ["u-1"])
    assert order.properties == {"order_id": "o-1", "revenue": "42.1", "currency": "USD"}


def _environment() -> dict[str, str]:
    return {"PATH": "/usr/local/bin:/usr/bin:/bin", "PYTHONPATH": str(sdks() / "python")}


@pytest.mark.parametrize("platform", [*PAGES, *PACKAGES])
def test_a_pasted_page_is_in_the_log(
    shown: dict[str, str], browser: Browser, site: Site, world: World, tmp_path: Path, platform: str
) -> None:
    before = world.counts()[SOURCE]
    text = shown[platform]
    if platform in PACKAGES:
        (tmp_path / "pasted.js").write_text(text)
        text = site.bundle(tmp_path / "pasted.js")
    page = browser.new_page()
    page.goto(site.page("pasted", text))
    found = world.wait_for(SOURCE, before + 1)
    page.close()
    event = max(found, key=lambda event: event.occurred_at)
    assert event.type == ("email.opened" if platform == "E-mail: image" else "web.page_viewed")
