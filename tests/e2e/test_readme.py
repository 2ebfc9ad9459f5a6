"""The README's commands, run as a stranger would: `touchfold up`, then each block in order in one shell."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BIN = Path(sys.executable).parent


def blocks() -> list[str]:
    """Scripts of the tour: lines after `$ `, and the lines of a here-document after them."""
    found = []
    for body in re.findall(r"```console\n(.*?)```", README, re.DOTALL):
        found.append("\n".join(line.removeprefix("$ ") for line in body.splitlines()))
    return found


def test_the_readme_opens_with_the_two_commands() -> None:
    first = README.split("```")[1].split()
    assert first == ["make", "install", ".venv/bin/touchfold", "up"]


def test_the_pictures_are_there_and_small() -> None:
    pictures = [ROOT / path for path in re.findall(r"!\[[^]]+\]\(([^)]+)\)", README)]
    assert len(pictures) >= 5
    assert [path.name for path in pictures if not path.is_file() or path.stat().st_size > 150_000] == []


def test_every_command_of_the_tour_works(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    clone.mkdir()
    for name in ("examples", "tests/data/cdnow"):
        shutil.copytree(ROOT / name, clone / name)
    (clone / ".venv").symlink_to(BIN.parent)
    script = "\n".join(["set -euo pipefail", *blocks()]).replace("127.0.0.1:8700", "127.0.0.1:8797")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TOUCHFOLD_")}
    command = [str(BIN / "touchfold"), "up", "--port", "8797"]
    with subprocess.Popen(command, cwd=clone, env=environment, stdout=subprocess.PIPE, text=True) as up:
        try:
            tour(up, script, clone, environment)
        finally:
            up.terminate()


def tour(up: "subprocess.Popen[str]", script: str, clone: Path, environment: dict[str, str]) -> None:
    """The script, once `up` says that it is ready."""
    assert up.stdout is not None
    if up.stdout.readline().strip() != "ready http://127.0.0.1:8797":
        pytest.fail("touchfold up did not say ready")
    done = subprocess.run(
        ["bash", "-c", script], cwd=clone, env=environment, capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for expected in (
        "Ada Lovelace",
        "big_spenders",
        "spent_four_hundred",
        "purchase.completed",
        "equal: ",
        "/welcome/",
        '"cursor"',
    ):
        assert expected in done.stdout, f"{expected} is missing in\n{done.stdout}"
