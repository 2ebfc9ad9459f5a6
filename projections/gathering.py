"""What the modules of a package define, found by type: adding one touches its own module alone."""

from collections.abc import Collection, Iterable, Iterator
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
from typing import TypeVar

T = TypeVar("T")


def modules_of(package: ModuleType, but: Collection[str] = ()) -> Iterator[ModuleType]:
    """The modules of a package by name, without those that ask for what is gathered."""
    for each in iter_modules(package.__path__):
        if each.name not in but:
            yield import_module(f"{package.__name__}.{each.name}")


def defined_in(modules: Iterable[ModuleType], type_: type[T]) -> Iterator[tuple[str, T]]:
    """(module's name, object) of all objects of a type; one that a module imports from another comes twice."""
    for module in modules:
        for value in vars(module).values():
            if isinstance(value, type_):
                yield module.__name__, value
