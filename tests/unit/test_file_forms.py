"""Files as people have them: encodings, delimiters, preambles, quotes, archives, sheets, JSON in cells, structs."""

import bz2
import gzip
import io
import json
import lzma
import zipfile
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ingest.files.rows import Source
from schemas.errors import BadRequest, DefinitionsInvalid
from schemas.mapping import FileMapping
from tests.sheets import workbook

SECRET = b"k" * 32
BASE: dict[str, Any] = {
    "source": "shop",
    "type": "purchase.completed",
    "identifiers": {"user_id": "customer"},
    "occurred_at": "day",
    "properties": {"order_id": "order", "revenue": {"column": "paid", "money": "EUR"}},
}
PLAIN = "customer,order,day,paid\nMüller,7,2024-05-01,9.50\nÅsa,8,2024-05-02,10\n"
EXPECTED = [("Müller", "7", "9.50"), ("Åsa", "8", "10.00")]


def mapping(**changes: Any) -> FileMapping:
    return FileMapping.model_validate(BASE | changes)


def source(path: Path, content: bytes | str, **changes: Any) -> Source:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return Source([path], mapping(**changes), SECRET)


def items(source: Source) -> list[Mapping[str, Any]]:
    found = list(source.events())
    assert all(event.item for event in found), [(event.row.line, str(event.refused)) for event in found]
    return [event.item for event in found if event.item]


def orders(source: Source) -> list[tuple[str, str, str]]:
    return [(it["userId"], it["properties"]["order_id"], it["properties"]["revenue"]) for it in items(source)]


def codes(source: Source) -> list[str]:
    return [note.code for note in source.notes()]


def refused(source: Source) -> list[tuple[int, str]]:
    return [(event.row.line, str(event.refused)) for event in source.events() if event.item is None]


# ---------------------------------------------------------------- encodings


@pytest.mark.parametrize(
    ("encode", "told"),
    [
        (lambda text: text.encode(), []),
        (lambda text: text.encode("utf-8-sig"), []),
        (lambda text: text.encode("utf-16"), ["encoding"]),
        (lambda text: text.encode("utf-16-le"), ["encoding"]),
        (lambda text: text.encode("utf-16-be"), ["encoding"]),
        (lambda text: text.encode("utf-32"), ["encoding"]),
        (lambda text: text.encode("cp1252"), ["encoding"]),
    ],
    ids=["utf-8", "mark", "utf-16", "little", "big", "utf-32", "windows"],
)
def test_an_encoding_is_found_and_told(tmp_path: Path, encode: Callable[[str], bytes], told: list[str]) -> None:
    read = source(tmp_path / "a.csv", encode(PLAIN))
    assert orders(read) == EXPECTED
    assert codes(read) == told


def test_windows_letters_far_behind_the_first_million_bytes_are_read(tmp_path: Path) -> None:
    lines = "".join(f"c{n},{n},2024-05-01,1\n" for n in range(60_000))
    content = b"customer,order,day,paid\n" + lines.encode() + "Zoë,x,2024-05-01,2\n".encode("cp1252")
    assert len(content) > 1_048_576
    read = source(tmp_path / "a.csv", content)
    assert orders(read)[-1] == ("Zoë", "x", "2.00")
    (note,) = read.notes()
    assert (note.count, note.lines) == (1, [60_002])


def test_an_encoding_may_be_said(tmp_path: Path) -> None:
    text = "customer,order,day,paid\nИван,7,2024-05-01,9.50\n"
    assert orders(source(tmp_path / "a.csv", text.encode("cp1251"), encoding="windows-1251"))[0][0] == "Иван"
    read = source(tmp_path / "b.csv", PLAIN.replace("Å", "ü").encode("cp1252"), encoding="utf-8")
    assert [line for line, _ in refused(read)] == [2, 3], "said to be UTF-8, so what is not is damaged"


# ---------------------------------------------------------------- what divides, what stands above


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found(tmp_path: Path, delimiter: str) -> None:
    assert orders(source(tmp_path / "a.csv", PLAIN.replace(",", delimiter))) == EXPECTED


def test_a_delimiter_inside_values_does_not_mislead(tmp_path: Path) -> None:
    text = "customer;order;day;paid;note\nA, B, C and D;7;2024-05-01;9.50;a, b, c, d\n"
    assert orders(source(tmp_path / "a.csv", text)) == [("A, B, C and D", "7", "9.50")]


@pytest.mark.parametrize("first", ["sep=;", "SEP=;", '"sep=;"', "\ufeffsep=;"])
def test_the_line_that_tells_excel_its_delimiter_is_no_header(tmp_path: Path, first: str) -> None:
    text = f"{first}\r\n{PLAIN}".replace(",", ";")
    assert orders(source(tmp_path / "a.csv", text)) == EXPECTED
    assert orders(source(tmp_path / "b.csv", text, delimiter=";")) == EXPECTED
    found = list(source(tmp_path / "c.csv", text).events())
    assert [event.row.line for event in found] == [3, 4]


