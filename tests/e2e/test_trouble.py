"""What an operator sees of trouble, on the Health page and in metrics: a partition waits, a key or a file is lost."""

import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from playwright.sync_api import Browser, Page, expect

from infra.app.bootstrap import session
from infra.app.drain import drain
from infra.app.log import log_of
from infra.app.vault import vault_of
from infra.drivers.process.archive_role import archiver_of
from schemas.record import Pending, encode
from tests.e2e.conftest import TIMEOUT_MS
from tests.integration.running import Up, result
from tests.records import key_of_partition, purchase

PARTITION: Final = 2


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A platform with an archive, at whose log a record of a newer version lies."""
    data = tmp_path_factory.mktemp("trouble") / "data"
    key = key_of_partition(PARTITION)
    with session(data) as here:
        vault_of(here).hold_lease()
        good = encode(purchase([("user_id", "ada")], "o1", "20.00"))
        log_of(here).append([Pending(key, good)])
        drain(here)
        assert archiver_of(here).flush() == 1
        log_of(here).append([Pending(key, good.replace(b'"v":1', b'"v":3'))])
    running = Up(data)
    running.wait_ready()
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="module")
def token(up: Up) -> str:
    return str(result("token", "create", "--role", "admin", "--data", str(up.data))["token"])


@pytest.fixture
def page(browser: Browser, up: Up, token: str) -> Iterator[Page]:
    """The Health page."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(TIMEOUT_MS)
    expect.set_options(timeout=TIMEOUT_MS)  # the page looks every three seconds, and health at files as often
    page = context.new_page()
    page.goto(f"{up.url}/sign-in")
    page.click("summary")
    page.fill("input[name=token]", token)
    page.click("button[type=submit]")
    page.wait_for_selector(".tf-main")
    page.goto(f"{up.url}/system")
    yield page
    context.close()


def test_a_partition_that_waits_is_told_once_with_what_to_do_and_measured(up: Up, token: str, page: Page) -> None:
    expect(page.get_by_text("Needs attention")).to_be_visible()
    told = page.locator(".tf-how", has_text="set-aside 2 1")
    expect(told).to_have_count(1)
    expect(told).to_contain_text("partition 2 waits at offset 1 (worker): touchpoint v3; this build reads v2")
    card = page.locator(".tf-card.tf-bad", has_text="stuck at 1")
    expect(card).to_contain_text(re.compile(r"Partition 2.*since \d+ \w+ \d{4}, \d\d:\d\d$", re.DOTALL))
    asked = urllib.request.Request(f"{up.url}/metrics", headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(asked, timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    assert 'touchfold_partition_waiting_offset{partition="2",reader="worker"} 1.0' in lines
    (waits,) = [line for line in lines if line.startswith("touchfold_partition_waiting_seconds{")]
    assert float(waits.split()[-1]) >= 0
    assert 'touchfold_partition_lag_events{partition="2"} 1.0' in lines


def test_a_lost_key_and_a_lost_file_are_told_and_their_cards_marked(up: Up, page: Page, tmp_path: Path) -> None:
    file = next(up.data.glob("archive/p*/*.parquet"))
    lost = [(file, tmp_path / "file"), (up.data / "master.key", tmp_path / "key")]
    for path, aside in lost:
        path.rename(aside)
    try:
        expect(page.locator(".tf-how", has_text="put the file back from its backup")).to_have_count(1)
        expect(page.locator(".tf-how", has_text=file.name)).to_have_count(1)
        for name in ("Vault", "Archived"):
            expect(page.locator(".tf-card.tf-bad", has_text=name)).to_have_count(1)
        expect(page.get_by_text("do what the message says")).to_have_count(0)
    finally:
        for path, aside in lost:
            aside.rename(path)
