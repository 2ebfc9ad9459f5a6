"""A source of touchpoints as the door sees it. Its write key is kept as a hash, and shown once."""

from collections.abc import Mapping
from hashlib import sha256
from typing import Any, NamedTuple, Protocol

from schemas.clear import Declared


class Source(NamedTuple):
    """`trusted_clock`: a server whose times are not corrected. `events_per_s`: above it 429; None: no limit.

    `origins`: browsers of other origins are refused; empty: all may send.
    """

    name: str
    enabled: bool = True
    trusted_clock: bool = False
    events_per_s: float | None = None
    origins: tuple[str, ...] = ()


def source_of(name: str, settings: Mapping[str, Any]) -> Source:
    """A source from its stored settings; unknown keys are another version's."""
    limit = settings.get("events_per_s")
    return Source(
        name,
        bool(settings.get("enabled", True)),
        bool(settings.get("trusted_clock", False)),
        None if limit is None else float(limit),
        tuple(settings.get("origins", ())),
    )


def key_hash(write_key: str) -> bytes:
    """SHA-256 of a write key. Keys are 144 random bits, so a plain hash is enough."""
    return sha256(write_key.encode(errors="replace")).digest()


class Sources(Protocol):
    """Who may send, and what the definitions in force declare. Answers are at most 5 s old."""

    def find(self, write_key: str) -> Source | None:
        """The source of a write key that is not revoked. Raises StoreUnavailable."""

    def declared(self) -> Declared:
        """Properties and traits declared by the newest definitions. Raises StoreUnavailable."""
