"""Our names of properties, and what other dialects call them: data. Read by `ingest.dialects.mapping`.

Each of ours has the names that may stand in for it, the first that has a value counts. A dotted name leads into an
object; `*` follows into the only entry of a list.
"""

from collections.abc import Mapping
from typing import Final

Names = Mapping[str, tuple[str, ...]]

_CHECKOUT: Final = ("data.checkout.", "checkout.")  # Shopify's pixel: the whole event's data, or the data itself


def _in(places: tuple[str, ...], *names: str) -> tuple[str, ...]:
    return tuple(f"{place}{name}" for place in places for name in names)


_SNOWPLOW: Final = "contexts_com_snowplowanalytics_snowplow_ecommerce_"

LINES: Final = (
    "items",  # Google Analytics 4
    *("lineItems", "line_items", *_in(_CHECKOUT, "lineItems")),  # Shopify: pixel, webhook
    *("contents", "Items", "order_items", "orderItems", "basket"),  # Meta, Klaviyo, Tracardi
    *(f"{_SNOWPLOW}product_1", "product"),
)
"""Where the lines of an order or a cart stand if not in `products`."""

LINE: Final[Names] = {
    "product_id": (
        *("item_id", "productId", "productID", "ProductID", "product.id", "variant.product.id"),
        *("merchandise.product.id", "content_id", "id"),
    ),
    "sku": ("item_sku", "SKU", "Sku", "variant.sku", "merchandise.sku"),
    "name": ("item_name", "productName", "product_name", "ProductName", "title", "product.title", "variant.title"),
    "brand": ("item_brand", "Brand", "vendor", "variant.product.vendor", "merchandise.product.vendor"),
    "category": ("item_category", "content_category", "product_type", "variant.product.type"),
    "variant": ("item_variant", "variant_title", "variantTitle"),
    "price": ("item_price", "unit_price", "unitPrice", "ItemPrice", "variant.price.amount", "merchandise.price.amount"),
    "quantity": ("qty", "Quantity", "item_quantity"),
    "position": ("index",),
    "coupon": ("coupon_code", "couponCode"),
    "amount": ("finalLinePrice.amount", "cost.totalAmount.amount", "RowTotal"),
}

_PRODUCT_AT: Final = (
    *("data.productVariant.", "productVariant.", "data.cartLine.merchandise.", "cartLine.merchandise."),
    "product.",
)
PRODUCT: Final[Names] = {
    "product_id": (
        *("item_id", "productId", "productID", "ProductID", "content_ids.*", "content_id"),
        *_in(_PRODUCT_AT[:4], "product.id", "id"),
        *("product.id", "items.*.item_id", "items.*.id", "contents.*.id", f"{_SNOWPLOW}product_1.*.id"),
    ),
    "sku": ("SKU", *_in(_PRODUCT_AT, "sku"), "items.*.item_sku"),
    "name": (
        *("item_name", "ProductName", "productName", "product_name", "content_name"),
        *_in(_PRODUCT_AT[:4], "product.title", "title"),
        *("product.name", "items.*.item_name", "items.*.name", f"{_SNOWPLOW}product_1.*.name"),
    ),
    "brand": ("item_brand", *_in(_PRODUCT_AT, "product.vendor"), "product.brand", "items.*.item_brand"),
    "category": (
        *("item_category", "content_category", *_in(_PRODUCT_AT, "product.type"), "product.category"),
        *("items.*.item_category", f"{_SNOWPLOW}product_1.*.category"),
    ),
    "variant": ("item_variant", "items.*.item_variant"),
    "price": (
        *("item_price", "unit_price", "unitPrice", *_in(_PRODUCT_AT[:4], "price.amount"), "product.price"),
        *("items.*.price", f"{_SNOWPLOW}product_1.*.price"),
    ),
    "quantity": ("qty", "Quantity", "data.cartLine.quantity", "cartLine.quantity", "items.*.quantity"),
    "currency": (
        *_in(_PRODUCT_AT[:4], "price.currencyCode"),
        *("currencyCode", "items.*.currency", f"{_SNOWPLOW}product_1.*.currency"),
    ),
}
"""Of an event about one product."""

