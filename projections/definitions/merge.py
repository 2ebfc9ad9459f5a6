"""Definitions merge by name: a patch replaces what it names and leaves the rest."""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from projections.definitions.checks import check, check_lists
from schemas.definitions import (
    BlockedValue,
    Definitions,
    Identifiers,
    Levels,
    Lifecycle,
    Rate,
    Risk,
    RiskRule,
    Stage,
)
from schemas.errors import DefinitionsInvalid, Problem

Summary = dict[str, list[str]]
_BLOCKED: Final = "identifiers.blocked."


def merge(base: Definitions, patch: Definitions, broken: Collection[str] = ()) -> tuple[Definitions, Summary]:
    """`base` with the patch applied, and lists of the qualified names `added, changed, unchanged, deleted`.

    What the patch does not name stays. A stage or risk rule replaces the one with its name, a new one comes last; a
    patch that names all of them sets their order. Deleting something that does not exist is not an error (a second
    apply changes nothing); deleting something still in use is. `broken`: undefined names that may be referred to,
    because their definition has already been refused. Raises DefinitionsInvalid.
    """
    new = _entries(patch, levels=patch.risk is not None and "levels" in patch.risk.model_fields_set)
    own_levels = base.risk is not None and base.risk.levels != Levels()
    old = _entries(base, levels=own_levels or "risk.levels" in new)
    for name in new.keys() & old.keys():
        if name.startswith("properties."):
            new[name] = _declared(old[name], new[name])
    deleted, problems = _deletions(patch.delete, old, new)
    together = {name: value for name, value in {**old, **new}.items() if name not in deleted}
    moved = {name for section in ("lifecycle", "risk") for name in _reorder(section, together, old, new)}
    changed = {name for name in new.keys() & old.keys() if new[name] != old[name] or name in moved}
    summary: Summary = {
        "added": sorted(new.keys() - old.keys()),
        "changed": sorted(changed),
        "unchanged": sorted((new.keys() & old.keys()) - changed),
        "deleted": sorted(deleted),
    }
    merged = _assemble(together)
    problems += check_lists(patch)
    problems += [_in_patch(problem, merged, patch) for problem in check(merged, deleted, broken)]
    if problems:
        raise invalid(problems)
    return merged, summary


def _entries(defs: Definitions, *, levels: bool) -> dict[str, Any]:
    """Every named thing: `segments.vip`, `properties.signed_up.plan`, `lifecycle.at_risk`, `rates.EUR@2024-01-01`, …

    `levels`: whether to include the levels of risk.
    """
    named: dict[str, Any] = {
        f"properties.{type_}.{name}": (type_, name, value)
        for type_, declared in defs.properties.items()
        for name, value in declared.items()
    }
    for section in ("traits", "computed_traits", "segments", "sources"):
        named.update({f"{section}.{name}": value for name, value in getattr(defs, section).items()})
    if defs.identifiers is not None:
        named.update({f"{_BLOCKED}{value}": each for value, each in defs.identifiers.entries().items()})
    named.update({f"rates.{rate.currency}@{rate.date}": rate for rate in defs.rates})
    if defs.lifecycle is not None:
        named.update({f"lifecycle.{stage.name}": stage for stage in defs.lifecycle.stages})
    if defs.risk is not None:
        named.update({f"risk.{rule.code}": rule for rule in defs.risk.rules if rule.code != "levels"})  # refused
        if levels:
            named["risk.levels"] = defs.risk.levels
    return named


def _declared(old: Any, new: Any) -> Any:
    """A declared property that a patch names: what only the earlier declaration says stays."""
    type_, prop, declaration = new
    said = {name: getattr(declaration, name) for name in declaration.model_fields_set}
    return type_, prop, old[2].model_copy(update=said)


