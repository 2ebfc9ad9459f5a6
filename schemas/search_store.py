"""Rows and ports of the search index."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol


class Indexed(NamedTuple):
    """A profile to index, as last decided, with its tokens as (token, kind)."""

    profile_id: bytes
    state: bytes
    tokens: Sequence[tuple[bytes, str]]


class SearchTx(Protocol):
    """An open transaction; the profiles taken cannot be erased until commit."""

    @property
    def taken(self) -> Sequence[bytes]: ...

    def profiles(self, revision: int) -> list[Indexed]:
        """Those of the taken profiles that still exist."""

    def put(self, rows: Mapping[bytes, Sequence[int]]) -> None:
        """Store the terms of each; taken profiles that are not in `rows` lose theirs."""


class SearchStore(Protocol):
    def take(self, limit: int) -> AbstractContextManager[SearchTx]:
        """Take waiting profiles; they leave the queue when the block commits."""
