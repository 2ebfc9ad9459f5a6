"""Kinds of conditions: each shape of a leaf has one, and what it says and refuses."""

from types import ModuleType
from typing import Any, get_args

import pytest

from projections.conditions.registry import CONDITIONS, gathered, of_customer, of_event
from projections.conditions.segment import Segment
from projections.conditions.words import phrase
from projections.definitions.files import parse_documents
from schemas.conditions import Leaf, LifecycleLeaf, Not, PropertyLeaf, SegmentLeaf, TraitLeaf
from schemas.errors import DefinitionsInvalid


def test_every_leaf_has_a_kind() -> None:
    assert set(CONDITIONS) == set(get_args(Leaf))


def test_two_kinds_of_one_leaf_are_refused() -> None:
    planted = ModuleType("planted")
    planted.__dict__.update(one=Segment(), two=Segment())
    with pytest.raises(ValueError, match="planted: another condition uses SegmentLeaf"):
        gathered([planted])


@pytest.mark.parametrize(
    ("leaf", "words", "turned"),
    [
        (SegmentLeaf(segment="vip"), "who are in segment vip", "who are not in segment vip"),
        (LifecycleLeaf(lifecycle="active"), "who are in stage active", "who are not in stage active"),
        (TraitLeaf(trait="net", op="gte", value=5), "whose net is at least 5", "not (whose net is at least 5)"),
        (PropertyLeaf(property="shop", op="missing"), "whose shop is not known", "not (whose shop is not known)"),
    ],
)  # fmt: skip
def test_words_and_the_same_turned_round(leaf: Any, words: str, turned: str) -> None:
    assert phrase(leaf) == words
    negated = Not.model_validate({"not": leaf})
    assert phrase(negated) == turned
    assert phrase(Not.model_validate({"not": negated})) == words


def test_a_condition_stands_on_customers_or_on_events() -> None:
    for leaf in (SegmentLeaf(segment="a"), LifecycleLeaf(lifecycle="a"), TraitLeaf(trait="a", op="exists")):
        assert of_customer(leaf) is not None
        assert of_event(leaf) is None
    assert of_customer(PropertyLeaf(property="a", op="exists")) is None


@pytest.mark.parametrize(
    ("text", "path", "reason"),
    [
        ("segments: {s: {when: {property: x, op: exists}}}", "segments.s.when.property", "a property belongs in"),
        ("segments: {s: {when: {lifecycle: gone}}}", "segments.s.when.lifecycle", "there is no stage gone"),
        (
            "computed_traits: {c: {aggregate: count, events: [a], where: {segment: s}}}",
            "computed_traits.c.where",
            "`where` looks at one event",
        ),
    ],
)
def test_a_condition_in_the_wrong_place_is_refused(text: str, path: str, reason: str) -> None:
    with pytest.raises(DefinitionsInvalid) as refused:
        parse_documents([("c.yaml", text)])
    (problem,) = refused.value.problems
    assert problem.path == path
    assert problem.reason.startswith(reason)