def _assemble(entries: Mapping[str, Any]) -> Definitions:
    """The inverse of `_entries`."""
    fields: dict[str, Any] = {
        section: {} for section in ("properties", "traits", "computed_traits", "segments", "sources")
    }
    rates: list[Rate] = []
    stages: list[Stage] = []
    rules: list[RiskRule] = []
    blocked: list[BlockedValue] = []
    for path, value in entries.items():
        section, _, name = path.partition(".")
        if section == "properties":
            type_, prop, declaration = value
            fields["properties"].setdefault(type_, {})[prop] = declaration
        elif section == "identifiers":
            blocked.append(value)
        elif section == "rates":
            rates.append(value)
        elif section == "lifecycle":
            stages.append(value)
        elif section == "risk":
            if path != "risk.levels":
                rules.append(value)
        else:
            fields[section][name] = value
    rates.sort(key=lambda rate: (rate.currency, rate.date))
    levels = entries.get("risk.levels", Levels())
    if blocked:
        ordered = sorted(blocked, key=lambda each: each.value)
        fields["identifiers"] = Identifiers(blocked=tuple(ordered))
    if stages:
        fields["lifecycle"] = Lifecycle(stages=tuple(stages))
    if rules or levels != Levels():
        fields["risk"] = Risk(rules=tuple(rules), levels=levels)
    return Definitions.model_construct(**{**Definitions().__dict__, **fields, "rates": tuple(rates)})


def _reorder(section: str, together: dict[str, Any], old: Mapping[str, Any], new: Mapping[str, Any]) -> set[str]:
    """Give a section the patch's order if the patch names everything in it; returns the names that moved."""
    stay = [name for name in old if name.startswith(f"{section}.") and name in together and name != "risk.levels"]
    wanted = [name for name in new if name.startswith(f"{section}.") and name != "risk.levels"]
    if not stay or not set(stay) <= set(wanted):
        return set()
    for name in wanted:
        together[name] = together.pop(name)
    now = [name for name in wanted if name in old]
    return {name for name, was in zip(now, stay, strict=True) if name != was}


_LISTED: Final = re.compile(r"(lifecycle\.stages|risk\.rules|rates)\[(\d+)\](.*)", re.DOTALL)


def _in_patch(problem: Problem, merged: Definitions, patch: Definitions) -> Problem:
    """A problem's path in the merged lists, as a path in the patch, or by name if it is not from the patch."""
    found = _LISTED.fullmatch(problem.path)
    if found is None:
        return problem
    path, place, rest = found[1], int(found[2]), found[3]
    name = _listed(merged, path)[place]
    ours = _listed(patch, path)
    if name in ours:
        return problem._replace(path=f"{path}[{ours.index(name)}]{rest}")
    return problem._replace(path=f"{path.partition('.')[0]}.{name}{rest}")


def _listed(defs: Definitions, path: str) -> list[str]:
    """The names of the stages, rules or rates, in order."""
    if path == "rates":
        return [f"{rate.currency}@{rate.date}" for rate in defs.rates]
    if path == "risk.rules":
        return [rule.code for rule in defs.risk.rules] if defs.risk else []
    return [stage.name for stage in defs.lifecycle.stages] if defs.lifecycle else []


def _deletions(names: Sequence[str], old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[set[str], list[Problem]]:
    """Qualified names to delete, from bare (`vip`) or qualified (`segments.vip`) ones; `risk` means all its rules."""
    deleted: set[str] = set()
    problems: list[Problem] = []
    for i, name in enumerate(names):
        whole = f"{name}." if name in ("lifecycle", "risk") else "."
        hits = [path for path in old if _means(name, path) or path.startswith(whole)]
        if len(hits) > 1 and whole == ".":
            problems.append(Problem(f"delete[{i}]", f"{name} means {' and '.join(sorted(hits))}; write one in full"))
        elif any(_means(name, path) or path.startswith(whole) for path in new):
            problems.append(Problem(f"delete[{i}]", f"{name} is also defined here; keep one of the two"))
        else:
            deleted.update(hits)
    return deleted, problems


def _means(name: str, path: str) -> bool:
    return path == name or path.partition(".")[2] == name


def invalid(problems: Sequence[Problem]) -> DefinitionsInvalid:
    first = problems[0]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return DefinitionsInvalid(f"{first.path}: {first.reason}{more}", problems)
