"""Finds customers by what is typed: keyed terms of names, addresses and numbers, or any identifier in full."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from projections.fold.state import State
from query.people.cards import Cards, card
from query.views import View, Views
from schemas.errors import BadRequest, Problem
from schemas.identifiers import KINDS, PhoneForm, examine
from schemas.ports import Vault
from schemas.reads import ProfileRead
from schemas.record import to_us, uuid_text
from schemas.search_words import MAX_QUERY, keyed, meets, query_terms, search_key

Answer = dict[str, Any]
CANDIDATES: Final = 2_000  # last-seen matches; with more than 2,000 hits, people type another letter
FIRST: Final = 5  # pages of candidates requested at first: the index only knows the beginning of long words
_MOST_PAGES: Final = 500  # a cursor is the number of hits skipped


@dataclass(frozen=True)
class Search:
    """Any thread may call. `phone`: E.164 of a number as written."""

    views: Views
    cards: Cards
    vault: Vault
    phone: PhoneForm

    @cached_property
    def _key(self) -> bytes:
        return search_key(self.vault.hash_key)

    def find(self, text: str, *, limit: int = 20, cursor: str | None = None) -> Answer:
        """{"items": [card], "next"}: most recently seen customers first, after any identified in full.

        Only for roles that see personal values: a hit reveals whose id it is. Raises BadRequest for an invalid cursor.
        """
        passed = _passed(cursor)
        return self.views.read(lambda view: self._find(view, text, limit, passed))

    def _find(self, view: View, text: str, limit: int, passed: int) -> Answer:
        text = text.strip()[:MAX_QUERY]
        exact = self._exact(view, text) if text else []
        terms = [[keyed(self._key, term) for term in part] for part in query_terms(text)]
        page: list[Answer] = []
        at, most = passed, min(CANDIDATES, passed + FIRST * limit)
        ordered = self._ordered(view, exact, terms, most)
        while len(page) < limit:
            if at >= len(ordered):
                if len(ordered) < most or most == CANDIDATES:
                    break
                most = CANDIDATES
                ordered = self._ordered(view, exact, terms, most)
                continue
            chunk = ordered[at : at + limit - len(page)]
            at += len(chunk)
            page += self._kept(view, text, chunk, exact)
        more = (at < len(ordered) or most <= len(ordered) < CANDIDATES) and at < passed + _MOST_PAGES * limit
        return {"items": page, "next": str(at) if more else None}

    def _ordered(self, view: View, exact: Sequence[bytes], terms: Sequence[Sequence[int]], most: int) -> list[bytes]:
        """One identified in full first, then up to `most` hits, most recently seen first."""
        ids = self.views.reads.search(view.revision, terms, most) if terms else []
        return list(dict.fromkeys([*exact, *ids]))

    def _kept(self, view: View, text: str, ids: Sequence[bytes], exact: Sequence[bytes]) -> list[Answer]:
        """Cards that really match what was typed: the index only knows the beginning of long words."""
        profiles = self.views.reads.profiles(view.revision, ids)
        states: list[State] = [view.fold.unpack(profile.state) for profile in profiles]
        opened = self.cards.opened(view, profiles, states)
        now_us = to_us(self.cards.clock.now())
        found = []
        for profile, state, each in zip(profiles, states, opened, strict=True):
            known = [form for identifier in each.identifiers for form in identifier.forms]
            if profile.profile_id in exact or meets(text, each.traits.values(), known):
                found.append(card(view, profile, state, each, now_us))
        return found

    def _exact(self, view: View, text: str) -> list[bytes]:
        """Owners of the text as an identifier of any kind, or as a profile id; of a shared one, those who carry it."""
        tokens = []
        for kind in KINDS:
            normal = examine(kind, text, phone=self.phone).value
            if normal is not None and (token := self.vault.find(kind, normal)) is not None:
                tokens.append(token)
        if len(text) == 36 and text.count("-") == 4:
            digits = text.replace("-", "")
            if len(digits) == 32 and all(letter in "0123456789abcdefABCDEF" for letter in digits):
                tokens.append(bytes.fromhex(digits))
        if not tokens:
            return []
        reads, unowned = self.views.reads, []
        for token in tokens:
            found = reads.profile(view.revision, token)
            if found.shared or (found.owner is not None and found.profile is None):
                unowned += reads.holders(view.revision, token, CANDIDATES)
        return list(dict.fromkeys([*reads.owners(tokens), *unowned]))

    def cards_of(self, ids: Sequence[bytes], *, personal: bool) -> list[Answer]:
        """Cards of known profiles, in this order; profiles that no longer exist are left out."""

        def read(view: View) -> list[Answer]:
            profiles: Sequence[ProfileRead] = self.views.reads.profiles(view.revision, ids)
            found = {each["id"]: each for each in self.cards.of(view, profiles, personal=personal)}
            return [found[text] for key in ids if (text := uuid_text(key)) in found]

        return self.views.read(read)


def _passed(cursor: str | None) -> int:
    if cursor is None:
        return 0
    if not cursor.isdecimal() or len(cursor) > 9:
        raise BadRequest("not a cursor of this search", [Problem("cursor", "must be the `next` of the previous page")])
    return int(cursor)
