"""Touchpoints: their canonical types, and the names other dialects give them. Pure.

The tables are those of Segment, RudderStack, Jitsu, Snowplow, Tracardi and Unomi; what they do not know maps to
`custom`. A change of a table is a new TABLE_VERSION: what is in the log keeps the type it was given.
"""

import re
from collections.abc import Mapping
from typing import Final

TABLE_VERSION: Final = 1
CUSTOM: Final = "custom"

BASE_TYPES: Final = ("purchase.completed", "pos.purchase", "purchase.updated")  # what an order is
REFUND_TYPES: Final = ("purchase.refunded", "pos.return")
CANCEL_TYPES: Final = ("purchase.cancelled",)
ORDER_TYPES: Final = frozenset(BASE_TYPES + REFUND_TYPES + CANCEL_TYPES)
HOLDING_TYPES: Final = frozenset(BASE_TYPES) - {"purchase.updated"}  # whoever has one, has the order
FOLLOWING_TYPES: Final = ORDER_TYPES - HOLDING_TYPES  # belong to whoever has their order (decision 0037)
STAFF_TYPES: Final = ("note.added", "trait.corrected")  # written by staff alone; a write key cannot send them
CALL_TYPES: Final = {
    "identify": "profile.identified",
    "group": "group.joined",
    "alias": "identity.aliased",
    "page": "web.page_viewed",
    "screen": "app.screen_viewed",
}  # what the calls other than `track` become

