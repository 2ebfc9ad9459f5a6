"""Plain English of what a computed trait looks at: "orders whose channel is store in the last 30 days". Pure."""

from projections.conditions.words import phrase
from schemas.definitions import ANY_EVENT, ComputedTrait


def chosen(spec: ComputedTrait, last: str = "or") -> str:
    """The events or orders, their condition and the window."""
    return f"{_events(spec, last)}{where(spec)}{window(spec)}"


def _events(spec: ComputedTrait, last: str) -> str:
    if spec.by_order:
        return "orders"
    names = spec.all_events
    if ANY_EVENT in names:
        return "events of any kind"
    return f"{listed(names, last)} events"


def where(spec: ComputedTrait) -> str:
    """` whose channel is store`, or nothing."""
    return "" if spec.where is None else f" {phrase(spec.where)}"


def window(spec: ComputedTrait) -> str:
    """` in the last 30 days`, or nothing."""
    if spec.window_days is None:
        return ""
    return " today" if spec.window_days == 1 else f" in the last {spec.window_days} days"


def value(spec: ComputedTrait) -> str:
    """The value that is taken: `revenue`, `time`, `net promoter score`."""
    return "time" if spec.of == "occurred_at" else (spec.of or "").replace("_", " ")


def listed(names: tuple[str, ...], last: str) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {last} {names[-1]}"
