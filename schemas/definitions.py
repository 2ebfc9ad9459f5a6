"""What people define: properties, traits, computed traits, segments, lifecycle, risk, rates, source ranks.

YAML in, frozen models out; `definition_checks` refuses what does not hold together. Nothing here evaluates.
"""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import date
from decimal import Decimal
from hashlib import sha256
from importlib import resources
from typing import Annotated, Any, Final, Literal, get_args

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, StrictBool, StrictInt, StrictStr, ValidationError

from schemas.conditions import BRANCHES, LEAVES, OPS, Condition, Kind, oversize
from schemas.errors import DefinitionsInvalid, Problem

Aggregate = Literal[
    "count", "sum", "avg", "min", "max", "first", "last",
    "distinct_days", "days_since", "gap_days", "open_count",
]  # fmt: skip
AGGREGATES: Final[tuple[str, ...]] = get_args(Aggregate)
DEFAULT_STAGE: Final = "prospect"
LEVELS: Final = ("low", "medium", "high")
MAX_WINDOW_DAYS: Final = 3_660
MAX_TEXT: Final = 1_000_000
SECTIONS: Final = ("properties", "traits", "computed_traits", "segments", "lifecycle", "risk", "rates", "sources")

BASE_TYPES: Final = ("purchase.completed", "pos.purchase", "purchase.updated")
REFUND_TYPES: Final = ("purchase.refunded", "pos.return")
CANCEL_TYPES: Final = ("purchase.cancelled",)
ORDER_TYPES: Final = frozenset(BASE_TYPES + REFUND_TYPES + CANCEL_TYPES)
ANY_EVENT: Final = "*"


def _day(value: object) -> str:
    """An ISO date, kept as text: definitions are stored as JSON."""
    return date.fromisoformat(str(value)).isoformat()


class Model(BaseModel):
    """Frozen; an unknown key is refused, never dropped."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class PropertyDeclaration(Model):
    """What is known of a property: `personal: false` keeps it in clear from then on."""

    personal: StrictBool
    description: str = ""


class TraitDeclaration(Model):
    """A trait that systems send. Direct (personal, sealed) unless declared otherwise."""

    personal: StrictBool = True
    type: Literal["text", "decimal", "boolean", "time"] | None = None
    description: str = ""


class ComputedTrait(Model):
    """A value folded from the events named (a type, the name of a custom event, or "*" alone for every event).

    - count, distinct_days (local days with one): 0 of none. sum of a property: 0 of none.
    - avg, min, max of a property; first, last by stamp: None of none. `of: occurred_at` is the event's time,
      `of: revenue` its derived revenue in the base currency (in its own where `where` pins one currency).
    - days_since: full 24 hours since the newest. gap_days: full days between the last two.
    - open_count: keys whose newest event, by stamp, is one of `opens` and not of `closes`; events without the
      `key` property share one key.

    When all events are order events and one is a base (design C5), it is over orders, each once: count and the
    others see bases that are not cancelled, at their stamp; sum and avg of revenue subtract the refunds named in
    `events`, each at its own stamp. Cancellations and updates of a purchase apply whether named or not; refunds
    of a cancelled order do not. `window_days`: N local calendar days, today and N - 1 before.
    """

    aggregate: Aggregate
    of: StrictStr | None = None
    events: tuple[StrictStr, ...] = ()
    window_days: StrictInt | None = None
    where: Condition | None = None
    key: StrictStr | None = None
    opens: tuple[StrictStr, ...] = ()
    closes: tuple[StrictStr, ...] = ()
    publish: StrictBool = False
    description: str = ""

    @property
    def all_events(self) -> tuple[str, ...]:
        """Every event name it looks at, sorted."""
        return tuple(sorted({*self.events, *self.opens, *self.closes}))

    @property
    def by_order(self) -> bool:
        """Whether it is computed over the order map (design C5): order events only, one of them a base."""
        return set(self.events) <= ORDER_TYPES and bool(set(self.events) & set(BASE_TYPES))

    @property
    def kind(self) -> Kind:
        """What its values are."""
        if self.aggregate in ("count", "distinct_days", "days_since", "gap_days", "open_count"):
            return "integer"
        if self.of == "occurred_at":
            return "time"
        if self.aggregate in ("first", "last") and self.of != "revenue":
            return "any"
        return "decimal"

    @property
    def ages(self) -> bool:
        """Whether its value changes by time alone."""
        return self.window_days is not None or self.aggregate == "days_since"


class Segment(Model):
    """A stored condition."""

    description: str = ""
    when: Condition


class Stage(Model):
    """One lifecycle stage; the first in the list whose condition holds is the profile's."""

    name: str
    when: Condition
    description: str = ""


