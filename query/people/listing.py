"""Customers filtered by data that is not personal: segment, stage, risk, attributes. By id, which reveals nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from query.answers import sent
from query.cursors import member_cursor, member_place
from query.people.cards import Cards
from query.views import View, Views
from schemas.errors import BadRequest, NotFound, Problem
from schemas.hints import did_you_mean
from schemas.reads import ProfileRead

Answer = dict[str, Any]
CHUNK: Final = 500  # profiles read at a time
LOOKED_AT: Final = 5_000  # profiles opened for one page, about a quarter of a second; a page may then be short
RISKS: Final = ("low", "medium", "high")


@dataclass(frozen=True)
class Wanted:
    """All of these must hold; None: any. `attributes`: by name, values as text."""

    segment: str | None = None
    stage: str | None = None
    risk: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Listing:
    """Any thread may call."""

    views: Views
    cards: Cards

    def page(self, wanted: Wanted, cursor: str | None, limit: int, *, personal: bool) -> Answer:
        """{"items": [card], "next"}. A page may be short or empty and still have a `next`.

        Raises BadRequest for an invalid cursor, stage, risk or attribute, NotFound for an unknown segment.
        """
        after = member_place(cursor)
        return self.views.read(lambda view: self._page(view, wanted, after, limit, personal))

    def _page(self, view: View, wanted: Wanted, after: bytes, limit: int, personal: bool) -> Answer:
        _check(view, wanted)
        found: list[ProfileRead] = []
        looked, more = 0, True
        while more and len(found) < limit and looked < LOOKED_AT:
            ids, after, more = self._candidates(view, wanted, after)
            fitting = [each for each in self.views.reads.profiles(view.revision, ids) if _fits(view, wanted, each)]
            looked += max(len(ids), CHUNK)  # if few have the stage, many were skipped
            room = limit - len(found)
            found += fitting[:room]
            if len(fitting) > room:
                after, more = found[-1].profile_id, True
        items = self.cards.of(view, found, personal=personal)
        return {"items": items, "next": member_cursor(after) if more else None}

    def _candidates(self, view: View, wanted: Wanted, after: bytes) -> tuple[list[bytes], bytes, bool]:
        """(ids, the last id looked at, whether there are more)."""
        reads = self.views.reads
        if wanted.segment is None:
            return reads.listed(view.revision, after, wanted.stage, wanted.risk, CHUNK)
        index = view.evaluator.segment_names.index(wanted.segment)
        ids = [row.profile_id for row in reads.members(view.revision, index, after, CHUNK)]
        return ids, ids[-1] if ids else after, len(ids) == CHUNK


def attribute_names(view: View) -> list[str]:
    """The traits declared not to be personal."""
    return sorted(name for name, trait in view.definitions.traits.items() if not trait.personal)


def _check(view: View, wanted: Wanted) -> None:
    if wanted.segment is not None and wanted.segment not in view.definitions.segments:
        hint = did_you_mean(wanted.segment, list(view.definitions.segments))
        raise NotFound(f"there is no segment with this name{hint}", [Problem("segment", f"no such segment{hint}")])
    _check_word("stage", wanted.stage, view.definitions.stage_names)
    _check_word("risk", wanted.risk, RISKS)
    for name in wanted.attributes:
        _check_word("attribute", name, attribute_names(view))


def _check_word(path: str, word: str | None, words: Sequence[str]) -> None:
    if word is not None and word not in words:
        there = f"must be one of {', '.join(words)}" if words else "no attribute is declared `personal: false`"
        raise BadRequest(f"not a known {path}", [Problem(path, there)])


def _fits(view: View, wanted: Wanted, profile: ProfileRead) -> bool:
    if wanted.stage not in (None, profile.lifecycle) or wanted.risk not in (None, profile.risk):
        return False
    if not wanted.attributes:
        return True
    values = view.evaluator.attributes(view.fold.unpack(profile.state))
    return all(name in values and _text(values[name]) == value for name, value in wanted.attributes.items())


def _text(value: Any) -> str:
    """An attribute's value as people write it: true, 3, 2.5, gold."""
    plain = sent(value)
    return plain if isinstance(plain, str) else msgspec.json.encode(plain).decode()
