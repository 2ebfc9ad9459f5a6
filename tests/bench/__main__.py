"""`python -m tests.bench`: every figure next to a baseline measured in the same run.

--quick  small sizes: shows that it works, but says nothing about speed
--only   some of: live, rebuild, door, people
--out    also write the table as Markdown
"""

import argparse
import sys
import time
from pathlib import Path

from tests.bench import baselines, door, live, people, rebuild
from tests.bench.measure import Table

PARTS = ("live", "rebuild", "door", "people")


def main(arguments: list[str]) -> int:
    """Measure, print, write. Always 0: figures are reported, not judged."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)
    table = Table(say=lambda line: print(line, file=sys.stderr, flush=True))
    started = time.monotonic()
    if "live" in given.only:
        live.measure(table, live.QUICK if given.quick else live.FULL)
    if "rebuild" in given.only:
        rebuild.measure(table, live.QUICK if given.quick else live.FULL)
    if "door" in given.only:
        door.measure(table, door.QUICK if given.quick else door.FULL)
    if "people" in given.only:
        people.measure(table, people.QUICK if given.quick else people.FULL)
    size = "small sizes, no measure of speed" if given.quick else "full sizes"
    table.note(f"{size}; {time.monotonic() - started:.0f} s on {baselines.describe()}, shared with the load generator")
    page = table.markdown("Benchmarks")
    print(page)
    if given.out is not None:
        given.out.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
