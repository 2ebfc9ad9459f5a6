"""Definitions: what is refused and how it is said, merging, storing, the published schema."""

import json
from decimal import Decimal
from pathlib import Path

import pytest

import schemas
from projections.definitions.checks import warn
from projections.definitions.files import from_json, load_pack, parse_documents
from projections.definitions.json_schema import json_schema
from projections.definitions.merge import merge
from schemas.conditions import TraitLeaf
from schemas.definitions import Definitions, to_json
from schemas.errors import DefinitionsInvalid
from tests.definition_samples import EVERYTHING, everything

BASE = """
traits: {city: {personal: false}, member_since: {type: time}}
computed_traits:
  revenue_90d: {aggregate: sum, of: revenue, events: [purchase.completed], window_days: 90}
  orders: {aggregate: count, events: [purchase.completed]}
segments:
  vip: {description: Best, when: {all: [{trait: revenue_90d, op: gte, value: 500.5}, {not: {segment: staff}}]}}
  staff: {when: {trait: city, op: eq, value: HQ}}
lifecycle: {stages: [{name: active, when: {trait: orders, op: gt, value: 0}}]}
"""


def base() -> Definitions:
    return merge(Definitions(), parse_documents([("base.yaml", BASE)]))[0]


def refusal(text: str) -> list[tuple[str, str]]:
    with pytest.raises(DefinitionsInvalid) as caught:
        parse_documents([("new.yaml", text)], base())
    return [(problem.path, problem.reason) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("text", "path", "reason"),
    [
        ("segments: {x: {when: {all: [{trait: revenue_09d, op: gte, value: 1}]}}}",
         "segments.x.when.all[0].trait", "there is no trait revenue_09d; did you mean revenue_90d?"),
        ("segments: {x: {when: {not: {segment: vipp}}}}", "segments.x.when.not.segment",
         "there is no segment vipp; did you mean vip?"),
        ("segments: {x: {when: {lifecycle: activ}}}", "segments.x.when.lifecycle",
         "there is no stage activ; did you mean active?"),
        ("segments: {x: {when: {trait: orders, op: gtee, value: 1}}}", "segments.x.when.op", "did you mean gte?"),
        ("segments: {x: {when: {trait: orders, op: gte, value: many}}}", "segments.x.when.value",
         "must be a number, not 'many'"),
        ("segments: {x: {when: {trait: orders, op: gte, value: true}}}", "segments.x.when.op", "for yes/no use eq"),
        ("segments: {x: {when: {trait: orders, op: contains, value: a}}}", "segments.x.when.op", "compares text"),
        ("segments: {x: {when: {trait: orders, op: between, value: [1]}}}", "segments.x.when.value", "exactly two"),
        ("segments: {x: {when: {trait: orders, op: in, value: 1}}}", "segments.x.when.value", "needs a list"),
        ("segments: {x: {when: {trait: orders, op: eq}}}", "segments.x.when.value", "needs a value"),
        ("segments: {x: {when: {trait: orders, op: exists, value: 1}}}", "segments.x.when.value", "takes no value"),
        ("segments: {x: {when: {trait: orders, op: eq, value: 1.00001}}}", "segments.x.when.value", "4 decimal places"),
        ("segments: {x: {when: {trait: member_since, op: lt, value: soon}}}", "segments.x.when.value",
         "must be a date or time"),
        ("segments: {x: {when: {property: city, op: eq, value: a}}}", "segments.x.when.property", "computed trait"),
        ("segments: {x: {when: {all: []}}}", "segments.x.when.all", "at least 1"),
        ("segments: {x: {when: {some: []}}}", "segments.x.when", "a condition is one of all, any, not"),
        ("segments: {x: {wen: {segment: vip}}}", "segments.x.wen", "unknown key; did you mean when?"),
        ("segmentz: {}", "segmentz", "unknown key; did you mean segments?"),
        ("segments: {BigSpender: {when: {segment: vip}}}", "segments.BigSpender", "write big_spender"),
        ("computed_traits: {x: {aggregate: summ, events: [a]}}", "computed_traits.x.aggregate", "did you mean sum?"),
        ("computed_traits: {x: {aggregate: sum, events: [a]}}", "computed_traits.x.of", "say which property sum is of"),
        ("computed_traits: {x: {aggregate: count, of: revenue, events: [a]}}", "computed_traits.x.of", "remove it"),
        ("computed_traits: {x: {aggregate: count}}", "computed_traits.x.events", "is missing"),
        ("computed_traits: {x: {aggregate: days_since, events: [a], window_days: 3}}",
         "computed_traits.x.window_days", "has no window"),
        ("computed_traits: {x: {aggregate: count, events: [a], window_days: 0}}",
         "computed_traits.x.window_days", "must be 1 to 3660"),
        ("computed_traits: {x: {aggregate: count, events: [a], where: {segment: vip}}}",
         "computed_traits.x.where", "use {property, op, value}"),
        ("computed_traits: {x: {aggregate: open_count, opens: [a], closes: [a], key: k}}",
         "computed_traits.x.closes", "a is in `opens` as well"),
        ("computed_traits: {city: {aggregate: count, events: [a]}}", "computed_traits.city", "declared trait too"),
        ("risk: {rules: [{code: a, points: 0, when: {segment: vip}}]}", "risk.rules[0].points", "1 to 1000"),
        ("risk: {rules: [], levels: {medium: 5, high: 4}}", "risk.levels", "medium <= high"),
        ("rates: [{currency: euro, date: 2024-01-01, rate: 1}]", "rates[0].currency", "three capital letters"),
        ("rates: [{currency: EUR, date: 2024-01-01, rate: -1}]", "rates[0].rate", "above 0"),
        ("rates: [{currency: EUR, date: soon, rate: 1}]", "rates[0].date", ""),
        ("segments: {x: {when: {segment: vip}}, x: {when: {segment: vip}}}", "new.yaml line 1", "appears twice"),
        ("segments: [", "new.yaml line 1", "not YAML"),
        ("- a", "new.yaml", "must be a mapping"),
    ],
)  # fmt: skip
def test_each_mistake_is_named_with_its_path_and_its_fix(text: str, path: str, reason: str) -> None:
    problems = refusal(text)
    assert [found for at, found in problems if at == path and reason in found], problems


