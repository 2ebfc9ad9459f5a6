"""The archive's files as they lie in their folder: the manifest's lines and the records, read with pyarrow alone."""

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
    return [json.loads(line.partition(b" ")[2]) for line in lines[1:]]


def rows(path: Path) -> list[tuple[int, bytes]]:
    """(offset, original bytes): the record with its sealed member put back as the last one."""
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
