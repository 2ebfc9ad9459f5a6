"""A declared or computed trait against a value."""

from collections.abc import Iterator
from typing import Final

from projections.conditions.base import DecisionCode, Defined, OfCustomer
from projections.conditions.comparing import compared
from projections.conditions.predicates import compare
from schemas.conditions import TraitLeaf, check_leaf
from schemas.errors import Problem


class Trait(OfCustomer[TraitLeaf]):
    model = TraitLeaf

    def words(self, leaf: TraitLeaf) -> str:
        return f"whose {compared(leaf.trait, leaf.op, leaf.value)}"

    def check(self, path: str, leaf: TraitLeaf, defined: Defined) -> Iterator[Problem]:
        known = [*defined.defs.computed_traits, *defined.defs.traits]
        yield from defined.unknown(f"{path}.trait", "trait", leaf.trait, known)
        if leaf.trait in known and leaf.trait not in defined.broken:
            yield from check_leaf(path, leaf, defined.kind(leaf.trait))

    def test(self, leaf: TraitLeaf, code: DecisionCode) -> str:
        var, kind = code.trait(leaf.trait)
        return compare(code.src, var, kind, leaf.op, leaf.value)


TRAIT: Final = Trait()