# Segment, RudderStack and Jitsu names; matched whatever the case and whether spaces, "_" or "-" part the words.
SEGMENT_NAMES: Final[Mapping[str, str]] = {
    "Session Started": "session.started",
    "Session Ended": "session.ended",
    "Products Searched": "search.performed",
    "Product List Viewed": "product.list_viewed",
    "Product List Filtered": "product.list_viewed",
    "Product Clicked": "product.clicked",
    "Product Viewed": "product.viewed",
    "Promotion Viewed": "promo.viewed",
    "Promotion Clicked": "promo.clicked",
    "Product Added": "cart.item_added",
    "Product Removed": "cart.item_removed",
    "Cart Viewed": "cart.viewed",
    "Cart Shared": "cart.shared",
    "Checkout Started": "checkout.started",
    "Checkout Step Viewed": "checkout.step_viewed",
    "Checkout Step Completed": "checkout.step_completed",
    "Payment Info Entered": "checkout.payment_entered",
    "Order Completed": "purchase.completed",
    "Completed Order": "purchase.completed",
    "Order Updated": "purchase.updated",
    "Order Refunded": "purchase.refunded",
    "Order Cancelled": "purchase.cancelled",
    "Coupon Entered": "coupon.entered",
    "Coupon Applied": "coupon.applied",
    "Coupon Denied": "coupon.denied",
    "Coupon Removed": "coupon.removed",
    "Product Added to Wishlist": "wishlist.item_added",
    "Product Removed from Wishlist": "wishlist.item_removed",
    "Wishlist Product Added to Cart": "wishlist.item_moved_to_cart",
    "Product Shared": "product.shared",
    "Product Reviewed": "product.reviewed",
    "Email Sent": "email.sent",
    "Email Delivered": "email.delivered",
    "Email Opened": "email.opened",
    "Email Link Clicked": "email.clicked",
    "Email Bounced": "email.bounced",
    "Email Marked as Spam": "email.spam",
    "Unsubscribed": "email.unsubscribed",
    "Push Notification Received": "push.received",
    "Push Notification Tapped": "push.tapped",
    "Push Notification Bounced": "push.bounced",
    "Live Chat Conversation Started": "chat.started",
    "Live Chat Conversation Ended": "chat.ended",
    "Live Chat Message Sent": "chat.message_sent",
    "Live Chat Message Received": "chat.message_received",
    "Message Sent": "chat.message_sent",
    "Message Received": "chat.message_received",
    "Signed Up": "account.signed_up",
    "Account Created": "account.signed_up",
    "Signed In": "account.signed_in",
    "Signed Out": "account.signed_out",
    "Account Deleted": "account.deleted",
    "Trial Started": "trial.started",
    "Trial Ended": "trial.ended",
    "Application Installed": "app.installed",
    "Application Opened": "app.opened",
    "Application Backgrounded": "app.backgrounded",
    "Application Foregrounded": "app.foregrounded",
    "Application Updated": "app.updated",
    "Application Uninstalled": "app.uninstalled",
    "Application Crashed": "app.crashed",
    "Install Attributed": "app.install_attributed",
    "Deep Link Opened": "app.deep_link_opened",
    "Deep Link Clicked": "app.deep_link_clicked",
    "Experiment Viewed": "experiment.viewed",
    "Segment Consent Preference Updated": "consent.updated",
    # No dialect names these; the words of our own types, as SDK users write them.
    "Purchase Failed": "purchase.failed",
    "Delivery Updated": "delivery.updated",
    "Loyalty Card Added": "loyalty.card_added",
    "Loyalty Card Removed": "loyalty.card_removed",
    "Call Received": "call.received",
    "Call Completed": "call.completed",
    "Call Missed": "call.missed",
    "Complaint Opened": "complaint.opened",
    "Complaint Escalated": "complaint.escalated",
    "Complaint Resolved": "complaint.resolved",
    "Pos Purchase": "pos.purchase",
    "Pos Return": "pos.return",
    "Survey Answered": "survey.answered",
}
# Snowplow, Tracardi and Unomi names, spelt exactly so: many are plain words.
DIALECT_NAMES: Final[Mapping[str, str]] = {
    # Snowplow
    "page_view": "web.page_viewed",
    "screen_view": "app.screen_viewed",
    "list_view": "product.list_viewed",
    "list_click": "product.clicked",
    "product_view": "product.viewed",
    "promo_view": "promo.viewed",
    "promo_click": "promo.clicked",
    "add_to_cart": "cart.item_added",
    "remove_from_cart": "cart.item_removed",
    "checkout_step": "checkout.step_viewed",  # with step 1: checkout.started
    "transaction": "purchase.completed",
    "refund": "purchase.refunded",
    "trns_error": "purchase.failed",
    # Tracardi
    "page-view": "web.page_viewed",
    "screen-view": "app.screen_viewed",
    "visit-started": "session.started",
    "visit-ended": "session.ended",
    "search": "search.performed",
    "product-clicked": "product.clicked",
    "product-details-page-view": "product.viewed",
    "promotion-viewed": "promo.viewed",
    "promotion-clicked": "promo.clicked",
    "product-added-to-basket": "cart.item_added",
    "product-removed-from-basket": "cart.item_removed",
    "basket-viewed": "cart.viewed",
    "checkout-started": "checkout.started",
    "checkout-status": "checkout.step_viewed",
    "delivery-info-entered": "checkout.step_completed",
    "checkout-completed": "checkout.step_completed",
    "payment-info-entered": "checkout.payment_entered",
    "order-completed": "purchase.completed",
    "sale-completed": "purchase.completed",
    "order-status-change": "purchase.updated",
    "product-returned": "purchase.refunded",
    "order-dispatched": "delivery.updated",
    "order-delivered": "delivery.updated",
    "product-shared": "product.shared",
    "product-reviewed": "product.reviewed",
    "rating": "product.reviewed",
    "message-sent": "email.sent",
    "message-status": "email.delivered",
    "message-opened": "email.opened",
    "messaging-started": "chat.started",
    "messaging-ended": "chat.ended",
    "message-received": "chat.message_received",
    "sign-up": "account.signed_up",
    "sign-in": "account.signed_in",
    "account-deleted": "account.deleted",
    "loyalty-card-added": "loyalty.card_added",
    "loyalty-card-removed": "loyalty.card_removed",
    "consent-update": "consent.updated",
    # Unomi
    "view": "web.page_viewed",
    "sessionCreated": "session.started",
    "click": "product.clicked",
    "login": "account.signed_in",
    "optimisation test": "experiment.viewed",
    "modifyConsent": "consent.updated",
    "form": "survey.answered",
}

TOUCHPOINTS: Final[frozenset[str]] = frozenset(
    {*SEGMENT_NAMES.values(), *DIALECT_NAMES.values(), "web.page_viewed", "app.screen_viewed"}
)
"""Types a `track` may be named by."""
TYPES: Final[frozenset[str]] = TOUCHPOINTS | {*CALL_TYPES.values(), *STAFF_TYPES, CUSTOM}
"""Every type a touchpoint record can have."""

_SEPARATORS: Final = re.compile(r"[\s_\-]+")


def _words(name: str) -> str:
    return _SEPARATORS.sub(" ", name).strip().lower()


_BY_WORDS: Final = {_words(name): type_ for name, type_ in SEGMENT_NAMES.items()}
_BY_NAME: Final = {name: _BY_WORDS[_words(name)] for name in SEGMENT_NAMES}  # as nearly all senders spell them


def type_of(name: str, step: object = None) -> str:
    """The canonical type of a `track`'s name, `custom` for a name no table knows. `step`: its property of that name."""
    if name in TOUCHPOINTS:
        return name
    known = DIALECT_NAMES.get(name)
    if known is not None:
        return "checkout.started" if name == "checkout_step" and step in (1, "1") else known
    return _BY_NAME.get(name) or _BY_WORDS.get(_words(name), CUSTOM)
