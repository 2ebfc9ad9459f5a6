"""Events as other dialects send them: which of our properties they get, and that the sender's own stay."""

from typing import Any

import pytest

from ingest.dialects.translate import translate

GA4 = {
    "transaction_id": "T-1001", "value": 72.05, "currency": "EUR", "tax": 3.6, "shipping": 5.99, "coupon": "SUMMER",
    "items": [
        {"item_id": "SKU_1", "item_name": "Tee", "item_brand": "ACME", "item_category": "Apparel", "price": 10.5,
         "quantity": 3, "index": 0},
        {"item_id": "SKU_2", "item_name": "Hat", "price": 40.55, "quantity": 1, "index": 1, "discount": 2},
    ],
}  # fmt: skip
SHOPIFY = {
    "data": {
        "checkout": {
            "order": {"id": "gid://shopify/Order/5501"}, "token": "c0ffee", "currencyCode": "CAD",
            "totalPrice": {"amount": 47.25, "currencyCode": "CAD"}, "subtotalPrice": {"amount": 40},
            "totalTax": {"amount": 5.2}, "shippingLine": {"price": {"amount": 2.05}},
            "discountApplications": [{"title": "WELCOME"}],
            "lineItems": [
                {"id": "9", "title": "Boots", "quantity": 1, "finalLinePrice": {"amount": 40},
                 "variant": {"id": "77", "sku": "B-42", "price": {"amount": 45},
                             "product": {"id": "501", "vendor": "North", "type": "Shoes"}}},
            ],
        },
    },
}  # fmt: skip
SNOWPLOW = {
    "type": "transaction",
    "transaction": {"transaction_id": "s-1", "revenue": "25.50", "currency": "USD", "discount_code": "TEN"},
    "product": [{"id": "p-1", "name": "Mug", "price": 12.75, "quantity": 2}],
}
WEBHOOK = {
    "id": 450789469, "total_price": "409.94", "currency": "USD", "total_tax": "11.94",
    "discount_codes": [{"code": "TENOFF", "amount": "10.00"}],
    "line_items": [{"id": 466157049, "product_id": 632910392, "sku": "IPOD", "title": "IPod Nano", "vendor": "Apple",
                    "quantity": 1, "price": "199.00"}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("event", "sent", "type_", "filled"),
    [
        (
            "purchase",
            GA4,
            "purchase.completed",
            {
                "order_id": "T-1001",
                "revenue": 72.05,
                "products": [
                    {"product_id": "SKU_1", "name": "Tee", "brand": "ACME", "category": "Apparel", "price": 10.5,
                     "quantity": 3, "position": 0},
                    {"product_id": "SKU_2", "name": "Hat", "price": 40.55, "quantity": 1, "position": 1},
                ],
            },
        ),
        (
            "checkout_completed",
            SHOPIFY,
            "purchase.completed",
            {
                "order_id": "5501", "total": 47.25, "subtotal": 40, "tax": 5.2, "shipping": 2.05, "currency": "CAD",
                "coupon": "WELCOME",
                "products": [{"product_id": "501", "sku": "B-42", "name": "Boots", "brand": "North",
                              "category": "Shoes", "price": 45, "quantity": 1, "amount": 40}],
            },
        ),
        (
            "snowplow_ecommerce_action",
            SNOWPLOW,
            "purchase.completed",
            {
                "order_id": "s-1", "revenue": "25.50", "currency": "USD", "coupon": "TEN",
                "products": [{"product_id": "p-1", "name": "Mug", "price": 12.75, "quantity": 2}],
            },
        ),
        (
            "orders/create",
            WEBHOOK,
            "purchase.completed",
            {
                "order_id": 450789469, "total": "409.94", "tax": "11.94", "coupon": "TENOFF",
                "products": [{"product_id": 632910392, "sku": "IPOD", "name": "IPod Nano", "brand": "Apple",
                              "price": "199.00", "quantity": 1}],
            },
        ),
        (
            "refunds/create",
            {"id": 9, "order_id": 4, "transactions": [{"amount": "41.94", "currency": "USD"}]},
            "purchase.refunded",
            {"refund_id": 9, "revenue": "41.94", "currency": "USD"},
        ),
        (
            "view_item",
            {"currency": "USD", "value": 30.03, "items": [{"item_id": "S1", "item_name": "Tee", "price": 10.01}]},
            "product.viewed",
            {"product_id": "S1", "name": "Tee", "price": 10.01},
        ),
        ("add_to_cart", {"items": [{"item_id": "a"}, {"item_id": "b"}]}, "cart.item_added", {}),
        (
            "product_added_to_cart",
            {"cartLine": {"quantity": 2, "merchandise": {"id": "7", "sku": "S", "product": {"id": "5", "title": "T"}}}},
            "cart.item_added",
            {"product_id": "5", "sku": "S", "name": "T", "quantity": 2},
        ),
        ("search", {"search_term": "boots"}, "search.performed", {"query": "boots"}),
        ("search_submitted", {"data": {"searchResult": {"query": "hats"}}}, "search.performed", {"query": "hats"}),
        ("orderCompleted", {"orderId": "K1", "totalPrice": 9}, "purchase.completed", {"order_id": "K1", "total": 9}),
        (
            "Completed Order",
            {"orderId": "1", "total": 5, "value": 4, "products": [{"id": "p", "sku": "s", "price": 5}]},
            "purchase.completed",
            {"order_id": "1", "products": [{"id": "p", "sku": "s", "price": 5, "product_id": "p"}]},
        ),
        (
            "Order Completed",
            {"order_id": "1", "products": '[{"sku":"a","qty":"2"}]'},
            "purchase.completed",
            {"products": [{"sku": "a", "qty": "2", "quantity": "2"}]},
        ),
        (
            "Order Completed",
            {"order_id": "1", "products": {"0": {"sku": "a"}, "3": {"sku": "b"}}},
            "purchase.completed",
            {"products": [{"sku": "a"}, {"sku": "b"}]},
        ),
    ],
)  # fmt: skip
def test_a_dialects_properties_fill_in_ours(
    event: str, sent: dict[str, Any], type_: str, filled: dict[str, Any]
) -> None:
    before = repr(sent)
    fields = translate({"type": "track", "event": event, "userId": "u", "properties": sent})
    assert (fields.type, fields.name) == (type_, event)
    assert fields.properties == {**sent, **filled}
    assert list(fields.mapped) == sorted(filled)
    assert repr(sent) == before


def test_our_own_names_are_left_as_they_are() -> None:
    ours = {
        "order_id": "1", "orderId": "2", "revenue": 5, "value": 6, "items": [{"item_id": "x"}],
        "products": [{"product_id": "a", "sku": "b", "price": 1}],
    }  # fmt: skip
    fields = translate({"type": "track", "event": "Order Completed", "properties": ours})
    assert (fields.properties, list(fields.mapped)) == (ours, [])
    own = {"transaction_id": "t", "value": 3}
    assert translate({"type": "track", "event": "Quiz Won", "properties": own}).properties == own


@pytest.mark.parametrize(
    "odd",
    [
        {"items": 5, "value": {"a": 1}, "transaction_id": ["x"]},
        {"items": "[", "data": {"checkout": "no"}},
        {"items": [], "products": []},
        {"items": ["a"], "products": [1]},
        {"checkout": {"order": None, "totalPrice": 5}},
    ],
)
def test_what_is_of_another_form_fills_in_nothing(odd: dict[str, Any]) -> None:
    fields = translate({"type": "track", "event": "purchase", "properties": odd})
    assert (fields.properties, list(fields.mapped)) == (odd, [])
