"""Every aggregate that the modules of this package define, by name."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType, ModuleType
from typing import Final

from projections import aggregates
from projections.aggregates.base import Aggregate
from projections.gathering import defined_in, modules_of
from schemas.conditions import Kind
from schemas.definitions import ComputedTrait


def gathered(modules: Iterable[ModuleType]) -> dict[str, Aggregate]:
    """The aggregates that modules define, by name. ValueError for a name used twice or an incomplete aggregate."""
    found: dict[str, Aggregate] = {}
    for module, each in defined_in(modules, Aggregate):  # type: ignore[type-abstract]  # to find those that are not
        for needed in ("name", "meaning", "slot"):
            if not getattr(each, needed, None):
                raise ValueError(f"{module}: {type(each).__name__} has no {needed}")
        if found.setdefault(each.name, each) is not each:
            raise ValueError(f"{module}: another aggregate is named {each.name}")
    return dict(sorted(found.items()))


AGGREGATES: Final[Mapping[str, Aggregate]] = MappingProxyType(gathered(modules_of(aggregates, but=("registry",))))


def aggregate_of(spec: ComputedTrait) -> Aggregate:
    """The aggregate of a checked definition. KeyError for an unknown name."""
    return AGGREGATES[spec.aggregate]


def value_kind(spec: ComputedTrait) -> Kind:
    """The kind of a checked definition's values."""
    return aggregate_of(spec).kind(spec)
