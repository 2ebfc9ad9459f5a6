"""Values as answers and messages hold them: JSON types, times ISO `Z`, computed decimals as strings. Pure."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from schemas.record import from_us


def iso(at: datetime) -> str:
    """`2026-01-01T00:00:00Z`, with microseconds where there are any."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def iso_us(at_us: int | None) -> str | None:
    """The same of microseconds since 1970."""
    return None if at_us is None else iso(from_us(at_us))


def computed(value: object) -> object:
    """A computed value: decimals as strings of four places, as in SQL and the change feed; times ISO."""
    if isinstance(value, Decimal):
        return f"{value:f}"
    return iso(value) if isinstance(value, datetime) else value


def sent(value: Any) -> Any:
    """A trait as its sender wrote it: fractions are numbers again."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, dict):
        return {key: sent(each) for key, each in value.items()}
    return [sent(each) for each in value] if isinstance(value, list) else value