ORDER: Final[Names] = {
    "order_id": (
        *("orderId", "orderID", "OrderId", "transaction_id", "transactionId", "order_number", "orderNumber"),
        *_in(_CHECKOUT, "order.id", "token"),
        *("transaction.transaction_id", "refund.transaction_id", "tr_orderid"),
        *(f"{_SNOWPLOW}transaction_1.*.transaction_id", f"{_SNOWPLOW}refund_1.*.transaction_id"),
    ),
    "total": (
        *("total_price", "totalPrice", "order_total", "orderTotal", "grand_total", "grandTotal"),
        *_in(_CHECKOUT, "totalPrice.amount"),
    ),
    "revenue": (
        *("transaction.revenue", "refund.refund_amount", "tr_total"),
        *(f"{_SNOWPLOW}transaction_1.*.revenue", f"{_SNOWPLOW}refund_1.*.refund_amount", "value"),
    ),
    "subtotal": ("subtotal_price", "subtotalPrice", *_in(_CHECKOUT, "subtotalPrice.amount")),
    "tax": ("total_tax", "totalTax", *_in(_CHECKOUT, "totalTax.amount"), "transaction.tax", "tr_tax"),
    "shipping": (
        *("shipping_cost", "shippingCost", *_in(_CHECKOUT, "shippingLine.price.amount")),
        *("transaction.shipping", "tr_shipping"),
    ),
    "discount": ("total_discounts", "discount_amount", "discountAmount", *_in(_CHECKOUT, "discountsAmount.amount")),
    "currency": (
        *("currencyCode", "currency_code", "Currency", *_in(_CHECKOUT, "currencyCode")),
        *("transaction.currency", "refund.currency", "tr_currency"),
        *(f"{_SNOWPLOW}transaction_1.*.currency", f"{_SNOWPLOW}refund_1.*.currency"),
    ),
    "coupon": (
        *("coupon_code", "couponCode", "discount_code", "discountCode", "promo_code", "promoCode"),
        *_in(_CHECKOUT, "discountApplications.*.title"),
        *("transaction.discount_code", f"{_SNOWPLOW}transaction_1.*.discount_code"),
    ),
    "affiliation": ("store_name", "storeName"),
}
_WEBHOOK: Final[Names] = {**ORDER, "order_id": ("id",), "coupon": ("discount_codes.*.code", *ORDER["coupon"])}
WEBHOOKS: Final[Mapping[str, Names]] = {
    **dict.fromkeys(("orders/create", "orders/updated", "orders/cancelled"), _WEBHOOK),
    "refunds/create": {
        "refund_id": ("id",),
        "revenue": ("transactions.*.amount",),
        "currency": ("transactions.*.currency",),
    },
}
"""Shopify's webhooks by topic: the order, or the refund, itself is what is sent."""

CHECKOUT: Final[Names] = {
    "checkout_id": ("checkoutId", *_in(_CHECKOUT, "token")),
    "coupon": ORDER["coupon"],
    "currency": ORDER["currency"],
    "step": ("checkout_step.step", f"{_SNOWPLOW}checkout_step_1.*.step"),
    "shipping_method": ("shipping_tier", "shippingMethod"),
    "payment_method": ("payment_type", "paymentMethod"),
}
PROMOTION: Final[Names] = {
    "promotion_id": ("promotionId", "items.*.promotion_id"),
    "name": ("promotion_name", "promotionName"),
    "creative": ("creative_name", "creativeName"),
    "position": ("creative_slot",),
}
SEARCH: Final[Names] = {
    "query": ("search_term", "searchTerm", "search_string", "data.searchResult.query", "searchResult.query", "q"),
}
LIST: Final[Names] = {
    "list_id": ("item_list_id", "listId", "data.collection.id", "collection.id"),
    "category": ("item_list_name", "data.collection.title", "collection.title"),
}
EMAIL: Final[Names] = {
    "campaign_id": ("campaignId", "$campaign", "Campaign ID"),
    "campaign_name": ("campaignName", "Campaign Name"),
    "email_id": ("emailId", "message_id", "$message"),
    "link_id": ("linkId",),
}

BY_TYPE: Final[Mapping[str, Names]] = {
    "purchase.": ORDER,
    "pos.": ORDER,
    "cart.viewed": {"currency": ORDER["currency"]},
    "cart.item_": PRODUCT,
    "wishlist.": PRODUCT,
    "product.viewed": PRODUCT,
    "product.clicked": PRODUCT,
    "product.list_viewed": LIST,
    "checkout.": CHECKOUT,
    "coupon.": {"coupon": ORDER["coupon"], "order_id": ORDER["order_id"]},
    "promo.": PROMOTION,
    "search.": SEARCH,
    "email.": EMAIL,
}
"""By type, or the beginning of several; the longest that fits counts."""
WITH_LINES: Final = ("purchase.", "pos.", "cart.viewed", "checkout.", "product.list_viewed")
"""Types whose `products` are looked for."""
