"""Identifiers inside opened objects stand as `{"$token", "$kind"}`: finding them, and putting values in their place."""

from collections.abc import Iterator, Mapping
from typing import Any

from schemas.ports import OpenIdentifier


def tokens_in(value: Any) -> Iterator[bytes]:
    """Tokens of the identifiers whose values stood in an opened object."""
    if isinstance(value, dict):
        token = value.get("$token")
        if isinstance(token, str):
            yield bytes.fromhex(token)
            return
        for each in value.values():
            yield from tokens_in(each)
    elif isinstance(value, list):
        for each in value:
            yield from tokens_in(each)


def with_values(value: Any, opened: Mapping[bytes, OpenIdentifier]) -> Any:
    """An opened object with identifiers' values in place of tokens; None where one was erased."""
    if isinstance(value, dict):
        token = value.get("$token")
        if isinstance(token, str):
            found = opened.get(bytes.fromhex(token))
            return None if found is None else found.shown
        return {key: with_values(each, opened) for key, each in value.items()}
    return [with_values(each, opened) for each in value] if isinstance(value, list) else value