def test_all_problems_come_at_once() -> None:
    text = """
    segments:
      a: {when: {all: [{trait: nope, op: gte, value: 1}, {segment: none}]}}
      b: {when: {lifecycle: never}}
    """
    assert [path for path, _ in refusal(text)] == [
        "segments.a.when.all[0].trait", "segments.a.when.all[1].segment", "segments.b.when.lifecycle",
    ]  # fmt: skip


def test_a_cycle_is_refused_with_its_whole_way() -> None:
    text = """
    segments:
      a: {when: {segment: b}}
      b: {when: {not: {segment: c}}}
      c: {when: {any: [{segment: a}]}}
    """
    assert refusal(text) == [("segments.a.when", "refers to itself: a → b → c → a; break the cycle")]


def test_a_stage_may_not_lean_on_a_segment_that_leans_on_the_stage() -> None:
    text = """
    segments: {a: {when: {lifecycle: active}}}
    lifecycle: {stages: [{name: active, when: {segment: a}}]}
    """
    assert refusal(text) == [("lifecycle", "refers to itself: lifecycle → a → lifecycle; break the cycle")]


def test_deep_and_wide_trees_are_refused_before_anything_recursive_sees_them() -> None:
    deep = "{not: " * 16 + "{segment: vip}" + "}" * 16
    assert "nested deeper than 16" in refusal(f"segments: {{x: {{when: {deep}}}}}")[0][1]
    wide = ", ".join(["{segment: vip}"] * 501)
    assert "more than 500" in refusal(f"segments: {{x: {{when: {{any: [{wide}]}}}}}}")[0][1]
    bomb = "segments:\n  x:\n    when: &a0 {all: [{segment: vip}]}\n" + "".join(
        f"  x{i}:\n    when: &a{i} {{all: [*a{i - 1}, *a{i - 1}]}}\n" for i in range(1, 15)
    )
    assert {reason.partition(";")[0] for _, reason in refusal(bomb)} == {"more than 500 conditions"}


