"""One running touchfold, one Chromium and one site for all SDKs."""

import os
from collections.abc import Iterator
from typing import Final

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.sdks.table import Table
from tests.sdks.world import ROOT, Site, World

CHROMIUM: Final = os.environ.get("CHROMIUM", "/usr/bin/chromium")
ARGUMENTS: Final = ["--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("sdks"))
    yield made
    made.stop()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("site") / "pages")
    yield made
    made.close()


@pytest.fixture(scope="session")
def table() -> Iterator[Table]:
    """What the run found, for docs/sdks.md; in build/sdk-suite.md afterwards."""
    made = Table()
    yield made
    (ROOT / "build").mkdir(exist_ok=True)
    (ROOT / "build" / "sdk-suite.md").write_text(made.text(), encoding="utf-8")
