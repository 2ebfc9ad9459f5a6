"""One profile, found by any identifier or any id it was ever known by: what is known of it now."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from projections.evaluate import Evaluator
from projections.state import State
from query.answers import computed, iso_us, sent
from query.opened import open_records, open_tokens, tokens_in, with_values
from query.views import View, Views
from schemas.errors import BadRequest, Erased, NotFound, Problem, RevisionReplaced, StoreUnavailable
from schemas.identifiers import PhoneForm, check_kind, examine, parse_selector
from schemas.identity_rules import DEFAULT_RULES, IdentityRules
from schemas.ports import Clock, EventLog, OpenIdentifier, Sealer, Vault
from schemas.reads import Found, ProfileRead
from schemas.record import to_us, uuid_text

Answer = dict[str, Any]
_TRIES: Final = 4


@dataclass(frozen=True)
class Profiles:
    """Reads profiles; any thread may call. `phone`: E.164 of a number as written (`schemas.identifiers`)."""

    views: Views
    vault: Vault
    sealer: Sealer
    log: EventLog
    clock: Clock
    phone: PhoneForm
    rules: IdentityRules = DEFAULT_RULES

    def by_selector(self, text: str, *, personal: bool = True) -> Answer:
        """The profile of KIND:VALUE, as commands write it."""
        kind, value = parse_selector(text)
        return self.by_identifier(kind, value, personal=personal)

    def by_identifier(self, kind: str, value: object, *, personal: bool = True) -> Answer:
        """The profile that owns an identifier. Without `personal` values are masked: kinds and attributes only.

        Raises BadRequest for what can be no identifier, NotFound, Erased.
        """
        view, profile = self._profile(self.token(kind, value))
        return self._answer(view, profile, personal)

    def token(self, kind: str, value: object) -> bytes:
        """The token of an identifier; a profile's id is its own. Raises BadRequest, NotFound."""
        if kind == "profile":
            return profile_token(str(value))
        reason = check_kind(kind)
        if reason:
            raise BadRequest(f"not a kind of identifier: {reason}", [Problem("kind", reason)])
        normal = examine(kind, value, phone=self.phone)
        if normal.value is None:
            raise BadRequest(f"this {kind} has no usable form: {normal.reason}", [Problem("value", normal.reason)])
        token = self.vault.find(kind, normal.value)
        if token is None:
            raise NotFound(f"no event with this {kind} was ever accepted, or it was erased")
        return token

    def owner(self, token: bytes) -> bytes:
        """The id of the profile that owns a token now. Raises NotFound, Erased."""
        return self._profile(token)[1].profile_id

    def _profile(self, token: bytes) -> tuple[View, ProfileRead]:
        view = self.views.recent()
        for _ in range(_TRIES):
            found = self._found(view, token)
            if found is not None and found.live == view.revision:
                return view, _existing(found)
            view = self.views.current()
        raise StoreUnavailable("the definitions change faster than they can be read", retry_after_s=1)

    def _found(self, view: View, token: bytes) -> Found | None:
        try:
            return self.views.reads.profile(view.revision, token)
        except RevisionReplaced:
            return None

    def _answer(self, view: View, profile: ProfileRead, personal: bool) -> Answer:
        evaluator = view.evaluator
        state = view.fold.unpack(profile.state)
        now_us = to_us(self.clock.now())
        answer: Answer = {
            "id": uuid_text(profile.profile_id),
            "identifiers": [{"kind": kind, "value": None} for kind in sorted_kinds(profile, self.rules)],
            "traits": {name: sent(value) for name, value in evaluator.attributes(state).items()},
            "computed": {name: computed(value) for name, value in evaluator.values(state, now_us).items()},
            "segments": evaluator.names_of(profile.segments),
            "lifecycle": profile.lifecycle,
            "risk": {
                "level": profile.risk,
                "reasons": [{"code": code, "points": points} for code, points in profile.reasons],
            },
            "first_seen_at": iso_us(profile.first_us),
            "last_seen_at": iso_us(profile.last_us),
            "event_count": profile.event_count,
        }
        missing = evaluator.missing_rate(state)
        if missing:
            answer["missing_rate"] = missing
        if personal:
            self._open(answer, profile, evaluator, state)
        else:
            answer["masked"] = True
        answer["traits"] = dict(sorted(answer["traits"].items()))
        return answer

    def _open(self, answer: Answer, profile: ProfileRead, evaluator: Evaluator, state: State) -> None:
        """Identifiers and direct traits, by one look into the vault for both."""
        direct = self._direct(evaluator, state)
        opened = open_tokens(self.vault, [*(token for token, _ in profile.tokens), *tokens_in(direct)])
        answer["identifiers"] = identifiers(profile, opened, self.rules)
        values = with_values(direct, opened)
        answer["traits"].update({name: value for name, value in values.items() if value is not None})

    def _direct(self, evaluator: Evaluator, state: State) -> dict[str, Any]:
        """Direct traits by name, from the events that set them; left out where the key was erased."""
        names = frozenset(evaluator.direct_names(state))
        if not names:
            return {}
        places = evaluator.direct_positions(state, names)
        stored = self.log.fetch(set(places.values()))
        traits = {
            (each.partition, each.offset): opened.get("traits", {})
            for each, (_, opened) in zip(stored, open_records(self.sealer, stored), strict=True)
        }
        return {name: traits[place][name] for name, place in places.items() if name in traits.get(place, {})}


def profile_token(text: str) -> bytes:
    """A profile id as its token. Raises BadRequest."""
    try:
        return UUID(text).bytes
    except ValueError as err:
        raise BadRequest("not a profile id", [Problem("value", "is no UUID; profile ids are UUIDs")]) from err


def identifiers(
    profile: ProfileRead, opened: Mapping[bytes, OpenIdentifier], rules: IdentityRules
) -> list[dict[str, str]]:
    """Kind and value of each token that opens, highest rank first, then by value."""
    found = [opened[token] for token, _ in profile.tokens if token in opened]
    found.sort(key=lambda each: (rules.rank(each.kind), each.value))
    return [{"kind": each.kind, "value": each.value} for each in found]


def sorted_kinds(profile: ProfileRead, rules: IdentityRules) -> list[str]:
    """The kinds of a profile's identifiers, highest rank first."""
    return sorted((kind for _, kind in profile.tokens), key=rules.rank)


def _existing(found: Found) -> ProfileRead:
    if found.erased:
        raise Erased("this person's data was erased")
    if found.profile is None:
        raise NotFound("there is no profile with this identifier")
    return found.profile
