"""`python -m tests.bench.kafka`: the product on Kafka, every figure beside a baseline measured in the same run.

--quick  small sizes: shows that it works, says nothing about speed
--only   some of: streams, agent, loops, door, fold, roles, latency, workers
--size   a number for one of the sizes, such as --size events=50000
--out    also write the table as Markdown
"""

import argparse
import os
import sys
import time
from dataclasses import fields, replace
from pathlib import Path

from tests.bench import baselines
from tests.bench.kafka import parts
from tests.bench.kafka.sizes import FULL, QUICK, Size
from tests.bench.kafka.topic import broker
from tests.bench.measure import Table


def main(arguments: list[str]) -> int:
    """Measure, print, write. 0 whatever the figures; 1 when a part could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.kafka", description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", choices=list(parts.PARTS), default=list(parts.PARTS))
    parser.add_argument("--size", action="append", default=[], metavar="NAME=NUMBER")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)
    size = _sized(parser, QUICK if given.quick else FULL, given.size)
    table = Table(say=lambda line: print(line, file=sys.stderr, flush=True))
    started, failed, before = time.monotonic(), 0, os.getloadavg()[0]
    with broker() as on:
        bench = parts.Bench(on, size, table)
        for name in given.only:
            try:
                parts.PARTS[name](bench)
            except (AssertionError, RuntimeError, OSError, parts.Unfit) as err:
                failed += 1
                table.note(f"{name} was not measured: {str(err).strip().splitlines()[-1][:300]}")
                print(err, file=sys.stderr, flush=True)
    word = "small sizes, no measure of speed" if given.quick else "full sizes"
    if given.size:
        word = f"{word} but for {', '.join(given.size)}"
    table.note(
        f"{word}; {time.monotonic() - started:.0f} s on {baselines.describe()}, broker and load on the same cores"
    )
    if max(before, os.getloadavg()[0]) > 2 * (os.cpu_count() or 1):
        table.note("other work kept these cores busy: rates are low, and CPU an event is high, by a factor unknown")
    page = table.markdown("Benchmarks on Kafka")
    print(page)
    if given.out is not None:
        given.out.write_text(page, encoding="utf-8")
    return 1 if failed else 0


def _sized(parser: argparse.ArgumentParser, size: Size, given: list[str]) -> Size:
    names = {field.name for field in fields(size)}
    for each in given:
        name, _, number = each.partition("=")
        if name not in names or not number.isdecimal() or int(number) < 1:
            parser.error(f"--size {each}: give one of {', '.join(sorted(names))} and a number, such as events=50000")
        size = replace(size, **{name: int(number)})
    return size


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
