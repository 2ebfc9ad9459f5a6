"""Touchpoints: their canonical types, and which of them a name means (`schemas.touchpoint_names`). Pure."""

import re
from collections.abc import Iterable
from typing import Final

from schemas.touchpoint_names import DIALECT_NAMES, PLAIN_WORDS, SEGMENT_NAMES

CUSTOM: Final = "custom"

BASE_TYPES: Final = ("purchase.completed", "pos.purchase", "purchase.updated")  # what an order is
REFUND_TYPES: Final = ("purchase.refunded", "pos.return")
CANCEL_TYPES: Final = ("purchase.cancelled",)
ORDER_TYPES: Final = frozenset(BASE_TYPES + REFUND_TYPES + CANCEL_TYPES)
HOLDING_TYPES: Final = frozenset(BASE_TYPES) - {"purchase.updated"}  # whoever has one, has the order
FOLLOWING_TYPES: Final = ORDER_TYPES - HOLDING_TYPES  # belong to whoever has their order (decision 0037)
STAFF_TYPES: Final = ("note.added", "trait.corrected")  # written by staff alone; a write key cannot send them
CALL_TYPES: Final = {
    "identify": "profile.identified",
    "group": "group.joined",
    "alias": "identity.aliased",
    "page": "web.page_viewed",
    "screen": "app.screen_viewed",
}  # what the calls other than `track` become

PLAIN: Final[frozenset[str]] = frozenset(name for words in PLAIN_WORDS.values() for name in words)
TOUCHPOINTS: Final[frozenset[str]] = frozenset(
    {*SEGMENT_NAMES.values(), *DIALECT_NAMES.values(), "web.page_viewed", "app.screen_viewed"}
)
"""Types a `track` may be named by."""
TYPES: Final[frozenset[str]] = TOUCHPOINTS | {*CALL_TYPES.values(), *STAFF_TYPES, CUSTOM}
"""Every type a touchpoint record can have."""

VISITS: Final[frozenset[str]] = frozenset(
    type_
    for type_ in TYPES
    if type_.startswith(("session.", "product.", "promo.", "search."))
    or type_ in ("web.page_viewed", "app.screen_viewed")
)
"""What is part of looking around. Of a crawler, these count in no trait and not as seen (decision 0039)."""

_SEPARATORS: Final = re.compile(r"[\s_\-]+|(?<=[a-z0-9])(?=[A-Z])")  # a capital after a small letter begins a word


def _words(name: str) -> str:
    return _SEPARATORS.sub(" ", name).strip().lower()


def _spellings() -> dict[str, str]:
    """Type by words: of the names of SDKs, then of those in the other dialects that have more than one word."""
    found = {_words(name): type_ for name, type_ in SEGMENT_NAMES.items()}
    for name, type_ in DIALECT_NAMES.items():
        if "_" in name and name != "checkout_completed":  # elsewhere it goes beside an order's own event
            found.setdefault(_words(name), type_)
    return found


_BY_WORDS: Final = _spellings()
_BY_NAME: Final = {name: _BY_WORDS[_words(name)] for name in SEGMENT_NAMES}  # as nearly all senders spell them
_MAX_WORDS: Final = 64  # characters; the longest name has 34


def type_of(name: str, step: object = None, library: str = "") -> str:
    """The canonical type of a `track`'s name, `custom` for a name no table knows.

    `step`: its property of that name. `library`: the context's, which says whose plain words (`click`) it uses.
    """
    if name in TOUCHPOINTS:
        return name
    known = _BY_NAME.get(name)
    if known is not None:
        return known
    known = DIALECT_NAMES.get(name)
    if known is not None:
        return "checkout.started" if name == "checkout_step" and step in (1, "1") else known
    if name in PLAIN:
        return next((words[name] for whose, words in PLAIN_WORDS.items() if whose in library and name in words), CUSTOM)
    return _BY_WORDS.get(_words(name), CUSTOM) if len(name) <= _MAX_WORDS else CUSTOM


def meant(name: str) -> str:
    """The touchpoint that a definition means by a name as SDKs write it (`Signed Up`, `page`); else the name."""
    call = CALL_TYPES.get(name.lower())
    if call is not None:
        return call
    type_ = type_of(name)
    return name if type_ == CUSTOM else type_


def with_meant(names: Iterable[str]) -> tuple[str, ...]:
    """Events as a fold looks for them: touchpoints, each also under the name given, which older logs have as custom.

    An order is one only as its touchpoint.
    """
    found: dict[str, None] = {}
    for name in names:
        type_ = meant(name)
        found[type_] = None
        if type_ not in ORDER_TYPES:
            found[name] = None
    return tuple(found)
