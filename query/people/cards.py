"""Customers as lists show them: name, phone, e-mail, last purchase, stage, risk. Many are opened at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from projections.fold.state import State
from query.answers import computed, iso_us
from query.people.opened import open_tokens, personal_values, tokens_in, with_values
from query.views import View
from schemas.identity_rules import DEFAULT_RULES, IdentityRules
from schemas.ports import Clock, EventLog, OpenIdentifier, Sealer, Vault
from schemas.reads import ProfileRead
from schemas.record import to_us, uuid_text
from schemas.search_words import is_name

Card = dict[str, Any]
_FULL = ("name", "fullname", "displayname")


class Opened(NamedTuple):
    """A profile's personal data: values of traits by name, and its identifiers, highest rank first."""

    traits: Mapping[str, Any]
    identifiers: Sequence[OpenIdentifier]


@dataclass(frozen=True)
class Cards:
    """Any thread may call."""

    vault: Vault
    sealer: Sealer
    log: EventLog
    clock: Clock
    rules: IdentityRules = DEFAULT_RULES

    def of(self, view: View, profiles: Sequence[ProfileRead], *, personal: bool) -> list[Card]:
        """[{"id", "name", "phone", "email", "last_purchase_at", "lifecycle", "risk", "last_seen_at"}].

        Without `personal`, the personal ones are None.
        """
        states = [view.fold.unpack(profile.state) for profile in profiles]
        opened = self.opened(view, profiles, states) if personal else [Opened({}, ())] * len(profiles)
        now_us = to_us(self.clock.now())
        return [
            card(view, profile, state, each, now_us)
            for profile, state, each in zip(profiles, states, opened, strict=True)
        ]

    def opened(self, view: View, profiles: Sequence[ProfileRead], states: Sequence[State]) -> list[Opened]:
        """Names and identifiers of each, with one read of the log and one vault look-up."""
        personal = self._direct(view, states)
        tokens = {token for profile in profiles for token, _ in profile.tokens}
        values = open_tokens(self.vault, tokens.union(*(tokens_in(each) for each in personal)))
        found = []
        for profile, traits in zip(profiles, personal, strict=True):
            known = [values[token] for token, _ in profile.tokens if token in values]
            known.sort(key=lambda each: self.rules.rank(each.kind))
            found.append(Opened(with_values(traits, values), known))
        return found

    def _direct(self, view: View, states: Sequence[State]) -> list[dict[str, Any]]:
        """Sealed name traits of each state, with the clear ones added."""
        evaluator = view.evaluator
        places = [
            evaluator.personal_positions(state, frozenset(filter(is_name, evaluator.personal_names(state))))
            for state in states
        ]
        sealed = personal_values(self.log, self.sealer, places)
        clear = [
            {name: value for name, value in evaluator.attributes(state).items() if is_name(name)} for state in states
        ]
        return [known | found for known, found in zip(clear, sealed, strict=True)]


def card(view: View, profile: ProfileRead, state: State, opened: Opened, now_us: int) -> Card:
    """One customer."""
    values = view.evaluator.values(state, now_us)
    return {
        "id": uuid_text(profile.profile_id),
        "name": name_of(opened.traits),
        "phone": _first(opened.identifiers, "phone"),
        "email": _first(opened.identifiers, "email"),
        "last_purchase_at": computed(values["last_order_at"]) if "last_order_at" in values else None,
        "lifecycle": profile.lifecycle,
        "risk": profile.risk,
        "last_seen_at": iso_us(profile.last_us),
    }


def name_of(traits: Mapping[str, Any]) -> str | None:
    """A person's name from their traits: the full name, else first and last name."""
    plain = {
        "".join(letter for letter in name.lower() if letter.isalpha()): str(value)
        for name, value in traits.items()
        if value is not None and is_name(name)
    }
    for key in _FULL:
        if plain.get(key):
            return plain[key]
    parts = [plain.get("firstname") or plain.get("givenname"), plain.get("lastname") or plain.get("familyname")]
    parts[1] = parts[1] or plain.get("surname")
    return " ".join(part for part in parts if part) or plain.get("nickname") or plain.get("company")


def _first(identifiers: Sequence[OpenIdentifier], kind: str) -> str | None:
    return next((each.shown for each in identifiers if each.kind == kind), None)
