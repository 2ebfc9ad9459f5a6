"""From files to items: formats, ids, times, amounts, orders, refusals. No store, no vault."""

import gzip
import json
import random
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ingest.files.mapped_rows import Shaped
from ingest.files.rows import Source, preview
from schemas.errors import BadRequest, DefinitionsInvalid
from schemas.mapping import FileMapping

SECRET = b"s" * 32
BASE: dict[str, Any] = {
    "source": "tills",
    "format": "csv",
    "type": "pos.purchase",
    "identifiers": {"user_id": "customer"},
    "occurred_at": {"column": "day", "format": "iso"},
    "properties": {"revenue": {"column": "paid", "money": "USD"}, "pieces": "pieces"},
}


def mapping(**changes: Any) -> FileMapping:
    return FileMapping.model_validate(BASE | changes)


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def events(files: Sequence[Path], read: FileMapping, held_lines: int = 200_000) -> list[Shaped]:
    return list(Source(files, read, SECRET, held_lines=held_lines).events())


def items(path: Path, read: FileMapping) -> list[Mapping[str, Any]]:
    found = events([path], read)
    assert all(event.item is not None for event in found), [str(event.refused) for event in found]
    return [event.item for event in found if event.item is not None]


def refusals(path: Path, read: FileMapping) -> list[tuple[int, str, str]]:
    return [(e.row.line, e.refused.path, str(e.refused)) for e in events([path], read) if e.refused is not None]


ROWS = [
    {"customer": "a1", "day": "2024-01-31T10:00:00", "paid": "12.50", "pieces": "2"},
    {"customer": "b2", "day": "2024-02-01T11:30:00", "paid": "7.00", "pieces": "1"},
    {"customer": "a1", "day": "2024-01-31T10:00:00", "paid": "12.50", "pieces": "2"},
]


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [",".join(rows[0])] + [",".join(str(value) for value in row.values()) for row in rows]
    return "\n".join(lines) + "\n"


def test_all_formats_give_the_same_items_and_contents(tmp_path: Path) -> None:
    typed = [
        {**r, "day": datetime.fromisoformat(r["day"]), "paid": float(r["paid"]), "pieces": int(r["pieces"])}
        for r in ROWS
    ]
    objects = [json.dumps({**row, "paid": float(row["paid"]), "pieces": int(row["pieces"])}) for row in ROWS]
    table = pa.Table.from_pylist(typed)
    pq.write_table(table, tmp_path / "t.parquet")
    pq.write_table(table.set_column(1, "day", table["day"].cast(pa.timestamp("ns"))), tmp_path / "ns.parquet")
    files = [
        (write(tmp_path / "t.csv", as_csv(ROWS)), "csv"),
        (write(tmp_path / "crlf.csv", b"\xef\xbb\xbf" + as_csv(ROWS).replace("\n", "\r\n").encode()), "csv"),
        (write(tmp_path / "named_anyhow.csv", gzip.compress(as_csv(ROWS).encode())), "csv"),
        (write(tmp_path / "t.jsonl", "\n\n".join(objects)), "jsonl"),
        (write(tmp_path / "t.jsonl.gz", gzip.compress("\n".join(objects).encode())), "jsonl"),
        (tmp_path / "t.parquet", "parquet"),
        (tmp_path / "ns.parquet", "parquet"),
    ]
    seen = []
    for path, form in files:
        found = events([path], mapping(format=form))
        seen.append([(event.item, event.content) for event in found])
        assert len(found) == 3, path
    assert all(each == seen[0] for each in seen)
    assert seen[0][0] == seen[0][2], "equal lines have equal contents: the importer counts them"
    assert seen[0][0][1] != seen[0][1][1]


def test_the_order_of_columns_and_empty_ones_do_not_matter_for_the_content(tmp_path: Path) -> None:
    turned = [dict(reversed(row.items())) | {"note": ""} for row in ROWS]
    one = events([write(tmp_path / "a.csv", as_csv(ROWS))], mapping())
    other = events([write(tmp_path / "b.csv", as_csv(turned))], mapping())
    assert [e.content for e in one] == [e.content for e in other]


