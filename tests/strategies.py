"""Shared generators: touchpoints as plain dicts, and as the bytes of log records."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from hypothesis import strategies as st

from schemas.record import Identifier, Record, Sealed, encode

Event = dict[str, Any]

TYPES = (
    "purchase.completed", "purchase.completed", "pos.purchase", "pos.purchase", "purchase.updated",
    "purchase.refunded", "pos.return", "purchase.cancelled", "web.page_viewed", "web.page_viewed", "email.opened",
    "complaint.opened", "complaint.escalated", "complaint.resolved", "profile.identified", "custom", "survey.answered",
)  # fmt: skip
ORDERS = ("purchase.completed", "pos.purchase")
THEMES = (
    TYPES,
    ORDERS,
    (*ORDERS, "purchase.updated", "purchase.refunded", "pos.return", "purchase.cancelled"),
    (*ORDERS, *ORDERS, "purchase.refunded", "pos.return"),
    ("web.page_viewed", "email.opened", "survey.answered"),
    ("complaint.opened", "complaint.escalated", "complaint.resolved", "profile.identified", "custom"),
    ("profile.identified", "trait.corrected"),
)
SOURCES = ("web", "till", "import")
START = datetime(2023, 9, 1, tzinfo=UTC)

# Around daylight saving changes in New York and Berlin, and around midnight there.
TRICKY = tuple(
    datetime(*moment, tzinfo=UTC)
    for moment in (
        (2024, 3, 10, 4, 59), (2024, 3, 10, 5, 0), (2024, 3, 10, 7, 0), (2024, 3, 11, 3, 59), (2024, 3, 11, 4, 0),
        (2023, 11, 5, 4, 0), (2023, 11, 5, 6, 0), (2023, 11, 6, 4, 59), (2023, 11, 6, 5, 0), (2024, 3, 30, 23, 0),
        (2024, 3, 31, 1, 0), (2024, 3, 31, 22, 0), (2023, 10, 28, 22, 0), (2023, 10, 29, 1, 0), (2023, 10, 29, 23, 0),
    )
)  # fmt: skip

times = st.one_of(
    st.sampled_from(TRICKY),
    st.builds(lambda at, us: at + timedelta(microseconds=us), st.sampled_from(TRICKY), st.integers(-2, 2)),
    st.integers(0, 400 * 86_400).map(lambda s: START + timedelta(seconds=s)),
)
GOOD = st.sampled_from(["10", "19.99", "250.5", 7, 12.5])
amounts = st.one_of(
    GOOD,
    GOOD,
    GOOD,
    st.sampled_from(["10", "19.99", "0.0001", "250.5", "-3.25", "1e2", 7, 12.5, 0, "1234567.123456"]),
    st.sampled_from(["€5.00", "7,25", "1.234,50", "(2.00)", "-8", -8]),
    st.sampled_from(["abc", "1,234", "", None, True, [1], {"a": 1}, "NaN", 10**30, 1e300, "1_0"]),
)
product = st.fixed_dictionaries(
    {}, optional={"amount": amounts, "price": amounts, "quantity": st.sampled_from([1, 2, "3", 0.5, None, "x"])}
)
always = {
    "order_id": st.sampled_from(["o1", "o1", "o2", " o2", "o3", 5, "5.0", 5.0, "", "null", None, ["x"]]),
    "revenue": amounts,
    "currency": st.sampled_from(["USD", "USD", None, "eur", "EUR", "GBP", "JPY", 3]),
    "score": st.sampled_from([0, 3, 3, 6.5, 10, "9", "bad", None, False]),
    "complaint_id": st.sampled_from(["c1", "c1", "c2", 3, None, ["c"]]),
    "channel": st.sampled_from(["store", "store", "online", 4, None, True]),
}
sometimes = {
    "total": amounts,
    "products": st.one_of(st.lists(product, max_size=3), st.sampled_from(["x", 5, {"price": 3}, [1, "a"]])),
    "discount": amounts,
    "value": amounts,
    "refund_id": st.sampled_from(["r1", "r1", "r2"]),
    "coupon": st.sampled_from(["SPRING", "AUTUMN", 12, 2.5]),
}
property_sets = st.one_of(
    st.fixed_dictionaries(always, optional=sometimes),
    st.fixed_dictionaries(always, optional=sometimes),
    st.fixed_dictionaries({}, optional={**always, **sometimes}),
)
trait_sets = st.fixed_dictionaries(
    {},
    optional={
        "city": st.sampled_from(["Oslo", "Rome", None]),
        "age": st.sampled_from([18, 30.5, "40", None]),
        "member_since": st.sampled_from(["2024-01-01", "2024-03-10T05:30:00Z", "soon", None]),
        "tags": st.sampled_from([["a", "b"], {"z": 1, "a": 2}, True]),
    },
)


corrections = st.one_of(
    st.sampled_from(["Bern", None, "Oslo"]).map(lambda city: {"name": "city", "traits": {"city": city}}),
    st.sampled_from(["birthday", "city"]).map(lambda name: {"name": name, "sealed": [name]}),
    st.sampled_from(["birthday", "city", "age"]).map(lambda name: {"name": name}),  # withdrawn
)


@st.composite
def touchpoints(
    draw: st.DrawFn,
    max_size: int = 14,
    themes: tuple[tuple[str, ...], ...] = THEMES,
    when: st.SearchStrategy[datetime] = times,
) -> list[Event]:
    """Events with distinct ids: many on the same order, many at the same instant, some with wrong types."""
    events: list[Event] = []
    theme = draw(st.sampled_from(themes))
    size = draw(st.one_of(st.integers(0, max_size), st.integers(max_size // 2, max_size)))
    for i in range(size):
        kind = draw(st.sampled_from(theme))
        identified = kind == "profile.identified"
        at = draw(when)
        events.append({
            "id": str(UUID(int=draw(st.integers(0, 2**63)) << 64 | i)),
            "type": kind,
            "name": draw(st.sampled_from(["quiz_won", "other", None])) if kind == "custom" else None,
            "source": draw(st.sampled_from(SOURCES)),
            "occurred_at": at,
            "received_at": at + draw(st.sampled_from([timedelta(0), timedelta(microseconds=1), timedelta(days=2)])),
            "n": draw(st.sampled_from([0, 0, 1, 2, 10**6])),
            "properties": draw(property_sets),
            "traits": draw(trait_sets) if identified else {},
            "flags": draw(st.sampled_from([[], [], [], ["bot"], ["large", "bot"], ["mended"]])),
            "sealed": draw(st.lists(st.sampled_from(["birthday", "city"]), unique=True)) if identified else [],
            "partition": draw(st.integers(0, 3)),
            "offset": i,
        })  # fmt: skip
        if kind == "trait.corrected":
            events[-1] |= draw(corrections)
    return events


def record_bytes(event: Event) -> bytes:
    """A touchpoint as the log stores it."""
    token = "ab" * 16
    at: datetime = event["occurred_at"]
    received_at: datetime = event.get("received_at") or at
    names = [f"traits.{name}" for name in event.get("sealed", ())]
    return encode(
        Record(
            v=2, id=event["id"], type=event["type"], name=event.get("name"), source=event.get("source", "web"),
            ids=[Identifier("user_id", token)], route_key=token, occurred_at=at,
            received_at=received_at, known_at=received_at, n=event.get("n", 0),
            digest="00" * 16, flags=event.get("flags", []),
            properties=event.get("properties", {}), traits=event.get("traits", {}),
            sealed=Sealed(token, names, "AAAA") if names else None,
        )
    )  # fmt: skip
