"""Values of files: ids, amounts, times, types, blank fields of an order; what is refused and what is told."""

import random
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ingest.accept.canonical import Refused
from ingest.files.amounts import amount_reader
from ingest.files.mapped_rows import Row, Shaped
from ingest.files.ordering import Cipher, EventSorter
from ingest.files.rows import Source
from schemas.mapping import FileMapping
from schemas.mapping_reading import read_mapping

SECRET = b"k" * 32
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
BASE: dict[str, Any] = {
    "source": "shop",
    "type": "pos.purchase",
    "identifiers": {"user_id": "customer"},
    "occurred_at": "day",
    "properties": {"order_id": "order", "revenue": {"column": "paid", "money": "EUR"}},
}


def source(folder: Path, text: str, **changes: Any) -> Source:
    path = folder / "a.csv"
    path.write_text(text, encoding="utf-8")
    return Source([path], FileMapping.model_validate(BASE | changes), SECRET, now=NOW)


def outcome(read: Source) -> list[Mapping[str, Any] | str]:
    """Each event's item, or why there is none."""
    return [event.item if event.item is not None else str(event.refused) for event in read.events()]


def told(read: Source) -> dict[str, int]:
    return {note.code: note.count for note in read.notes()}


# ---------------------------------------------------------------- ids


def test_an_id_is_the_same_whether_a_data_frame_made_it_a_float_or_not(tmp_path: Path) -> None:
    text = (
        'customer,order,day,paid\n17850.0,1001.0,2024-05-01,1\n17850,1001,2024-05-01,1\n="17850",\'1001,2024-05-01,1\n'
    )
    found = outcome(source(tmp_path, text))
    assert [isinstance(each, dict) and (each["userId"], each["properties"]["order_id"]) for each in found] == [
        ("17850", "1001")
    ] * 3
    row = {"customer": 17850.0, "order": 1001.0, "day": "2024-05-01", "paid": 1.0}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "a.parquet")
    (item,) = outcome(Source([tmp_path / "a.parquet"], FileMapping.model_validate(BASE), SECRET))
    assert isinstance(item, dict)
    assert (item["userId"], item["properties"]["order_id"]) == ("17850", "1001")


@pytest.mark.parametrize("kept", ["007", "1.10", "1.0.0", "12E5", "1e3", "00123.50", "A-1.0"])
def test_ids_that_only_look_like_numbers_stay_as_they_are(tmp_path: Path, kept: str) -> None:
    (item,) = outcome(source(tmp_path, f"customer,order,day,paid\n{kept},{kept},2024-05-01,1\n"))
    assert isinstance(item, dict)
    assert (item["userId"], item["properties"]["order_id"]) == (kept, kept)


@pytest.mark.parametrize("lost", ["8.20983E+17", "8.2E+17", "4,2007E+15", "8.20983e+17"])
def test_an_id_whose_digits_are_lost_names_nobody_and_is_told(tmp_path: Path, lost: str) -> None:
    read = source(tmp_path, f'customer,order,day,paid\n"{lost}",A1,2024-05-01,1\n')
    (item,) = outcome(read)
    assert isinstance(item, dict)
    assert "userId" not in item
    assert told(read) == {"destroyed_id": 1}


def test_an_order_or_event_whose_number_is_lost_is_not_joined_with_others(tmp_path: Path) -> None:
    text = "customer,order,day,paid\nc1,8.2E+17,2024-05-01,1\nc2,8.2E+17,2024-05-01,1\n"
    read = source(tmp_path, text)
    assert [isinstance(each, dict) and "order_id" in each["properties"] for each in outcome(read)] == [False, False]
    assert told(read) == {"destroyed_id": 2}
    lost = "its digits are lost (a spreadsheet wrote it like 8.2E+17)"
    assert outcome(source(tmp_path, text, id="order")) == [lost, lost]
    assert outcome(source(tmp_path, text, group_by=["order"])) == [lost, lost]


def test_events_whose_id_is_a_filler_are_told_apart_by_what_they_say(tmp_path: Path) -> None:
    text = "customer,order,day,paid\nc1,N/A,2024-05-01,1\nc2,N/A,2024-05-01,2\nc1,A1,2024-05-01,3\n"
    one, two, three = source(tmp_path, text, id="order").events()
    assert (one.natural, two.natural, three.natural) == (None, None, "A1")
    assert len({one.content, two.content, b""}) == 3
    assert [event.content for event in source(tmp_path, text, id="order").events()][:2] == [one.content, two.content]


