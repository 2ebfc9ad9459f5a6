"""A file without a mapping: what is proposed for it, from its names and values."""

import json
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any

import pytest
import yaml

from ingest.files.proposing import Proposed, propose_for
from ingest.files.sample import Setting
from schemas.errors import BadRequest
from schemas.mapping_reading import read_mapping
from tests.sheets import workbook

SETTING = Setting("USD", "UTC", datetime(2026, 3, 1, tzinfo=UTC))


def proposed(folder: Path, name: str, content: str | bytes, setting: Setting = SETTING) -> Proposed:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    found = propose_for([path], setting)
    assert yaml.safe_load(found.yaml) == json.loads(json.dumps(found.proposal.mapping)), "the text is the data"
    return found


def mapping(found: Proposed) -> dict[str, Any]:
    assert found.usable, found.proposal.missing
    read_mapping(found.yaml)
    assert all("item" in each for each in found.preview), found.preview
    return found.proposal.mapping


def test_purchases_one_a_row(tmp_path: Path) -> None:
    text = "customer_id,date,dollar_value\n00001,1997-01-01,11.77\n00002,1997-01-12,12.00\n00002,1997-01-12,12.00\n"
    found = proposed(tmp_path, "sales 1997.csv", text)
    assert mapping(found) == {
        "source": "sales_1997",
        "format": "csv",
        "time_zone": "UTC",
        "type": "purchase.completed",
        "identifiers": {"user_id": "customer_id"},
        "occurred_at": {"column": "date", "format": "iso"},
        "properties": {"revenue": {"column": "dollar_value", "money": "USD"}},
        "historical": True,
    }
    assert found.proposal.remarks == [], "dollars are said by the name of the column"
    assert len(found.preview) == 3
    assert found.preview[0]["item"]["userId"] == "00001"


def test_lines_of_orders_with_returns(tmp_path: Path) -> None:
    text = (
        "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
        "536365,85123A,HEART,6,12/1/2010 8:26,2.55,17850,United Kingdom\n"
        "536365,71053,LANTERN,6,12/1/2010 8:26,3.39,17850,United Kingdom\n"
        "C536379,D,Discount,-1,12/13/2010 9:41,27.50,14527,France\n"
    )
    found = mapping(proposed(tmp_path, "retail.csv", text))
    assert found["type"] == {"sign_of": "Quantity", "positive": "purchase.completed", "negative": "purchase.refunded"}
    assert (found["id"], found["group_by"]) == ("InvoiceNo", ["InvoiceNo"])
    assert found["occurred_at"] == {"column": "InvoiceDate", "format": "%m/%d/%Y %H:%M"}
    assert found["products"] == {
        "product_id": "StockCode",
        "name": "Description",
        "quantity": "Quantity",
        "price": {"column": "UnitPrice", "money": "USD"},
    }
    assert found["properties"] == {"order_id": "InvoiceNo", "country": "Country"}


def test_a_german_export(tmp_path: Path) -> None:
    text = (
        "Kundennummer;Bestellnummer;Bestelldatum;Gesamtbetrag;E-Mail\n"
        "1001;B-1;02.01.2024 10:05;1.234,56 €;müller@example.de\n1002;B-2;15.01.2024 11:00;12,50 €;a@example.de\n"
    )
    setting = SETTING._replace(time_zone="Europe/Berlin")
    found = proposed(tmp_path, "umsatz.csv", text.encode("cp1252"), setting)
    made = mapping(found)
    assert (made["delimiter"], made["encoding"], made["numbers"]) == (";", "windows-1252", {"decimal": ","})
    assert made["identifiers"] == {"user_id": "Kundennummer", "email": "E-Mail"}
    assert made["properties"]["revenue"] == {"column": "Gesamtbetrag", "money": "EUR"}
    (first, _) = found.preview
    assert first["item"]["timestamp"] == "2024-01-02T09:05:00+00:00"
    assert first["item"]["properties"]["revenue"] == "1234.56"
    assert first["item"]["context"]["traits"]["email"] == "müller@example.de"


def test_an_export_that_leaves_order_fields_blank(tmp_path: Path) -> None:
    text = (
        "Name,Email,Paid at,Currency,Total,Lineitem quantity,Lineitem name,Lineitem price\n"
        "#1737,a@example.com,2026-01-06 01:49:00 +0400,EUR,20.00,1,Perfume,6.00\n#1737,,,,,1,Vinegar,14.00\n"
    )
    found = mapping(proposed(tmp_path, "orders_export.csv", text))
    assert (found["id"], found["group_by"], found["identifiers"]) == ("Name", ["Name"], {"email": "Email"})
    assert found["properties"] == {"order_id": "Name", "revenue": {"column": "Total", "money": "EUR"}}
    assert set(found["products"]) == {"name", "quantity", "price"}


def test_a_till_report_in_a_workbook(tmp_path: Path) -> None:
    day = datetime.fromisoformat("2024-05-02")
    rows: list[list[Any]] = [
        ["Kassenbericht Mai"],
        [],
        ["Filiale", "Bon Nr", "Datum", "Uhrzeit", "Kundenkarte", "Artikel", "Menge", "Betrag"],
        ["Mitte", 1, day, time(9, 5), "K1", "Brot", 2, 5.0],
        ["Mitte", 1, day, time(9, 5), "K1", "Milch", 1, 1.2],
        ["Mitte", 2, day, time(9, 15), "K2", "Brot", 1, 2.5],
    ]
    found = mapping(proposed(tmp_path, "tills.xlsx", workbook({"Mai": rows}), SETTING._replace(currency="EUR")))
    assert (found["type"], found["header_row"], found["group_by"]) == ("pos.purchase", 3, ["Bon Nr"])
    assert found["occurred_at"] == {"column": "Datum", "time": "Uhrzeit", "format": "%Y-%m-%d %H:%M:%S"}
    assert found["identifiers"] == {"loyalty_card": "Kundenkarte"}
    assert found["properties"]["revenue"] == {"sum": "Betrag", "money": "EUR"}


