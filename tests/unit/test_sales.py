"""What an order event says: its order, its amount, its lines, under whatever names."""

from typing import Any

import pytest

from schemas.sales import NOTHING, Worth, line_amount, order_id_of, refund_key, sale_of, unreadable, worth_of


def test_forms_of_one_id_are_one_order_and_others_are_not() -> None:
    same = ["3077", 3077, 3077.0, "3077.0", " 3077", "3077\n", "\u200b3077", "\xa03077 "]
    assert {order_id_of(each) for each in same} == {"3077"}
    others = ["3.1", "3.10", "03077", "#3077", "3077.00", "3077-1", "a", "A", 3.1]
    assert [order_id_of(each) for each in others] == [
        "3.1",
        "3.10",
        "03077",
        "#3077",
        "3077.00",
        "3077-1",
        "a",
        "A",
        "3.1",
    ]
    long = order_id_of("x" * 129)
    assert long is not None
    assert long.startswith("#")
    assert long != order_id_of("x" * 130)


@pytest.mark.parametrize(
    "value",
    ["", "  ", "null", "undefined", "(not set)", "N/A", "0", 0, "{{order.id}}", "<nil>", None, True, [], {}, ["3077"],
     float("nan"), float("inf"), 1e300, "8.2E+17"],
)  # fmt: skip
def test_a_placeholder_or_another_type_is_no_order_id(value: object) -> None:
    assert order_id_of(value) is None


@pytest.mark.parametrize(
    ("properties", "amount"),
    [
        ({"revenue": "5", "total": 6, "value": 7}, 50000),
        ({"total": 6, "value": 7}, 60000),
        ({"value": "€7"}, 70000),
        ({"revenue": "3,141", "total": "3141"}, 31410000),
        ({"revenue": "3,141", "products": [{"price": 2}]}, 20000),
        ({"items": [{"price": 2, "quantity": 3}, {"price": "1,50"}]}, 75000),
        ({"products": [{"amount": 4}, {"price": 2, "quantity": 2}, {"sku": "gift"}]}, 80000),
        ({"products": [], "items": [{"price": 2}]}, None),
        ({}, None),
    ],
)
def test_the_first_amount_that_can_be_read_counts_else_the_lines(
    properties: dict[str, Any], amount: int | None
) -> None:
    assert sale_of("purchase.completed", properties).worth.amount == amount
    assert not unreadable("purchase.completed", properties)


def test_other_events_have_no_amount_under_the_names_of_orders() -> None:
    assert sale_of("custom", {"value": 7, "transaction_id": "t"}).worth == NOTHING
    assert sale_of("custom", {"value": 7, "transaction_id": "t"}).order_id is None
    assert sale_of("pos.purchase", {"transactionId": "t"}).order_id == "t"
    assert sale_of("purchase.refunded", {"order_id": "N/A", "orderId": 12}).order_id == "12"


def test_what_cannot_be_read_is_said() -> None:
    assert worth_of(("gratis",), None) == Worth(None, None, True)
    assert worth_of(("",), None) == NOTHING
    assert worth_of((), [{"price": "?"}, {"price": 3}]) == Worth(30000, None, True)
    assert worth_of((), [{"price": 3, "quantity": "two"}]) == Worth(None, None, True)
    assert worth_of((), [{"price": "€3"}, {"price": "£3"}]) == Worth(None, None, True)
    assert worth_of((), [{"price": "€3"}, {"price": 3}]) == Worth(60000, "EUR", False)
    assert unreadable("purchase.completed", {"revenue": True})
    assert unreadable("purchase.refunded", {"order_id": 1, "products": [{"sku": "a"}]})
    assert not unreadable("purchase.refunded", {"order_id": 1})
    assert not unreadable("web.page_viewed", {"revenue": "?"})


def test_a_line_is_its_amount_else_price_times_quantity() -> None:
    assert line_amount({"amount": "2.50", "price": 9}) == 25000
    assert line_amount({"price": "0.33", "quantity": "1.5"}) == 4950
    assert line_amount({"price": "0,33", "quantity": "1,5"}) == 4950
    assert line_amount({"sku": "a"}) is None


def test_a_refund_is_known_by_its_order_and_its_own_id() -> None:
    assert refund_key("o", "r") == refund_key("o", "r")
    assert len({refund_key("o", "r"), refund_key("or", ""), refund_key(None, "r"), refund_key("p", "r")}) == 4
