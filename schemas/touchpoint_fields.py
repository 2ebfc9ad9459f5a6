"""The table of what a touchpoint may hold: type, field, kind, clear or sealed, identifier kind, money. Pure.

Sealing, identifiers, imports and docs/touchpoints.md use this table; a field that is not in it is sealed, unless
a definition names it. `field` is dotted from the item's root; `products[]` means a line of an order.
"""

from functools import cache
from typing import Final, Literal, NamedTuple

EVERY: Final = "*"
STAFF: Final = "staff"  # every event written by staff, whatever its type

Kind = Literal["text", "integer", "decimal", "boolean", "time"]


class Field(NamedTuple):
    """One field. `type`: a touchpoint, a family (`cart.item_`), EVERY or STAFF. `identifier`: its kind, if it is one.

    `clear`: kept readable unless a definition says `personal: true`. A field not clear here does not become clear
    because a computed trait reads it, only by `personal: false`. `money`: numbers become decimal strings.
    """

    type: str
    field: str
    kind: Kind
    clear: bool = True
    identifier: str | None = None
    money: bool = False

    @property
    def name(self) -> str:
        """The field's name without its section."""
        return self.field.rpartition("[].")[2] if "[]" in self.field else self.field.partition(".")[2]


def _texts(type_: str, *names: str) -> list[Field]:
    return [Field(type_, f"properties.{name}", "text") for name in names]


def _money(type_: str, section: str, *names: str) -> list[Field]:
    return [Field(type_, f"{section}{name}", "decimal", money=True) for name in names]


def _line(type_: str, section: str) -> list[Field]:
    """The fields of a product: in an order's line, and in an event about one product."""
    texts = (
        *("product_id", "sku", "category", "name", "brand", "variant", "coupon", "url", "image_url", "currency"),
        *("item_id", "item_name", "item_category", "item_brand", "item_variant"),  # GA4's
    )
    return [
        *[Field(type_, f"{section}{name}", "text") for name in texts],
        Field(type_, f"{section}quantity", "decimal"),
        Field(type_, f"{section}position", "integer"),
        *_money(type_, section, "price", "amount", "discount"),
    ]


def _personal(section: str, *names: str) -> list[Field]:
    return [Field(EVERY, f"{section}.{name}", "text", clear=False) for name in names]


_IDENTIFIERS: Final = (
    ("email", "email"),
    ("phone", "phone"),
    ("loyalty_card", "loyalty_card"),
    ("loyaltyCard", "loyalty_card"),
)
CONTACTS: Final = (("email", "email"), ("phone", "phone"))
"""Identifiers that may be another person's where they are a property: a gift's recipient, a friend who is invited."""
# Types that only the person who acts can fill in: their own order, account, card, consent, call, answer or mailbox.
_OWN: Final = (
    "purchase.", "pos.", "checkout.", "account.", "trial.", "loyalty.", "consent.", "email.", "call.", "complaint.",
    "survey.",
)  # fmt: skip
_NAMED_PEOPLE: Final = (
    "name", "first_name", "last_name", "firstName", "lastName", "username", "birthday", "date_of_birth", "address",
    "street", "zip", "postal_code", "title", "text", "query", "url", "referrer", "ip",
)  # fmt: skip

_TRAITS_OF_PEOPLE: Final = (
    "name", "first_name", "last_name", "firstName", "lastName", "username", "birthday", "date_of_birth", "address",
    "street", "zip", "postal_code", "avatar",
)  # fmt: skip

