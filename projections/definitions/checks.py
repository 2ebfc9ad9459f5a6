"""Checks definitions beyond their shape: names, references, cycles, operators. Pure.

Every function yields problems (path, reason with the fix); nothing is raised here.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Final

from projections.aggregates.registry import AGGREGATES, value_kind
from projections.conditions.base import Defined
from projections.conditions.registry import of_customer, of_event
from schemas.clear_rules import Clear, clear_rules, declared_of
from schemas.conditions import Kind, leaves, used_properties
from schemas.definitions import ANY_EVENT, ComputedTrait, Definitions, plain
from schemas.errors import Problem
from schemas.hints import did_you_mean
from schemas.identifiers import KINDS, MAX_BYTES, check_kind
from schemas.paths import CONTEXT, EACH, FLAGS, path_of
from schemas.touchpoint_fields import context_fields, identifier_kind
from schemas.touchpoints import TYPES, meant

_SNAKE: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
_DOTTED: Final = re.compile(r"[a-z_]+\.[a-z_]+")
_OPEN_NAME: Final = re.compile(r"[^\x00-\x1f]{1,100}")

OPENING_COSTS: Final = "some 12 µs of CPU an event instead of 5"  # python -m tests.bench.sealed


def check(defs: Definitions, deleted: Iterable[str] = (), broken: Collection[str] = ()) -> list[Problem]:
    """Everything wrong with a complete set of definitions.

    `deleted`: qualified names just removed. `broken`: undefined bare names not to report as missing.
    """
    gone = {path.partition(".")[2] for path in deleted}
    defined = Defined(defs, partial(kind_of, defs), gone, broken)
    return [
        *_names(defs),
        *_declarations(defs),
        *_computed_traits(defined),
        *_conditions(defined),
        *_stages(defs),
        *_risk(defs),
        *_rates(defs),
        *_identifiers(defs),
        *_cycles(defs),
    ]


def _names(defs: Definitions) -> Iterator[Problem]:
    ours = [(section, name) for section in ("computed_traits", "segments") for name in getattr(defs, section)]
    ours += [("sources", name) for name in defs.sources]
    for section, name in ours:
        if not _SNAKE.fullmatch(name):
            fix = re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()).strip("_")
            yield Problem(f"{section}.{name}", f"names are snake_case, at most 63 letters; write {fix or 'a_name'}")
    for name in defs.traits:
        if not _OPEN_NAME.fullmatch(name):
            yield Problem(f"traits.{name!r}", "a trait's name has 1 to 100 printable characters")
        if name in defs.computed_traits:
            yield Problem(f"computed_traits.{name}", f"{name} is a declared trait too; rename one")


def _declarations(defs: Definitions) -> Iterator[Problem]:
    for event, declared in defs.properties.items():
        for name, each in declared.items():
            path = f"properties.{event}.{name}"
            if each.personal is None and each.identifies is None:
                yield Problem(path, "says nothing: write `personal: true|false` or `identifies: true|false`")
            elif each.identifies is True and identifier_kind(name) is None:
                yield Problem(f"{path}.identifies", f"{name} is not called by a kind: write one, `identifies: email`")
            elif isinstance(each.identifies, str) and (reason := check_kind(each.identifies)):
                yield Problem(f"{path}.identifies", f"not a kind ({reason}): one of {', '.join(KINDS)}, or your own")
            elif each.identifies and name.startswith("products."):
                yield Problem(f"{path}.identifies", "a line of an order identifies nobody")


def _computed_traits(defined: Defined) -> Iterator[Problem]:
    for name, trait in defined.defs.computed_traits.items():
        yield from _computed(f"computed_traits.{name}", trait, defined)


def _computed(path: str, trait: ComputedTrait, defined: Defined) -> Iterator[Problem]:
    aggregate = AGGREGATES.get(trait.aggregate)
    if aggregate is None:
        yield Problem(f"{path}.aggregate", unknown_aggregate(trait.aggregate))
        return
    for key in ("events", "opens", "closes"):
        for i, name in enumerate(getattr(trait, key)):
            if not _OPEN_NAME.fullmatch(name):
                yield Problem(f"{path}.{key}[{i}]", "an event's name has 1 to 100 printable characters")
    if ANY_EVENT in trait.events and len(trait.events) > 1:
        yield Problem(f"{path}.events", '"*" already means every event; remove the others')
    yield from aggregate.check(path, trait)
    if trait.where is not None:
        yield from _where(f"{path}.where", trait, defined)


def unknown_aggregate(name: object) -> str:
    """Why a name is not an aggregate."""
    return f"must be one of {', '.join(AGGREGATES)}{did_you_mean(str(name), AGGREGATES)}"


def _where(path: str, trait: ComputedTrait, defined: Defined) -> Iterator[Problem]:
    for below, leaf in leaves(trait.where, path):
        kind = of_event(leaf)
        if kind is None:
            yield Problem(below, "`where` looks at one event: use {property, op, value} here")
        else:
            yield from kind.check(below, leaf, defined)


def _conditions(defined: Defined) -> Iterator[Problem]:
    for root, tree in defined.defs.conditions():
        for path, leaf in leaves(tree, root):
            kind = of_customer(leaf)
            if kind is None:
                yield Problem(f"{path}.property", "a property belongs in the `where` of a computed trait; "
                              "define one and compare it with {trait, op, value}")  # fmt: skip
            else:
                yield from kind.check(path, leaf, defined)


def kind_of(defs: Definitions, trait: str) -> Kind:
    """The kind of values a declared or computed trait has."""
    if trait in defs.computed_traits:
        spec = defs.computed_traits[trait]
        return value_kind(spec) if spec.aggregate in AGGREGATES else "any"
    return defs.traits[trait].type or "any"


def check_lists(patch: Definitions) -> Iterator[Problem]:
    """Duplicate stages, rules and rates in a patch, which merging by name would silently drop."""
    stages = [stage.name for stage in patch.lifecycle.stages] if patch.lifecycle else []
    rules = [rule.code for rule in patch.risk.rules] if patch.risk else []
    rates = [(rate.currency, rate.date) for rate in patch.rates]
    for i in _repeated(stages):
        yield Problem(
            f"lifecycle.stages[{i}].name", f"{stages[i]} is defined twice; the first match wins, combine them"
        )
    for i in _repeated(rules):
        yield Problem(f"risk.rules[{i}].code", f"{rules[i]} is defined twice; combine the rules with `any`")
    if "levels" in rules:
        yield Problem(f"risk.rules[{rules.index('levels')}].code", "`risk.levels` are the levels; choose another code")
    for i in _repeated(rates):
        yield Problem(f"rates[{i}]", f"{rates[i][0]} has two rates on {rates[i][1]}; keep one")


def _repeated(names: Sequence[object]) -> Iterator[int]:
    """Where a name stands that stood before."""
    seen: set[object] = set()
    for i, name in enumerate(names):
        if name in seen:
            yield i
        seen.add(name)


def _stages(defs: Definitions) -> Iterator[Problem]:
    for i, stage in enumerate(defs.lifecycle.stages if defs.lifecycle else ()):
        if not _SNAKE.fullmatch(stage.name):
            yield Problem(f"lifecycle.stages[{i}].name", "names are snake_case")


def _risk(defs: Definitions) -> Iterator[Problem]:
    if defs.risk is None:
        return
    for i, rule in enumerate(defs.risk.rules):
        if not _SNAKE.fullmatch(rule.code):
            yield Problem(f"risk.rules[{i}].code", "codes are snake_case")
        if not 1 <= rule.points <= 1000:
            yield Problem(f"risk.rules[{i}].points", "must be 1 to 1000")
    if not 1 <= defs.risk.levels.medium <= defs.risk.levels.high:
        yield Problem("risk.levels", "must be 1 <= medium <= high")


def _rates(defs: Definitions) -> Iterator[Problem]:
    for i, rate in enumerate(defs.rates):
        if not re.fullmatch(r"[A-Z]{3}", rate.currency):
            yield Problem(f"rates[{i}].currency", "must be three capital letters such as EUR")
        digits = rate.rate.normalize().as_tuple() if rate.rate.is_finite() else None
        if digits is None or rate.rate <= 0 or len(digits.digits) > 15 or rate.rate >= 10**9:
            yield Problem(f"rates[{i}].rate", "must be above 0, below 10^9, with at most 15 digits")


def _identifiers(defs: Definitions) -> Iterator[Problem]:
    for value, each in (defs.identifiers.entries() if defs.identifiers else {}).items():
        path = f"identifiers.blocked.{value}"
        if not value.strip() or len(value) > MAX_BYTES:
            yield Problem(path, f"a blocked value has 1 to {MAX_BYTES} characters")
        for kind in each.kinds:
            reason = check_kind(kind)
            if reason:
                yield Problem(path, f"{kind!r} is not a kind of identifier: {reason}")


# ---------------------------------------------------------------- cycles


def dependencies(defs: Definitions) -> dict[str, list[str]]:
    """Dependencies between segments: `segments.NAME` or `lifecycle` → what it needs."""
    graph: dict[str, list[str]] = {"lifecycle": []}
    graph.update({f"segments.{name}": [] for name in defs.segments})
    for root, tree in defs.conditions():
        node = root.partition("[")[0].removesuffix(".when").removesuffix(".stages")
        if node not in graph:
            continue  # a risk rule: nothing refers to it
        for _, leaf in leaves(tree):
            kind = of_customer(leaf)
            needed = None if kind is None else kind.needs(leaf)
            if needed in graph:
                graph[node].append(needed)
    return graph


def evaluation_order(graph: Mapping[str, Sequence[str]]) -> tuple[list[str], list[str]]:
    """Nodes ordered after what they need, and the first cycle found ([] if there is none)."""
    done: dict[str, bool] = {}
    order: list[str] = []
    for start in sorted(graph):
        trail = [(start, iter(sorted(set(graph[start]))))] if start not in done else []
        done.setdefault(start, False)
        while trail:
            node, below = trail[-1]
            child = next(below, None)
            if child is None:
                done[node] = True
                order.append(node)
                trail.pop()
            elif child not in done:
                done[child] = False
                trail.append((child, iter(sorted(set(graph[child])))))
            elif not done[child]:
                names = [n for n, _ in trail]
                return order, [*names[names.index(child) :], child]
    return order, []


def _cycles(defs: Definitions) -> Iterator[Problem]:
    _, cycle = evaluation_order(dependencies(defs))
    if cycle:
        names = " → ".join(name.removeprefix("segments.") for name in cycle)
        path = "lifecycle" if cycle[0] == "lifecycle" else f"{cycle[0]}.when"
        yield Problem(path, f"refers to itself: {names}; break the cycle")


# ---------------------------------------------------------------- warnings


def warn(defs: Definitions) -> list[Problem]:
    """Warnings about properties that are sealed, or that become clear because of a definition."""
    found: list[Problem] = []
    for name, trait in defs.computed_traits.items():
        path = f"computed_traits.{name}"
        for event in trait.all_events:
            if _DOTTED.fullmatch(event) and event not in TYPES:
                found.append(Problem(path, f"{event} is not a touchpoint; only a custom event with that name counts"
                                     f"{did_you_mean(event, TYPES)}"))  # fmt: skip
            if meant(event) == event or meant(event) not in trait.all_events:  # said once, of the touchpoint
                found += _compared(defs, path, trait, event)
                found += _kept(defs, path, trait, event)
    return found


_DECLARE: Final = "declare `properties: {{{event}: {{{prop}: {{personal: {personal}}}}}}}`"


def _compared(defs: Definitions, path: str, trait: ComputedTrait, event: str) -> Iterator[Problem]:
    """Sealed properties that a `where` compares, so that the fold must open them."""
    rules = clear_rules(declared_of(plain(defs)), event, event)
    for prop in sorted(used_properties(trait.where)):
        if is_clear(prop, rules):
            continue
        reason = f"{prop} of {event} is sealed: every such event is opened to compare it ({OPENING_COSTS})"
        place = path_of(prop)
        if place is None or place.section != CONTEXT:
            root = prop if place is None else place.root
            reason += f"; {_DECLARE.format(event=event, prop=root, personal='false')} if it is not personal"
        yield Problem(f"{path}.where", reason)


def is_clear(prop: str, rules: Clear) -> bool:
    """Whether what a condition compares is clear in every event of these rules."""
    path = path_of(prop)
    if path is None or prop in rules.names:
        return prop in rules.names or prop in ("revenue", "currency", FLAGS)
    plain_steps = [step for step in path.steps if step != EACH]
    if path.section == CONTEXT:
        fields = context_fields().get(path.root)
        return fields is not None and (plain_steps[0] in fields if plain_steps else not fields)
    if path.root == "products":
        return len(plain_steps) == 1 and plain_steps[0] in rules.lines
    return path.root in rules.whole


def _kept(defs: Definitions, path: str, trait: ComputedTrait, event: str) -> Iterator[Problem]:
    """What happens to the properties whose value a trait keeps."""
    declared = declared_of(plain(defs))
    before = clear_rules(declared._replace(read={}), event, event)
    for key in ("of", "key"):
        prop = getattr(trait, key)
        if prop is None or prop in ("occurred_at", "revenue", FLAGS) or is_clear(prop, before):
            continue
        place = path_of(prop)
        if place is not None and before.sealed.isdisjoint((prop, place.root, *place.steps)):
            yield Problem(f"{path}.{key}", f"{prop} of {event} is kept by this trait, and so readable in its value")
        elif place is not None or prop in before.sealed:
            declare = _DECLARE.format(event=event, prop=prop, personal="false")
            yield Problem(
                f"{path}.{key}",
                f"{prop} of {event} counts as missing: it is personal, but a trait's value is in clear;"
                f" {declare} if it is not",
            )
        else:
            no, yes = (_DECLARE.format(event=event, prop=prop, personal=each) for each in ("false", "true"))
            yield Problem(
                f"{path}.{key}",
                f"{prop} of {event} becomes clear in SQL and in the archive, because this trait keeps its value:"
                f" {no} to say that it is not personal, or {yes[8:]} to keep it sealed (the trait is then missing)",
            )
