"""The archive's files as found in their folder: manifest lines and records, read with nothing but pyarrow."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq


def manifest(folder: Path) -> list[dict[str, Any]]:
    """The entries of the manifest, in order: each line is a checksum, a space and JSON; the first line is a header."""
    path = folder / "manifest.jsonl"
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    found: list[dict[str, Any]] = []
    for entry in (json.loads(line.partition(b" ")[2]) for line in lines[1:]):
        if entry.get("replaces"):  # it replaces the entries inside its offsets, if their lines are still there
            inside = [each for each in found if is_inside(each, entry)]
            at = found.index(inside[0]) if inside else len(found)
            found = [each for each in found if each not in inside]
            found.insert(at, entry)
        else:
            found.append(entry)
    return found


def is_inside(inner: dict[str, Any], outer: dict[str, Any]) -> bool:
    """Whether the offsets of an entry lie within another's."""
    if inner["partition"] != outer["partition"]:
        return False
    return bool(outer["start"] <= inner["start"] and inner["next"] <= outer["next"])


def is_replaced(path: Path, entries: list[dict[str, Any]]) -> bool:
    """Whether an unlisted file was merged into a listed one; such files stay for a while."""
    start, end = (int(digits) for digits in path.stem.split("-")[:2])
    named = {"partition": int(path.parent.name[1:]), "start": start, "next": end}
    return any(entry.get("replaces") and is_inside(named, entry) for entry in entries)


def rows(path: Path) -> list[tuple[int, bytes]]:
    """(offset, original bytes): the record with its sealed member put back at the end."""
    table = pq.read_table(path, columns=["offset", "record", "sealed"]).to_pydict()
    return [
        (offset, record if sealed is None else record[:-1] + sealed + b"}")
        for offset, record, sealed in zip(table["offset"], table["record"], table["sealed"], strict=True)
    ]


def archived(folder: Path) -> Iterator[tuple[tuple[int, int], bytes]]:
    """((partition, offset), bytes) of every archived record."""
    for entry in manifest(folder):
        for offset, value in rows(folder / entry["path"]):
            yield (entry["partition"], offset), value