FIELDS: Final[tuple[Field, ...]] = (
    # ---- who: in every event
    Field(EVERY, "userId", "text", clear=False, identifier="user_id"),
    Field(EVERY, "anonymousId", "text", clear=False, identifier="anonymous_id"),
    Field("identity.aliased", "previousId", "text", clear=False, identifier="anonymous_id"),
    *[
        Field(EVERY, f"{section}.{name}", "text", clear=False, identifier=kind)
        for section in ("traits", "context.traits")
        for name, kind in _IDENTIFIERS
    ],
    *[
        Field(EVERY, f"properties.{name}", "text", clear=False, identifier=kind)
        for name, kind in _IDENTIFIERS
        if (name, kind) not in CONTACTS
    ],
    *[Field(EVERY, f"properties.{name}", "text", clear=False) for name, _ in CONTACTS],
    *[
        Field(family, f"properties.{name}", "text", clear=False, identifier=kind)
        for name, kind in CONTACTS
        for family in _OWN
    ],
    Field(EVERY, "context.device.id", "text", clear=False, identifier="device_id"),
    Field(EVERY, "context.externalIds[].id", "text", clear=False, identifier="its type"),
    Field(EVERY, "context.externalId[].id", "text", clear=False, identifier="its type"),
    *_personal("properties", *_NAMED_PEOPLE),
    *_personal("traits", *_TRAITS_OF_PEOPLE),
    # ---- commerce fields, in every event
    *_texts(
        EVERY,
        *("order_id", "checkout_id", "affiliation", "coupon", "currency", "product_id", "sku", "category", "brand"),
        *("variant", "email_id", "campaign_id", "campaign_name", "link_id"),
    ),
    Field(EVERY, "properties.quantity", "decimal"),
    Field(EVERY, "properties.position", "integer"),
    *_money(
        *(EVERY, "properties."),
        *("subtotal", "total", "revenue", "shipping", "tax", "discount", "price", "amount"),
    ),
    *_line(EVERY, "properties.products[]."),
    # ---- orders: the same under other names (`schemas.sales`)
    *[
        field
        for family in ("purchase.", "pos.")
        for field in (
            *_texts(family, "orderId", "transaction_id", "transactionId", "refund_id", "refundId"),
            *_money(family, "properties.", "value"),
        )
    ],
    # ---- events about one product
    *[field for family in ("product.", "cart.item_", "wishlist.") for field in _line(family, "properties.")],
    Field("product.reviewed", "properties.rating", "decimal"),
    *_texts("product.reviewed", "review_id"),
    *_texts("product.list_", "list_id"),
    *_texts("promo.", "promotion_id", "creative"),
    # ---- the shop
    Field("web.page_viewed", "properties.path", "text"),
    Field("checkout.", "properties.step", "integer"),
    *_texts("checkout.", "shipping_method", "payment_method"),
    *_texts("pos.", "store_id", "till"),
    *_texts("delivery.updated", "status"),
    *_texts("experiment.viewed", "experiment_id", "experiment_name", "variation_id", "variation_name"),
    *_texts("app.", "version", "build", "previous_version", "previous_build"),
    *_texts("account.", "method"),
    *_texts("consent.updated", "purpose", "method"),
    Field("consent.updated", "properties.granted", "boolean"),
    *_texts("loyalty.", "tier"),
    *_texts("email.bounced", "bounce_type"),
    # ---- people who talk to us
    *_texts("call.", "call_id", "direction"),
    *_texts("call.received", "topic"),
    Field("call.", "properties.duration_s", "integer"),
    *_texts("complaint.", "complaint_id"),
    *_texts("complaint.opened", "topic"),
    *_texts("survey.answered", "survey_id"),
    Field("survey.answered", "properties.score", "decimal"),
    *_texts(STAFF, "agent", "direction", "complaint_id"),
    # ---- the context, in every event
    *[Field(EVERY, f"context.{name}", "text") for name in ("channel", "locale", "timezone")],
    *[Field(EVERY, f"context.library.{name}", "text") for name in ("name", "version")],
    *[Field(EVERY, f"context.os.{name}", "text") for name in ("name", "version")],
    *[Field(EVERY, f"context.app.{name}", "text") for name in ("name", "version", "build", "namespace")],
    *[
        Field(EVERY, f"context.campaign.{name}", "text")
        for name in ("id", "name", "source", "medium", "term", "content", "click")
    ],
    Field(EVERY, "context.referrer.type", "text"),
    Field(EVERY, "context.device.type", "text"),
    Field(EVERY, "context.page.path", "text"),
)

