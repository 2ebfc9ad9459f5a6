"""Definitions derived from the registry: all that each aggregate allows of a grid of values, events and windows."""

from collections.abc import Iterator
from itertools import product
from typing import Any

from projections.aggregates.base import Aggregate
from projections.aggregates.registry import value_kind
from projections.definitions.files import from_json
from projections.definitions.json_schema import json_schema
from schemas.definitions import ComputedTrait, Definitions, plain, to_json

_EVENTS: tuple[dict[str, Any], ...] = (
    {"events": ("survey.answered", "web.page_viewed")},
    {"events": ("purchase.completed", "pos.purchase", "purchase.refunded", "pos.return")},
    {"key": "complaint_id", "opens": ("complaint.opened", "complaint.escalated"), "closes": ("complaint.resolved",)},
)
_OF = (None, "score", "coupon", "revenue", "occurred_at")
_WINDOWS = (None, 2, 30)
_WHERE = {"property": "channel", "op": "eq", "value": "store"}
_COMPARED: dict[str, dict[str, Any]] = {
    "integer": {"op": "gte", "value": 2}, "decimal": {"op": "gte", "value": 9.5}, "any": {"op": "exists"},
    "time": {"op": "gte", "value": "2024-03-10"},
}  # fmt: skip
_RATES = [{"currency": "EUR", "date": "2023-10-01", "rate": 1.0873}]


def admitted(aggregate: Aggregate) -> list[ComputedTrait]:
    """Every definition of the grid that the aggregate allows; lifetime ones also with a condition on the event."""
    found = []
    for events, of, days, where in product(_EVENTS, _OF, _WINDOWS, (None, _WHERE)):
        if where and days:
            continue
        spec = ComputedTrait.model_validate(
            {"aggregate": aggregate.name, "of": of, "window_days": days, "where": where, **events}
        )
        if not list(aggregate.check("", spec)):
            found.append(spec)
    return found


def definitions_of(aggregate: Aggregate) -> Definitions:
    """All that the aggregate allows, each with a segment that compares it; checked like any other definitions."""
    traits = {f"t{i}": spec for i, spec in enumerate(admitted(aggregate))}
    segments = {f"s_{name}": {"when": {"trait": name, **_COMPARED[value_kind(spec)]}} for name, spec in traits.items()}
    defs = Definitions.model_validate(
        {"computed_traits": {name: plain(spec) for name, spec in traits.items()}, "segments": segments, "rates": _RATES}
    )
    return from_json(to_json(defs))


def listed_in_schema() -> Iterator[Any]:
    """The names that the published schema allows."""
    yield from json_schema()["$defs"]["ComputedTrait"]["properties"]["aggregate"]["enum"]