class Lifecycle(Model):
    """Ordered stages; `prospect` when none holds. A patch changes the stages it names, see `merge`."""

    stages: tuple[Stage, ...]


class RiskRule(Model):
    """Points for a reason."""

    code: str
    points: StrictInt
    when: Condition
    description: str = ""


class Levels(Model):
    """Points from which risk is medium, and high; `low` below."""

    medium: StrictInt = 2
    high: StrictInt = 4


class Risk(Model):
    """Rules whose points add up, and the levels they reach. A patch changes the rules it names, see `merge`."""

    rules: tuple[RiskRule, ...] = ()
    levels: Levels = Levels()


class Rate(Model):
    """Units of the base currency for one of `currency`, from the local day `date` on."""

    currency: str
    date: Annotated[str, AfterValidator(_day)]
    rate: Decimal


class Source(Model):
    """A source's rank when two sources send the same order: the higher one's amounts hold."""

    rank: StrictInt = 0


class Definitions(Model):
    """Everything defined, or a patch to it. `delete` names what a patch removes, and is never stored."""

    properties: dict[str, dict[str, PropertyDeclaration]] = {}
    traits: dict[str, TraitDeclaration] = {}
    computed_traits: dict[str, ComputedTrait] = {}
    segments: dict[str, Segment] = {}
    lifecycle: Lifecycle | None = None
    risk: Risk | None = None
    rates: tuple[Rate, ...] = ()
    sources: dict[str, Source] = {}
    delete: tuple[str, ...] = ()

    @property
    def stage_names(self) -> tuple[str, ...]:
        """Every stage a profile can be in, the default first."""
        stages = self.lifecycle.stages if self.lifecycle else ()
        return (DEFAULT_STAGE, *(s.name for s in stages if s.name != DEFAULT_STAGE))

    def conditions(self) -> Iterator[tuple[str, Any]]:
        """Every profile condition with the path of its root."""
        for name, segment in self.segments.items():
            yield f"segments.{name}.when", segment.when
        for i, stage in enumerate(self.lifecycle.stages if self.lifecycle else ()):
            yield f"lifecycle.stages[{i}].when", stage.when
        for i, rule in enumerate(self.risk.rules if self.risk else ()):
            yield f"risk.rules[{i}].when", rule.when

    @property
    def content_hash(self) -> str:
        """32 hex digits over the canonical JSON: equal definitions, equal hash."""
        return sha256(to_json(self)).hexdigest()[:32]


# ---------------------------------------------------------------- reading


