"""Conditions in plain English: what a segment means, for people who did not write it. Pure."""

from typing import Any

from projections.conditions.comparing import joined
from projections.conditions.registry import CONDITIONS
from schemas.conditions import All, AnyOf, Not


def sentence(condition: Any) -> str:
    """`Customers whose revenue 90d is at least 500, who are not in segment staff and …`"""
    return f"Customers {phrase(condition, top=True)}."


def phrase(node: Any, top: bool = False) -> str:
    """`whose revenue 90d is at least 500`; of several in brackets, unless at the top."""
    if isinstance(node, All):
        return _bracket(joined([phrase(item) for item in node.all], "and"), top or len(node.all) == 1)
    if isinstance(node, AnyOf):
        return _bracket(joined([phrase(item) for item in node.any], "or"), top or len(node.any) == 1)
    if isinstance(node, Not):
        return _negated(node.item)
    return CONDITIONS[type(node)].words(node)


def _negated(node: Any) -> str:
    if isinstance(node, Not):
        return phrase(node.item)
    words = None if isinstance(node, All | AnyOf) else CONDITIONS[type(node)].words_not(node)
    return words or f"not {_bracket(phrase(node, top=True), top=False)}"


def _bracket(text: str, top: bool) -> str:
    return text if top else f"({text})"
