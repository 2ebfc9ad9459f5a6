"""Reads definitions: YAML files (and stored JSON) in, checked models out, every problem named."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from functools import partial
from importlib import resources
from typing import Any, Final

import yaml
from pydantic import BaseModel, ValidationError

from projections.definitions.checks import kind_of, unknown_aggregate
from projections.definitions.impossible import impossible
from projections.definitions.merge import invalid, merge
from schemas.conditions import BRANCHES, LEAVES, OPS, Kind, oversize
from schemas.definitions import (
    SECTIONS,
    BlockedValue,
    ComputedTrait,
    Definitions,
    PropertyDeclaration,
    Rate,
    RiskRule,
    Segment,
    Source,
    Stage,
    TraitDeclaration,
)
from schemas.errors import DefinitionsInvalid, Problem
from schemas.hints import did_you_mean

MAX_TEXT: Final = 1_000_000  # characters of a file


def parse_documents(files: Iterable[tuple[str, str]], base: Definitions | None = None) -> Definitions:
    """Read (file name, YAML text) pairs as one patch, checked together with the existing definitions.

    Raises DefinitionsInvalid with every problem found: parts with a wrong shape are left out, and the rest is checked
    without them. If a file cannot be read at all, references are not checked: most would miss what it defines.
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
        with suppress(DefinitionsInvalid):  # an unknown section, already reported
            patch = _validate({section: raw[section] for section in raw if section in (*SECTIONS, "delete")})
    if not unread:
        try:
            merged, _ = merge(base or Definitions(), patch, broken)
            problems += impossible(patch, partial(_kind_of, merged))
        except DefinitionsInvalid as err:
            problems += err.problems
            problems += impossible(patch, lambda _trait: "any")
    if problems:
        raise invalid(list(dict.fromkeys(problems)))
    return patch


def _kind_of(defs: Definitions, trait: str) -> Kind:
    return kind_of(defs, trait) if trait in defs.computed_traits or trait in defs.traits else "any"


def from_json(text: bytes | str) -> Definitions:
    """Stored definitions; raises DefinitionsInvalid. `text` may also be hand-written JSON."""
    try:
        raw = json.loads(text, parse_float=Decimal)
    except ValueError as err:
        raise DefinitionsInvalid(f"not JSON: {err}") from err
    problems: list[Problem] = []
    _refuse_oversize(raw, problems)
    if problems:
        raise invalid(problems)
    return merge(Definitions(), _validate(raw))[0]


def load_pack(name: str) -> list[tuple[str, str]]:
    """The (file name, text) pairs of a pack, by file name. Raises DefinitionsInvalid when there is none."""
    folder = resources.files("schemas.packs") / name
    if not name.isidentifier() or not folder.is_dir():
        raise DefinitionsInvalid(f"there is no pack {name!r}")
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".yaml")), key=lambda f: f.name)
    return [(file.name, file.read_text(encoding="utf-8")) for file in files]


# ---------------------------------------------------------------- YAML


class _Loader(yaml.SafeLoader):
    """Safe YAML where a repeated key is an error, decimals are exact and dates stay text."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[object, object]:
    seen: set[object] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str | int | float | bool | None) or key in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key!r} appears twice or is not a name", key_node.start_mark
            )
        seen.add(key)
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


def _number(loader: _Loader, node: yaml.ScalarNode) -> object:
    text = str(loader.construct_scalar(node))
    return Decimal(text)


def _text(loader: _Loader, node: yaml.ScalarNode) -> str:
    return str(loader.construct_scalar(node))


# Only true and false are booleans, and only decimal digits are numbers: NO is a country, 010 a shop, 12:30 a time
# of day (YAML 1.1 reads them as False, 8 and 750).
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
    """One file as raw data; a problem and {} if it is not a mapping of sections."""
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
    """Check the raw trees' size before anything recursive reads them."""
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


# ---------------------------------------------------------------- what is wrong, and where


def _validate(raw: object) -> Definitions:
    try:
        return Definitions.model_validate(raw)
    except ValidationError as err:
        raise invalid(_problems_of(err)) from err


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
        if path.endswith(".aggregate") and detail["type"] == "string_type":
            reason = unknown_aggregate(detail["input"])
        if detail["type"] == "literal_error":
            reason = f"must be one of {', '.join(OPS)}{did_you_mean(str(detail['input']), OPS)}"
        if detail["type"] == "extra_forbidden":
            reason = f"unknown key{did_you_mean(str(loc[-1]), _known_keys(loc))}"
        found.setdefault(path, Problem(path, reason))
    return list(found.values())


def _known_keys(loc: Sequence[int | str]) -> list[str]:
    """Names that a misspelt key may have meant, given where it is."""
    if len(loc) == 1:
        return [*SECTIONS, "delete"]
    models: dict[str, type[BaseModel]] = {
        "traits": TraitDeclaration, "computed_traits": ComputedTrait, "segments": Segment,
        "lifecycle": Stage, "risk": RiskRule, "rates": Rate, "sources": Source, "properties": PropertyDeclaration,
        "identifiers": BlockedValue,
    }  # fmt: skip
    model = models.get(str(loc[0]))
    return [*(model.model_fields if model else ()), "blocked", "trait", "op", "value", "stages", "rules", "levels"]


def _prune(raw: dict[str, Any], problems: Sequence[Problem]) -> set[str]:
    """Remove parts with problems from a raw document; returns the names that are therefore not defined."""

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
