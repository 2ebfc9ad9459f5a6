"""Customers, events, sources, segments and dead letters whose every text is an attack or a nuisance: shown harmless."""

from pathlib import Path
from typing import Final

import pytest
from playwright.sync_api import expect

from tests.e2e.conftest import HOSTILE, TIMEOUT_MS, Shop, Visit

expect.set_options(timeout=TIMEOUT_MS)
LISTS: Final = ("/", "/live", "/segments/hostile_words", "/segments", "/sources", "/system", "/team", "/audit")


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_customer_is_shown_as_text(visit: Visit, shop: Shop, screens: Path, name: str) -> None:
    page = visit.sign_in("admin")
    visit.open(f"/customers/{shop.id_of(f'h-{name}')}")
    expect(page.locator(".tf-event")).to_have_count(4)
    heading = page.get_by_role("heading", level=2).first
    expect(heading).to_contain_text(HOSTILE[name][:60].strip("\u202e\u202c").split("\n")[0])
    page.locator(".tf-event").nth(1).click()
    expect(page.get_by_role("dialog")).to_be_visible()
    sheet = page.locator(".tf-sheet").bounding_box()
    assert sheet is not None
    assert sheet["x"] >= 0
    assert sheet["x"] + sheet["width"] <= 1280
    page.get_by_role("button", name="Close").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.screenshot(path=screens / f"hostile-{name}.png", full_page=True)
    visit.fits(390)
    assert page.evaluate("window.__xss") == 0


def test_the_lists_show_them_as_text_too(visit: Visit) -> None:
    page = visit.sign_in("admin")
    for path in LISTS:
        page.set_viewport_size({"width": 1280, "height": 900})
        visit.open(path)
        for width in (1280, 390):
            visit.fits(width)
        assert page.evaluate("window.__xss") == 0, path


def test_the_search_shows_them_as_text_too(visit: Visit) -> None:
    page = visit.sign_in("staff")
    visit.open("/customers")
    page.get_by_label("Search customers").fill("hostile")
    expect(page.locator("a.tf-row")).to_have_count(len(HOSTILE))
    for width in (390, 1280):
        visit.fits(width)
    page.get_by_label("Search customers").fill(HOSTILE["attribute"])
    expect(page.locator("a.tf-row")).to_have_count(1)
    page.get_by_label("Search customers").fill("<script>window.__xss=1</script>\u202e{{7*7}}")
    page.wait_for_load_state("networkidle")
    assert page.evaluate("window.__xss") == 0


def test_a_hostile_event_is_shown_as_text_on_live(visit: Visit, shop: Shop) -> None:
    page = visit.sign_in("admin")
    visit.open("/live")
    for name, text in HOSTILE.items():
        context = {"userAgent": text[:500], "campaign": {"name": text[:200]}}
        shop.send({"type": "track", "event": text[:200], "userId": "h-live", "messageId": f"h-live-{name}",
                   "properties": {text[:60]: text}, "context": context})  # fmt: skip
    expect(page.locator(".tf-live", has_text="<script>window").first).to_be_visible()
    page.locator(".tf-live", has_text='"><img src=x onerror').first.click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert page.evaluate("window.__xss") == 0


def test_a_hostile_note_is_shown_as_text(visit: Visit, shop: Shop) -> None:
    page = visit.sign_in("staff")
    visit.open(f"/customers/{shop.id_of('u8')}")
    page.get_by_role("button", name="Note", exact=True).click()
    page.get_by_label("What should colleagues know?").fill(" ".join(HOSTILE.values())[:3000])
    page.get_by_role("button", name="Save note").click()
    expect(page.locator(".tf-event").first).to_contain_text("<script>window.__xss=1</script>")
    visit.fits(390)
    assert page.evaluate("window.__xss") == 0


def test_the_sign_in_page_shows_what_was_asked_as_text(visit: Visit, shop: Shop) -> None:
    page = visit.page
    attack = "%22%3E%3Cimg%20src%3Dx%20onerror%3Dwindow.__xss%3D1%3E"
    for path in (
        f"/sign-in?next=/{attack}",
        f"/sign-in?next=//evil.example/{attack}",
        f"/welcome/{attack}",
        f"/{attack}",
    ):
        page.goto(f"{shop.url}{path}")
        page.wait_for_load_state("networkidle")
        assert page.evaluate("window.__xss") == 0
    visit.complaints[:] = [each for each in visit.complaints if "410 (Gone)" not in each]


def test_health_says_what_to_do_about_each_kind_of_dead_letter(visit: Visit) -> None:
    page = visit.sign_in("admin")
    visit.open("/system")
    for rule in ("string_too_long", "unknown_type"):
        told = page.locator(".tf-how", has_text=f"{rule} (door): ")
        expect(told).to_have_count(1)
        expect(told).to_contain_text("send it again from there")
