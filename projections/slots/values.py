"""Values as states keep them: ids as text, and what first, last and an order keep of a property. Pure."""

from hashlib import blake2b
from typing import Any, Final

from schemas.money import scaled, to_decimal

MAX_ID: Final = 128  # characters of an order or complaint id kept as is
MAX_TEXT: Final = 500  # characters of a text kept by first or last


def text_id(value: Any) -> str | None:
    """An order or complaint id as text; None if it is not one. Long ids become their hash."""
    if type(value) is str and value:
        return value if len(value) <= MAX_ID else "#" + blake2b(value.encode(), digest_size=16).hexdigest()
    if type(value) is int:
        return str(value)[:MAX_ID]
    return None


def storable(value: Any) -> Any:
    """A property as first, last and an order keep it: text, integer or boolean; a fraction as [scaled]."""
    kind = type(value)
    if kind is str:
        return value[:MAX_TEXT]
    if kind is bool or kind is int:
        return value
    amount = scaled(value) if kind is float else None
    return None if amount is None else [amount]


def text_key(kept: Any) -> str | None:
    """A value from `storable` as a text, equal for equal values: 9, 9.0 and "9" are equal. None for None."""
    kind = type(kept)
    if kind is list:
        return f"{to_decimal(kept[0]).normalize():f}"
    if kind is bool:
        return "true" if kept else "false"
    return text_id(kept)


def kept_number(value: Any) -> int | None:
    """A value from `storable` as a scaled number; None if it is not a number."""
    return value[0] if type(value) is list else scaled(value)


def restore(value: Any) -> Any:
    """The value from its `storable` form, in which a fraction is [scaled]."""
    return to_decimal(value[0]) if type(value) is list else value
