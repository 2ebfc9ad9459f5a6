"""Opens files as tables: every file of a command, every member of an archive, every sheet of a workbook.

A row that cannot be read is returned as a refusal in its place; a file that cannot be read raises BadRequest.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ingest.files.csv_table import CsvTable
from ingest.files.json_table import JsonTable
from ingest.files.notes import Notes
from ingest.files.parquet_table import ParquetTable
from ingest.files.parts import Part, form_of, parts_of, unreadable
from ingest.files.sheet_table import sheets_of
from ingest.files.tables import Layout, Table
from schemas.errors import BadRequest, DefinitionsInvalid
from schemas.mapping import FileMapping
from schemas.mapping_reading import check_columns

_KINDS: Final = {"parquet": "a Parquet file", "xlsx": "a workbook", "jsonl": "JSON", "csv": "text"}


def layout_of(mapping: FileMapping, needed: Sequence[str]) -> Layout:
    """What a mapping says about how its files are written."""
    return Layout(mapping.delimiter, mapping.encoding, mapping.header_row, mapping.sheet, needed)


def open_tables(
    path: Path, form: str | None, layout: Layout, notes: Notes, mapping: FileMapping | None = None
) -> list[tuple[Table, str]]:
    """The tables of a file with their formats. With a mapping: those that fit it; what does not is told in `notes`.

    Raises BadRequest for a file that cannot be read, DefinitionsInvalid if no table has the mapping's columns.
    """
    parts, packed = parts_of(path)
    if packed:
        notes.add("archive", f"{path} is a {packed} archive: {_list([part.member or '' for part in parts])}")
    opened: list[tuple[Table, str]] = []
    unfit: DefinitionsInvalid | BadRequest | None = None
    for part in parts:
        try:
            tables = _tables_of(part, form, layout)
        except BadRequest as err:
            if len(parts) == 1:
                raise
            notes.add("left_out", f"{part.name} was left out: it cannot be read as a table")
            unfit = unfit or err
            continue
        several = len(parts) + len(tables) > 2
        for table, own in tables:
            try:
                if mapping is not None:
                    check_columns(mapping, table.columns, table.name)
                opened.append((table, own))
            except DefinitionsInvalid as err:
                unfit = unfit or err
                if several:
                    notes.add("left_out", f"{table.name} was left out: it has not the columns of the mapping")
    if not opened and unfit is not None:
        raise unfit
    return opened


def _tables_of(part: Part, form: str | None, layout: Layout) -> list[tuple[Table, str]]:
    found = form_of(part)
    own = form or found
    if own != found and "csv" not in (found,) and (found in ("parquet", "xlsx") or own in ("parquet", "xlsx")):
        raise unreadable(part.name, f"it is {_KINDS[found]}, not {own}: write format: {found}, or leave format out")
    if own == "xlsx" and found != "xlsx":
        raise unreadable(part.name, f"it is {_KINDS[found]}, not a workbook: leave format out")
    if own == "parquet":
        return [(ParquetTable(part), own)]
    if own == "xlsx":
        return [(table, own) for table in sheets_of(part, layout)]
    return [(CsvTable(part, layout) if own == "csv" else JsonTable(part, layout), own)]


def _list(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "") + " in it"