def test_a_name_in_two_files_is_refused_with_both() -> None:
    one = ("one.yaml", "segments: {a: {when: {segment: vip}}}")
    with pytest.raises(DefinitionsInvalid) as caught:
        parse_documents([one, ("two.yaml", one[1])], base())
    assert caught.value.problems == (("segments.a", "defined in one.yaml and in two.yaml; keep one"),)


def test_merging_says_what_is_added_changed_and_unchanged_and_keeps_the_rest() -> None:
    text = """
    segments:
      vip: {description: Better, when: {trait: orders, op: gte, value: 1}}
      staff: {when: {trait: city, op: eq, value: HQ}}
      new_one: {when: {segment: vip}}
    """
    merged, summary = merge(base(), parse_documents([("n.yaml", text)], base()))
    assert summary == {
        "added": ["segments.new_one"], "changed": ["segments.vip"], "unchanged": ["segments.staff"], "deleted": [],
    }  # fmt: skip
    assert set(merged.segments) == {"vip", "staff", "new_one"}
    assert set(merged.computed_traits) == {"revenue_90d", "orders"}
    again, summary = merge(merged, parse_documents([("n.yaml", text)], merged))
    assert again == merged
    assert (summary["added"], summary["changed"]) == ([], [])


def test_delete_removes_what_is_unused_and_says_where_a_name_is_still_used() -> None:
    assert refusal("delete: [staff]") == [
        (
            "segments.vip.when.all[1].not.segment",
            "uses the segment staff, which `delete` removes; change this first",
        )
    ]
    patch = parse_documents([("d.yaml", "delete: [vip, segments.staff, gone_already]")], base())
    merged, summary = merge(base(), patch)
    assert merged.segments == {}
    assert merged.delete == ()
    assert summary["deleted"] == ["segments.staff", "segments.vip"]
    assert refusal("delete: [vip]\nsegments: {vip: {when: {lifecycle: active}}}")[0][0] == "delete[0]"


def test_definitions_come_back_from_their_canonical_json_whatever_the_order_of_writing() -> None:
    for defs in (base(), everything(), merge(Definitions(), parse_documents(load_pack("retail")))[0]):
        assert from_json(to_json(defs)) == defs
    rest, _, lifecycle = BASE.partition("lifecycle:")
    swapped = parse_documents([("b.yaml", f"lifecycle:{lifecycle}{rest}")])
    assert merge(Definitions(), swapped)[0].content_hash == base().content_hash
    assert base().content_hash != everything().content_hash


def test_decimals_of_yaml_stay_exact_and_dates_stay_text() -> None:
    raw = json.loads(to_json(base()))
    assert raw["segments"]["vip"]["when"]["all"][0]["value"] == 500.5
    assert '"2024-03-10"' in to_json(everything()).decode()
    assert "1.27345" in to_json(everything()).decode()


def test_plain_words_of_yaml_stay_what_they_look_like() -> None:
    text = "segments: {x: {when: {trait: city, op: in, value: [NO, 010, 12:30, 1_0, yes, 1.50, true, 7]}}}"
    leaf = parse_documents([("y.yaml", text)], base()).segments["x"].when
    assert isinstance(leaf, TraitLeaf)
    assert leaf.value == ("NO", "010", "12:30", "1_0", "yes", Decimal("1.5"), True, 7)


def test_the_published_schema_is_the_one_of_the_models() -> None:
    path = Path(schemas.__file__ or "").parent / "definitions.schema.json"
    assert json.loads(path.read_text("utf-8")) == json_schema()


