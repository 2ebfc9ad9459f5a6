"""The typed condition tree: `all`, `any`, `not` over leaves. Data, never code; evaluated by `projections.decide`.

A missing value makes every comparison false except `missing`. `ne` is exactly `not eq` and `not_in` exactly
`not in`, so both are true of a missing value (plain logic, unlike SQL).
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import BaseModel, ConfigDict, Discriminator, Field, StrictBool, StrictInt, StrictStr, Tag

from schemas.errors import Problem
from schemas.money import LIMIT, SCALE

MAX_DEPTH: Final = 16
MAX_NODES: Final = 500
MAX_LIST: Final = 1000

Op = Literal[
    "eq", "ne", "lt", "lte", "gt", "gte", "in", "not_in",
    "contains", "starts_with", "exists", "missing", "between",
]  # fmt: skip
OPS: Final[tuple[str, ...]] = get_args(Op)
ORDERED: Final = ("lt", "lte", "gt", "gte", "between")
Scalar = StrictBool | StrictInt | Decimal | StrictStr
Value = Scalar | tuple[Scalar, ...] | None
Kind = Literal["integer", "decimal", "time", "text", "boolean", "any"]


class Node(BaseModel):
    """Frozen; an unknown key is refused, never dropped."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class All(Node):
    """True when every item is."""

    all: "Annotated[tuple[Condition, ...], Field(min_length=1)]"


class AnyOf(Node):
    """True when at least one item is."""

    any: "Annotated[tuple[Condition, ...], Field(min_length=1)]"


class Not(Node):
    """True when the item is not."""

    item: "Condition" = Field(alias="not")


class TraitLeaf(Node):
    """A declared or computed trait against a value."""

    trait: str
    op: Op
    value: Value = None


class SegmentLeaf(Node):
    """In the segment of this name."""

    segment: str


class LifecycleLeaf(Node):
    """In this lifecycle stage."""

    lifecycle: str


class PropertyLeaf(Node):
    """A property of the event against a value; only inside `where`.

    `revenue` is the derived revenue of the event, `currency` the effective one (contracts, "Event types").
    """

    property: str
    op: Op
    value: Value = None


LEAVES: Final = ("trait", "segment", "lifecycle", "property")
BRANCHES: Final = ("all", "any", "not")


def _tag(raw: object) -> str | None:
    """Which form of node this is: the key that names it."""
    if isinstance(raw, dict):
        return next((f"<{key}>" for key in (*BRANCHES, *LEAVES) if key in raw), None)
    names: dict[object, str] = {All: "all", AnyOf: "any", Not: "not", TraitLeaf: "trait", SegmentLeaf: "segment",
             LifecycleLeaf: "lifecycle", PropertyLeaf: "property"}  # fmt: skip
    return f"<{names[type(raw)]}>" if type(raw) in names else None


Condition = Annotated[
    Annotated[All, Tag("<all>")]
    | Annotated[AnyOf, Tag("<any>")]
    | Annotated[Not, Tag("<not>")]
    | Annotated[TraitLeaf, Tag("<trait>")]
    | Annotated[SegmentLeaf, Tag("<segment>")]
    | Annotated[LifecycleLeaf, Tag("<lifecycle>")]
    | Annotated[PropertyLeaf, Tag("<property>")],
    Discriminator(_tag),
]
Leaf = TraitLeaf | SegmentLeaf | LifecycleLeaf | PropertyLeaf
for _model in (All, AnyOf, Not):
    _model.model_rebuild()


def children(node: Any) -> Sequence[tuple[str, Any]]:
    """The (path step, child) pairs of a branch; () for a leaf."""
    if isinstance(node, All):
        return [(f".all[{i}]", item) for i, item in enumerate(node.all)]
    if isinstance(node, AnyOf):
        return [(f".any[{i}]", item) for i, item in enumerate(node.any)]
    if isinstance(node, Not):
        return [(".not", node.item)]
    return ()


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, Leaf]]:
    """Every leaf with its dotted path."""
    below = children(node)
    if not below:
        yield path, node
    for step, child in below:
        yield from leaves(child, path + step)


def oversize(raw: object) -> str | None:
    """Why a raw tree is too deep or too large to look at, or None. Stops at the limit (aliases can explode)."""
    stack: list[tuple[object, int]] = [(raw, 1)]
    seen = 0
    while stack:
        node, depth = stack.pop()
        if not isinstance(node, dict):
            continue
        seen += 1
        if depth > MAX_DEPTH:
            return f"nested deeper than {MAX_DEPTH}; move a part into its own segment and refer to it"
        if seen > MAX_NODES:
            return f"more than {MAX_NODES} conditions; use `in` with a list, or split it into segments"
        for key in BRANCHES:
            below = node.get(key)
            if isinstance(below, list):
                stack.extend((item, depth + 1) for item in below[: MAX_NODES + 1])
            elif below is not None:
                stack.append((below, depth + 1))
    return None


