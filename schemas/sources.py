"""A source of touchpoints as the door sees it. Its write key is shown once and stored only as a hash."""

import re
from collections.abc import Callable, Mapping
from hashlib import sha256
from math import isfinite
from typing import Any, Final, NamedTuple, Protocol

from schemas.clear_rules import Declared
from schemas.errors import BadRequest, Problem

KEY_PREFIX: Final = "wk_"  # of every write key
MOST_PER_S: Final = 1_000_000
MOST_BURST: Final = 10_000_000
MOST_ORIGINS: Final = 100
_ORIGIN: Final = re.compile(r"https?://(?:[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")


class Source(NamedTuple):
    """`trusted_clock`: a server; its times are not corrected. `events_per_s`: beyond it, 429; None: no limit.

    `burst`: how many events may arrive together; None: two seconds' worth. `origins`: browsers from other origins are
    refused; empty: all origins may send.
    """

    name: str
    enabled: bool = True
    trusted_clock: bool = False
    events_per_s: float | None = None
    origins: tuple[str, ...] = ()
    burst: float | None = None

    @property
    def bucket(self) -> float:
        """How many events may arrive together if there is a rate."""
        return self.burst or 2 * (self.events_per_s or 0.0)


def source_of(name: str, settings: Mapping[str, Any]) -> Source:
    """A source from its stored settings; unknown keys belong to another version and are ignored."""
    limit, burst = settings.get("events_per_s"), settings.get("burst")
    return Source(
        name,
        bool(settings.get("enabled", True)),
        bool(settings.get("trusted_clock", False)),
        None if limit is None else float(limit),
        tuple(settings.get("origins", ())),
        None if burst is None else float(burst),
    )


def changed_settings(stored: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Stored settings with some of them changed; None resets a setting to its default.

    Raises BadRequest with a problem for each unknown setting and each invalid value.
    """
    problems: list[Problem] = []
    settings = dict(stored)
    for name, value in changes.items():
        try:
            if name not in _READ:
                raise ValueError(f"is not a setting of a source; the settings are {', '.join(_READ)}")
            settings[name] = None if value is None else _READ[name](value)
        except ValueError as err:
            problems.append(Problem(name, str(err)))
    settings = {name: value for name, value in settings.items() if value is not None}
    if not problems and "burst" in settings and "events_per_s" not in settings:
        problems.append(Problem("burst", "needs a rate: set events_per_s too, or unset burst"))
    if problems:
        told = "; ".join(f"{problem.path} {problem.reason}" for problem in problems)
        raise BadRequest(f"invalid source settings: {told}", problems)
    return settings


def _number(value: Any, least: float, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise ValueError("must be a number")
    if not least <= value <= most:
        raise ValueError(f"must be from {least:g} to {most:,}")
    return float(value)


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _origins(value: Any) -> list[str]:
    if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
        raise ValueError("must be a list of origins such as https://shop.example")
    if len(value) > MOST_ORIGINS:
        raise ValueError(f"has more than {MOST_ORIGINS} origins")
    found: dict[str, None] = {}
    for each in value:
        origin = each.strip().lower().removesuffix("/")
        if not _ORIGIN.fullmatch(origin):
            raise ValueError(f"has {each[:100]!r}, not an origin: write scheme and host, as in https://shop.example")
        found[_without_usual_port(origin)] = None
    return list(found)


def _without_usual_port(origin: str) -> str:
    """As browsers write it."""
    scheme, _, _ = origin.partition(":")
    return origin.removesuffix(":443") if scheme == "https" else origin.removesuffix(":80")


_READ: Final[Mapping[str, Callable[[Any], Any]]] = {
    "enabled": _truth,
    "trusted_clock": _truth,
    "events_per_s": lambda value: _number(value, 0.001, MOST_PER_S),
    "burst": lambda value: _number(value, 1, MOST_BURST),
    "origins": _origins,
}
SETTINGS: Final = tuple(_READ)


def key_hash(write_key: str) -> bytes:
    """SHA-256 of a write key. Keys are 144 random bits, so a plain hash is enough."""
    return sha256(write_key.encode(errors="replace")).digest()


class Sources(Protocol):
    """Which sources may send, and what the current definitions declare. Answers are less than a second old."""

    def find(self, write_key: str) -> Source | None:
        """The source of a write key, unless it is revoked. Raises StoreUnavailable."""

    def declared(self) -> Declared:
        """Properties and traits declared by the newest definitions. Raises StoreUnavailable."""
