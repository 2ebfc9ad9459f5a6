"""The sheets of a workbook (xlsx, xlsb, xls, ods): dates and numbers as cells have them, and the values of formulas."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from ingest.files.headers import LOOKED_AT, Candidate, column_names, find_header
from ingest.files.notes import Notes
from ingest.files.parts import Part, unreadable
from ingest.files.tables import Layout, Line, selector

if TYPE_CHECKING:
    from python_calamine import CalamineSheet

_ERRORS: Final = frozenset({"#N/A", "#REF!", "#VALUE!", "#DIV/0!", "#NAME?", "#NULL!", "#NUM!"})
_EXACT: Final = 10**15  # a cell keeps 15 digits; what is longer has lost its last ones


class SheetTable:
    """One sheet with a header; `number` is its row. A workbook's sheets are in memory, packed: 32 bytes a cell."""

    def __init__(self, part: Part, sheet: "CalamineSheet", layout: Layout) -> None:
        self.part, self.sheet, self.name, self.size = part, sheet.name, f"{part.name}/{sheet.name}", part.size
        self.notes = Notes()
        self._cells = sheet
        self._read = 0
        first = list(islice(sheet.iter_rows(), LOOKED_AT))
        header = self._header(first, layout)
        self._first = header.line
        self.columns = header.names
        if any(cell != "" for row in first[: header.line - 1] for cell in row):
            self.notes.add("preamble", f"{self.name}: the header is in row {header.line}; what is above was left out")

    def done(self) -> float:
        return min(1.0, self._read / max(1, self._cells.total_height))

    @property
    def layout(self) -> Layout:
        return Layout(header_row=self._first, sheet=self.sheet)

    def _header(self, first: list[list[Any]], layout: Layout) -> Candidate:
        numbered = list(enumerate(first, 1))
        if layout.header_row is None:
            found = find_header(numbered, layout.needed)
        else:
            said = dict(numbered).get(layout.header_row, [])
            found = Candidate(layout.header_row, column_names(said), 1.0)
        if found is None or not any(found.names):
            raise unreadable(self.name, "it has no header: a row must name the columns")
        return found

    def rows(self, wanted: Sequence[str]) -> Iterator[Line]:
        select, width = selector(self.columns, wanted), len(self.columns)
        for number, row in enumerate(islice(self._cells.iter_rows(), self._first, None), self._first + 1):
            self._read = number
            cells = [self._value(cell, number) for cell in row[:width]]
            if any(cell is not None for cell in cells):
                yield Line(number, select(cells + [None] * (width - len(cells))), None)

    def _value(self, cell: Any, number: int) -> Any:
        kind = type(cell)
        if kind is str:
            if not cell:
                return None
            if cell[0] == "#" and cell in _ERRORS:
                self.notes.add("cell_error", "a formula with an error such as #N/A: its cell counts as empty", number)
                return None
            return cell
        if kind is float:
            if cell >= _EXACT:
                return f"{cell:.5E}"  # told as an id whose digits are lost, as in CSV from the same spreadsheet
            return int(cell) if cell.is_integer() else cell
        return str(cell) if kind is timedelta else cell


def sheets_of(part: Part, layout: Layout) -> list[SheetTable]:
    """The sheets with rows, or the one that the layout names. Raises BadRequest."""
    from python_calamine import CalamineError, CalamineWorkbook  # noqa: PLC0415  # only who has a workbook waits for it

    try:
        with part.seekable() as raw:
            book = CalamineWorkbook.from_filelike(raw)
            names = _wanted(part, list(book.sheet_names), layout)
            sheets = [book.get_sheet_by_name(name) for name in names]
    except CalamineError as err:
        raise unreadable(part.name, f"it is not a workbook that can be opened ({err})") from err
    tables = [SheetTable(part, sheet, layout) for sheet in sheets if sheet.end is not None]
    if not tables:
        raise unreadable(part.name, "it has no header: a row must name the columns")
    return tables


def _wanted(part: Part, names: list[str], layout: Layout) -> list[str]:
    if layout.sheet is None:
        return names
    by_number = isinstance(layout.sheet, int) and layout.sheet <= len(names)
    said = names[layout.sheet - 1] if by_number and isinstance(layout.sheet, int) else layout.sheet
    if said not in names:
        raise unreadable(part.name, f"it has no sheet {layout.sheet!r}; it has: {', '.join(names)}")
    return [str(said)]
