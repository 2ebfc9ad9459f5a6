"""The parts that `make test` runs side by side: together they hold every test file of the services, each once."""

import os
import subprocess
from collections import Counter
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PARTS: Final = ("contract-first", "contract-second", "cluster")


def test_each_file_is_in_one_part() -> None:
    alone = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    command = ["make", "-n", "-B", *PARTS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, env=alone)
    named = [ROOT / word for word in done.stdout.split() if word.startswith("tests/")]
    files = Counter(file for each in named for file in (each.glob("test_*.py") if each.is_dir() else [each]))
    wanted = [
        file for room in ("contract", "integration", "checker") for file in (ROOT / "tests" / room).glob("test_*")
    ]
    assert files == Counter(wanted)
