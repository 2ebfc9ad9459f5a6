"""Where a table's header is, and what divides its columns: by the mapping's names, else by the shape of rows. Pure."""

import csv
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from ingest.files.values import is_missing
from schemas.mapping import column_of

LOOKED_AT: Final = 200  # lines
_WITHIN: Final = 60  # a header comes within these lines
DELIMITERS: Final = (",", ";", "\t", "|")
SEPARATOR: Final = re.compile(r'"?sep=(.)"?[\s,;]*', re.IGNORECASE | re.DOTALL)
_VALUE: Final = re.compile(r"[-+]?[\d.,:/\s-]*\d[\d.,:/\s%-]*")


class Candidate(NamedTuple):
    """A row that may be the header. `line`: where it begins, from 1; `score`: higher is likelier."""

    line: int
    names: tuple[str, ...]
    score: float


def column_names(row: Sequence[Any]) -> tuple[str, ...]:
    """The names in a header row; unnamed columns at its end are no columns."""
    names = ["" if is_missing(each) else str(each).strip().strip("\ufeff") for each in row]
    while names and not names[-1]:
        names.pop()
    return tuple(names)


def find_header(rows: Sequence[tuple[int, Sequence[Any]]], needed: Sequence[str]) -> Candidate | None:
    """The header among the first rows (line, cells): the first that has all the needed columns, else the best guess.

    Reports have lines above it: a title, the day it was made, an empty line.
    """
    named = [(line, column_names(row)) for line, row in rows[:_WITHIN]]
    if needed:
        found = [(line, names, _share(names, needed)) for line, names in named if names]
        if found:
            line, names, share = max(found, key=lambda each: each[2])
            if share > 0:
                return Candidate(line, names, 10 + share)
    width = _usual_width([row for _, row in rows])
    for line, names in named:
        if len(names) >= max(1, min(width, 2)) and len(names) >= width * 0.6 and _is_header(names):
            return Candidate(line, names, _evenness([row for _, row in rows], len(names)))
    first = next(((line, names) for line, names in named if names), None)
    return None if first is None else Candidate(*first, 0.0)


def _share(names: Sequence[str], needed: Sequence[str]) -> float:
    return sum(column_of(name, names) is not None for name in needed) / len(needed)


def _usual_width(rows: Sequence[Sequence[Any]]) -> int:
    widths = Counter(len(column_names(row)) for row in rows)
    widths.pop(0, None)
    return widths.most_common(1)[0][0] if widths else 0


def _is_header(names: Sequence[str]) -> bool:
    """Names are words, mostly there and different; values have digits."""
    there = [name for name in names if name]
    words = [name for name in there if not _VALUE.fullmatch(name) and "@" not in name]
    return len(there) * 2 > len(names) and len(words) >= 0.8 * len(there) and len(set(there)) * 2 > len(there)


def _evenness(rows: Sequence[Sequence[Any]], width: int) -> float:
    """How many rows have about as many cells as the header, weighted by the number of columns."""
    full = [row for row in rows if len(row) > 0]
    even = sum(abs(len(row) - width) <= 1 for row in full)
    return (even / len(full)) * min(width, 8) if full and width > 1 else 0.0


def find_delimiter(lines: Sequence[str], needed: Sequence[str]) -> str:
    """The delimiter of the first lines (with their ends): the one whose rows make the best table; else a comma."""
    scores = {each: _score(lines, each, needed) for each in DELIMITERS}
    best = max(DELIMITERS, key=lambda each: scores[each])
    return best if scores[best] > 0 else ","


def _score(lines: Sequence[str], delimiter: str, needed: Sequence[str]) -> float:
    try:
        rows = list(enumerate(csv.reader(lines[:LOOKED_AT], delimiter=delimiter), 1))
    except csv.Error:
        return 0.0
    found = find_header(rows, needed)
    return 0.0 if found is None or len(found.names) < 2 else found.score
