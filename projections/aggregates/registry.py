"""Every aggregate by name: whatever the modules of this package define. Adding one touches its own module alone."""

from collections.abc import Iterable, Mapping
from importlib import import_module
from pkgutil import iter_modules
from types import MappingProxyType, ModuleType
from typing import Final

from projections import aggregates
from projections.aggregates.base import Aggregate
from schemas.conditions import Kind
from schemas.definitions import ComputedTrait


def gathered(modules: Iterable[ModuleType]) -> dict[str, Aggregate]:
    """The aggregates that modules define, by name. ValueError for two of one name, or one that does not say enough."""
    found: dict[str, Aggregate] = {}
    for module in modules:
        for each in vars(module).values():
            if not isinstance(each, Aggregate):
                continue
            if found.setdefault(each.name, each) is not each:
                raise ValueError(f"{module.__name__}: there is another aggregate {each.name}")
            for needed in ("name", "meaning", "slot"):
                if not getattr(each, needed, None):
                    raise ValueError(f"{module.__name__}: {type(each).__name__} has no {needed}")
    return dict(sorted(found.items()))


AGGREGATES: Final[Mapping[str, Aggregate]] = MappingProxyType(
    gathered(import_module(f"{aggregates.__name__}.{each.name}") for each in iter_modules(aggregates.__path__)
             if each.name != "registry")
)  # fmt: skip


def aggregate_of(spec: ComputedTrait) -> Aggregate:
    """The aggregate of a checked definition. KeyError for a name that there is not."""
    return AGGREGATES[spec.aggregate]


def value_kind(spec: ComputedTrait) -> Kind:
    """What the values of a checked definition are."""
    return aggregate_of(spec).kind(spec)
