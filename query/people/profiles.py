"""One profile, found by any identifier or any id it ever had: what is known about it now."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from projections.aggregates.registry import aggregate_of
from projections.conditions.words import sentence
from projections.decide.evaluator import Evaluator
from projections.fold.state import FORM, LEVEL, NAME, OFFSET, PARTITION, STAMP_US, TRAITS, UNSET, State, shown
from query.answers import computed, iso_us, sent
from query.people.opened import open_tokens, personal_values, tokens_in, with_values
from query.views import View, Views
from schemas.conditions import LifecycleLeaf, SegmentLeaf, TraitLeaf, leaves
from schemas.errors import (
    BadRequest,
    Erased,
    NotFound,
    Problem,
    RevisionReplaced,
    SharedIdentifier,
    StoreUnavailable,
)
from schemas.identifiers import PhoneForm, check_kind, examine, parse_selector
from schemas.identity_rules import DEFAULT_RULES, IdentityRules
from schemas.ports import Clock, EventLog, OpenIdentifier, Sealer, Vault
from schemas.reads import Found, ProfileRead
from schemas.record import decode, to_us, uuid_text

Answer = dict[str, Any]
_TRIES: Final = 4
LISTED: Final = 100  # customers that an answer for a shared identifier names


@dataclass(frozen=True)
class Profiles:
    """Reads profiles; any thread may call. `phone`: a number as written to E.164 (`schemas.identifiers`)."""

    views: Views
    vault: Vault
    sealer: Sealer
    log: EventLog
    clock: Clock
    phone: PhoneForm
    rules: IdentityRules = DEFAULT_RULES

    def by_selector(self, text: str, *, personal: bool = True) -> Answer:
        """The profile of KIND:VALUE, as written in commands."""
        kind, value = parse_selector(text)
        return self.by_identifier(kind, value, personal=personal)

    def by_identifier(self, kind: str, value: object, *, personal: bool = True) -> Answer:
        """The profile that owns an identifier. Without `personal`, values are masked: kinds and attributes only.

        Raises BadRequest for what cannot be an identifier, NotFound, Erased, SharedIdentifier if it is that of several.
        """
        token = self.token(kind, value)
        view, profile = self._profile(token if kind == "profile" else self._owner(kind, token))
        return self._answer(view, profile, personal)

    def _owner(self, kind: str, token: bytes) -> bytes:
        """The token itself, or the only profile whose events carry it, if it is in none. Raises SharedIdentifier."""
        view, found = self._current(token)
        if found.erased or found.owner is None or (found.profile is not None and not found.shared):
            return token
        holders = self.views.reads.holders(view.revision, token, LISTED + 1)
        if len(holders) > 1:
            message = f"this {kind} is that of several customers: choose one of `items`, or look up another identifier"
            raise SharedIdentifier(message, holders[:LISTED], more=len(holders) > LISTED)
        return holders[0] if holders else token

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
            raise NotFound(f"no event with this {kind} was ever accepted, or it has been erased")
        return token

    def details(self, profile_id: bytes, *, personal: bool) -> Answer:
        """`by_identifier`'s answer plus where each trait comes from, and why: what the customer's page shows.

        Adds "version", "trait_details" {name: {"source", "at", "corrected", "by", "type"}}, "reasons" [{"code",
        "points", "description"}], "explained" [{"name", "description", "sentence", "values"}] for the segments they
        are in, "stage" (its description), "measures" {computed trait: {"unit", "description"}}.
        """
        view, profile = self._profile(profile_id)
        state = view.fold.unpack(profile.state)
        answer = self._answer(view, profile, personal)
        rules = {rule.code: rule.description for rule in (view.definitions.risk.rules if view.definitions.risk else ())}
        values = {"lifecycle": profile.lifecycle, **answer["traits"], **answer["computed"]}
        return answer | {
            "version": profile.version,
            "stage": _stage(view, profile.lifecycle),
            "measures": {
                name: {"unit": aggregate_of(trait).unit(trait), "description": trait.description}
                for name, trait in view.definitions.computed_traits.items()
            },
            "trait_details": self._origins(view, state),
            "reasons": [{**each, "description": rules.get(each["code"], "")} for each in answer["risk"]["reasons"]],
            "explained": [_explained(view, name, values) for name in answer["segments"]],
        }

    def _origins(self, view: View, state: State) -> dict[str, Answer]:
        """The source and time of each trait that is set, and which member of staff corrected it."""
        entries = {entry[NAME]: entry for entry in shown(state[TRAITS]) if entry[FORM] != UNSET}
        stored = self.log.fetch({(entry[PARTITION], entry[OFFSET]) for entry in entries.values()}) if entries else []
        records = {(each.partition, each.offset): decode(each.value) for each in stored}
        declared = view.definitions.traits
        found = {}
        for name, entry in entries.items():
            record = records.get((entry[PARTITION], entry[OFFSET]))
            corrected = bool(entry[LEVEL])
            found[name] = {
                "source": record.source if record else None,
                "at": iso_us(entry[STAMP_US]),
                "corrected": corrected,
                "by": record.properties.get("agent") if record and corrected else None,
                "type": declared[name].type if name in declared else None,
            }
        return found

    def standing(self, profile_id: bytes) -> tuple[bytes, int, int]:
        """(living id, version, events): equal answers mean that nothing about the profile changed in between.

        Raises NotFound, Erased.
        """
        _, profile = self._profile(profile_id)
        return profile.profile_id, profile.version, profile.event_count

    def tokens(self, profile_id: bytes) -> list[bytes]:
        """The tokens of a profile's identifiers, those received last first. Raises NotFound, Erased."""
        return [token for token, _ in self._profile(profile_id)[1].tokens]

    def owner(self, token: bytes) -> bytes:
        """The id of the profile that owns a token now. Raises NotFound, Erased."""
        return self._profile(token)[1].profile_id

    def _profile(self, token: bytes) -> tuple[View, ProfileRead]:
        view, found = self._current(token)
        return view, _existing(found)

    def _current(self, token: bytes) -> tuple[View, Found]:
        """What a token leads to in the live revision."""
        view = self.views.recent()
        for _ in range(_TRIES):
            found = self._found(view, token)
            if found is not None and found.live == view.revision:
                return view, found
            view = self.views.current()
        raise StoreUnavailable("the definitions are changing faster than they can be read", retry_after_s=1)

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
            "identifiers": masked_identifiers(profile, self.rules),
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
        unread = evaluator.unreadable_amounts(state)
        if unread:
            answer["unreadable_amounts"] = unread
        if personal:
            self._open(answer, profile, evaluator, state)
        else:
            answer["masked"] = True
        answer["traits"] = dict(sorted(answer["traits"].items()))
        return answer

    def _open(self, answer: Answer, profile: ProfileRead, evaluator: Evaluator, state: State) -> None:
        """Identifiers and direct traits, with one vault look-up for both."""
        personal = self._direct(evaluator, state)
        opened = open_tokens(self.vault, [*(token for token, _ in profile.tokens), *tokens_in(personal)])
        answer["identifiers"] = identifiers(profile, opened, self.rules)
        values = with_values(personal, opened)
        answer["traits"].update({name: value for name, value in values.items() if value is not None})

    def _direct(self, evaluator: Evaluator, state: State) -> dict[str, Any]:
        """Direct traits by name, from the events that set them; left out if the key was erased."""
        names = frozenset(evaluator.personal_names(state))
        (found,) = personal_values(self.log, self.sealer, [evaluator.personal_positions(state, names) if names else {}])
        return found


