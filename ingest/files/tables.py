"""What a table of rows is, whatever file it comes from, and how its layout is said."""

from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from typing import Any, NamedTuple, Protocol, cast

from ingest.accept.canonical import Refused
from ingest.files.notes import Notes

Values = tuple[Any, ...]


class Line(NamedTuple):
    """A row: its line number (Parquet: row number) from 1, and the wanted values in order, or why there are none."""

    number: int
    values: Values
    refused: Refused | None


class Layout(NamedTuple):
    """How a file is written, where the mapping says it; None: found out. `needed`: columns the mapping names."""

    delimiter: str | None = None
    encoding: str | None = None
    header_row: int | None = None
    sheet: str | int | None = None
    needed: Sequence[str] = ()


class Table(Protocol):
    """One file, member or sheet. `columns`: its columns in order. `done()`: the share read by the latest `rows`, 0..1.

    `name`: for people; `size`: its weight beside others, in bytes. `notes`: what was noticed while reading. `layout`:
    what was found out about it, as a mapping would say it.
    """

    name: str
    size: int
    columns: tuple[str, ...]
    notes: Notes

    def rows(self, wanted: Sequence[str]) -> Iterator[Line]:
        """All rows from the first; each call reads the file again. Values missing from a row are None."""

    def done(self) -> float: ...

    @property
    def layout(self) -> Layout: ...


def selector(columns: Sequence[str], wanted: Sequence[str]) -> Callable[[Sequence[Any]], Values]:
    """Picks the wanted values of a row in C."""
    if list(columns) == list(wanted):
        return tuple
    places = [columns.index(name) for name in wanted]
    if len(places) == 1:
        only = places[0]
        return lambda row: (row[only],)
    return cast("Callable[[Sequence[Any]], Values]", itemgetter(*places))