def test_apply_says_what_is_opened_what_becomes_clear_and_what_is_missing() -> None:
    text = """
    properties:
      call.received: {topic: {personal: false}}
      quiz: {age: {personal: true}}
    computed_traits:
      a: {aggregate: count, events: [call.received, quiz], where: {property: topic, op: eq, value: price}}
      b: {aggregate: last, of: note, events: [quiz]}
      c: {aggregate: count, events: [quiz], where: {all: [{property: coupon, op: eq, value: X},
                                                            {property: points, op: gte, value: 3}]}}
      d: {aggregate: max, of: age, events: [quiz]}
      e: {aggregate: last, of: date_of_birth, events: [survey.answered]}
      f: {aggregate: last, of: score, events: [survey.answered]}
    """
    found = warn(parse_documents([("w.yaml", text)], base()))
    assert [problem.path.removeprefix("computed_traits.") for problem in found] == [
        *("a.where", "b.of", "c.where", "d.of", "e.of")
    ]
    assert "topic of quiz is sealed" in found[0].reason
    assert "personal: false" in found[0].reason
    assert "note of quiz becomes clear" in found[1].reason
    assert "points of quiz is sealed" in found[2].reason
    assert "age of quiz counts as missing" in found[3].reason
    assert "date_of_birth of survey.answered counts as missing" in found[4].reason


def test_a_misspelt_touchpoint_is_warned_of() -> None:
    text = "computed_traits: {a: {aggregate: count, events: [web.page_view, 'Plan Upgraded']}}"
    found = warn(parse_documents([("w.yaml", text)], base()))
    assert [problem.reason.rpartition("; ")[2] for problem in found] == ["did you mean web.page_viewed?"]


def test_an_unknown_pack_is_refused() -> None:
    with pytest.raises(DefinitionsInvalid, match="no pack"):
        load_pack("nope")
    with pytest.raises(DefinitionsInvalid, match="no pack"):
        load_pack("../packs")


def test_the_sample_of_everything_has_every_aggregate() -> None:
    used = {trait.aggregate for trait in everything().computed_traits.values()}
    assert len(used) == 11  # whatever came later is drawn from the registry: tests/property/test_aggregate_laws.py
    assert EVERYTHING.count("aggregate:") == len(everything().computed_traits)


STAGES = """
lifecycle:
  stages:
    - {name: gone, when: {trait: orders, op: gte, value: 9}}
    - {name: active, when: {trait: orders, op: gt, value: 0}}
    - {name: known, when: {trait: orders, op: eq, value: 0}}
risk:
  rules: [{code: a, points: 1, when: {segment: vip}}, {code: b, points: 2, when: {segment: staff}}]
  levels: {medium: 3, high: 5}
"""


def staged() -> Definitions:
    return merge(base(), parse_documents([("s.yaml", STAGES)], base()))[0]


def patched(text: str, defs: Definitions) -> tuple[Definitions, dict[str, list[str]]]:
    merged, summary = merge(defs, parse_documents([("p.yaml", text)], defs))
    assert from_json(to_json(merged)) == merged
    again, second = merge(merged, parse_documents([("p.yaml", text)], merged))
    assert again.content_hash == merged.content_hash
    assert (second["added"], second["changed"], second["deleted"]) == ([], [], [])
    return merged, {key: names for key, names in summary.items() if names}


def order(defs: Definitions) -> list[str]:
    return [stage.name for stage in (defs.lifecycle.stages if defs.lifecycle else ())]


def test_a_patch_changes_the_stage_it_names_in_its_place_and_a_new_one_comes_last() -> None:
    text = "lifecycle: {stages: [{name: active, when: {segment: vip}}, {name: x, when: {segment: staff}}]}"
    merged, summary = patched(text, staged())
    assert order(merged) == ["gone", "active", "known", "x"]
    assert summary == {"added": ["lifecycle.x"], "changed": ["lifecycle.active"]}
    assert merged.lifecycle is not None
    assert (merged.lifecycle.stages[0], merged.risk) == (staged().lifecycle.stages[0], staged().risk)  # type: ignore[union-attr]  # it has one


