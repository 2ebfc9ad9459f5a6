"""In a lifecycle stage."""

from collections.abc import Iterator
from typing import Final

from projections.conditions.base import DecisionCode, Defined, OfCustomer
from schemas.conditions import LifecycleLeaf
from schemas.errors import Problem


class Lifecycle(OfCustomer[LifecycleLeaf]):
    model = LifecycleLeaf

    def words(self, leaf: LifecycleLeaf) -> str:
        return f"who are in stage {leaf.lifecycle}"

    def words_not(self, leaf: LifecycleLeaf) -> str:
        return f"who are not in stage {leaf.lifecycle}"

    def check(self, path: str, leaf: LifecycleLeaf, defined: Defined) -> Iterator[Problem]:
        yield from defined.unknown(f"{path}.lifecycle", "stage", leaf.lifecycle, defined.defs.stage_names)

    def test(self, leaf: LifecycleLeaf, code: DecisionCode) -> str:
        return f"(stage == {code.src.constant(leaf.lifecycle)})"

    def needs(self, leaf: LifecycleLeaf) -> str:
        return "lifecycle"


LIFECYCLE: Final = Lifecycle()
