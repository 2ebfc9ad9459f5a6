"""The archive against the log (I5): its manifest and Parquet files, read with nothing but pyarrow."""

import json
from collections import defaultdict
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from tests.checker.archive_files import is_replaced, manifest, rows
from tests.checker.check_log import Facts, Violation


def check_archive(facts: Facts, folder: Path, *, complete: bool = False) -> Iterator[Violation]:
    """Every archived row is the log's record at its position, byte for byte, with none missing in between.

    `complete`: the archive must also reach the end of the log.
    """
    covered: dict[int, int] = defaultdict(int)
    found: dict[int, list[tuple[int, bytes]]] = defaultdict(list)
    entries = manifest(folder)
    for entry in entries:
        partition = entry["partition"]
        if entry["start"] != covered[partition]:
            yield Violation("I5.gap", f"{entry['path']} starts at {entry['start']}, not at {covered[partition]}")
        covered[partition] = entry["next"]
        path = folder / entry["path"]
        if not path.exists() or sha256(path.read_bytes()).hexdigest() != entry["sha256"]:
            yield Violation("I5.file", f"{entry['path']} is missing or not what the manifest says")
        if path.exists():
            found[partition] += rows(path)
    listed = {entry["path"] for entry in entries}
    for path in folder.glob("p*/*.parquet"):
        if path.relative_to(folder).as_posix() not in listed and not is_replaced(path, entries):
            yield Violation("I5.orphan", f"{path.name} is in no manifest")
    last = {} if facts.tables.gapless else facts.tables.after_last()
    for partition, head in facts.tables.heads.items():
        yield from _partition(facts, partition, covered[partition], found[partition])
        if complete and not last.get(partition, head) <= covered[partition] <= head:
            yield Violation("I5.behind", f"partition {partition} is archived to {covered[partition]} of {head}")


def _partition(facts: Facts, partition: int, end: int, kept: list[tuple[int, bytes]]) -> Iterator[Violation]:
    log = {offset: value for (p, offset), value in facts.tables.log.items() if p == partition and offset < end}
    offsets = [offset for offset, _ in kept]
    if offsets != sorted(set(offsets)):
        yield Violation("I5.order", f"offsets of partition {partition} do not rise")
    for offset, value in kept:
        if log.get(offset) != value and not _forgotten(facts, log.get(offset), value):
            yield Violation("I5.altered", f"the archive's record at {partition}:{offset} is not the log's")
    for offset in log.keys() - set(offsets):
        yield Violation("I5.missing", f"the record at {partition}:{offset} is not in the archive")


def _forgotten(facts: Facts, logged: bytes | None, archived: bytes) -> bool:
    """Whether the only difference is the sealed part of an erased person, dropped for good."""
    if logged is None:
        return False
    record = json.loads(logged)
    sealed = record.pop("sealed", None)
    return sealed is not None and sealed["key"] in facts.tables.erased and json.loads(archived) == record
