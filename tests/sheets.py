"""Writes workbooks for tests: the smallest xlsx that has dates, times, numbers, texts and values of formulas."""

import io
import zipfile
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timedelta
from typing import Any, Final
from xml.sax.saxutils import escape

_MAIN: Final = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_OFFICE: Final = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE: Final = "http://schemas.openxmlformats.org/package/2006"
_STYLES: Final = (
    f'<styleSheet xmlns="{_MAIN}"><cellXfs count="3"><xf numFmtId="0"/><xf numFmtId="22"/><xf numFmtId="20"/></cellXfs>'
    "</styleSheet>"
)


def workbook(sheets: Mapping[str, Sequence[Sequence[Any]]]) -> bytes:
    """A workbook of these sheets. A cell is text, a number, a date, a time, or ("=FORMULA", its value)."""
    numbered = list(enumerate(sheets.items(), 1))
    parts = "".join(f'<sheet name="{name}" sheetId="{i}" r:id="r{i}"/>' for i, (name, _) in numbered)
    links = [_link(f"r{i}", "worksheet", f"worksheets/s{i}.xml") for i, _ in numbered]
    files = {
        "[Content_Types].xml": f'<Types xmlns="{_PACKAGE}/content-types"/>',
        "_rels/.rels": _links([_link("r1", "officeDocument", "xl/workbook.xml")]),
        "xl/workbook.xml": f'<workbook xmlns="{_MAIN}" xmlns:r="{_OFFICE}"><sheets>{parts}</sheets></workbook>',
        "xl/_rels/workbook.xml.rels": _links([*links, _link("rs", "styles", "styles.xml")]),
        "xl/styles.xml": _STYLES,
        **{f"xl/worksheets/s{i}.xml": _sheet(rows) for i, (_, rows) in numbered},
    }
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as book:
        for name, content in files.items():
            book.writestr(name, content)
    return out.getvalue()


def _links(links: Sequence[str]) -> str:
    return f'<Relationships xmlns="{_PACKAGE}/relationships">{"".join(links)}</Relationships>'


def _link(id_: str, kind: str, target: str) -> str:
    return f'<Relationship Id="{id_}" Type="{_OFFICE}/{kind}" Target="{target}"/>'


def _sheet(rows: Sequence[Sequence[Any]]) -> str:
    lines = "".join(f'<row r="{number}">{_cells(number, row)}</row>' for number, row in enumerate(rows, 1))
    return f'<worksheet xmlns="{_MAIN}"><sheetData>{lines}</sheetData></worksheet>'


def _cells(number: int, row: Sequence[Any]) -> str:
    return "".join(_cell(f"{chr(65 + place)}{number}", value) for place, value in enumerate(row))


def _cell(place: str, value: Any) -> str:
    if isinstance(value, tuple):
        return f'<c r="{place}"><f>{value[0][1:]}</f><v>{value[1]}</v></c>'
    if isinstance(value, str):
        return f'<c r="{place}" t="inlineStr"><is><t>{escape(value)}</t></is></c>' if value else ""
    if isinstance(value, date | time):
        return f'<c r="{place}" s="{2 if isinstance(value, time) else 1}"><v>{_serial(value)}</v></c>'
    return f'<c r="{place}"><v>{value}</v></c>'


def _serial(value: date | time) -> float:
    """Days since the end of 1899."""
    if isinstance(value, time):
        return timedelta(hours=value.hour, minutes=value.minute, seconds=value.second) / timedelta(days=1)
    at = value if isinstance(value, datetime) else datetime(value.year, value.month, value.day)  # noqa: DTZ001
    return (at - datetime(1899, 12, 30)) / timedelta(days=1)  # noqa: DTZ001