def test_the_content_is_keyed_and_of_the_whole_row(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", as_csv([{**row, "till": place} for place, row in enumerate(ROWS)]))
    contents = {event.content for event in events([path], mapping())}
    assert len(contents) == 3, "a column that is not mapped tells lines apart"
    assert contents.isdisjoint(event.content for event in Source([path], mapping(), b"t" * 32).events())


def test_an_item_is_what_an_sdk_would_send(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.csv",
        "no,user,mail,tel,card,device,crm,day,paid\n7,u1,a@b.c,+1 650,c9,d3,x4,2024-01-31,5\n",
    )
    kinds = {
        "user_id": "user",
        "email": "mail",
        "phone": "tel",
        "loyalty_card": "card",
        "device_id": "device",
        "crm": "crm",
    }
    read = mapping(
        id="no",
        identifiers=kinds,
        properties={"revenue": {"column": "paid", "money": "USD"}},
        constant={"context.channel": "store", "context.device.type": "till", "properties.affiliation": "north"},
    )
    (event,) = events([path], read)
    assert event.natural == "7"
    assert event.item == {
        "type": "track",
        "event": "pos.purchase",
        "timestamp": "2024-01-31T00:00:00+00:00",
        "userId": "u1",
        "properties": {"affiliation": "north", "currency": "USD", "revenue": "5.00"},
        "context": {
            "channel": "store",
            "device": {"type": "till", "id": "d3"},
            "traits": {"email": "a@b.c", "phone": "+1 650", "loyalty_card": "c9"},
            "externalIds": [{"id": "x4", "type": "crm", "collection": "users", "encoding": "none"}],
        },
    }


def test_identified_profiles_carry_their_traits(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "user,mail,city,day\nu1,a@b.c,Oslo,2024-01-31\nu2,,,2024-02-01\n")
    read = mapping(
        type="profile.identified",
        identifiers={"user_id": "user", "email": "mail"},
        traits={"city": "city"},
        properties={},
    )
    one, two = items(path, read)
    assert (one["type"], one["traits"]) == ("identify", {"city": "Oslo", "email": "a@b.c"})
    assert "traits" not in two


@pytest.mark.parametrize(
    ("text", "pattern", "zone", "expected"),
    [
        ("20240131", "%Y%m%d", "UTC", "2024-01-31T00:00:00+00:00"),
        ("31.01.2024 08:05", "%d.%m.%Y %H:%M", "Europe/Berlin", "2024-01-31T07:05:00+00:00"),
        ("2024-07-01 12:00:00", "iso", "America/New_York", "2024-07-01T16:00:00+00:00"),
        ("2024-07-01T12:00:00-07:00", "iso", "America/New_York", "2024-07-01T19:00:00+00:00"),
        ("2024-07-01T12:00:00Z", "iso", "Asia/Tokyo", "2024-07-01T12:00:00+00:00"),
        ("2024-11-03 01:30:00", "iso", "America/New_York", "2024-11-03T05:30:00+00:00"),  # comes twice: the first
        ("2024-03-10 02:30:00", "iso", "America/New_York", "2024-03-10T07:30:00+00:00"),  # never came
        ("1706695200", "epoch_s", "Asia/Tokyo", "2024-01-31T10:00:00+00:00"),
        ("1706695200.25", "epoch_s", "UTC", "2024-01-31T10:00:00.250000+00:00"),
        ("1706695200250", "epoch_ms", "UTC", "2024-01-31T10:00:00.250000+00:00"),
    ],
)
def test_times_are_read_in_their_format_and_zone(
    tmp_path: Path, text: str, pattern: str, zone: str, expected: str
) -> None:
    path = write(tmp_path / "a.csv", as_csv([{**ROWS[0], "day": text}]))
    (item,) = items(path, mapping(occurred_at={"column": "day", "format": pattern}, time_zone=zone))
    assert item["timestamp"] == expected


def test_dates_and_aware_times_of_parquet_are_read(tmp_path: Path) -> None:
    for at, expected in (
        (date(2024, 7, 1), "2024-07-01T04:00:00+00:00"),
        (datetime.fromisoformat("2024-07-01T12:00:00+02:00"), "2024-07-01T10:00:00+00:00"),
        (20240701, "2024-07-01T04:00:00+00:00"),
    ):
        pq.write_table(pa.Table.from_pylist([{**ROWS[0], "day": at}]), tmp_path / "a.parquet")
        pattern = "%Y%m%d" if isinstance(at, int) else "iso"
        read = mapping(format="parquet", occurred_at={"column": "day", "format": pattern}, time_zone="America/New_York")
        assert items(tmp_path / "a.parquet", read)[0]["timestamp"] == expected


LINES = [
    {"basket": "b1", "customer": "a1", "day": "2024-01-31", "item": "x", "paid": "0.10"},
    {"basket": "b2", "customer": "b2", "day": "2024-01-31", "item": "y", "paid": "5.00"},
    {"basket": "b1", "customer": "a1", "day": "2024-01-31", "item": "z", "paid": "0.20"},
    {"basket": "b1", "customer": "a1", "day": "2024-01-31", "item": "z", "paid": "0.20"},
]
ORDERS: dict[str, Any] = {
    "group_by": ["basket"],
    "products": {"product_id": "item", "amount": {"column": "paid", "money": "USD"}},
    "properties": {
        "order_id": "basket",
        "revenue": {"sum": "paid", "money": "USD"},
        "saved": {"sum": "paid", "money": "USD"},
    },
}


def test_lines_of_one_order_are_one_event_though_apart(tmp_path: Path) -> None:
    found = events([write(tmp_path / "a.csv", as_csv(LINES))], mapping(**ORDERS))
    assert [event.row.line for event in found] == [3, 2], "an order is made when its last line is read"
    item = found[1].item
    assert item is not None
    assert item["properties"]["revenue"] == "0.50", "decimals, not floats"
    assert item["properties"]["saved"] == 0.5, "other names are numbers: text would be sealed"
    assert [line["product_id"] for line in item["properties"]["products"]] == ["x", "z", "z"]


@pytest.mark.parametrize("held_lines", [1, 3, 10, 1_000])
def test_orders_are_whole_whatever_the_order_of_lines_and_the_memory(tmp_path: Path, held_lines: int) -> None:
    rows = [{**LINES[0], "basket": f"b{n % 40}", "item": f"i{n}", "paid": f"{n}.01"} for n in range(200)]
    tidy = events([write(tmp_path / "a.csv", as_csv(sorted(rows, key=lambda row: row["basket"])))], mapping(**ORDERS))
    random.Random(5).shuffle(rows)
    wild = events([write(tmp_path / "b.csv", as_csv(rows))], mapping(**ORDERS), held_lines)
    assert len(wild) == 40

    def totals(found: list[Shaped]) -> list[tuple[str, str, bytes]]:
        assert all(event.item is not None for event in found)
        return sorted(
            (e.item["properties"]["order_id"], e.item["properties"]["revenue"], e.content) for e in found if e.item
        )

    assert totals(wild) == totals(tidy), "ids too: the order of lines does not matter"


def test_files_of_one_command_are_one_data_set(tmp_path: Path) -> None:
    one = write(tmp_path / "a.csv", as_csv(LINES[:2]))
    two = write(tmp_path / "b.csv", as_csv([dict(reversed(row.items())) for row in LINES[2:]]))
    found = events([one, two], mapping(**ORDERS))
    assert {e.item["properties"]["revenue"] for e in found if e.item} == {"5.00", "0.50"}
    with pytest.raises(BadRequest, match="listed twice"):
        events([one, two, one], mapping(**ORDERS))


def test_doubles_sum_to_the_cent(tmp_path: Path) -> None:
    amounts = [0.1, 0.2, 12.780000000000001, 1e-7, 3.0]
    table = pa.Table.from_pylist([{**LINES[0], "paid": amount} for amount in amounts])
    pq.write_table(table, tmp_path / "a.parquet")
    (item,) = items(tmp_path / "a.parquet", mapping(format="parquet", **ORDERS))
    assert item["properties"]["revenue"] == "16.08"
    assert sum(Decimal(line["amount"]) for line in item["properties"]["products"]) == Decimal("16.08")


def test_what_cannot_be_read_is_refused_with_its_line(tmp_path: Path) -> None:
    text = (
        b"customer,day,paid,pieces\n"
        b'a1,2024-01-31,"1,234",1\n'
        b"a1,31/01/2024,5,1\n"
        b"a1,,5,1\n"
        b'"a\n1",2024-01-31,5,1\n'
        b"a1,2024-01-31,5\n"
        b"\n"
        b"a1,2024-01-31,NaN,1\n"
    )
    text += "ä1,2024-01-31,5,1\n".encode()  # the file is UTF-8, so a line that is not is damaged
    path = write(
        tmp_path / "a.csv", text + b"\xff\xfe,2024-01-31,5,1\n" + "ä1,2024-01-31,5,1\nö,2024-01-31,5,1\n".encode()
    )
    assert refusals(path, mapping()) == [
        (
            *(2, "properties.revenue"),
            'is not an amount: it could mean two numbers: write numbers: {decimal: "."} (or ",") into the mapping',
        ),
        (3, "occurred_at", "is not a time in the format iso"),
        (4, "occurred_at", "has no time"),
        (7, "", "has 3 fields where the header has 4"),
        (9, "properties.revenue", "is not an amount: write it like 1234.50"),
        (11, "", "is not UTF-8: save the file as UTF-8, or say its encoding in the mapping"),
    ]
    assert len(events([path], mapping())) == 10


def test_bad_lines_of_json_are_refused_with_their_line(tmp_path: Path) -> None:
    good = json.dumps(ROWS[0])
    path = write(tmp_path / "a.jsonl", f"{good}\n[1]\n{{\n{good}\n")
    assert [line for line, _, _ in refusals(path, mapping(format="jsonl"))] == [2, 3]


def test_nested_json_is_reached_by_dots_and_rare_columns_are_known(tmp_path: Path) -> None:
    rows = [{"customer": {"id": 12345678}, "day": "2024-01-31", "pieces": 1}, {"day": "2024-01-31", "paid": 1.1}]
    path = write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)))
    one, two = items(path, mapping(format="jsonl", identifiers={"user_id": "customer.id"}))
    assert (one["userId"], one["properties"]) == ("12345678", {"currency": "USD", "pieces": 1})
    assert two["properties"]["revenue"] == "1.10"