class _Loader(yaml.SafeLoader):
    """Safe YAML where a repeated key is an error, decimals are exact and dates stay text."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[object, object]:
    seen: set[object] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str | int | float | bool | None) or key in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key!r} appears twice or is no name", key_node.start_mark
            )
        seen.add(key)
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


def _number(loader: _Loader, node: yaml.ScalarNode) -> object:
    text = str(loader.construct_scalar(node))
    return Decimal(text)


def _text(loader: _Loader, node: yaml.ScalarNode) -> str:
    return str(loader.construct_scalar(node))


# Of plain words only true and false are booleans and only decimal digits numbers: NO is a country, 010 a shop,
# 12:30 a time of day (YAML 1.1 makes False, 8 and 750 of them).
_TAG: Final = "tag:yaml.org,2002:"
_Loader.yaml_implicit_resolvers = {
    letter: [(tag, form) for tag, form in forms if tag not in (f"{_TAG}bool", f"{_TAG}int", f"{_TAG}float")]
    for letter, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(f"{_TAG}bool", re.compile(r"(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_Loader.add_implicit_resolver(f"{_TAG}int", re.compile(r"[-+]?(?:0|[1-9][0-9]*)$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    f"{_TAG}float",
    re.compile(r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?$"),
    list("-+.0123456789"),
)
_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
_Loader.add_constructor("tag:yaml.org,2002:float", _number)
_Loader.add_constructor("tag:yaml.org,2002:timestamp", _text)


def _load(file_name: str, text: str, problems: list[Problem]) -> dict[str, Any]:
    """One file as raw data; a problem and {} when it is no mapping of sections."""
    if len(text) > MAX_TEXT:
        problems.append(Problem(file_name, f"larger than {MAX_TEXT} characters; split it"))
        return {}
    try:
        raw = yaml.load(text, Loader=_Loader)  # a SafeLoader, see _Loader
    except (yaml.YAMLError, RecursionError, ValueError) as err:
        where = getattr(err, "problem_mark", None)
        line = f" line {where.line + 1}" if where else ""
        problems.append(Problem(f"{file_name}{line}", f"not YAML: {getattr(err, 'problem', None) or err}"))
        return {}
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        problems.append(Problem(file_name, f"must be a mapping of sections: {', '.join(SECTIONS)}"))
        return {}
    return {str(key): value for key, value in raw.items() if value is not None}


def _join(files: Sequence[tuple[str, str]], problems: list[Problem]) -> dict[str, Any]:
    """All files as one raw document; a name in two files is a problem."""
    joined: dict[str, Any] = {}
    owner: dict[str, str] = {}
    for file_name, text in files:
        for section, content in _load(file_name, text, problems).items():
            if section in ("rates", "delete") and isinstance(content, list):
                joined.setdefault(section, []).extend(content)
            elif section in ("lifecycle", "risk") or not isinstance(content, dict):
                _claim(section, file_name, owner, problems)
                joined[section] = content
            else:
                joined.setdefault(section, {})
                for name, value in content.items():
                    if section == "properties" and isinstance(value, dict):
                        joined.setdefault(section, {}).setdefault(name, {}).update(value)
                    else:
                        _claim(f"{section}.{name}", file_name, owner, problems)
                        joined.setdefault(section, {})[name] = value
    return joined


def _claim(path: str, file_name: str, owner: dict[str, str], problems: list[Problem]) -> None:
    first = owner.setdefault(path, file_name)
    if first != file_name:
        problems.append(Problem(path, f"defined in {first} and in {file_name}; keep one"))


def _refuse_oversize(raw: Mapping[str, Any], problems: list[Problem]) -> None:
    """Look at the raw trees before anything recursive does."""
    stack: list[tuple[str, Any, int]] = [("", raw, 0)]
    while stack:
        path, node, depth = stack.pop()
        items: Iterable[tuple[str, Any]] = ()
        if isinstance(node, dict):
            items = [(f"{path}.{key}".lstrip("."), value) for key, value in node.items()]
        elif isinstance(node, list):
            items = [(f"{path}[{i}]", value) for i, value in enumerate(node)]
        for child, value in items:
            if child.rsplit(".", 1)[-1] in ("when", "where"):
                reason = oversize(value)
                if reason:
                    problems.append(Problem(child, reason))
            elif depth < 6:
                stack.append((child, value, depth + 1))


_FRIENDLY: Final = {
    "union_tag_not_found": f"a condition is one of {', '.join((*BRANCHES, *LEAVES))}",
    "union_tag_invalid": f"a condition is one of {', '.join((*BRANCHES, *LEAVES))}",
    "missing": "is missing; add it",
}


def _path(loc: Sequence[int | str]) -> str:
    """`segments.vip.when.all[0].trait` of a pydantic location; union tags (`<all>`) are left out."""
    path = ""
    for step in loc:
        if isinstance(step, int):
            path += f"[{step}]"
        elif not step.startswith("<"):
            path += f".{step}"
    return path.lstrip(".")


def _problems_of(err: ValidationError) -> list[Problem]:
    from schemas.definition_checks import did_you_mean  # noqa: PLC0415  # it imports this module

    found: dict[str, Problem] = {}
    for detail in err.errors(include_url=False, include_context=True):
        loc = [s for s in detail["loc"] if not (isinstance(s, str) and s.startswith(("bool", "int", "decimal")))]
        for i, step in enumerate(loc):
            if step in ("str", "tuple", "tuple[", "nullable") or (isinstance(step, str) and "[" in step):
                loc = loc[:i]
                break
        path = _path(loc)
        reason = _FRIENDLY.get(detail["type"], detail["msg"])
        if path.endswith(".value"):
            reason = "must be text, a number, true or false, or a list of these"
        if detail["type"] == "literal_error":
            names = AGGREGATES if path.endswith("aggregate") else OPS
            reason = f"must be one of {', '.join(names)}{did_you_mean(str(detail['input']), names)}"
        if detail["type"] == "extra_forbidden":
            reason = f"unknown key{did_you_mean(str(loc[-1]), _known_keys(loc))}"
        found.setdefault(path, Problem(path, reason))
    return list(found.values())


def _known_keys(loc: Sequence[int | str]) -> list[str]:
    """Names a misspelt key may have meant, from where it stands."""
    if len(loc) == 1:
        return [*SECTIONS, "delete"]
    models: dict[str, type[BaseModel]] = {
        "traits": TraitDeclaration, "computed_traits": ComputedTrait, "segments": Segment,
        "lifecycle": Stage, "risk": RiskRule, "rates": Rate, "sources": Source, "properties": PropertyDeclaration,
    }  # fmt: skip
    model = models.get(str(loc[0]))
    return [*(model.model_fields if model else ()), "trait", "op", "value", "stages", "rules", "levels"]


def parse_documents(files: Iterable[tuple[str, str]], base: Definitions | None = None) -> Definitions:
    """Read (file name, YAML text) pairs as one patch, checked together with what is defined already.

    Raises DefinitionsInvalid with every problem found: what has a wrong shape is left out, and the rest looked at
    with it. Where a file cannot be read at all, references are not, as most would miss what that file defines.
    """
    problems: list[Problem] = []
    raw = _join(list(files), problems)
    unread = bool(problems)
    _refuse_oversize(raw, problems)
    broken = _prune(raw, problems)
    patch = Definitions()
    try:
        patch = _validate(raw)
    except DefinitionsInvalid as err:
        problems += err.problems
        broken |= _prune(raw, err.problems)
        with suppress(DefinitionsInvalid):  # an unknown section, which is told of already
            patch = _validate({section: raw[section] for section in raw if section in (*SECTIONS, "delete")})
    if not unread:
        try:
            merge(base or Definitions(), patch, broken)
        except DefinitionsInvalid as err:
            problems += err.problems
    if problems:
        raise _invalid(list(dict.fromkeys(problems)))
    return patch


def _prune(raw: dict[str, Any], problems: Sequence[Problem]) -> set[str]:
    """Take what has a problem out of a raw document; returns the names that are not defined now though written."""

    def bad(path: str) -> bool:
        return any(re.match(rf"{re.escape(path)}(?:[.\[]|$)", problem.path) for problem in problems)

    broken: set[str] = set()
    for section in [section for section in raw if bad(section)]:
        content = raw[section]
        if section in ("lifecycle", "risk") or not isinstance(content, dict):
            broken |= _names_in(content)
            del raw[section]
        else:
            wrong = [name for name in content if bad(f"{section}.{name}")]
            broken |= {str(name) for name in wrong}
            raw[section] = {name: value for name, value in content.items() if name not in wrong}
    return broken


def _names_in(content: object) -> set[str]:
    """The names of stages in a raw lifecycle."""
    stages = content.get("stages") if isinstance(content, dict) else None
    found = [stage.get("name") for stage in stages if isinstance(stage, dict)] if isinstance(stages, list) else []
    return {name for name in found if isinstance(name, str)}


def _validate(raw: object) -> Definitions:
    try:
        return Definitions.model_validate(raw)
    except ValidationError as err:
        raise _invalid(_problems_of(err)) from err


def _invalid(problems: Sequence[Problem]) -> DefinitionsInvalid:
    first = problems[0]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return DefinitionsInvalid(f"{first.path}: {first.reason}{more}", problems)


# ---------------------------------------------------------------- merging

Summary = dict[str, list[str]]


def _entries(defs: Definitions, *, levels: bool) -> dict[str, Any]:
    """Every named thing: `segments.vip`, `properties.signed_up.plan`, `lifecycle.at_risk`, `rates.EUR@2024-01-01`, …

    `levels`: whether the levels of risk are one of them.
    """
    named: dict[str, Any] = {
        f"properties.{type_}.{name}": (type_, name, value)
        for type_, declared in defs.properties.items()
        for name, value in declared.items()
    }
    for section in ("traits", "computed_traits", "segments", "sources"):
        named.update({f"{section}.{name}": value for name, value in getattr(defs, section).items()})
    named.update({f"rates.{rate.currency}@{rate.date}": rate for rate in defs.rates})
    if defs.lifecycle is not None:
        named.update({f"lifecycle.{stage.name}": stage for stage in defs.lifecycle.stages})
    if defs.risk is not None:
        named.update({f"risk.{rule.code}": rule for rule in defs.risk.rules if rule.code != "levels"})  # refused
        if levels:
            named["risk.levels"] = defs.risk.levels
    return named


def _assemble(entries: Mapping[str, Any]) -> Definitions:
    """The inverse of `_entries`."""
    fields: dict[str, Any] = {
        section: {} for section in ("properties", "traits", "computed_traits", "segments", "sources")
    }
    rates: list[Rate] = []
    stages: list[Stage] = []
    rules: list[RiskRule] = []
    for path, value in entries.items():
        section, _, name = path.partition(".")
        if section == "properties":
            type_, prop, declaration = value
            fields["properties"].setdefault(type_, {})[prop] = declaration
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
    if stages:
        fields["lifecycle"] = Lifecycle(stages=tuple(stages))
    if rules or levels != Levels():
        fields["risk"] = Risk(rules=tuple(rules), levels=levels)
    return Definitions.model_construct(**{**Definitions().__dict__, **fields, "rates": tuple(rates)})


def merge(base: Definitions, patch: Definitions, broken: Collection[str] = ()) -> tuple[Definitions, Summary]:
    """`base` with the patch applied, and lists of qualified names `added, changed, unchanged, deleted`.

    What the patch does not name stays. A stage or risk rule takes the place of the one of its name, a new one comes
    last; a patch that names all of them sets their order. Deleting what is not there is no error (a second apply
    changes nothing); deleting what is still used is. `broken`: names that may be referred to though they are not
    there, as their definition is refused already. Raises DefinitionsInvalid.
    """
    from schemas.definition_checks import check, check_lists  # noqa: PLC0415  # it imports this module

    new = _entries(patch, levels=patch.risk is not None and "levels" in patch.risk.model_fields_set)
    own_levels = base.risk is not None and base.risk.levels != Levels()
    old = _entries(base, levels=own_levels or "risk.levels" in new)
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
        raise _invalid(problems)
    return merged, summary


def _reorder(section: str, together: dict[str, Any], old: Mapping[str, Any], new: Mapping[str, Any]) -> set[str]:
    """Give a section the patch's order if it names all that stays; returns the names that stay and have moved."""
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
    """A problem at a place in the merged lists, as a place in the patch; by name when it is not from there."""
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
    """Qualified names to delete, from bare (`vip`) or qualified (`segments.vip`) ones; `risk` is all of its rules."""
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


