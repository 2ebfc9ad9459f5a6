"""Every touchpoint has words, and no value breaks them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from query.people.plain_words import CHANNELS, in_words, types_of
from schemas.touchpoints import CUSTOM, TYPES


@pytest.mark.parametrize("type_", sorted(TYPES))
def test_every_type_has_words_an_icon_and_a_channel(type_: str) -> None:
    told = in_words({"type": type_, "name": "Quiz won", "properties": {}, "context": {}, "traits": {}})
    assert told.words[0].isupper()
    assert told.channel in CHANNELS
    assert type_ == CUSTOM or "." not in told.words


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (
            {
                "type": "purchase.completed",
                "properties": {"transaction_id": "T9", "value": "9,50 €", "items": [{}, {}]},
            },
            "Bought 2 items, €9.50",
        ),
        (
            {"type": "purchase.completed", "properties": {"order_id": "T9", "revenue": "9,500"}},
            "Bought something, for an amount that cannot be read",
        ),
        (
            {
                "type": "pos.purchase",
                "properties": {"revenue": "42.1", "currency": "EUR", "till": 2, "products": [{"quantity": 2}, {}]},
            },
            "Bought 3 items, €42.10, till 2",
        ),
        ({"type": "purchase.completed", "properties": {"total": "1234.5"}}, "Bought something, $1,234.50"),
        ({"type": "email.opened", "properties": {"subject": "Spring sale"}}, "Opened the e-mail “Spring sale”"),
        (
            {"type": "call.received", "properties": {"topic": "delivery", "duration_s": 240}},
            "Called about delivery, 4 min",
        ),
        (
            {"type": "complaint.opened", "properties": {"topic": "damaged parcel", "agent": "eve"}},
            "Complaint opened: damaged parcel, by eve",
        ),
        ({"type": "note.added", "properties": {"text": "Likes tea", "agent": "eve"}}, "Note “Likes tea”, by eve"),
        (
            {"type": "trait.corrected", "name": "last_name", "traits": {"last_name": "Smith"}},
            "Corrected last name to “Smith”",
        ),
        ({"type": "trait.corrected", "name": "last_name", "traits": {}}, "Withdrew the correction of last name"),
        ({"type": "custom", "name": "Quiz won", "properties": {"score": 7}}, "Quiz won, score 7"),
        ({"type": "product.viewed", "properties": {"name": "Tea pot"}}, "Looked at Tea pot"),
        (
            {
                "type": "cart.item_added",
                "properties": {"name": "Cup", "price": "4.5", "quantity": 2, "currency": "EUR"},
            },
            "Put 2 × Cup in the cart, €4.50",
        ),
        ({"type": "call.completed", "properties": {"duration_s": 200}}, "Call ended, 3 min"),
        (
            {"type": "call.completed", "properties": {"direction": "out", "topic": "late_delivery", "agent": "eve"}},
            "We called about late delivery, by eve",
        ),
        (
            {"type": "complaint.opened", "properties": {"topic": "late_delivery", "text": "Two weeks"}},
            "Complaint opened: late delivery, “Two weeks”",
        ),
        ({"type": "email.opened", "properties": {}}, "Opened an e-mail"),
        (
            {"type": "email.bounced", "properties": {"campaign_name": "Spring", "bounce_type": "hard"}},
            "E-mail bounced: “Spring”, hard",
        ),
        ({"type": "consent.updated", "properties": {"purpose": "marketing", "granted": False}}, "Refused marketing"),
        (
            {"type": "pos.return", "properties": {"order_id": "T1-2", "revenue": 5, "reason": "did not suit"}},
            "Returned goods of order T1-2, $5.00, did not suit",
        ),
        ({"type": "survey.answered", "properties": {"survey_id": "nps", "score": 9}}, "Answered the survey NPS: 9"),
        ({"type": "web.page_viewed", "name": "Home", "properties": {"path": "/"}}, "Looked at the page “Home”"),
        ({"type": "web.page_viewed", "name": None, "properties": {"path": "/a"}}, "Looked at /a"),
        (
            {"type": "custom", "name": "bike_rented", "properties": {"km": 3, "helmet": True, "route": [1]}},
            "Bike rented, km 3, helmet yes",
        ),
        (
            {"type": "profile.identified", "traits": {"city": "Graz"}, "sealed_names": ["traits.first_name"]},
            "Gave details: city, first name",
        ),
    ],
)
def test_words(item: dict[str, object], words: str) -> None:
    assert in_words(item).words == words


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=300),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(
    ["revenue", "total", "products", "topic", "text", "subject", "till", "duration_s", "name", "score"]
)


@given(st.sampled_from(sorted(TYPES)), st.dictionaries(names, anything, max_size=6), st.text(max_size=400))
def test_no_value_breaks_them(type_: str, properties: dict[str, object], name: str) -> None:
    told = in_words({"type": type_, "name": name, "properties": properties, "context": {}, "traits": {}})
    assert len(told.words) < 1_000


def test_marks_that_turn_the_direction_are_left_out() -> None:
    assert in_words({"type": "custom", "name": "a\u202eb\u2066c", "properties": {}}).words == "Abc"


def test_a_channel_names_its_types() -> None:
    assert types_of("complaints", TYPES) >= {"complaint.opened", "complaint.resolved", "survey.answered"}
    assert frozenset().union(*(types_of(channel, TYPES) for channel in CHANNELS)) == TYPES
