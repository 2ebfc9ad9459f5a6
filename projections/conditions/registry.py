"""Every kind of condition that the modules of this package define, by the model of its leaf."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType, ModuleType
from typing import Any, Final

from projections import conditions
from projections.conditions.base import ConditionKind, OfCustomer, OfEvent
from projections.gathering import defined_in, modules_of


def gathered(modules: Iterable[ModuleType]) -> dict[type[Any], ConditionKind[Any]]:
    """The kinds that modules define, by the model of their leaf. ValueError for two with the same model."""
    found: dict[type[Any], ConditionKind[Any]] = {}
    for module, each in defined_in(modules, ConditionKind):  # type: ignore[type-abstract]  # to find those that are not
        if found.setdefault(each.model, each) is not each:
            raise ValueError(f"{module}: another condition uses {each.model.__name__}")
    return found


CONDITIONS: Final[Mapping[type[Any], ConditionKind[Any]]] = MappingProxyType(
    gathered(modules_of(conditions, but=("registry", "words")))
)


def of_customer(leaf: object) -> OfCustomer[Any] | None:
    """The kind of a condition on a customer; None if it is on an event."""
    kind = CONDITIONS[type(leaf)]
    return kind if isinstance(kind, OfCustomer) else None


def of_event(leaf: object) -> OfEvent[Any] | None:
    """The kind of a condition on an event; None if it is on a customer."""
    kind = CONDITIONS[type(leaf)]
    return kind if isinstance(kind, OfEvent) else None