def test_fillers_where_an_id_should_be_are_counted(tmp_path: Path) -> None:
    read = source(tmp_path, "customer,order,day,paid\nnull,A1,2024-05-01,1\n0,A2,2024-05-01,1\nc,A3,2024-05-01,1\n")
    assert len(outcome(read)) == 3
    assert told(read) == {"placeholder": 2}


def test_lines_of_one_order_are_joined_as_floats_too_but_not_1_1_and_1_10(tmp_path: Path) -> None:
    text = "customer,order,day,paid\nc,7.0,2024-05-01,1\nc,7,2024-05-01,2\nc,1.1,2024-05-01,4\nc,1.10,2024-05-01,8\n"
    summed = {"order_id": "order", "revenue": {"sum": "paid", "money": "EUR"}}
    found = outcome(source(tmp_path, text, group_by=["order"], properties=summed))
    totals = {each["properties"]["order_id"]: each["properties"]["revenue"] for each in found if isinstance(each, dict)}
    assert totals == {"7": "3.00", "1.1": "4.00", "1.10": "8.00"}


# ---------------------------------------------------------------- amounts


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("1234.50", "1234.50"), ("12,50", "12.50"), ("1,234.50", "1234.50"), ("1.234,50 €", "1234.50"),
        ("€12.50", "12.50"), ("(5.00)", "-5.00"), ("-$20.00", "-20.00"), ("$-20.00", "-20.00"), ("12.50-", "-12.50"),
        ("1 234,50", "1234.50"), ("1'234.50", "1234.50"), ("R$ 20,00", "20.00"), ("EUR 12,50", "12.50"),
        ("1,234,567", "1234567"), ("kr 20", "20"), ("1,00,000.5", "100000.5"), ("\u221212.5", "-12.5"), ("+4", "4"),
    ],
)  # fmt: skip
def test_an_amount_that_means_one_thing_is_read(text: str, amount: str) -> None:
    assert amount_reader()(text, "p") == Decimal(amount)


@pytest.mark.parametrize(
    ("text", "amount"),
    [("1.234", "1234"), ("1,234", "1.234"), ("12,5", "12.5"), ("1.234.567,89", "1234567.89"), ("12", "12")],
)
def test_a_decimal_comma_may_be_said(text: str, amount: str) -> None:
    assert amount_reader(",")(text, "p") == Decimal(amount)


def test_numbers_that_are_no_text_do_not_care_about_the_comma() -> None:
    assert amount_reader(",")(1.234, "p") == Decimal("1.234")


@pytest.mark.parametrize(
    "text", ["1,234", "twelve", "12.5.3", "1,23,4", "12:30", "2024-01-02", "1_000", "5%", "NaN", "K1", "B-2"]
)
def test_an_amount_that_means_nothing_or_two_things_is_refused(text: str) -> None:
    with pytest.raises(Refused, match="is not an amount"):
        amount_reader()(text, "p")


def test_cents_are_said_once_and_follow_the_currency() -> None:
    assert amount_reader(minor_of="EUR")("1250", "p") == Decimal("12.50")
    assert amount_reader(minor_of="JPY")("1250", "p") == Decimal(1250)
    assert amount_reader(minor_of="KWD")("1250", "p") == Decimal("1.25")


def test_a_file_with_decimal_commas_says_so_once(tmp_path: Path) -> None:
    text = "customer;order;day;paid;price;n\nc;A1;2024-05-01;1.234,56 €;1.000;1,5\n"
    products = {"price": "price", "quantity": "n"}
    (item,) = outcome(source(tmp_path, text, numbers={"decimal": ","}, products=products))
    assert isinstance(item, dict)
    assert item["properties"]["revenue"] == "1234.56"
    assert item["properties"]["products"] == [{"price": "1000.00", "quantity": 1.5}]


def test_an_amount_without_money_is_read_too_or_told(tmp_path: Path) -> None:
    text = 'customer,order,day,paid\nc,A1,2024-05-01,"12,50"\nc,A2,2024-05-01,"1.234,56"\nc,A3,2024-05-01,"1,234"\n'
    read = source(tmp_path, text, properties={"order_id": "order", "revenue": "paid"})
    found = [each["properties"]["revenue"] for each in outcome(read) if isinstance(each, dict)]
    assert found == ["12.50", "1234.56", "1,234"], "what cannot be read is sent as it is, for the door to flag"
    assert told(read) == {"unreadable_amount": 1}
    assert [note.lines for note in read.notes()] == [[4]]


# ---------------------------------------------------------------- times


def when(folder: Path, value: str, form: str = "iso", zone: str = "UTC") -> str:
    text = f'customer,order,day,paid\nc,A1,"{value}",1\n'
    (found,) = outcome(source(folder, text, occurred_at={"column": "day", "format": form}, time_zone=zone))
    return found if isinstance(found, str) else found["timestamp"]


