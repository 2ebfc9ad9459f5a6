"""What the pages name is there: paths, modules, functions, tests; the rooms and walks of ARCHITECTURE.md are true."""

import re
from pathlib import Path
from typing import Final

import pytest

from tests.pages import Repository, section
from tests.rooms import LAYERS

ROOT: Final = Path(__file__).parents[2]
HERE: Final = Repository(ROOT)
ARCHITECTURE: Final = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
DECIDED_SINCE: Final = "0031"
"""Decision pages are history, and may name what was there then; those from here on are held to it."""
PAGES: Final = [
    *(ROOT / name for name in ("ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted(page for page in (ROOT / "docs" / "decisions").glob("[0-9]*.md") if page.name >= DECIDED_SINCE),
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_names_is_there(page: Path) -> None:
    assert HERE.missing(page) == []


@pytest.mark.parametrize(
    "text",
    [
        "see `schemas/recrod.py`",
        "kubectl apply -f infra/deploy/kubernets/",
        "all of tools/*.txt",
        "`schemas.record.decoed` reads it",
        "`schemas.recrod` reads it",
        "`processors.live.fold_batch.Folder.rum`",
        "`tests/unit/test_rooms.py::test_that_nobody_wrote`",
        "`tests/unit/test_nothing.py::test_a`",
        "[there](docs/nowhere.md)",
        "[there](ARCHITECTURE.md#no-such-heading)",
    ],
)
def test_a_planted_name_that_is_not_there_is_found(tmp_path: Path, text: str) -> None:
    for top in ("schemas", "processors/live", "tests/unit", "tools"):
        (tmp_path / top).mkdir(parents=True)
    for name in ("schemas/record.py", "processors/live/fold_batch.py", "tests/unit/test_rooms.py", "ARCHITECTURE.md"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    page = tmp_path / "page.md"
    page.write_text("`schemas/record.py`, `schemas.record.decode`, `processors.live.fold_batch.Folder.run`,"
                    " `tests/unit/test_rooms.py::test_prose_is_no_sql`, [rooms](ARCHITECTURE.md#rooms)")  # fmt: skip
    assert Repository(tmp_path).missing(page) == []
    page.write_text(f"{text}\n")
    assert len(Repository(tmp_path).missing(page)) == 1


def test_the_table_of_rooms_is_that_of_the_rooms_test() -> None:
    rows = re.findall(r"^\| `([\w/]+)/` \|[^|]+\| ([^|]+) \|$", section(ARCHITECTURE, "Rooms"), re.MULTILINE)
    told = [(room.replace("/", "."), tuple(re.findall(r"`([\w/]+)`", cell))) for room, cell in rows]
    assert [(room, tuple(each.replace("/", ".") for each in below)) for room, below in told] == list(LAYERS)


def test_every_folder_of_modules_is_described() -> None:
    described = section(ARCHITECTURE, "Rooms")
    without_own_words = {"infra/"}  # nothing but what is below it
    assert [each for each in HERE.packages() if each not in without_own_words and f"`{each}`" not in described] == []


def test_every_invariant_names_a_test_that_proves_it() -> None:
    invariants = re.findall(r"^- \*\*(.+?)\*\*(.*)$", section(ARCHITECTURE, "Invariants"), re.MULTILINE)
    assert len(invariants) >= 15
    assert [name for name, text in invariants if not re.search(r"`tests/[\w/]+\.py::test_\w+`", text)] == []


def test_every_step_of_a_walk_is_a_function() -> None:
    walks = re.split(r"^### ", section(ARCHITECTURE, "Walks"), flags=re.MULTILINE)[1:]
    assert len(walks) == 4
    for walk in walks:
        steps = re.findall(r"^\d+\. (.+)$", walk, re.MULTILINE)
        assert len(steps) >= 5
        for step in steps:
            named = re.findall(r"`((?:[a-z]\w*\.){2,}\w[\w.]*)`", step)
            assert named, f"no function in: {step}"
            assert [each for each in named if not HERE.defines(each)] == []
            assert any(HERE.defines(each, function=True) for each in named), step


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_make_target_that_a_page_names_is_in_the_makefile(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    told = re.findall(r"(?:^|`)make ((?:[a-z-]+ ?)+)(?:`|$|  )", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert {target for each in told for target in each.split()} - targets == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_uses_one_word_for_an_idea(page: Path) -> None:
    """The words on the left are of the code or of tables; prose says those on the right."""
    better = {
        r"anew": "again, or recompute",
        r"who is whom": "identity",
        r"signatures?": "identifier set",
        r"the register|a register": "dedup index",
        r"hubs?": "shared identifier",
        r"(?<!dead[ -])letters (?:of|under|that)": "dead letters",
        r"settles?": "drain, resolve or correct",
    }
    prose = re.sub(r"^```.*?^```|`[^`\n]+`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    found = {each: word for each, word in better.items() if re.search(rf"\b(?:{each})\b", prose, re.IGNORECASE)}
    assert found == {}
