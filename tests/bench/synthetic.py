"""Synthetic records and definitions for the bench: about 600 bytes, three identifier sets per customer, six types."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from random import Random
from typing import Any, Final

from projections.definitions.files import parse_documents
from schemas.definitions import Definitions
from schemas.record import Identifier, Pending, Record, Sealed, encode, uuid_text

TYPES: Final = ("web.page_viewed", "product.viewed", "cart.item_added", "purchase.completed", "email.opened")
_SEALED: Final = "A" * 120  # base64 as long as what a door seals of such an event; the definitions below open none
_EVENTS: Final = {
    "pages": "web.page_viewed",
    "views": "product.viewed",
    "carts": "cart.item_added",
    "mails": "email.opened",
    "calls": "call.received",
}


def definitions_text() -> str:
    """30 computed traits (15 lifetime, 15 windowed) and 20 segments over them, as YAML."""
    traits: list[str] = []
    for name, event in _EVENTS.items():
        traits += [
            f"  {name}: {{aggregate: count, events: [{event}]}}",
            f"  {name}_30d: {{aggregate: count, events: [{event}], window_days: 30}}",
            f"  {name}_last: {{aggregate: last, of: occurred_at, events: [{event}]}}",
            f"  {name}_days_90d: {{aggregate: distinct_days, events: [{event}], window_days: 90}}",
        ]
    orders = "events: [purchase.completed, pos.purchase]"
    traits += [
        f"  orders: {{aggregate: count, {orders}}}",
        f"  revenue: {{aggregate: sum, of: revenue, {orders}}}",
        f"  largest: {{aggregate: max, of: revenue, {orders}}}",
        f"  mean_order: {{aggregate: avg, of: revenue, {orders}}}",
        f"  first_order: {{aggregate: first, of: occurred_at, {orders}}}",
        f"  last_order: {{aggregate: last, of: occurred_at, {orders}}}",
        f"  orders_90d: {{aggregate: count, {orders}, window_days: 90}}",
        f"  revenue_90d: {{aggregate: sum, of: revenue, {orders}, window_days: 90}}",
        f"  revenue_30d: {{aggregate: sum, of: revenue, {orders}, window_days: 30}}",
        f"  since_order: {{aggregate: days_since, {orders}}}",
    ]
    segments = [
        f"  s_{name}_{limit}: {{when: {{trait: {name}, op: gte, value: {limit}}}}}"
        for name in ("pages", "views_30d", "revenue", "orders_90d")
        for limit in (1, 3, 8)
    ]
    for name in _EVENTS:
        once, lately = f"{{trait: {name}, op: gte, value: 1}}", f"{{trait: {name}_30d, op: lt, value: 1}}"
        segments.append(f"  quiet_{name}: {{when: {{all: [{once}, {lately}]}}}}")
    segments += [
        "  lapsing: {when: {all: [{trait: orders, op: gte, value: 2}, {trait: since_order, op: gt, value: 45}]}}",
        "  best: {when: {any: [{trait: revenue_90d, op: gte, value: 500}, {trait: largest, op: gte, value: 300}]}}",
        "  not_best: {when: {all: [{trait: orders, op: exists}, {not: {segment: best}}]}}",
    ]
    return "\n".join(["computed_traits:", *traits, "segments:", *segments])


def definitions() -> Definitions:
    """The same, parsed."""
    made = parse_documents([("bench.yaml", definitions_text())])
    assert (len(made.computed_traits), len(made.segments)) == (30, 20), "the issue asks for 30 traits and 20 segments"
    return made


def _token(kind: str, number: int) -> str:
    """A token. Real ones are random 128-bit values; a hash of a number is as evenly spread, and repeatable."""
    return blake2b(f"{kind}{number}".encode(), digest_size=16).hexdigest()


class Records:
    """Records of `customers`, made in order. Each customer has three identifier sets: known, visitor, both.

    `token`: the token of (kind, customer), in hex.
    """

    def __init__(self, customers: int, now: datetime, seed: int = 1, token: Callable[[str, int], str] = _token) -> None:
        self._customers = customers
        self._token = token
        self._start = now - timedelta(days=90)
        self._random = Random(seed)
        self._made = 0
        self._received = now - timedelta(hours=1)

    def first_of_each(self) -> Iterator[Pending]:
        """One record per identifier set, so that later records are of known customers."""
        for customer in range(self._customers):
            for place in range(3):
                yield self._record(customer, place)

    def some(self, count: int, customers: int | None = None) -> Iterator[Pending]:
        """`count` records over all customers, or only the first `customers`."""
        among = customers or self._customers
        for _ in range(count):
            yield self._record(self._random.randrange(among), self._random.choice((0, 0, 1, 1, 2)))

    def _record(self, customer: int, place: int) -> Pending:
        self._made += 1
        number = self._made
        user, visitor = self._token("user", customer), self._token("visitor", customer)
        ids = {
            0: [Identifier("user_id", user)],
            1: [Identifier("anonymous_id", visitor)],
            2: [Identifier("user_id", user), Identifier("anonymous_id", visitor)],
        }[place]
        self._received += timedelta(microseconds=50)
        at = self._start + timedelta(seconds=self._random.randrange(90 * 86_400 - 7_200))
        type_ = self._random.choices((*TYPES, "call.received"), (40, 20, 12, 15, 10, 3))[0]
        key = blake2b(number.to_bytes(8, "big"), digest_size=16, person=b"bench").digest()
        record = Record(
            v=1,
            id=uuid_text(key),
            message_id=f"bench-{number:012d}",
            type=type_,
            name=type_,
            source="bench",
            ids=ids,
            route_key=ids[0].token,
            occurred_at=at,
            received_at=self._received,
            known_at=self._received,
            digest=key.hex(),
            properties=self._properties(type_, number),
            context={"channel": "web", "library": {"name": "bench", "version": "1.0"}, "page": {"path": "/a/b"}},
            sealed=Sealed(ids[0].token, ["context.ip", "context.userAgent"], _SEALED),
        )
        return Pending(bytes.fromhex(record.route_key), encode(record))

    def _properties(self, type_: str, number: int) -> dict[str, Any]:
        product = {"product_id": f"p{number % 997}", "price": "19.99", "quantity": 2}
        if type_ != "purchase.completed":
            return {"product_id": product["product_id"], "position": number % 40}
        amount = f"{self._random.randrange(500, 30_000) / 100:.2f}"
        return {"order_id": f"o{number}", "revenue": amount, "currency": "USD", "products": [product]}


def utc_now() -> datetime:
    """The bench's clock."""
    return datetime.now(UTC)