@pytest.mark.parametrize(
    ("value", "form", "zone", "expected"),
    [
        ("1709632800000000", "epoch_us", "UTC", "2024-03-05T10:00:00+00:00"),
        ("1709632800", "epoch", "UTC", "2024-03-05T10:00:00+00:00"),
        ("1709632800123", "epoch", "UTC", "2024-03-05T10:00:00.123000+00:00"),
        ("1709632800123456", "iso", "UTC", "2024-03-05T10:00:00.123456+00:00"),
        ("1711012800000", "iso", "UTC", "2024-03-21T09:20:00+00:00"),
        ("45356.5", "excel", "Europe/Berlin", "2024-03-05T11:00:00+00:00"),
        ("2024-03-05 10:00:00 UTC", "iso", "Asia/Tokyo", "2024-03-05T10:00:00+00:00"),
        ("2024-03-05 10:00:00 +0400", "iso", "UTC", "2024-03-05T06:00:00+00:00"),
        ("2024-3-5 9:05", "iso", "UTC", "2024-03-05T09:05:00+00:00"),
        ("2024/03/05 09:05:00", "iso", "UTC", "2024-03-05T09:05:00+00:00"),
        ("Tue, 05 Mar 2024 10:00:00 +0100", "iso", "UTC", "2024-03-05T09:00:00+00:00"),
        ("2016-12-31T23:59:60Z", "iso", "UTC", "2017-01-01T00:00:00+00:00"),
        ("20240305100000", "iso", "UTC", "2024-03-05T10:00:00+00:00"),
        ("2024-03-05 10:00 EST", "%Y-%m-%d %H:%M %Z", "Europe/Berlin", "2024-03-05T15:00:00+00:00"),
        ("05.03.2024 10:00 CET", "%d.%m.%Y %H:%M %Z", "UTC", "2024-03-05T09:00:00+00:00"),
        ("2024-03-05 10:00 CST", "%Y-%m-%d %H:%M %Z", "Asia/Shanghai", "2024-03-05T02:00:00+00:00"),
        ("2024-03-05 10:00 CST", "%Y-%m-%d %H:%M %Z", "UTC", "2024-03-05T16:00:00+00:00"),
        ("2025-11-02 01:30 EST", "%Y-%m-%d %H:%M %Z", "America/New_York", "2025-11-02T06:30:00+00:00"),
        ("10:00 Europe/Paris 05.03.2024", "%H:%M %Z %d.%m.%Y", "UTC", "2024-03-05T09:00:00+00:00"),
    ],
)
def test_times_are_read_as_systems_write_them(tmp_path: Path, value: str, form: str, zone: str, expected: str) -> None:
    assert when(tmp_path, value, form, zone) == expected


@pytest.mark.parametrize(
    ("value", "form", "words"),
    [
        ("1709632800", "epoch_ms", "is in 1970, which cannot be: these look like epoch_s"),
        ("1709632800000", "epoch_s", "these look like epoch_ms"),
        ("1709632800", "epoch_us", "is in 1970"),
        ("1970-01-01", "iso", "is in 1970"),
        ("0001-01-01", "iso", "is in 1,"),
        ("1900-01-01", "iso", "is in 1900"),
        ("2204-05-01", "iso", "is in 2204, which cannot be"),
        ("9999-12-31", "iso", "is in 9999"),
        ("2026-03-03", "iso", "is in 2026, which cannot be"),
        ("2024-03-05 10:00 XYZ", "%Y-%m-%d %H:%M %Z", "is not a time in the format"),
    ],
)
def test_a_time_that_cannot_be_is_refused_and_told(tmp_path: Path, value: str, form: str, words: str) -> None:
    assert words in when(tmp_path, value, form)


def test_a_file_without_times_may_say_one_for_all(tmp_path: Path) -> None:
    read = read_mapping(
        "{source: s, type: profile.identified, identifiers: {user_id: customer}, traits: {plan: plan},"
        " occurred_at: {at: 2024-05-01T12:00:00Z}}"
    )
    path = tmp_path / "a.csv"
    path.write_text("customer,plan\nc,pro\n")
    (item,) = outcome(Source([path], read, SECRET))
    assert isinstance(item, dict)
    assert item["timestamp"] == "2024-05-01T12:00:00+00:00"


# ---------------------------------------------------------------- types and orders

KINDS = "customer,order,day,paid,kind\nc,1,2024-05-01,20.00,Sale\nc,2,2024-05-02,-5.00,return\nc,3,2024-05-03,1,{}\n"


