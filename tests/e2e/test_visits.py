"""What people do on the pages, in a real Chromium: sign in, find, look, write down, export, erase."""

import csv
import io
import json
import re
import subprocess
import zipfile
from pathlib import Path

from playwright.sync_api import expect

from tests.e2e.conftest import HOSTILE, TIMEOUT_MS, Shop, Visit

expect.set_options(timeout=TIMEOUT_MS)


# --- signing in ------------------------------------------------------------------------------------------------------


def test_the_first_admin_sets_a_password_once_and_signs_in_with_it(visit: Visit, shop: Shop) -> None:
    page = visit.page
    page.goto(shop.welcome)
    page.fill("input[name=password]", "short words")
    page.fill("input[name=again]", "other words")
    visit.complaints.clear()
    page.click("button[type=submit]")
    expect(page.get_by_role("alert")).to_contain_text("do not match")
    page.fill("input[name=password]", "correct horse battery")
    page.fill("input[name=again]", "correct horse battery")
    page.click("button[type=submit]")
    page.wait_for_selector(".tf-main")
    cookie = next(each for each in visit.context.cookies() if each["name"] == "touchfold_session")
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    page.get_by_label("Account").click()
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/sign-in")
    page.goto(shop.url)
    page.wait_for_url("**/sign-in")
    page.goto(shop.welcome)
    expect(page.get_by_role("heading")).to_contain_text("already been used")
    page.goto(f"{shop.url}/sign-in?next=/segments")
    page.fill("input[name=name]", "admin")
    page.fill("input[name=password]", "wrong")
    page.click("button[type=submit]")
    expect(page.get_by_role("alert")).to_contain_text("wrong")
    page.fill("input[name=name]", "admin")
    page.fill("input[name=password]", "correct horse battery")
    page.click("button[type=submit]")
    page.wait_for_url("**/segments")
    refusals = ("status of 4", "WebSocket connection")  # of the tries above, and of the page that was signed out
    visit.complaints[:] = [each for each in visit.complaints if not any(word in each for word in refusals)]


def test_a_token_signs_in_and_nobody_comes_in_without_a_session(visit: Visit, shop: Shop) -> None:
    page = visit.page
    page.goto(f"{shop.url}/customers")
    page.wait_for_url(lambda url: url.endswith("/sign-in?next=/customers"))
    page.click("summary")
    page.fill("input[name=token]", shop.tokens["staff"])
    page.click("button[type=submit]")
    page.wait_for_url("**/customers")


# --- customers -------------------------------------------------------------------------------------------------------


def test_typing_finds_and_enter_opens(visit: Visit, shop: Shop, screens: Path) -> None:
    page = visit.sign_in("staff")
    visit.open("/customers")
    field = page.get_by_label("Search customers")
    expect(field).to_be_focused()
    page.keyboard.type("grace")
    expect(page.locator("a.tf-row")).to_have_count(10)
    page.screenshot(path=screens / "customers-found.png")
    page.keyboard.press("ArrowDown")
    expect(page.locator("a.tf-chosen")).to_have_count(1)
    field.fill("2017")
    expect(page.locator("a.tf-row")).to_have_count(1)
    expect(page.locator("a.tf-row")).to_contain_text("Grace17")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/customers/{shop.id_of('u17')}")
    expect(page.get_by_role("heading", level=2).first).to_contain_text("Grace17 Hopper")
    expect(page.locator(".tf-event").filter(has_text="Bought 2 items, $37.00").first).to_be_visible()
    page.screenshot(path=screens / "customer.png", full_page=True)
    visit.open("/customers")
    expect(page.get_by_text("Recently viewed")).to_be_visible()


