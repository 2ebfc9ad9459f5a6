"""Where a condition finds a value below a property: `cart.total`, `products[].sku`, `context.campaign.name`. Pure.

A list on the way stands for all its entries, with or without `[]`; a number picks one of them. A property that has the
whole path as its own name comes first.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any, Final, NamedTuple

CONTEXT: Final = "context"
FLAGS: Final = "event.flags"  # what the door noticed about an event (`schemas.record.FLAGS`), as a property
EACH: Final = "[]"
_MOST: Final = 10_000  # values of one event


class Path(NamedTuple):
    """`section`: properties or context. `root`: the name in it. `steps`: what follows; EACH: every entry of a list."""

    section: str
    root: str
    steps: tuple[str, ...]


@cache
def path_of(name: str) -> Path | None:
    """The path that a property's name is; None for a plain name."""
    if name == FLAGS or ("." not in name and EACH not in name):
        return None
    parts = [part for part in name.replace(EACH, f".{EACH}").split(".") if part]
    if len(parts) < 2:
        return None
    if parts[0] == CONTEXT:
        return Path(CONTEXT, parts[1], tuple(parts[2:]))
    return Path("properties", parts[0], tuple(parts[1:]))


def values_at(value: Any, steps: tuple[str, ...]) -> tuple[Any, ...]:
    """Everything at the end of the steps, in order; empty if there is nothing."""
    found = [value]
    for step in steps:
        nearer: list[Any] = []
        for each in found:
            if step == EACH:
                nearer += each if type(each) is list else [each]
            elif type(each) is list:
                nearer += [each[int(step)]] if step.isdigit() and int(step) < len(each) else _below(each, step)
            elif isinstance(each, Mapping):
                nearer.append(each.get(step))
        found = nearer[:_MOST]
    return tuple([each for each in found if each is not None])


def _below(entries: list[Any], step: str) -> list[Any]:
    return [each.get(step) for each in entries if isinstance(each, Mapping)]


def sealed_names(name: str) -> tuple[frozenset[str], tuple[str, str] | None]:
    """What a record's sealed names say if they hold a property: these names, or one that begins and ends like this."""
    path = path_of(name)
    if path is None:
        return frozenset((f"properties.{name}",)), None
    whole = f"{path.section}.{path.root}"
    exact = {f"properties.{name}", whole}
    plain = [step for step in path.steps if step != EACH]
    for count in range(1, len(plain) + 1):
        exact.add(".".join([whole, *plain[:count]]))
    return frozenset(exact), (f"{whole}.", f".{plain[-1]}") if plain else (f"{whole}.", "")


def nested_trait(traits: Mapping[str, Any], name: str) -> Any:
    """The value of a trait such as `address.city`: under its own name, else inside `address`; None if there is none."""
    if name in traits:
        return traits[name]
    root, dot, rest = name.partition(".")
    value = traits.get(root) if dot else None
    if not isinstance(value, Mapping) or "$token" in value:
        return None
    found = values_at(value, tuple(rest.split(".")))
    return found[0] if found else None