def types(read: Source) -> list[str]:
    return [each if isinstance(each, str) else each["event"] for each in outcome(read)]


def test_the_type_may_stand_in_a_column(tmp_path: Path) -> None:
    of = {"column": "kind", "map": {"sale": "pos.purchase", "Return": "pos.return", "test": None}}
    read = source(tmp_path, KINDS.format("test"), type=of)
    assert types(read) == ["pos.purchase", "pos.return"]
    assert told(read) == {"left_out": 1}
    unknown = "kind has a word that map and otherwise do not name"
    assert types(source(tmp_path, KINDS.format("gift"), type=of)) == ["pos.purchase", "pos.return", unknown]
    assert types(source(tmp_path, KINDS.format("gift"), type=of | {"otherwise": "gift_given"}))[2] == "gift_given"


def test_the_type_may_follow_from_the_sign_of_an_amount_summed_over_an_order(tmp_path: Path) -> None:
    of = {"sign_of": "paid", "positive": "pos.purchase", "negative": "pos.return"}
    assert types(source(tmp_path, KINDS.format(""), type=of)) == ["pos.purchase", "pos.return", "pos.purchase"]
    text = "customer,order,day,paid\nc,1,2024-05-01,-20\nc,1,2024-05-01,30\nc,2,2024-05-01,3\nc,2,2024-05-01,-4\n"
    assert types(source(tmp_path, text, type=of, group_by=["order"])) == ["pos.purchase", "pos.return"]


def test_what_an_export_leaves_blank_on_further_lines_is_as_above(tmp_path: Path) -> None:
    text = (
        "customer,order,day,paid,item,mail,id\n"
        "c1,#1,2024-05-01,30.00,a,a@b.c,77\n"
        ",#1,,,b,,\n"
        ",#2,2024-05-02,5.00,a,,\n"
        "c2,#2,,,b,x@y.z,78\n"
    )
    one, two = outcome(
        source(
            tmp_path,
            text,
            id="id",
            group_by=["order"],
            identifiers={"user_id": "customer", "email": "mail"},
            products={"name": "item"},
        )
    )
    assert isinstance(one, dict)
    assert isinstance(two, dict)
    assert (one["userId"], one["properties"]["revenue"], len(one["properties"]["products"])) == ("c1", "30.00", 2)
    assert (two["userId"], two["context"]["traits"]["email"]) == ("c2", "x@y.z")
    differs = outcome(source(tmp_path, text.replace("\n,#1", "\nc9,#1"), group_by=["order"]))
    assert "customer differs from that of line 2" in str(differs[0])


def test_an_orders_number_may_stand_only_on_its_first_line(tmp_path: Path) -> None:
    text = "customer,order,day,paid\nc1,1,2024-05-01,1\n,,,2\nc2,2,2024-05-02,4\n,,,8\n"
    summed = {"order_id": "order", "revenue": {"sum": "paid", "money": "EUR"}}
    read = source(tmp_path, text, group_by=["order"], fill_down=["order"], properties=summed)
    found = [(each["userId"], each["properties"]["revenue"]) for each in outcome(read) if isinstance(each, dict)]
    assert found == [("c1", "3.00"), ("c2", "12.00")]


# ---------------------------------------------------------------- the order of time


def event(at: int, line: int) -> Shaped:
    when = datetime.fromtimestamp(at, UTC)
    return Shaped(
        Row(0, line, (), b""), {"timestamp": at, "text": "é\ud800", "big": 2**70}, f"n{line}", b"c", None, when
    )


@pytest.mark.parametrize("run_bytes", [1, 3_000, 10**9])
def test_events_are_sorted_by_time_then_line_whatever_the_memory(run_bytes: int) -> None:
    sealed: list[bytes] = []

    def seal(plain: bytes, number: int) -> bytes:
        sealed.append(bytes(each ^ 0x5A for each in plain) + number.to_bytes(2, "big"))
        return sealed[-1]

    def open_(data: bytes, number: int) -> bytes:
        assert data[-2:] == number.to_bytes(2, "big")
        return bytes(each ^ 0x5A for each in data[:-2])

    lines = list(range(900))
    random.Random(4).shuffle(lines)
    sorter = EventSorter(Cipher(seal, open_), run_bytes)
    for line in lines:
        sorter.add(event(line // 7, line))
    found = list(sorter)
    sorter.close()
    assert [each.row.line for each in found] == sorted(lines)
    assert found[0] == event(0, 0)._replace(at=None)
    assert bool(sealed) == (run_bytes < 10**9)
