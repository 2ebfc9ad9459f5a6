"""How a record becomes columns and comes back, and how an archive proves itself. No service."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.archive import NO_DIGEST, chained, join, split
from schemas.errors import ReaderTooOld
from schemas.event_columns import EVENT_SCHEMA, SCHEMA, event_table, originals
from schemas.record import Record, Stored, encode, identifier_set_of, uuid_text
from tests.archive_data import raw, record


def stored(*records: Record | bytes) -> list[Stored]:
    return [
        Stored(2, 10 + number, each if isinstance(each, bytes) else encode(each)) for number, each in enumerate(records)
    ]


def row(each: Record | bytes, currency: str = "EUR") -> dict[str, Any]:
    (found,) = event_table(stored(each), currency, originals=True).to_pylist()
    return found


def test_the_original_bytes_come_back_whatever_they_are() -> None:
    odd = [b"", b"{}", b"no json", b'{"a":1,"sealed":{"x":1}}', b' {"v":1} ', b"\xff\xfe", b'{"sealed":{}}']
    records = stored(record(1), record(2, sealed=False), *odd)
    assert originals(event_table(records, "EUR", originals=True)) == records


def test_the_sealed_part_is_a_column_of_its_own_and_the_rest_is_still_a_record() -> None:
    value = encode(record(1))
    parts = split(value)
    assert parts.sealed is not None
    assert b"c2VhbGVk" in parts.sealed
    assert parts.record == encode(record(1, sealed=False)), "what is left is the record as if nothing were sealed"
    assert join(*parts) == value
    assert join(parts.record, None) == parts.record


def test_a_sealed_member_that_is_not_the_last_stays_where_it_is() -> None:
    value = b'{"sealed":{"key":"k"},"v":1,"properties":{"a":1}}'
    assert split(value) == (value, None)


@given(st.text(max_size=40), st.dictionaries(st.text(max_size=9), st.text(max_size=9), max_size=3))
def test_text_that_looks_like_the_sealed_member_is_not_cut(text: str, properties: dict[str, str]) -> None:
    odd: dict[str, Any] = {"note": text + ',"sealed":{"x":"' + text, "p": properties}
    each = record(1, type_="custom", **odd)
    value = encode(each)
    parts = split(value)
    assert join(*parts) == value
    assert parts.record == encode(record(1, type_="custom", sealed=False, **each.properties))


def test_the_columns_say_what_the_record_says() -> None:
    each = record(
        7, "ada", order_id=4711, total="19.90", currency=" usd ", products=[{"product_id": 5}, {"sku": "s-1"}]
    )
    found = row(each)
    assert found["id"] == each.id
    assert found["signature"] == uuid_text(identifier_set_of([raw("ada")]))
    assert found["route_key"] == uuid_text(raw("ada"))
    assert (found["partition"], found["offset"]) == (2, 10)
    assert found["occurred_at"] == each.occurred_at
    assert found["received_at"] == each.occurred_at + timedelta(seconds=1)
    assert (found["order_id"], found["revenue"], found["currency"]) == ("4711", Decimal("19.9000"), "USD")
    assert (found["campaign_id"], found["product_ids"]) == ("spring", ["5", "s-1"])
    assert found["properties"].encode() in encode(each), "JSON stays as it was written"
    assert found["sealed_names"] == ["context.ip", "traits.email"]


def test_an_amount_without_a_currency_is_in_the_deployments_and_no_amount_has_none() -> None:
    assert row(record(1, revenue="1"), "GBP")["currency"] == "GBP"
    found = row(record(1, type_="call.received", seconds=12), "GBP")
    assert (found["revenue"], found["currency"]) == (None, None)


@pytest.mark.parametrize("value", ["no number", True, [], {}, None, "1e30"])
def test_a_wrong_type_is_a_missing_value_not_an_error(value: object) -> None:
    found = row(record(1, revenue=value, order_id=value, campaign_id=[], products=value, product_id={}))
    assert found["revenue"] is None
    assert found["product_ids"] == []


def test_an_unreadable_record_keeps_its_bytes_and_has_no_id() -> None:
    found = row(b'{"v":1,"id":"not complete"}')
    assert found["id"] is None
    assert found["record"] == b'{"v":1,"id":"not complete"}'


def test_a_record_of_a_newer_version_stops_the_archiver() -> None:
    newer = encode(record(1)).replace(b'{"v":1,', b'{"v":3,')
    with pytest.raises(ReaderTooOld):
        event_table(stored(newer), "EUR", originals=True)


def test_the_place_and_the_flags_are_columns_whose_absence_means_0_and_none() -> None:
    found = row(encode(record(1)).replace(b'{"v":1,', b'{"v":2,"n":7,"flags":["bot","large"],'))
    assert (found["n"], found["flags"]) == (7, ["bot", "large"])
    found = row(record(1))
    assert (found["n"], found["flags"]) == (0, [])
    assert row(encode(record(1)).replace(b'{"v":1,', b'{"v":2,"n":99999999999,'))["n"] == 2**31 - 1


def test_an_empty_table_has_all_columns() -> None:
    assert event_table([], "EUR", originals=True).schema == SCHEMA
    assert event_table([], "EUR", originals=False).schema == EVENT_SCHEMA


def test_an_order_under_other_names_has_the_same_columns() -> None:
    found = row(record(3, transaction_id="4712.0", value="1.019,90 €", items=[{"item_id": "a"}, {"item_id": 7}]))
    assert (found["order_id"], found["revenue"], found["currency"]) == ("4712", Decimal("1019.9000"), "EUR")
    assert found["product_ids"] == ["a", "7"]
    assert row(record(4, order_id="(not set)", revenue=1))["order_id"] is None


def test_the_decimal_mark_of_a_source_decides_what_three_places_are() -> None:
    each = record(5, revenue="2,345")
    assert row(each)["revenue"] is None
    for mark, expected in ((",", "2.3450"), (".", "2345.0000")):
        (found,) = event_table(stored(each), "USD", originals=False, decimals={each.source: mark}).to_pylist()
        assert found["revenue"] == Decimal(expected)


def test_the_digest_is_chained_and_covers_offset_order_and_bytes() -> None:
    records = [(1, b"a"), (2, b"b"), (5, b"c")]
    whole = chained(NO_DIGEST, records)
    assert whole == chained(chained(NO_DIGEST, records[:1]), records[1:])
    for changed in ([(1, b"a"), (2, b"B"), (5, b"c")], [(1, b"a"), (3, b"b"), (5, b"c")], records[:2], records[::-1]):
        assert chained(NO_DIGEST, changed) != whole
