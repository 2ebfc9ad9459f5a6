"""The pages in a real Chromium: they load in silence, fit, can be read, and show each role what it may see."""

from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest
from playwright.sync_api import Page
from playwright.sync_api import TimeoutError as Timeout

from schemas.roles import ACT, DISCLOSE, ERASE, EXPORT, may
from tests.e2e.conftest import ROLES, Shop, Visit

PAGES: Final = {
    "overview": "/", "customers": "/customers", "segments": "/segments", "segment": "/segments/repeat_customers",
    "live": "/live", "sources": "/sources", "health": "/system", "team": "/team",
    "audit": "/audit",
}  # fmt: skip
EVERYBODY: Final = {"overview", "customers", "segments", "segment"}
MAY: Final = {
    "admin": set(PAGES), "marketer": set(PAGES) - {"sources", "team", "audit"},
    "analyst": set(PAGES) - {"sources", "team", "audit"}, "staff": EVERYBODY, "privacy": {*EVERYBODY, "audit"},
}  # fmt: skip
BUTTONS: Final = {
    "Note": ACT,
    "Call": ACT,
    "Complaint": ACT,
    "Add a detail": ACT,
    "Erase": ERASE,
    "Export data": DISCLOSE,
}
_CONTRAST: Final = """() => {
  const parse = text => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const ground = node => {
    for (; node; node = node.parentElement) {
      const found = parse(getComputedStyle(node).backgroundColor);
      if (found.length === 3 || found[3] > .9) return found;
    }
    return [255, 255, 255];
  };
  const weak = [];
  for (const node of document.querySelectorAll(".tf-main label, .tf-main div, .tf-link div, .tf-chip, .tf-muted")) {
    if (!node.innerText || node.children.length || node.closest(".q-field") || node.closest("[disabled]")) continue;
    const [a, b] = [light(parse(getComputedStyle(node).color)), light(ground(node))];
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) weak.push([node.innerText.slice(0, 40), ratio.toFixed(2)]);
  }
  return weak;
}"""


@pytest.mark.parametrize("name", [*PAGES, "customer"])
def test_each_page_loads_in_silence_fits_can_be_read_and_leaves_its_picture(
    visit: Visit, shop: Shop, screens: Path, name: str
) -> None:
    page = visit.sign_in("admin")
    visit.open(PAGES.get(name) or f"/customers/{shop.id_of('u34')}")
    if name == "overview":
        page.wait_for_selector("canvas")  # the figures are there
    _read_and_shoot(page, screens / f"{name}.png")
    page.emulate_media(color_scheme="dark")
    page.wait_for_selector("body.body--dark")
    _read_and_shoot(page, screens / f"{name}-dark.png")
    page.emulate_media(color_scheme="light")
    visit.fits(390)
    _read_and_shoot(page, screens / f"{name}-phone.png")


def _read_and_shoot(page: Page, file: Path) -> None:
    with suppress(Timeout):  # colours take a moment to change
        page.wait_for_function(f"({_CONTRAST})().length === 0", timeout=2_000)
    assert page.evaluate(_CONTRAST) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.screenshot(path=file, full_page=True)


def test_dark_is_chosen_by_a_button_and_stays(visit: Visit) -> None:
    page = visit.sign_in("admin")
    visit.open("/segments")
    page.get_by_label("Light or dark").click()
    page.wait_for_selector("body.body--dark")
    page.goto(shop_url := visit.shop.url)
    page.wait_for_selector("body.body--dark")
    assert page.url.startswith(shop_url)


@pytest.mark.parametrize("role", ROLES)
def test_each_role_sees_its_pages_and_buttons_and_no_other(visit: Visit, shop: Shop, role: str) -> None:
    page = visit.sign_in(role)
    for name, path in PAGES.items():
        assert ("Your role cannot see this page" in visit.whole(path)) == (name not in MAY[role]), (role, name)
    visit.open(f"/customers/{shop.id_of('u31')}")
    links = {link.get_attribute("href") for link in page.locator(".tf-nav a").all()}
    assert links == {PAGES[name] for name in MAY[role] if name != "segment"}
    for label, right in BUTTONS.items():
        assert page.get_by_role("button", name=label, exact=True).count() == may(role, right), (role, label)
    assert page.get_by_label("Correct", exact=True).count() == (4 if may(role, ACT) else 0)
    assert ("Export CSV" in visit.whole("/segments/repeat_customers")) == may(role, EXPORT)


def test_a_page_that_is_not_there_says_so(visit: Visit) -> None:
    page = visit.sign_in("staff")
    for path in ("/customers/nobody", "/customers/00000000-0000-0000-0000-000000000000"):
        visit.open(path)
        assert page.get_by_text("No such customer").count() == 1
    assert visit.whole("/segments/nothing").count("Touchfold")