def test_an_analyst_sees_no_personal_value(visit: Visit, shop: Shop) -> None:
    page = visit.sign_in("analyst")
    visit.open("/customers")
    expect(page.get_by_label("Search customers")).to_have_count(0)
    expect(page.locator("a.tf-row").first).to_be_visible()
    everybody = page.locator("a.tf-row").count()
    page.get_by_label("Stage", exact=True).click()
    page.get_by_role("option", name="Prospect").click()
    expect(page.locator(".q-menu")).to_have_count(0)
    expect(page.locator("a.tf-row").filter(has_text="Prospect").first).to_be_visible()
    expect(page.locator("a.tf-row").filter(has_text="Repeat")).to_have_count(0)
    assert 0 < page.locator("a.tf-row").count() < everybody
    visit_text = page.locator(".tf-main").inner_text()
    assert "Grace" not in visit_text
    assert "@example.com" not in visit_text
    page.get_by_label("Profile id").fill(shop.id_of("u17"))
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/customers/{shop.id_of('u17')}")
    visit.open("/segments/repeat_customers")
    expect(page.get_by_label("Search the members")).to_have_count(0)
    visit.open(f"/customers/{shop.id_of('u17')}")
    whole = page.locator(".tf-main").inner_text()
    assert "Hopper" not in whole
    assert "555" not in whole
    assert page.get_by_role("button", name="Note", exact=True).count() == 0
    assert page.get_by_role("button", name="Erase", exact=True).count() == 0


def test_a_note_and_a_complaint_are_recorded_and_the_complaint_raises_the_risk(visit: Visit, shop: Shop) -> None:
    page = visit.sign_in("staff")
    visit.open(f"/customers/{shop.id_of('u3')}")
    page.get_by_role("button", name="Note", exact=True).click()
    page.get_by_label("What should colleagues know?").fill("Prefers mornings")
    page.get_by_role("button", name="Save note").click()
    expect(page.locator(".tf-event").first).to_contain_text("Prefers mornings")
    page.get_by_role("button", name="Complaint", exact=True).click()
    page.get_by_role("button", name="Open complaint").click()
    expect(page.get_by_role("alert").last).to_contain_text("Topic must have")
    page.get_by_label("What about?").fill("Broken cup")
    page.get_by_role("button", name="Open complaint").click()
    expect(page.get_by_text("A complaint is open").first).to_be_visible()
    expect(page.locator(".tf-event").first).to_contain_text("Complaint opened: Broken cup")
    page.get_by_role("button", name="Resolve", exact=True).click()
    page.locator(".tf-dialog").get_by_role("button", name="Resolve", exact=True).click()
    expect(page.locator(".tf-event").first).to_contain_text("Complaint resolved")
    expect(page.get_by_text("A complaint is open")).to_have_count(0)
    entries = shop.touchfold("audit", "--limit", "500")
    assert shop.id_of("u3") in [each["profile_id"] for each in entries if each["action"] == "profile.viewed"]
    assert shop.touchfold("audit", "--verify")["whole"]


def test_a_correction_holds_until_it_is_withdrawn(visit: Visit, shop: Shop) -> None:
    page = visit.sign_in("staff")
    visit.open(f"/customers/{shop.id_of('u5')}")
    page.get_by_label("Correct", exact=True).nth(2).click()  # e-mail, first name, last name, phone
    page.get_by_label("Correct value").fill("Byron")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_role("heading", level=2).first).to_contain_text("Grace5 Byron")
    page.get_by_label("Undo the correction").click()
    page.get_by_role("button", name="Undo", exact=True).click()
    expect(page.get_by_role("heading", level=2).first).to_contain_text("Grace5 Lovelace")


def test_the_privacy_officer_erases_a_customer(visit: Visit, shop: Shop) -> None:
    shop.send({"type": "identify", "userId": "gone", "traits": {"first_name": "Gone"}, "messageId": "gone"})
    shop.touchfold("status", "--wait")
    found = shop.id_of("gone")
    page = visit.sign_in("privacy")
    visit.open(f"/customers/{found}")
    page.get_by_role("button", name="Erase", exact=True).click()
    page.get_by_label("to confirm").fill("somebody")
    page.get_by_role("button", name="Erase for good").click()
    expect(page.get_by_text("neither the name nor the id")).to_be_visible()
    page.get_by_label("to confirm").fill(found[:8])
    page.get_by_role("button", name="Erase for good").click()
    expect(page.get_by_text("receipt", exact=False).first).to_be_visible()
    visit.open(f"/customers/{found}")
    expect(page.get_by_text("This person's data has been erased")).to_be_visible()


