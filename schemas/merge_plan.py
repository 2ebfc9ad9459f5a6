"""Which files of an archive are put together next. Pure.

Size-tiered: a file's level is how many times its rows can be divided by FAN_IN. FAN_IN adjacent files of a level become
one of the next, so each row is written again once a level: at an event a second in a partition (60 rows a minute) four
times, until its file is full. A partition keeps fewer than FAN_IN files of each level, and its full ones.
"""

from collections.abc import Container, Iterator, Sequence
from typing import Final

from schemas.archive import ArchiveFile

FAN_IN: Final = 8  # a power of two: levels are counted in bits
FULL_ROWS: Final = 250_000
FULL_BYTES: Final = 64 * 2**20
MOST_FILES: Final = 512  # in one merge: it holds the archiver up for some seconds at most
_BITS: Final = FAN_IN.bit_length() - 1


def level_of(rows: int) -> int:
    """0 below FAN_IN rows, 1 below FAN_IN squared, and so on."""
    return max(0, rows.bit_length() - 1) // _BITS


def due(entries: Sequence[ArchiveFile], bad: Container[str] = ()) -> list[list[ArchiveFile]]:
    """Runs of adjacent files of one partition, ascending, that are to become one each. `bad`: paths to leave alone.

    The runs do not overlap; what they become may be due again.
    """
    return [run for segment in _segments(entries, bad) for run in _runs(segment)]


def waiting(entries: Sequence[ArchiveFile]) -> int:
    """How many files of all partitions are in runs that are due."""
    by_partition: dict[int, list[ArchiveFile]] = {}
    for entry in entries:
        by_partition.setdefault(entry.partition, []).append(entry)
    return sum(len(run) for each in by_partition.values() for run in due(each))


def _segments(entries: Sequence[ArchiveFile], bad: Container[str]) -> Iterator[list[ArchiveFile]]:
    """What may be merged: no full and no bad file in it, no gap, one generation."""
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
    """Half of a full file is full: two such never fit into one."""
    return entry.rows > FULL_ROWS // 2 or entry.bytes > FULL_BYTES // 2


def _runs(segment: Sequence[ArchiveFile]) -> list[list[ArchiveFile]]:
    """Of the lowest level at which anything is due: what is merged there may make more of the next one due."""
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
    """Pieces that fit into one file each, where there are FAN_IN files of the level; the rest waits for more.

    Smaller files between two of the level go with them; what is before the first and behind the last does not.
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
