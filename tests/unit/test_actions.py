"""What staff type becomes values of the right kind, and what is still open is found."""

from typing import Any

import pytest

from query.people.actions import OpenComplaint, confirms, open_complaints, trait_value
from schemas.errors import BadRequest


def event(number: int, type_: str, **properties: Any) -> dict[str, Any]:
    return {
        "id": f"e{number}",
        "type": type_,
        "occurred_at": f"2026-03-{number:02d}T10:00:00Z",
        "properties": properties,
    }


def test_a_complaint_is_open_until_it_is_resolved() -> None:
    items = [
        event(4, "complaint.resolved", complaint_id="C1"),
        event(3, "complaint.escalated", complaint_id="C2"),
        event(2, "complaint.opened", complaint_id="C2", topic="late_delivery"),
        event(1, "complaint.opened", complaint_id="C1", topic="quality"),
        event(5, "call.received", topic="delivery"),
    ]
    assert open_complaints(items) == [OpenComplaint("C2", "late_delivery", "2026-03-02T10:00:00Z", True)]


def test_a_complaint_that_is_opened_again_is_open_since_then() -> None:
    items = [
        event(1, "complaint.opened", complaint_id=7, topic="a"),
        event(2, "complaint.resolved", complaint_id=7),
        event(3, "complaint.opened", complaint_id=7),
    ]
    assert open_complaints(items) == [OpenComplaint("7", "", "2026-03-03T10:00:00Z", False)]


def test_complaints_without_a_number_are_left_out() -> None:
    assert (
        open_complaints([event(1, "complaint.opened", topic="a"), {**event(2, "complaint.opened"), "properties": None}])
        == []
    )


@pytest.mark.parametrize(
    ("text", "type_", "now", "value"),
    [
        (" Graz ", None, "Wien", "Graz"),
        ("Graz", None, None, "Graz"),
        ("12", None, None, "12"),
        ("12", None, 3, 12),
        ("3.5", "decimal", None, 3.5),
        ("twelve", None, 3, "twelve"),
        ("Yes", "boolean", None, True),
        ("no", None, True, False),
        ("2024-05-31", "time", None, "2024-05-31"),
        ("00431", "text", None, "00431"),
    ],
)
def test_a_value_is_of_the_kind_that_is_declared(text: str, type_: str | None, now: object, value: object) -> None:
    found = trait_value(text, type_, now)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "type_", "now"),
    [("", None, None), ("  ", "text", "a"), ("maybe", "boolean", None), ("NaN", "decimal", None),
     ("1e40", "decimal", 1), ("soon", "time", None), ("perhaps", None, False)],
)  # fmt: skip
def test_what_cannot_be_of_that_kind_is_refused_with_what_is_expected(
    text: str, type_: str | None, now: object
) -> None:
    with pytest.raises(BadRequest) as caught:
        trait_value(text, type_, now)
    assert caught.value.problems[0].reason.startswith("must ")


def test_an_erasure_is_confirmed_by_name_or_id_alone() -> None:
    key = "64cf47f4-8dec-8448-cd32-3bf163f226b1"
    assert confirms(" ada  LOVELACE ", "Ada Lovelace", key)
    assert confirms(key.upper(), "Ada Lovelace", key)
    assert confirms("64cf47f4", "", key)
    assert not confirms("", "", key)
    assert not confirms("Ada", "Ada Lovelace", key)