_PROPERTIES: Final = "properties."
_LINES: Final = "properties.products[]."


def _is_property(field: Field) -> bool:
    return field.field.startswith(_PROPERTIES) and "[]" not in field.field


def _of(field: Field, type_: str) -> bool:
    """Whether a field belongs to a touchpoint; a family ends in a dot or an underscore."""
    own = field.type
    return own in (EVERY, type_) or (own[-1] in "._" and type_.startswith(own))


@cache
def clear_properties(type_: str, *, staff: bool = False) -> frozenset[str]:
    """Properties of a touchpoint that are clear."""
    return frozenset(
        field.name
        for field in FIELDS
        if field.clear and _is_property(field) and (_of(field, type_) or (staff and field.type == STAFF))
    )


@cache
def personal_properties(type_: str) -> frozenset[str]:
    """Properties known to be personal: a computed trait that reads one does not make it clear."""
    known = {field.name for field in FIELDS if not field.clear and _is_property(field)}
    return frozenset(known - clear_properties(type_))


@cache
def personal_traits() -> frozenset[str]:
    """Traits known to be personal, whoever sends them."""
    return frozenset(field.name for field in FIELDS if not field.clear and field.field.startswith("traits."))


def line_lists(type_: str) -> frozenset[str]:
    """The properties that hold lines: `items`, too, where the touchpoint says that they are products."""
    return _BOTH if type_.startswith(_COMMERCE) else _PRODUCTS


_PRODUCTS: Final = frozenset({"products"})
_BOTH: Final = frozenset({"products", "items"})
_COMMERCE: Final = ("purchase.", "pos.", "cart.", "checkout.", "product.", "wishlist.")


def texts_of(type_: str) -> frozenset[str]:
    """Properties and line fields that are names or numbers of things, not quantities: always text."""
    return frozenset(
        field.name
        for field in FIELDS
        if field.kind == "text" and field.clear and field.field.startswith(_PROPERTIES) and _of(field, type_)
    )


def context_fields() -> dict[str, frozenset[str]]:
    """Clear parts of the context: name → the clear fields of the object; an empty set: the value itself is clear."""
    found: dict[str, set[str]] = {}
    for field in FIELDS:
        if field.clear and field.field.startswith("context."):
            name, _, below = field.name.partition(".")
            found.setdefault(name, set()).update({below} if below else ())
    return {name: frozenset(below) for name, below in found.items()}


def identifiers_in(section: str) -> tuple[tuple[str, str], ...]:
    """(name, kind) of the identifiers in a section: traits, properties, context.traits, context.device."""
    start = f"{section}."
    return tuple(
        (field.field.removeprefix(start), field.identifier)
        for field in FIELDS
        if field.identifier is not None and field.field.startswith(start) and "." not in field.field[len(start) :]
    )


def own_in_properties(type_: str) -> tuple[tuple[str, str], ...]:
    """(name, kind) of the properties that are the customer's own identifiers in a touchpoint."""
    return tuple(
        (field.name, field.identifier)
        for field in FIELDS
        if field.identifier is not None and _is_property(field) and _of(field, type_)
    )


def identifier_kind(name: str) -> str | None:
    """The kind of a field called like an identifier, whatever it is in: `email` of `customer.email`."""
    return dict(_IDENTIFIERS).get(name.rpartition(".")[2])


CONTACT_NAMES: Final = frozenset(name for name, _ in CONTACTS)
LINE: Final = frozenset(field.name for field in FIELDS if field.field.startswith(_LINES))
"""Clear fields of a line in `products`."""
MONEY: Final = frozenset(field.name for field in FIELDS if field.money)
"""Numbers under these names become decimal strings, in an event's properties and in its lines."""
