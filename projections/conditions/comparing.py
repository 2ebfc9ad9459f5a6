"""The words of comparisons: "is at least 500", "is one of red or blue". Pure."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Final

from schemas.conditions import Value

_WORDS: Final = {
    "eq": "is", "ne": "is not", "lt": "is below", "lte": "is at most", "gt": "is above", "gte": "is at least",
    "in": "is one of", "not_in": "is none of", "contains": "contains", "starts_with": "starts with",
    "exists": "is known", "missing": "is not known", "between": "is between",
}  # fmt: skip


def compared(name: str, op: str, value: Value) -> str:
    """`revenue 90d is at least 500`"""
    words = f"{name.replace('_', ' ')} {_WORDS[op]}"
    if value is None:
        return words
    items = [_value(item) for item in (value if isinstance(value, tuple) else (value,))]
    return f"{words} {joined(items, 'and' if op == 'between' else 'or')}"


def _value(item: object) -> str:
    if isinstance(item, bool):
        return "yes" if item else "no"
    return f"{item:f}" if isinstance(item, Decimal) else str(item)


def joined(parts: Sequence[str], word: str) -> str:
    """`a, b or c`"""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} {word} {parts[-1]}"