def test_lines_above_the_header_are_left_out_and_told(tmp_path: Path) -> None:
    text = f"Sales report\nMay 2024, all shops\n\n{PLAIN}"
    read = source(tmp_path / "a.csv", text)
    assert orders(read) == EXPECTED
    assert codes(read) == ["preamble"]
    assert [event.row.line for event in read.events()] == [5, 6]
    assert orders(source(tmp_path / "b.csv", text, header_row=4)) == EXPECTED


def test_empty_columns_at_the_end_and_unused_ones_twice_do_no_harm(tmp_path: Path) -> None:
    text = "customer,order,day,paid,note,note,,\nc1,7,2024-05-01,9.50,a,b,,\nc2,8,2024-05-02,10,,,\n"
    read = source(tmp_path / "a.csv", text)
    assert orders(read) == [("c1", "7", "9.50"), ("c2", "8", "10.00")]
    with pytest.raises(DefinitionsInvalid, match="has the column 'note' twice"):
        Source([tmp_path / "a.csv"], mapping(properties={"note": "note"}), SECRET)


def test_more_values_than_the_header_has_are_refused(tmp_path: Path) -> None:
    assert refused(source(tmp_path / "a.csv", PLAIN + "c,9,2024-05-03,1,extra\n")) == [
        (4, "has 5 fields where the header has 4")
    ]


def test_lines_that_end_before_columns_nobody_asks_for_are_taken(tmp_path: Path) -> None:
    text = "customer,order,day,paid,note,till\nc1,7,2024-05-01,9.50\nc2,8,2024-05-02,10,x\nc3,9,2024-05-03\n"
    read = source(tmp_path / "a.csv", text)
    found = list(read.events())
    assert [event.item is not None for event in found] == [True, True, False]
    assert str(found[2].refused) == "has 3 fields where the header has 6"
    assert codes(read) == ["short"]


def test_a_header_that_comes_again_is_no_row(tmp_path: Path) -> None:
    read = source(tmp_path / "a.csv", PLAIN + PLAIN)
    assert orders(read) == EXPECTED * 2
    assert codes(read) == ["header_again"]


# ---------------------------------------------------------------- quotes


def lines_of(count: int, first: str) -> str:
    return "customer,order,day,paid,note\n" + first + "".join(f"c{n},{n},2024-05-01,1.00,ok\n" for n in range(count))


def test_a_quote_that_is_never_closed_costs_its_own_line(tmp_path: Path) -> None:
    read = source(tmp_path / "a.csv", lines_of(50, 'x,y,2024-05-01,1.00,"5 inch\n'))
    found = list(read.events())
    assert [(event.row.line, str(event.refused)) for event in found if event.item is None] == [
        (2, "has a quote that is never closed")
    ]
    assert sum(event.item is not None for event in found) == 50


def test_a_quote_closed_by_a_later_rows_quote_swallows_nothing(tmp_path: Path) -> None:
    text = lines_of(3, 'x,y,2024-05-01,1.00,"5 inch\n') + 'd,z,2024-05-02,2.00,"fine"\n' + "e,w,2024-05-03,3.00,ok\n"
    found = list(source(tmp_path / "a.csv", text).events())
    assert [event.row.line for event in found if event.item is None] == [2]
    assert [event.item["properties"]["order_id"] for event in found if event.item] == ["0", "1", "2", "z", "w"]


def test_a_quote_that_closes_by_chance_swallows_no_rows_between(tmp_path: Path) -> None:
    text = lines_of(3, 'x,y,2024-05-01,1.00,"5 inch\n') + 'd,z,2024-05-02,2.00,6"\n'
    found = list(source(tmp_path / "a.csv", lines_of(1, "") + text.partition("\n")[2]).events())
    assert sum(event.item is not None for event in found) >= 4
    assert [event.row.line for event in found if event.item is None][:1] == [3]


def test_line_breaks_inside_quotes_are_one_row(tmp_path: Path) -> None:
    text = (
        'customer,order,day,paid,note\n"a\nb",7,2024-05-01,9.50,"Dear Ada,\nthanks, Bob, for 3, 4, and 5\n\nbest"\n'
        'c,8,2024-05-02,10,"says ""hi""\r\nand more"\n'
    )
    found = list(source(tmp_path / "a.csv", text).events())
    assert [event.row.line for event in found] == [2, 7]
    assert [event.item and event.item["userId"] for event in found] == ["a\nb", "c"]


# ---------------------------------------------------------------- archives


