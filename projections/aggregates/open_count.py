"""`open_count`: keys whose newest event opens them."""

from collections.abc import Iterator
from typing import Any, Final

from projections.aggregates.base import Aggregate, Place, Reading
from projections.aggregates.order_loop import OrderTrait
from projections.aggregates.phrases import listed, spaced, where
from projections.slots.base import SlotNeed
from projections.slots.keyed import OPEN, OVERFLOW
from schemas.conditions import Kind
from schemas.definitions import ComputedTrait
from schemas.errors import Problem


class OpenCount(Aggregate):
    name, slot = "open_count", OPEN
    meaning = (
        "keys whose newest event, by its time, is one of `opens` and not of `closes`; events without the `key` property"
        " share one key"
    )
    windows = False

    def kind(self, spec: ComputedTrait) -> Kind:
        return "integer"

    def words(self, spec: ComputedTrait) -> str:
        by = f"opened by {listed(spec.opens)} and not closed by {listed(spec.closes)}"
        return f"number of different {spaced(spec.key)}s {by}{where(spec)}"

    def _check_events(self, path: str, spec: ComputedTrait) -> Iterator[Problem]:
        for key in ("key", "opens", "closes"):
            if not getattr(spec, key):
                yield Problem(f"{path}.{key}", "is missing; an open_count needs key, opens and closes")
        if spec.events:
            yield Problem(f"{path}.events", "an open_count has opens and closes instead; remove it")
        both = sorted(set(spec.opens) & set(spec.closes))
        if both:
            yield Problem(f"{path}.closes", f"{both[0]} is in `opens` as well; keep it in one of the two")

    def slots(self, spec: ComputedTrait) -> list[SlotNeed]:
        return [SlotNeed(self.slot, key=spec.key, opens=spec.opens)]

    def lifetime(self, code: Reading, place: Place, var: str) -> list[str]:
        return [f"{var} = {code.src.use(open_number)}({place.at})"]

    def over_orders(self, code: OrderTrait, var: str) -> None:
        raise AssertionError("an open_count names no events, so it is never over orders")


def open_number(entries: Any) -> int | None:
    """How many keys are open; a summary stores the number."""
    if entries == OVERFLOW:
        return None
    return sum(each if type(each) is int else each[3] for each in entries)


OPEN_COUNT: Final = OpenCount()
