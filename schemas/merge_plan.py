"""Chooses which files of an archive are merged next. Pure.

Size-tiered: a file's level is how often its rows can be divided by FAN_IN. FAN_IN adjacent files of one level become
one of the next, so each row is rewritten once per level: at one event per second in a partition (60 rows a minute)
four times, until its file is full. A partition keeps fewer than FAN_IN files of each level, and its full ones.
"""

from collections.abc import Container, Iterator, Sequence
from typing import Final

from schemas.archive import ArchiveFile

FAN_IN: Final = 8  # a power of two: levels are counted in bits
FULL_ROWS: Final = 250_000
FULL_BYTES: Final = 64 * 2**20
MOST_FILES: Final = 512  # per merge: it delays the archiver by some seconds at most
_BITS: Final = FAN_IN.bit_length() - 1


def level_of(rows: int) -> int:
    """0 below FAN_IN rows, 1 below FAN_IN squared, and so on."""
    return max(0, rows.bit_length() - 1) // _BITS


def due(entries: Sequence[ArchiveFile], bad: Container[str] = ()) -> list[list[ArchiveFile]]:
    """Runs of adjacent files of one partition, ascending, each to be merged into one. `bad`: paths to leave alone.

    Runs do not overlap; the merged files may themselves be due again.
    """
    return [run for segment in _segments(entries, bad) for run in _runs(segment)]


def waiting(entries: Sequence[ArchiveFile]) -> int:
    """How many files, over all partitions, are in runs that are due."""
    by_partition: dict[int, list[ArchiveFile]] = {}
    for entry in entries:
        by_partition.setdefault(entry.partition, []).append(entry)
    return sum(len(run) for each in by_partition.values() for run in due(each))


def _segments(entries: Sequence[ArchiveFile], bad: Container[str]) -> Iterator[list[ArchiveFile]]:
    """Files that may be merged: none full or bad, no gap, one generation."""
    segment: list[ArchiveFile] = []
    for entry in entries:
        if segment and not _follows(segment[-1], entry):
            yield segment
            segment = []
        if entry.path in bad or _is_full(entry):
            yield segment
            segment = []
        else:
            segment.append(entry)
    yield segment


def _follows(before: ArchiveFile, entry: ArchiveFile) -> bool:
    joined = before.next == entry.start and before.digest == entry.digest_before
    return joined and before.generation == entry.generation


def _is_full(entry: ArchiveFile) -> bool:
    """Half of a full file counts as full: two of them never fit into one."""
    return entry.rows > FULL_ROWS // 2 or entry.bytes > FULL_BYTES // 2


def _runs(segment: Sequence[ArchiveFile]) -> list[list[ArchiveFile]]:
    """Runs of the lowest level at which any are due: merging there may make more runs of the next level due."""
    levels = [level_of(entry.rows) for entry in segment]
    for level in sorted(set(levels)):
        found: list[list[ArchiveFile]] = []
        adjacent: list[ArchiveFile] = []
        for entry, of_entry in zip(segment, levels, strict=True):
            if of_entry <= level:
                adjacent.append(entry)
            else:
                found += _cut(adjacent, level)
                adjacent = []
        found += _cut(adjacent, level)
        if found:
            return found
    return []


def _cut(adjacent: Sequence[ArchiveFile], level: int) -> Iterator[list[ArchiveFile]]:
    """Pieces that fit into one file each, if there are FAN_IN files of the level; the rest waits for more.

    Smaller files between two of the level are included; those before the first and after the last are not.
    """
    of_level = [at for at, entry in enumerate(adjacent) if level_of(entry.rows) == level]
    if len(of_level) < FAN_IN:
        return
    run: list[ArchiveFile] = []
    rows = size = 0
    for entry in adjacent[of_level[0] : of_level[-1] + 1]:
        if run and (rows + entry.rows > FULL_ROWS or size + entry.bytes > FULL_BYTES or len(run) == MOST_FILES):
            if len(run) > 1:
                yield run
            run, rows, size = [], 0, 0
        run.append(entry)
        rows, size = rows + entry.rows, size + entry.bytes
    if sum(level_of(entry.rows) == level for entry in run) >= FAN_IN:
        yield run