def test_customers_are_profiles_with_traits(tmp_path: Path) -> None:
    text = "id,First Name,Email,Phone,City,Signed up\n1,Ada,a@b.co,+14155552671,Rome,2024-01-02\n"
    text += "2,Bob,b@b.co,,Oslo,2024-01-03\n"
    found = mapping(proposed(tmp_path, "contacts.csv", text))
    assert found["type"] == "profile.identified"
    assert found["identifiers"] == {"email": "Email", "phone": "Phone", "user_id": "id"}
    assert found["traits"] == {"first_name": "First Name", "city": "City"}
    assert found["occurred_at"] == {"column": "Signed up", "format": "iso"}


def test_customers_without_a_time_count_as_of_the_file(tmp_path: Path) -> None:
    found = proposed(tmp_path, "people.csv", "customer_id,plan\n1,pro\n2,free\n")
    modified = datetime.fromtimestamp((tmp_path / "people.csv").stat().st_mtime, UTC).replace(microsecond=0)
    assert datetime.fromisoformat(mapping(found)["occurred_at"]["at"]) == modified


def test_events_of_several_kinds_in_json(tmp_path: Path) -> None:
    rows = [
        {"event_name": "page_view", "event_timestamp": "1709632800000000", "user_id": "u1"},
        {
            "event_name": "purchase",
            "event_timestamp": "1709632801000000",
            "user_id": "u1",
            "ecommerce": {"transaction_id": "T1", "purchase_revenue": 12.5},
            "items": [{"item_id": "a", "price": 12.5, "quantity": 1}],
        },
    ]
    found = mapping(proposed(tmp_path, "events.jsonl", "\n".join(map(json.dumps, rows))))
    assert found["type"]["map"]["page_view"] == "web.page_viewed"
    assert found["type"]["map"]["purchase"] == "purchase.completed"
    assert found["occurred_at"]["format"] == "epoch_us"
    assert (found["lines"], found["products"]["product_id"]) == ("items", "item_id")
    assert found["properties"]["order_id"] == "ecommerce.transaction_id"


def test_sales_and_returns_by_a_word(tmp_path: Path) -> None:
    text = "Date,Amount,Event Type,Customer ID\n05/14/24,$12.50,Payment,C1\n05/15/24,($2.50),Refund,C1\n"
    found = mapping(proposed(tmp_path, "square.csv", text))
    assert found["type"] == {
        "column": "Event Type",
        "map": {"Payment": "purchase.completed", "Refund": "purchase.refunded"},
    }
    assert found["occurred_at"] == {"column": "Date", "format": "%m/%d/%y"}


def test_a_currency_of_each_row_is_read_from_its_column(tmp_path: Path) -> None:
    text = "email,date,total,currency\na@b.co,2024-01-01,5,EUR\nb@b.co,2024-01-02,7,GBP\n"
    found = mapping(proposed(tmp_path, "a.csv", text))
    assert found["properties"] == {"currency": "currency", "revenue": {"column": "total"}}


def test_a_day_that_could_be_a_month_is_remarked(tmp_path: Path) -> None:
    found = proposed(tmp_path, "a.csv", "customer,date,total\nc,01/02/2024,5\nc,02/02/2024,5\nc,03/02/2024,5\n")
    assert mapping(found)["occurred_at"]["format"] == "%d/%m/%Y", "three days in a row, not three months"
    assert any("other way round" in remark for remark in found.proposal.remarks)


def test_what_is_missing_is_told_and_nothing_can_be_imported(tmp_path: Path) -> None:
    found = proposed(tmp_path, "baskets.csv", "basket_id,item\n1,soap\n1,rice\n2,soap\n")
    assert not found.usable
    assert {problem.path for problem in found.proposal.missing} == {"identifiers", "occurred_at"}
    assert found.preview == []
    told = found.as_json()
    assert (told["usable"], told["mapping"]["group_by"]) == (False, ["basket_id"])
    assert {"column": "item", "kind": "text", "use": "products.name"} in told["columns"]


def test_a_person_is_not_a_property_of_a_purchase(tmp_path: Path) -> None:
    found = proposed(tmp_path, "a.csv", "email,first_name,date,total\na@b.co,Ada,2024-01-01,5\n")
    assert mapping(found)["properties"] == {"revenue": {"column": "total", "money": "USD"}}
    assert any(remark.startswith("first_name: about the person") for remark in found.proposal.remarks)


@pytest.mark.parametrize("content", [b"", b"\n\n"])
def test_an_empty_file_says_so(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(BadRequest, match="no header"):
        proposed(tmp_path, "a.csv", content)


def test_days_of_a_sheet_are_times(tmp_path: Path) -> None:
    rows: list[list[Any]] = [["customer", "date", "total"], ["c1", date(2024, 5, 1), 5], ["c2", date(2024, 5, 2), 6]]
    assert mapping(proposed(tmp_path, "a.xlsx", workbook({"s": rows})))["occurred_at"]["column"] == "date"