# ---------------------------------------------------------------- storing


def _plain(value: object) -> object:
    """JSON types only; decimals as the float that prints the same (checked: at most 15 digits)."""
    if isinstance(value, Decimal):
        return int(value) if value == int(value) else float(value)
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def plain(model: BaseModel) -> Any:
    """A model as JSON types, without what has its default."""
    return _plain(model.model_dump(by_alias=True, exclude_defaults=True))


def to_json(defs: Definitions) -> bytes:
    """Canonical JSON for storage: sorted keys, defaults left out. `from_json` gives equal definitions back."""
    raw = plain(defs)
    raw.pop("delete", None)
    return json.dumps(raw, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def from_json(text: bytes | str) -> Definitions:
    """Stored definitions; raises DefinitionsInvalid. `text` may also be hand-written JSON."""
    try:
        raw = json.loads(text, parse_float=Decimal)
    except ValueError as err:
        raise DefinitionsInvalid(f"not JSON: {err}") from err
    problems: list[Problem] = []
    _refuse_oversize(raw, problems)
    if problems:
        raise _invalid(problems)
    return merge(Definitions(), _validate(raw))[0]


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a definitions file, published as `schemas/definitions.schema.json`."""
    schema = Definitions.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Touchfold definitions"}


def load_pack(name: str) -> list[tuple[str, str]]:
    """The (file name, text) pairs of a pack, by file name. Raises DefinitionsInvalid when there is none."""
    folder = resources.files("schemas.packs") / name
    if not name.isidentifier() or not folder.is_dir():
        raise DefinitionsInvalid(f"there is no pack {name!r}")
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".yaml")), key=lambda f: f.name)
    return [(file.name, file.read_text(encoding="utf-8")) for file in files]


def warnings(defs: Definitions) -> list[Problem]:
    """What works but may surprise: uses of sealed properties, event names nobody sends."""
    from schemas.definition_checks import warn  # noqa: PLC0415  # it imports this module

    return warn(defs)
