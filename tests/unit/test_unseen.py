"""Warnings about names that no recent event has."""

from collections.abc import Iterable, Sequence

import msgspec

from projections.definitions.files import parse_documents
from query.reports.unseen import unseen
from schemas.record import Pending, Record, Sealed, Stored, encode
from tests.records import record


class Kept:
    """A log of one partition, as far as reading goes."""

    partitions = 1
    generation = 1

    def __init__(self, *records: Record) -> None:
        self._stored = [Stored(0, place, encode(each)) for place, each in enumerate(records)]

    def append(self, batch: Sequence[Pending]) -> list[tuple[int, int]]:
        raise NotImplementedError

    def read(self, partition: int, start: int, limit: int) -> list[Stored]:
        return self._stored[start : start + limit]

    def fetch(self, positions: Iterable[tuple[int, int]]) -> list[Stored]:
        return [self._stored[offset] for _, offset in positions]

    def ends(self) -> list[int]:
        return [len(self._stored)]


def warned(text: str, *records: Record) -> list[tuple[str, str]]:
    return [(each.path, each.reason) for each in unseen(Kept(*records), parse_documents([("d.yaml", text)]))]


USER = [("user_id", "u")]
QUIZ = record(USER, "1", type_="custom", name="Quiz Won", properties={"score": 3})
SEALED = msgspec.structs.replace(QUIZ, sealed=Sealed(QUIZ.route_key, ["properties.prize", "context.ip"], "AAAA"))
SIGNED_UP = record(USER, "2", type_="account.signed_up")


def test_a_misspelt_event_is_told_with_the_nearest_name() -> None:
    assert warned("computed_traits: {n: {aggregate: count, events: [Quiz Wonn]}}", QUIZ, SIGNED_UP) == [
        ("computed_traits.n", "none of the newest 2 events has Quiz Wonn; did you mean Quiz Won?")
    ]
    assert warned('computed_traits: {n: {aggregate: count, events: ["Sign Up", "Quiz Won"]}}', QUIZ, SIGNED_UP) == []
    (warning,) = warned("computed_traits: {n: {aggregate: count, events: [call.received]}}", QUIZ)
    assert warning[1] == "none of the newest 1 events has call.received", "a touchpoint that may still come"


def test_a_misspelt_property_is_told_clear_or_sealed_or_in_the_context() -> None:
    def where(prop: str) -> str:
        leaf = f'{{property: "{prop}", op: exists}}'
        return f"computed_traits: {{n: {{aggregate: count, events: [Quiz Won], where: {leaf}}}}}"

    for prop in ("score", "prize", "prize.name", "context.ip", "revenue", "event.flags"):
        assert warned(where(prop), SEALED) == []
    (warning,) = warned(where("scores"), SEALED)
    assert warning == (
        "computed_traits.n",
        "none of the newest 1 events has scores of Quiz Won; did you mean score?",
    )
    (warning,) = warned(where("context.campaign.name"), SEALED)
    assert "context.campaign.name of Quiz Won" in warning[1]


def test_an_empty_log_warns_of_nothing_and_traits_only_where_some_came() -> None:
    text = "traits: {citty: {personal: false}}\ncomputed_traits: {n: {aggregate: count, events: [Nothing]}}"
    assert warned(text) == []
    assert [path for path, _ in warned(text, QUIZ)] == ["computed_traits.n"]
    city = record(USER, "3", type_="profile.identified", traits={"city": "Oslo"})
    assert ("traits.citty", "none of the newest 1 events has the trait citty; did you mean city?") in warned(text, city)