def _explained(view: View, name: str, values: Mapping[str, Any]) -> Answer:
    """A segment's meaning, with the values of the traits that decide it, including through other segments."""
    segment = view.definitions.segments[name]
    return {
        "name": name,
        "description": segment.description,
        "sentence": sentence(segment.when),
        "values": {trait: values.get(trait) for trait in _deciding(view, name)},
    }


def _deciding(view: View, name: str) -> list[str]:
    """The traits a segment uses, plus "lifecycle" if it uses the stage; sorted."""
    found: set[str] = set()
    todo, seen = [name], {name}
    while todo:
        for _, leaf in leaves(view.definitions.segments[todo.pop()].when):
            if isinstance(leaf, SegmentLeaf):
                if leaf.segment not in seen:
                    seen.add(leaf.segment)
                    todo.append(leaf.segment)
            elif isinstance(leaf, LifecycleLeaf):
                found.add("lifecycle")
            elif isinstance(leaf, TraitLeaf):
                found.add(leaf.trait)
    return sorted(found)


def _stage(view: View, name: str) -> str:
    stages = view.definitions.lifecycle.stages if view.definitions.lifecycle else ()
    return next((each.description for each in stages if each.name == name), "")


def profile_token(text: str) -> bytes:
    """A profile id as its token. Raises BadRequest."""
    try:
        return UUID(text).bytes
    except ValueError as err:
        raise BadRequest("not a profile id", [Problem("value", "must be a UUID")]) from err


def identifiers(profile: ProfileRead, opened: Mapping[bytes, OpenIdentifier], rules: IdentityRules) -> list[Answer]:
    """Kind and value of each token that opens, highest rank first, the current ones before the former, by value."""
    past = former(profile, rules)
    found = [(token in past, opened[token]) for token, _ in profile.tokens if token in opened]
    found.sort(key=lambda pair: (rules.rank(pair[1].kind), pair[0], pair[1].value))
    return [_identifier(each.kind, each.shown, is_former) for is_former, each in found]


def masked_identifiers(profile: ProfileRead, rules: IdentityRules) -> list[Answer]:
    """As `identifiers`, without values."""
    past = former(profile, rules)
    found = sorted((rules.rank(kind), token in past, kind) for token, kind in profile.tokens)
    return [_identifier(kind, None, is_former) for _, is_former, kind in found]


def former(profile: ProfileRead, rules: IdentityRules) -> set[bytes]:
    """The tokens beyond their kind's limit, received before those within it: addresses a person had earlier."""
    counts: dict[str, int] = {}
    past: set[bytes] = set()
    for token, kind in profile.tokens:
        counts[kind] = counts.get(kind, 0) + 1
        if counts[kind] > rules.limit(kind):
            past.add(token)
    return past


def _identifier(kind: str, value: str | None, is_former: bool) -> Answer:
    return {"kind": kind, "value": value} | ({"former": True} if is_former else {})


def _existing(found: Found) -> ProfileRead:
    if found.erased:
        raise Erased("this person's data was erased")
    if found.profile is None:
        raise NotFound("there is no profile with this identifier")
    return found.profile