def test_the_privacy_officer_exports_a_customer(visit: Visit, shop: Shop, tmp_path: Path) -> None:
    shop.send({"type": "identify", "userId": "asks", "traits": {"first_name": "Asks"}, "messageId": "asks"})
    shop.touchfold("status", "--wait")
    page = visit.sign_in("privacy")
    visit.open(f"/customers/{shop.id_of('asks')}")
    page.get_by_role("button", name="Export data").click()
    with page.expect_download() as taken:
        page.get_by_role("button", name="Export", exact=True).click()
    taken.value.save_as(tmp_path / "person.zip")
    expect(page.get_by_text("Done. The file is in your downloads.")).to_be_visible()
    with zipfile.ZipFile(tmp_path / "person.zip") as archive:
        assert "Asks" in archive.read("index.html").decode()
        assert len(json.loads(archive.read("events.json"))) == 1
        assert "profile.exported" in archive.read("views.json").decode()


def test_an_event_shows_on_the_open_page_and_on_live_a_moment_later(visit: Visit, shop: Shop) -> None:
    page = visit.sign_in("admin")
    visit.open("/live")
    shop.send({"type": "track", "event": "Quiz Won", "userId": "u7", "messageId": "quiz-1"})
    expect(page.get_by_text("Quiz Won").first).to_be_visible()
    page.get_by_placeholder("Event or message id").fill("quiz-1")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Status: applied")).to_be_visible()
    page.get_by_role("link", name="Open the customer").click()
    page.wait_for_url(f"**/customers/{shop.id_of('u7')}")
    shop.send({"type": "track", "event": "Call Received", "userId": "u7", "messageId": "call-1",
               "properties": {"topic": "delivery"}})  # fmt: skip
    expect(page.locator(".tf-event").first).to_contain_text("Called about delivery")


# --- segments and sources --------------------------------------------------------------------------------------------


def test_members_are_searched(visit: Visit) -> None:
    page = visit.sign_in("marketer")
    visit.open("/segments/repeat_customers")
    every = page.locator("a.tf-member").count()
    page.get_by_label("Search the members").fill("hopper")
    expect(page.locator("a.tf-member").filter(has_text="Lovelace")).to_have_count(0)
    expect(page.locator("a.tf-member").filter(has_text="Hopper").first).to_be_visible()
    page.get_by_label("Search the members").fill("hostile")
    expect(page.get_by_text("No member found")).to_be_visible()
    page.get_by_label("Search the members").fill("")
    expect(page.locator("a.tf-member")).to_have_count(every)


def test_members_are_exported_and_no_formula_runs(visit: Visit, shop: Shop) -> None:
    page = visit.sign_in("marketer")
    visit.open("/segments/complaining")
    with page.expect_download() as download:
        page.get_by_role("button", name="Export CSV").click()
    rows = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text("utf-8-sig"))))
    names = [row["name"] for row in rows]
    assert len(rows) >= len(HOSTILE)
    assert f"'{HOSTILE['formula']} Hostile" in names
    assert not [name for name in names if name.startswith(("=", "+", "-", "@"))]
    with page.expect_download() as download:
        page.get_by_role("button", name="Export Parquet").click()
    assert Path(download.value.path()).read_bytes()[:4] == b"PAR1"


def test_a_source_is_made_and_its_snippet_works(visit: Visit, shop: Shop, screens: Path) -> None:
    page = visit.sign_in("admin")
    visit.open("/sources")
    page.get_by_placeholder("Name of a new source").fill("tills")
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_text("The write key of tills")).to_be_visible()
    blocks = [block.inner_text() for block in page.locator(".tf-pre").all()]
    key = next(text for text in blocks if text.startswith("wk_"))
    snippet = next(text for text in blocks if text.startswith("curl"))
    assert key in snippet
    page.screenshot(path=screens / "sources-key.png", full_page=True)
    done = subprocess.run(["bash", "-c", f"{snippet} -sS"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"success": True}
    row = page.locator(".tf-source", has_text="tills")
    row.get_by_role("button", name="Settings").click()
    page.get_by_label("Most events per second").fill("100")
    page.get_by_label("Pages that may send").fill("shop.example")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("not an origin")).to_be_visible()
    row.get_by_role("button", name="Settings").click()
    page.get_by_label("Most events per second").fill("100")
    page.get_by_text("Accept events").click()
    page.screenshot(path=screens / "sources-settings.png")
    page.get_by_role("button", name="Save").click()
    expect(row.get_by_text("off", exact=True)).to_be_visible()
    (listed,) = [each for each in shop.ask("/sources") if each["name"] == "tills"]
    assert listed["settings"] == {"enabled": False, "events_per_s": 100}
    row.get_by_role("button", name="Revoke").click()
    page.get_by_role("button", name="Revoke for good").click()
    expect(row.get_by_text("0 keys")).to_be_visible()
    expect(page.get_by_text("The keys of")).to_be_visible()


