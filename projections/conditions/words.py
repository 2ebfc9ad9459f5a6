"""Conditions in plain English: what a segment means, for people who did not write it. Pure."""

from decimal import Decimal
from typing import Any, Final

from schemas.conditions import All, AnyOf, LifecycleLeaf, Not, PropertyLeaf, SegmentLeaf, TraitLeaf

_WORDS: Final = {
    "eq": "is", "ne": "is not", "lt": "is below", "lte": "is at most", "gt": "is above", "gte": "is at least",
    "in": "is one of", "not_in": "is none of", "contains": "contains", "starts_with": "starts with",
    "exists": "is known", "missing": "is not known", "between": "is between",
}  # fmt: skip


def sentence(condition: Any) -> str:
    """`Customers whose revenue 90d is at least 500, who are not in segment staff and …`"""
    return f"Customers {phrase(condition, top=True)}."


def phrase(node: Any, top: bool = False) -> str:
    """`whose revenue 90d is at least 500`; of several in brackets, unless at the top."""
    if isinstance(node, All):
        return _bracket(_joined([phrase(item) for item in node.all], "and"), top or len(node.all) == 1)
    if isinstance(node, AnyOf):
        return _bracket(_joined([phrase(item) for item in node.any], "or"), top or len(node.any) == 1)
    if isinstance(node, Not):
        return _negated(node.item)
    if isinstance(node, SegmentLeaf):
        return f"who are in segment {node.segment}"
    if isinstance(node, LifecycleLeaf):
        return f"who are in stage {node.lifecycle}"
    return f"whose {_compared(node)}"


def _negated(node: Any) -> str:
    if isinstance(node, SegmentLeaf):
        return f"who are not in segment {node.segment}"
    if isinstance(node, LifecycleLeaf):
        return f"who are not in stage {node.lifecycle}"
    if isinstance(node, Not):
        return phrase(node.item)
    return f"not {_bracket(phrase(node, top=True), top=False)}"


def _compared(leaf: TraitLeaf | PropertyLeaf) -> str:
    name = leaf.trait if isinstance(leaf, TraitLeaf) else leaf.property
    words = f"{name.replace('_', ' ')} {_WORDS[leaf.op]}"
    if leaf.value is None:
        return words
    items = [_value(item) for item in (leaf.value if isinstance(leaf.value, tuple) else (leaf.value,))]
    return f"{words} {_joined(items, 'and' if leaf.op == 'between' else 'or')}"


def _value(item: object) -> str:
    if isinstance(item, bool):
        return "yes" if item else "no"
    return f"{item:f}" if isinstance(item, Decimal) else str(item)


def _joined(parts: list[str], word: str) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} {word} {parts[-1]}"


def _bracket(text: str, top: bool) -> str:
    return text if top else f"({text})"
