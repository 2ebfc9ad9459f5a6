"""Traits are folded by what is declared of them now, however they came: an attribute has its value, others do not."""

from typing import Any
from uuid import UUID

import pytest

from projections.decide.evaluator import Evaluator, compile_evaluator
from projections.definitions.files import parse_documents
from projections.fold.fold import Fold, compile_fold
from schemas.record import Identifier, Record, Sealed, encode
from tests.unit.test_fold import NOON

TOKEN = "ab" * 16


def compiled(text: str) -> tuple[Fold, Evaluator]:
    definitions = parse_documents([("t.yaml", text)])
    fold = compile_fold(definitions, time_zone="UTC", currency="USD")
    return fold, compile_evaluator(definitions, fold, time_zone="UTC")


def identify(traits: dict[str, Any], sealed: list[str], type_: str = "profile.identified") -> bytes:
    return encode(Record(
        v=1, id=str(UUID(int=7)), type=type_, name="city", source="web", ids=[Identifier("user_id", TOKEN)],
        route_key=TOKEN, occurred_at=NOON, received_at=NOON, known_at=NOON, digest="00" * 16, traits=traits,
        sealed=Sealed(TOKEN, sealed, "") if sealed else None,
    ))  # fmt: skip


@pytest.mark.parametrize("type_", ["profile.identified", "trait.corrected"])
@pytest.mark.parametrize(("personal", "shown"), [("false", {"city": "Wien"}), ("true", {})])
def test_a_trait_is_what_it_is_declared_to_be_however_it_came(type_: str, personal: str, shown: dict[str, Any]) -> None:
    fold, evaluator = compiled(f"traits: {{city: {{personal: {personal}}}}}")
    came_sealed, came_clear = identify({}, ["traits.city"], type_), identify({"city": "Wien"}, [], type_)
    states = [fold.new_state(), fold.new_state()]
    opened = {"traits": {"city": "Wien", "name": "Ada"}}
    event = fold.decode(came_sealed)
    fold.apply(event, states[0], opened if fold.needs_sealed(event) else None)
    fold.apply(fold.decode(came_clear), states[1], None)
    assert states[0] == states[1]
    assert evaluator.attributes(states[0]) == shown
    assert evaluator.personal_names(states[0]) == ([] if shown else ["city"])
    assert (b"Wien" in fold.pack(states[0])) is bool(shown)


def test_an_identifier_is_no_attribute_and_a_change_of_a_trait_folds_the_past_again() -> None:
    fold, evaluator = compiled("traits: {email: {personal: false}}")
    state = fold.new_state()
    fold.apply(fold.decode(identify({}, ["traits.email"])), state, {"traits": {"email": {"$token": TOKEN}}})
    assert evaluator.attributes(state) == {}
    assert evaluator.personal_names(state) == ["email"]
    assert fold.layout_hash != compiled("traits: {email: {personal: true}}")[0].layout_hash