def test_somebody_is_invited_and_follows_the_link(visit: Visit, shop: Shop, screens: Path) -> None:
    page = visit.sign_in("admin")
    visit.open("/team")
    page.get_by_placeholder("Sign-in name").fill("bea")
    page.get_by_role("button", name="Invite").click()
    link = page.locator(".tf-pre").first.inner_text()
    page.screenshot(path=screens / "team.png", full_page=True)
    visit.context.clear_cookies()
    page.goto(link)
    page.screenshot(path=screens / "welcome.png")
    page.fill("input[name=password]", "a long enough one")
    page.fill("input[name=again]", "a long enough one")
    page.click("button[type=submit]")
    page.wait_for_selector(".tf-main")
    page.get_by_label("Account").click()
    expect(page.get_by_text("Role: staff")).to_be_visible()


def test_an_undeclared_field_is_shown_and_decided_once(visit: Visit, shop: Shop, screens: Path) -> None:
    page = visit.sign_in("admin")
    visit.open("/sources")
    page.get_by_placeholder("Name of a new source").fill("gym")
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_text("The write key of gym")).to_be_visible()
    key = next(text for block in page.locator(".tf-pre").all() if (text := block.inner_text()).startswith("wk_"))
    item = {"userId": "gym-1", "event": "Weighed", "properties": {"kilos": 81, "remark": "for Ada"}}
    address = f"{page.url.removesuffix('/sources')}/v1/track"
    command = ["curl", "-sS", address, "-u", f"{key}:", "-d", json.dumps(item), "-H", "Content-Type: application/json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"success": True}
    kilos = page.locator(".tf-undeclared", has_text="Weighed").filter(has_text="kilos")
    remark = page.locator(".tf-undeclared", has_text="Weighed").filter(has_text="remark")
    for _ in range(20):  # visible to SQL within a second
        visit.open("/sources")
        page.get_by_text("Undeclared fields").wait_for()
        if kilos.count():
            break
    expect(kilos.get_by_text("integer")).to_be_visible()
    expect(kilos.get_by_text(re.compile("100.%"))).to_be_visible()
    page.screenshot(path=screens / "sources-fields.png", full_page=True)
    remark.get_by_role("button", name="Personal", exact=True).click()
    expect(remark).to_have_count(0)
    kilos.get_by_role("button", name="Not personal").click()
    page.get_by_role("button", name="Declare not personal").click()
    expect(kilos).to_have_count(0)


# --- the audit log, and the end of a session -----------------------------------------------------------------------


def test_a_privacy_officer_reads_the_audit_log_checks_it_and_finds_who_searched(visit: Visit, shop: Shop) -> None:
    shop.ask("/profiles?search=grace17")
    page = visit.sign_in("privacy")
    visit.open("/audit")
    page.get_by_role("button", name="Check now").click()
    expect(page.get_by_text("The audit log is intact.")).to_be_visible()
    page.get_by_label("Search words used by anybody").fill("Grace17")
    expect(page.locator(".tf-audit").filter(has_text="Customers Searched")).to_have_count(1)
    page.get_by_label("Search words used by anybody").fill("nobody at all")
    expect(page.get_by_text("No entries")).to_be_visible()


def test_an_open_page_is_gone_when_its_token_is_revoked(visit: Visit, shop: Shop) -> None:
    made = shop.touchfold("token", "create", "--role", "staff")
    shop.tokens["leaving"] = made["token"]
    page = visit.sign_in("leaving")
    visit.open(f"/customers/{shop.id_of('u17')}")
    expect(page.get_by_text("Grace17 Hopper").first).to_be_visible()
    shop.touchfold("token", "revoke", made["id"])
    page.wait_for_url("**/sign-in**")
    expect(page.get_by_text("Grace17 Hopper")).to_have_count(0)