def test_a_wrong_line_refuses_its_whole_order(tmp_path: Path) -> None:
    lines = [dict(line) for line in LINES]
    lines[2]["paid"] = "?"
    path = write(tmp_path / "a.csv", as_csv(lines))
    ((line, path_, reason),) = refusals(path, mapping(**ORDERS))
    assert (line, path_) == (4, "products.amount")
    assert "its 3 lines are one event" in reason
    lines = [dict(line) for line in LINES]
    lines[3]["customer"] = "somebody"
    ((line, path_, reason),) = refusals(write(tmp_path / "b.csv", as_csv(lines)), mapping(**ORDERS))
    assert (line, path_) == (5, "user_id")
    assert "customer differs from that of line 2" in reason


def test_a_line_without_its_order_or_id_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", as_csv([*LINES[:2], {**LINES[2], "basket": ""}]))
    assert refusals(path, mapping(**ORDERS)) == [(4, "group_by", "has no basket")]
    assert [line for line, _, _ in refusals(path, mapping(id="basket", properties={}))] == [4]


def test_csv_numbers_become_numbers_and_codes_stay_text(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.csv", "customer,day,zip,n,x,big,flag\n007,2024-01-31,01234,12,1.50,12345678901234567890,true\n"
    )
    read = mapping(properties={"zip": "zip", "n": "n", "x": "x", "big": "big", "flag": "flag", "sku": "n"})
    (item,) = items(path, read)
    assert item["userId"] == "007"
    assert item["properties"] == {
        "zip": "01234", "n": 12, "x": 1.5, "big": "12345678901234567890", "flag": True, "sku": "12",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("content", "form", "words"),
    [
        (b"", "csv", "no header"),
        (gzip.compress(as_csv(ROWS).encode() * 2_000)[:-500], "csv", "truncated or damaged"),
        (b"not parquet", "parquet", "not a Parquet file"),
        (b"", "jsonl", "no JSON object"),
    ],
)
def test_a_file_that_cannot_be_read_says_so(tmp_path: Path, content: bytes, form: str, words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        events([write(tmp_path / "a.dat", content)], mapping(format=form))


def test_an_unknown_column_and_an_absent_file_are_refused_before_reading(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", as_csv(ROWS))
    with pytest.raises(DefinitionsInvalid, match="did you mean 'customer'"):
        Source([path], mapping(identifiers={"user_id": "custmer"}), SECRET)
    with pytest.raises(BadRequest, match="there is no file"):
        Source([tmp_path / "b.csv"], mapping(), SECRET)


def test_a_preview_shows_the_first_items_and_refusals(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", as_csv([{**ROWS[0], "paid": "?"}, *ROWS]))
    shown = preview([path], mapping(id="customer"), 2)
    assert shown[0] == {"line": 2, "refused": "is not an amount: write it like 1234.50"}
    assert shown[1]["line"] == 3
    assert shown[1]["item"]["messageId"] == "a1"


def test_progress_rises_to_one(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", as_csv(LINES * 500))
    for read in (mapping(properties={}), mapping(**ORDERS)):
        source = Source([path], read, SECRET)
        shares = [0.0] + [source.done() for _ in source.events()] + [source.done()]
        assert shares == sorted(shares)
        assert shares[-1] == 1.0