def parse_time(text: object) -> datetime | date | None:
    """An ISO date or time; None when it is neither. A time without zone is local."""
    if not isinstance(text, str):
        return None
    try:
        return date.fromisoformat(text) if len(text) == 10 else datetime.fromisoformat(text)
    except ValueError:
        return None


def check_leaf(path: str, leaf: TraitLeaf | PropertyLeaf, kind: Kind) -> Iterator[Problem]:
    """Problems of operator and value against the kind of value compared."""
    op, value = leaf.op, leaf.value
    if op in ("exists", "missing"):
        if value is not None:
            yield Problem(f"{path}.value", f"`{op}` takes no value; remove it")
        return
    if value is None:
        yield Problem(f"{path}.value", f"`{op}` needs a value")
        return
    listed = op in ("in", "not_in", "between")
    if listed != isinstance(value, tuple):
        yield Problem(f"{path}.value", f"`{op}` needs {'a list' if listed else 'one value, not a list'}")
        return
    items = value if isinstance(value, tuple) else (value,)
    if op == "between" and len(items) != 2:
        yield Problem(f"{path}.value", "`between` needs exactly two values: [lowest, highest]")
    elif not 1 <= len(items) <= MAX_LIST:
        yield Problem(f"{path}.value", f"`{op}` needs 1 to {MAX_LIST} values")
    else:
        yield from _check_kinds(path, op, items, kind)


def _check_kinds(path: str, op: str, items: tuple[Any, ...], kind: Kind) -> Iterator[Problem]:
    if op in ("contains", "starts_with") and kind not in ("text", "any"):
        yield Problem(f"{path}.op", f"`{op}` compares text, but this is {_A[kind]}; use eq, gte, between, …")
        return
    if op == "starts_with" and not isinstance(items[0], str):
        yield Problem(f"{path}.value", "`starts_with` needs text; put quotes around it")
    if op in ORDERED and (kind == "boolean" or any(isinstance(item, bool) for item in items)):
        yield Problem(f"{path}.op", f"`{op}` compares numbers, times or text; for yes/no use eq")
        return
    if op in ORDERED and kind == "any" and len({isinstance(item, str) for item in items}) > 1:
        yield Problem(f"{path}.value", "both ends of `between` must be numbers, or both text")
    for i, item in enumerate(items):
        reason = _mismatch(item, kind)
        if reason:
            yield Problem(f"{path}.value" + (f"[{i}]" if len(items) > 1 else ""), reason)


_A: Final = {"integer": "a whole number", "decimal": "a number", "time": "a time", "text": "text",
             "boolean": "yes/no", "any": "anything"}  # fmt: skip


def _mismatch(item: Any, kind: Kind) -> str | None:
    """Why a value cannot be compared with this kind, or None."""
    number = isinstance(item, int | Decimal) and not isinstance(item, bool)
    if number and too_fine(item):
        return "numbers have at most 4 decimal places and 15 digits"
    if kind in ("integer", "decimal") and not number:
        return f"must be a number, not {item!r}"
    if kind == "time" and parse_time(item) is None:
        return f"must be a date or time such as 2024-05-31 or 2024-05-31T08:00:00Z, not {item!r}"
    if kind == "text" and not isinstance(item, str):
        return f"must be text, not {item!r}; put quotes around it"
    if kind == "boolean" and not isinstance(item, bool):
        return f"must be true or false, not {item!r}"
    return None


def too_fine(number: int | Decimal) -> bool:
    """Whether a literal does not fit a scaled integer exactly (and a JSON number without loss)."""
    exact = Decimal(number)
    if not exact.is_finite() or abs(exact) >= LIMIT // SCALE:
        return True
    return exact * SCALE != int(exact * SCALE) or len(exact.normalize().as_tuple().digits) > 15


def used_traits(conditions: Iterable[Any]) -> set[str]:
    """The names of every trait these trees refer to."""
    return {leaf.trait for tree in conditions for _, leaf in leaves(tree) if isinstance(leaf, TraitLeaf)}


def used_properties(where: Any) -> set[str]:
    """The properties a `where` tree refers to."""
    if where is None:
        return set()
    return {leaf.property for _, leaf in leaves(where) if isinstance(leaf, PropertyLeaf)}
