"""Values as states keep them: ids as text, and what first, last and an order keep of a property. Pure."""

from hashlib import blake2b
from typing import Any, Final

from schemas.money import scaled, to_decimal

MAX_ID: Final = 128  # letters of an order or complaint id kept as it is
MAX_TEXT: Final = 500  # letters of a text kept by first or last


def text_id(value: Any) -> str | None:
    """An order or complaint id as text; None when it is none. Long ones by their hash."""
    if type(value) is str and value:
        return value if len(value) <= MAX_ID else "#" + blake2b(value.encode(), digest_size=16).hexdigest()
    if type(value) is int:
        return str(value)[:MAX_ID]
    return None


def storable(value: Any) -> Any:
    """A property as first, last and an order keep it: text, integer, boolean; a fraction as [scaled]."""
    kind = type(value)
    if kind is str:
        return value[:MAX_TEXT]
    if kind is bool or kind is int:
        return value
    amount = scaled(value) if kind is float else None
    return None if amount is None else [amount]


def text_key(kept: Any) -> str | None:
    """What `storable` kept, as a text that is equal for equal values: 9, 9.0 and "9" are. None of nothing."""
    kind = type(kept)
    if kind is list:
        return f"{to_decimal(kept[0]).normalize():f}"
    if kind is bool:
        return "true" if kept else "false"
    return text_id(kept)


def kept_number(value: Any) -> int | None:
    """What `storable` kept, as a scaled number."""
    return value[0] if type(value) is list else scaled(value)


def restore(value: Any) -> Any:
    """What `storable` kept: a fraction is [scaled]."""
    return to_decimal(value[0]) if type(value) is list else value
