"""In a segment."""

from collections.abc import Iterator
from typing import Final

from projections.conditions.base import DecisionCode, Defined, OfCustomer
from schemas.conditions import SegmentLeaf
from schemas.errors import Problem


class Segment(OfCustomer[SegmentLeaf]):
    model = SegmentLeaf

    def words(self, leaf: SegmentLeaf) -> str:
        return f"who are in segment {leaf.segment}"

    def words_not(self, leaf: SegmentLeaf) -> str:
        return f"who are not in segment {leaf.segment}"

    def check(self, path: str, leaf: SegmentLeaf, defined: Defined) -> Iterator[Problem]:
        yield from defined.unknown(f"{path}.segment", "segment", leaf.segment, defined.defs.segments)

    def test(self, leaf: SegmentLeaf, code: DecisionCode) -> str:
        return f"(mask & {code.segment(leaf.segment)})"

    def needs(self, leaf: SegmentLeaf) -> str:
        return f"segments.{leaf.segment}"


SEGMENT: Final = Segment()
