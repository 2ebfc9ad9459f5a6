"""What a computed trait covers, in plain English: "orders whose channel is store in the last 30 days". Pure."""

from collections.abc import Sequence

from projections.conditions.words import phrase
from schemas.definitions import ANY_EVENT, ComputedTrait
from schemas.touchpoints import meant


def chosen(spec: ComputedTrait, *, one: bool = False) -> str:
    """The events or orders, their condition and the window. `one`: singular, as after "the last"."""
    return f"{_events(spec, '' if one else 's')}{where(spec)}{window(spec)}"


def _events(spec: ComputedTrait, plural: str) -> str:
    if spec.by_order:
        return f"order{plural}"
    if ANY_EVENT in spec.all_events:
        return f"event{plural} of any kind"
    listed_once = [name for name in spec.all_events if meant(name) == name or meant(name) not in spec.all_events]
    return f"{listed(listed_once)} event{plural}"


def where(spec: ComputedTrait) -> str:
    """` whose channel is store`, or nothing."""
    return "" if spec.where is None else f" {phrase(spec.where, top=True)}"


def window(spec: ComputedTrait) -> str:
    """` in the last 30 days`, or nothing."""
    if spec.window_days is None:
        return ""
    return " today" if spec.window_days == 1 else f" in the last {spec.window_days} days"


def value(spec: ComputedTrait) -> str:
    """The value it takes: `revenue`, `time`, `net promoter score`."""
    return "time" if spec.of == "occurred_at" else spaced(spec.of)


def spaced(name: str | None) -> str:
    """A name as words."""
    return (name or "").replace("_", " ")


def listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