def zipped(members: Mapping[str, str | bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def test_a_zip_of_one_or_several_files_is_one_data_set(tmp_path: Path) -> None:
    one = source(tmp_path / "a.zip", zipped({"may.csv": PLAIN, "__MACOSX/._may.csv": b"\0", "folder/": ""}))
    assert orders(one) == EXPECTED
    assert codes(one) == ["archive"]
    two = source(tmp_path / "b.csv", zipped({"may.csv": PLAIN, "june.csv": gzip.compress(PLAIN.encode())}))
    assert orders(two) == EXPECTED * 2
    assert [Path(two.name(n)).name for n in range(2)] == ["may.csv", "june.csv"]


def test_what_does_not_fit_in_an_archive_is_left_out_and_told(tmp_path: Path) -> None:
    read = source(tmp_path / "a.zip", zipped({"products.csv": "sku,name\n1,x\n", "may.csv": PLAIN, "logo.bin": b""}))
    assert orders(read) == EXPECTED
    assert codes(read) == ["archive", "left_out", "left_out"]
    with pytest.raises(DefinitionsInvalid, match="no column 'customer'"):
        source(tmp_path / "b.zip", zipped({"products.csv": "sku,name\n1,x\n"}))


def test_gzip_of_several_members_and_other_packers(tmp_path: Path) -> None:
    head, _, rest = PLAIN.partition("\n")
    members = gzip.compress(f"{head}\n".encode()) + gzip.compress(rest.encode())
    for name, content in (
        ("a.csv.gz", members),
        ("a.csv.bz2", bz2.compress(PLAIN.encode())),
        ("a.csv.xz", lzma.compress(PLAIN.encode())),
    ):
        assert orders(source(tmp_path / name, content)) == EXPECTED, name


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (zipped({"a.csv": PLAIN})[:-30], "zip file is truncated or damaged"),
        (zipped({}), "the zip archive has no files"),
        (b"7z\xbc\xaf\x27\x1c", "packed with 7z"),
        (b"Rar!\x1a\x07\x01\x00", "packed with rar"),
        (bz2.compress(PLAIN.encode() * 99)[:-20], "truncated or damaged"),
        (b"\xd0\xcf\x11\xe0" + b"\0" * 600, "not a workbook that can be opened"),
    ],
)
def test_a_file_that_cannot_be_opened_says_why(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        list(source(tmp_path / "a.dat", content).events())


def test_the_wrong_format_is_told_with_the_right_one(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="it is a workbook, not csv: write format: xlsx"):
        source(tmp_path / "a.csv", workbook({"s": [["customer", "order", "day", "paid"]]}), format="csv")


# ---------------------------------------------------------------- workbooks

SHEET: Sequence[Sequence[Any]] = (
    ("customer", "order", "day", "clock", "paid"),
    (1001, "A1", datetime.fromisoformat("2024-05-01 10:30"), time(8, 5), 9.5),
    (1002, "A2", date(2024, 5, 2), time(9, 0), ("=5*2", 10)),
)


def test_dates_numbers_and_formulas_of_a_workbook_are_what_the_cells_show(tmp_path: Path) -> None:
    one, two = items(source(tmp_path / "a.xlsx", workbook({"May": SHEET})))
    assert (one["userId"], one["timestamp"], one["properties"]["revenue"]) == (
        "1001",
        "2024-05-01T10:30:00+00:00",
        "9.50",
    )
    assert (two["timestamp"], two["properties"]["revenue"]) == ("2024-05-02T00:00:00+00:00", "10.00")


def test_sheets_that_fit_are_one_data_set_or_one_is_said(tmp_path: Path) -> None:
    content = workbook({"May": SHEET, "Notes": [["hello"]], "June": SHEET[:2], "Empty": []})
    read = source(tmp_path / "a.xlsx", content)
    assert len(items(read)) == 3
    assert codes(read) == ["left_out"]
    assert len(items(source(tmp_path / "b.xlsx", content, sheet="June"))) == 1
    assert len(items(source(tmp_path / "c.xlsx", content, sheet=1))) == 2
    with pytest.raises(BadRequest, match="no sheet 'July'; it has: May, Notes, June, Empty"):
        source(tmp_path / "d.xlsx", content, sheet="July")


def test_a_sheet_may_begin_anywhere(tmp_path: Path) -> None:
    moved = [[], ["", "Report of May"], [], *[["", *row] for row in SHEET]]
    read = source(tmp_path / "a.xlsx", workbook({"s": moved}))
    assert [event.row.line for event in read.events()] == [5, 6]
    assert codes(read) == ["preamble"]


def test_a_number_too_long_for_a_cell_names_nobody(tmp_path: Path) -> None:
    rows = [SHEET[0], (8209831234567890, "A1", date(2024, 5, 1), "", 1.0)]
    read = source(tmp_path / "a.xlsx", workbook({"s": rows}))
    (item,) = items(read)
    assert "userId" not in item
    assert codes(read) == ["destroyed_id"]


def test_the_day_and_the_time_may_be_two_columns(tmp_path: Path) -> None:
    when = {"column": "day", "time": "clock", "format": "%Y-%m-%d %H:%M"}
    one, two = items(source(tmp_path / "a.xlsx", workbook({"s": SHEET}), occurred_at=when, time_zone="Europe/Berlin"))
    assert (one["timestamp"], two["timestamp"]) == ("2024-05-01T06:05:00+00:00", "2024-05-02T07:00:00+00:00")
    text = "customer,order,day,clock,paid\nc,1,05/01/2024,8:05 PM,1\nc,2,05/01/2024,,1\n"
    us = {"column": "day", "time": "clock", "format": "%m/%d/%Y %I:%M %p"}
    read = source(tmp_path / "a.csv", text, occurred_at=us)
    assert [str(e.refused) if e.refused else e.item and e.item["timestamp"] for e in read.events()] == [
        "2024-05-01T20:05:00+00:00",
        "has no time",
    ]


# ---------------------------------------------------------------- JSON and structs

ORDER = {"customer": "c1", "order": "A1", "day": "2024-05-01", "cart": [{"sku": "x", "n": 2, "eur": 1.5}, {"sku": "y"}]}
LINES: dict[str, Any] = {
    "lines": "cart",
    "products": {"sku": "sku", "quantity": "n", "price": {"column": "eur", "money": "EUR"}},
    "properties": {"order_id": "order"},
}


def test_lines_of_an_order_inside_one_column(tmp_path: Path) -> None:
    expected = [{"sku": "x", "quantity": 2, "price": "1.50"}, {"sku": "y"}]
    jsonl = source(tmp_path / "a.jsonl", json.dumps(ORDER), **LINES)
    pq.write_table(pa.Table.from_pylist([ORDER]), tmp_path / "a.parquet")
    parquet = Source([tmp_path / "a.parquet"], mapping(**LINES), SECRET)
    cart = json.dumps(ORDER["cart"]).replace('"', '""')
    csv = source(tmp_path / "a.csv", f'customer,order,day,cart\nc1,A1,2024-05-01,"{cart}"\n', **LINES)
    for read in (jsonl, parquet, csv):
        (item,) = items(read)
        assert item["properties"]["products"] == expected


def test_sums_over_lines_inside_one_column(tmp_path: Path) -> None:
    changed = LINES | {"properties": {"order_id": "order", "revenue": {"sum": "eur", "money": "EUR"}}}
    (item,) = items(source(tmp_path / "a.jsonl", json.dumps(ORDER), **changed))
    assert item["properties"]["revenue"] == "1.50"


def test_a_name_leads_into_json_text_structs_and_lists_of_keys(tmp_path: Path) -> None:
    payload = {"buyer": {"id": 12}, "items": [{"sku": "s"}], "params": [{"key": "a", "value": {"i": None, "s": "v"}}]}
    who = {"user_id": "payload.buyer.id"}
    rest = {"first": "payload.items.0.sku", "a": "payload.params.a"}
    text = json.dumps(payload).replace('"', '""')
    row = {"day": "2024-05-01", "payload": payload}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "a.parquet")
    for read in (
        source(tmp_path / "a.csv", f'day,payload\n2024-05-01,"{text}"\n', identifiers=who, properties=rest),
        source(tmp_path / "a.jsonl", json.dumps(row), identifiers=who, properties=rest),
        Source([tmp_path / "a.parquet"], mapping(identifiers=who, properties=rest), SECRET),
    ):
        (item,) = items(read)
        assert (item["userId"], item["properties"]) == ("12", {"first": "s", "a": "v"})


def test_text_that_is_no_json_is_refused_where_a_name_leads_into_it(tmp_path: Path) -> None:
    text = "day,payload\n2024-05-01,{oops\n"
    read = source(tmp_path / "a.csv", text, identifiers={"user_id": "payload.id"}, properties={})
    assert refused(read) == [(2, "is not JSON")]


@pytest.mark.parametrize(
    "write",
    [
        json.dumps,
        lambda rows: json.dumps(rows, indent=2),
        lambda rows: json.dumps({"count": 2, "orders": rows}, indent=1),
        lambda rows: "\n".join(map(json.dumps, rows)).encode("utf-16"),
    ],
)
def test_json_of_any_shape_is_rows(tmp_path: Path, write: Callable[[Any], Any]) -> None:
    rows = [{"customer": f"c{n}", "order": n, "day": "2024-05-01", "paid": 1} for n in range(2)]
    assert orders(source(tmp_path / "a.json", write(rows))) == [("c0", "0", "1.00"), ("c1", "1", "1.00")]
