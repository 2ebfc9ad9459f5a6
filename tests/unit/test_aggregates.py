"""The registry of aggregates: what each has to say, breaches that it refuses, and the words of some."""

from types import ModuleType

import pytest

from projections.aggregates.base import Aggregate
from projections.aggregates.count import Count
from projections.aggregates.order_loop import OrderTrait
from projections.aggregates.registry import AGGREGATES, aggregate_of, gathered
from projections.definitions.files import parse_documents
from projections.slots.cells import Cells
from projections.slots.count import COUNT
from projections.slots.top_two import TOP_TWO
from schemas.conditions import Kind
from schemas.definitions import ComputedTrait
from schemas.errors import DefinitionsInvalid
from tests.aggregate_samples import admitted, definitions_of, listed_in_schema


def module(*objects: object) -> ModuleType:
    made = ModuleType("planted")
    for i, each in enumerate(objects):
        setattr(made, f"A{i}", each)
    return made


def test_the_registry_holds_what_the_modules_define() -> None:
    assert {"count", "sum", "days_since", "open_count"} <= set(AGGREGATES)
    assert list(AGGREGATES) == sorted(AGGREGATES) == list(listed_in_schema())


def test_two_aggregates_of_one_name_are_refused() -> None:
    class Other(Count):
        pass

    with pytest.raises(ValueError, match="planted: another aggregate is named count"):
        gathered([module(Count()), module(Other())])
    one = Count()
    assert gathered([module(one), module(one)]) == {"count": one}, "imported by another module, it is still one"


def test_an_aggregate_without_words_cannot_be_made() -> None:
    class Wordless(Aggregate):
        name, slot, meaning = "wordless", COUNT, "nothing"

        def kind(self, spec: ComputedTrait) -> Kind:
            return "integer"

        def over_orders(self, code: OrderTrait, var: str) -> None:
            code.after(f"{var} = 0")

    with pytest.raises(TypeError, match="words"):
        Wordless()  # type: ignore[abstract]  # the breach


@pytest.mark.parametrize("missing", ["name", "meaning", "slot"])
def test_an_aggregate_that_does_not_say_enough_is_refused(missing: str) -> None:
    planted = type("Planted", (Count,), {missing: ""})()
    with pytest.raises(ValueError, match=f"Planted has no {missing}"):
        gathered([module(planted)])


@pytest.mark.parametrize("name", sorted(AGGREGATES))
def test_every_aggregate_admits_definitions_and_has_words_for_each(name: str) -> None:
    aggregate = AGGREGATES[name]
    specs = admitted(aggregate)
    assert len(specs) >= 2
    assert aggregate.windows == any(spec.window_days for spec in specs)
    assert aggregate.takes_value == any(spec.of for spec in specs)
    for spec in specs:
        words = aggregate.words(spec)
        assert words == words.strip()
        assert len(words) > 10
        assert ("whose channel is store" in words) == (spec.where is not None)
        assert ("in the last 30 days" in words) == (spec.window_days == 30)
    assert len({aggregate.words(spec) for spec in specs}) == len(specs), "different definitions, different words"


def test_slots_of_one_name_are_of_one_kind() -> None:
    kinds = {
        need.kind
        for aggregate in AGGREGATES.values()
        for spec in admitted(aggregate)
        for need in (aggregate.order_slots(spec) if spec.by_order else aggregate.slots(spec))
    }
    assert len({kind.name for kind in kinds}) == len(kinds), "a layout's hash knows kinds by their names"
    for kind in kinds:
        assert isinstance(kind, Cells) or kind.prune(kind.empty(), 0) == kind.empty()
        assert kind.merge(kind.empty(), kind.empty()) == kind.empty()


def test_a_slot_without_days_has_no_window() -> None:
    with pytest.raises(ValueError, match="top_two has no days"):
        _ = TOP_TWO.windowed
    assert COUNT.windowed.name == "day_count"


@pytest.mark.parametrize(
    ("definition", "words"),
    [
        ("{aggregate: count, events: [web.page_viewed], window_days: 1}", "number of web.page_viewed events today"),
        ("{aggregate: count, events: ['*']}", "number of events of any kind"),
        (
            "{aggregate: sum, of: revenue, events: [purchase.completed, purchase.refunded], window_days: 90}",
            "total revenue of orders in the last 90 days",
        ),
        ("{aggregate: min, of: occurred_at, events: [purchase.completed]}", "earliest time of orders"),
        ("{aggregate: last, of: utm_source, events: [a, b, c]}", "last utm source of a, b or c events"),
        ("{aggregate: days_since, events: [a, b]}", "full days since the last a or b event"),
        (
            "{aggregate: count, events: [a],"
            " where: {all: [{property: x, op: eq, value: 1}, {property: y, op: exists}]}}",
            "number of a events whose x is 1 and whose y is known",
        ),
        (
            "{aggregate: open_count, key: complaint_id, opens: [complaint.opened], closes: [complaint.resolved]}",
            "number of different complaint ids opened by complaint.opened and not closed by complaint.resolved",
        ),
    ],
)
def test_words(definition: str, words: str) -> None:
    spec = parse_documents([("w.yaml", f"computed_traits: {{x: {definition}}}")]).computed_traits["x"]
    assert aggregate_of(spec).words(spec) == words


@pytest.mark.parametrize("given", ["summ", 5, None, ["count"]])
def test_an_unknown_aggregate_is_named_with_those_that_there_are(given: object) -> None:
    text = f"computed_traits: {{x: {{aggregate: {'null' if given is None else given}, events: [a]}}}}"
    with pytest.raises(DefinitionsInvalid) as refused:
        parse_documents([("f.yaml", text)])
    (problem,) = refused.value.problems
    assert problem.path == "computed_traits.x.aggregate"
    assert problem.reason.startswith(f"must be one of {', '.join(AGGREGATES)}")


def test_definitions_of_the_registry_are_checked_like_any_other() -> None:
    assert all(definitions_of(each).computed_traits for each in AGGREGATES.values())