def test_the_example_of_the_contracts_applies_over_the_retail_pack() -> None:
    pack = merge(Definitions(), parse_documents(load_pack("retail")))[0]
    text = "lifecycle: {stages: [{name: at_risk, when: {trait: days_since_order, op: gte, value: 60}}]}"
    merged, summary = patched(text, pack)
    assert (order(merged), summary) == (order(pack), {"changed": ["lifecycle.at_risk"]})


def test_a_patch_that_names_every_stage_sets_their_order_and_says_which_moved() -> None:
    active, known = (
        "{name: active, when: {trait: orders, op: gt, value: 0}}",
        "{name: known, when: {trait: orders, op: eq, value: 0}}",
    )
    text = (
        f"lifecycle: {{stages: [{known}, {{name: new, when: {{segment: vip}}}}, {active}]}}\ndelete: [lifecycle.gone]"
    )
    merged, summary = patched(text, staged())
    assert order(merged) == ["known", "new", "active"]
    assert summary == {
        "added": ["lifecycle.new"],
        "changed": ["lifecycle.active", "lifecycle.known"],
        "deleted": ["lifecycle.gone"],
    }


def test_rules_of_risk_merge_by_code_and_given_levels_replace() -> None:
    merged, summary = patched("risk: {rules: [{code: b, points: 4, when: {segment: vip}}]}", staged())
    assert merged.risk is not None
    assert [(rule.code, rule.points) for rule in merged.risk.rules] == [("a", 1), ("b", 4)]
    assert (merged.risk.levels.medium, summary) == (3, {"changed": ["risk.b"]})
    merged, summary = patched("risk: {levels: {medium: 2, high: 4}}\ndelete: [risk.a]", merged)
    assert summary == {"changed": ["risk.levels"], "deleted": ["risk.a"]}
    assert merged.risk is not None
    assert (len(merged.risk.rules), merged.risk.levels.high) == (1, 4)
    assert patched("delete: [risk, lifecycle]", merged)[0].risk is None


def test_a_problem_in_a_stage_has_the_place_in_the_patch_or_the_name_of_the_stage() -> None:
    def refused(text: str) -> list[str]:
        with pytest.raises(DefinitionsInvalid) as caught:
            parse_documents([("p.yaml", text)], staged())
        return [problem.path for problem in caught.value.problems]

    assert refused("lifecycle: {stages: [{name: known, when: {segment: nobody}}]}") == [
        "lifecycle.stages[0].when.segment"
    ]
    assert refused("risk: {rules: [{code: levels, points: 1, when: {segment: vip}}]}") == ["risk.rules[0].code"]
    stage = "{name: x, when: {segment: vip}}"
    assert refused(f"lifecycle: {{stages: [{stage}, {stage}]}}") == ["lifecycle.stages[1].name"]
    rate = "{currency: EUR, date: 2024-01-01, rate: 1}"
    assert refused(f"rates: [{rate}, {rate}]") == ["rates[1]"]
    assert refused("delete: [staff]") == ["segments.vip.when.all[1].not.segment", "risk.b.when.segment"]


def test_problems_of_shape_and_of_reference_come_in_one_round_without_false_ones() -> None:
    text = """
    segments:
      a: {wen: {segment: vip}}
      b: {when: {all: [{segment: a}, {segment: none}]}}
    computed_traits: {t: {aggregate: summ, events: [x]}}
    lifecycle: {stages: [{name: later, when: {some: []}}]}
    rates: [{currency: EUR, date: soon, rate: 1}]
    nonsense: {}
    """
    assert {path for path, _ in refusal(text)} == {
        *("segments.a.wen", "segments.a.when", "segments.b.when.all[1].segment", "computed_traits.t.aggregate"),
        *("lifecycle.stages[0].when", "rates[0].date", "nonsense"),
    }
