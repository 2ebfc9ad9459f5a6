"""Pages of docs/ that can drift are held against the code."""

import re
import runpy
from pathlib import Path

import pytest

from infra.cli.main import MODULES
from tests.sdks.table import HEAD, SDKS, versions

ROOT = Path(__file__).parents[2]
TOOL = runpy.run_path(str(ROOT / "tools" / "docs.py"))


@pytest.mark.parametrize("name", sorted(TOOL["PAGES"]))
def test_a_generated_page_is_what_the_code_says(name: str) -> None:
    assert (ROOT / "docs" / name).read_text() == TOOL["PAGES"][name](), "run: .venv/bin/python tools/docs.py"


def test_every_command_stands_in_the_contracts() -> None:
    contracts = (ROOT / "docs" / "contracts.md").read_text()
    assert MODULES
    for module in MODULES:
        name = module.strip("_").replace("_", "-")
        assert re.search(rf"`{name}\b", contracts), f"{name} is not in docs/contracts.md"


def test_every_decision_has_its_four_parts() -> None:
    pages = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))
    assert len({page.name[:4] for page in pages}) == len(pages), "two pages have one number"
    for page in pages:
        for part in ("**Context.**", "**Options.**", "**Decision.**", "**Consequences.**"):
            assert part in page.read_text(), f"{page.name} has no {part}"


def test_the_page_of_the_vaults_cryptography_names_every_hash() -> None:
    page = (ROOT / "docs" / "decisions" / "0031-vault-cryptography.md").read_text()
    used = {
        name
        for room in ("schemas", "projections", "ingest", "processors", "query", "infra")
        for file in (ROOT / room).rglob("*.py")
        for name in re.findall(r'person=b"(tf-[a-z-]+)"', file.read_text())
    }
    assert len(used) >= 12
    assert set(re.findall(r"`(tf-[a-z-]+)`", page)) == used


def test_the_figures_of_the_runners_are_those_of_the_benchmarks() -> None:
    told = (ROOT / "docs" / "kafka.md").read_text().split("## Which runner")[1]
    measured = (ROOT / "docs" / "benchmarks-kafka.md").read_text()
    figures = re.findall(r"([0-9,]{5,}) events/s(?: a core)?, ([0-9.]+) µs", told)
    assert len(figures) == 6
    assert [each for each in figures if not re.search(rf"{each[0]} events/s[,;] {re.escape(each[1])}", measured)] == []


def test_the_table_of_sdks_has_the_versions_that_are_tried() -> None:
    told = (ROOT / "docs" / "sdks.md").read_text()
    assert HEAD in told
    known = versions()
    for package, how in SDKS.values():
        assert f"| `{package}` {known[package]} | {how} |" in told, "run: make sdks, and take build/sdk-suite.md"
