"""Plans an erasure: finds the tokens of the profiles of the given tokens, and what goes with them. Only reads.

Several people are planned together: anything seen only with them goes too, even if each of them alone would have left
it to another.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import NamedTuple

from schemas.erasures import ErasureReads, Seen, TokenOwner
from schemas.errors import Problem
from schemas.identifiers import ORDER_KIND
from schemas.identity_rules import IdentityRules
from schemas.record import identifier_set_of


class Preview(NamedTuple):
    """What an erasure would delete."""

    tokens: frozenset[bytes]
    profiles: frozenset[bytes]
    kinds: dict[str, int]
    events: int
    problems: tuple[Problem, ...]  # why it needs --force

    @property
    def identifiers(self) -> int:
        return len(self.tokens)


def route_key(tokens: Iterable[tuple[str, bytes]], rules: IdentityRules) -> bytes:
    """The token whose key seals the events of an identifier set: the highest-ranked, ties to the smaller token."""
    return min((rules.rank(kind), token) for kind, token in tokens)[1]


@dataclass
class _Person:
    """One of the people erased together, while the plan collects what is theirs."""

    kinds: dict[bytes, str]  # of their tokens
    profiles: set[bytes]
    seen: dict[bytes, Seen] = field(default_factory=dict)  # evidence that holds one of their tokens
    gone: set[bytes] = field(default_factory=set)  # identifier sets that lose their owner
    problems: tuple[Problem, ...] = ()

    def beside(self) -> dict[bytes, str]:
        """Other people's tokens in their events."""
        return {t: kind for s in self.gone for kind, t in self.seen[s].tokens if t not in self.kinds}


def plan(reads: ErasureReads, token: bytes, rules: IdentityRules, kind: str) -> Preview:
    """What erasing one person would delete. `kind`: of the token, if it was never folded."""
    (found,) = plan_many(reads, {token: kind}, rules, force=True).values()
    return found


def plan_many(
    reads: ErasureReads, wanted: Mapping[bytes, str], rules: IdentityRules, *, force: bool
) -> dict[bytes, Preview]:
    """What erasing these would delete: one preview per person, under the first token that names them.

    A shared identifier goes only if it is itself named. A token seen only in these people's events goes too, even if
    its link was refused. Without `force`, people whose preview has problems are not counted among them.
    """
    people = _people(reads, wanted)
    _see(reads, people.values(), rules)
    others = _evidence_by_token(reads, {t for each in people.values() for t in each.beside()})
    _judge(reads, people.values(), others)
    taken = [each for each in people.values() if force or not each.problems]
    gone: set[bytes] = set().union(*(each.gone for each in taken))
    named = {t for each in taken for t in each.kinds}
    for each in taken:
        alone = {t: kind for t, kind in _alone(each, gone, others).items() if t not in named}
        named |= alone.keys()
        each.kinds |= alone
    _add_profiles(reads, taken)
    _add_orders(reads, taken)
    return _previews(reads, people)


def _people(reads: ErasureReads, wanted: Mapping[bytes, str]) -> dict[bytes, _Person]:
    """The people, by the first token that names each."""
    rows = {row.token: row for row in reads.owners(wanted)}
    whole = {row.profile_id for row in rows.values() if not row.is_shared and row.profile_id is not None}
    members: dict[bytes | None, list[TokenOwner]] = defaultdict(list)
    for each in reads.members(whole):
        if not each.is_shared:
            members[each.profile_id].append(each)
    people: dict[bytes, _Person] = {}
    known: set[bytes] = set()
    for token, kind in wanted.items():
        if token in known:
            continue
        row = rows.get(token)
        made = _Person({token: kind if row is None else row.kind}, set())
        if row is not None and row.profile_id is not None:
            made.profiles.add(row.profile_id)
            if not row.is_shared:
                made.kinds |= {each.token: each.kind for each in members[row.profile_id]}
        people[token] = made
        known |= made.kinds.keys()
    return people


def _see(reads: ErasureReads, people: Iterable[_Person], rules: IdentityRules) -> None:
    """Load the evidence of each person, and note which of it is theirs."""
    owner = {token: each for each in people for token in each.kinds}
    for seen in reads.evidence_of(owner):
        for _, token in seen.tokens:
            person = owner.get(token)
            if person is not None:
                person.seen[seen.identifier_set] = seen
    for person in people:
        for identifier_set, seen in person.seen.items():
            if seen.profile_id in person.profiles or route_key(seen.tokens, rules) in person.kinds:
                person.gone.add(identifier_set)


def _evidence_by_token(reads: ErasureReads, tokens: AbstractSet[bytes]) -> dict[bytes, set[bytes]]:
    """The identifier sets that hold each of these tokens."""
    found: dict[bytes, set[bytes]] = defaultdict(set)
    for each in reads.evidence_of(tokens):
        for _, token in each.tokens:
            if token in tokens:
                found[token].add(each.identifier_set)
    return found


def _alone(person: _Person, gone: AbstractSet[bytes], others: Mapping[bytes, AbstractSet[bytes]]) -> dict[bytes, str]:
    """The other tokens in their events that were seen with nobody else."""
    return {token: kind for token, kind in person.beside().items() if others[token] <= gone}


def _judge(reads: ErasureReads, people: Iterable[_Person], others: Mapping[bytes, AbstractSet[bytes]]) -> None:
    """Why each person needs --force, considered alone."""
    people = list(people)
    tokens = [each.kinds | _alone(each, each.gone, others) for each in people]
    by_token: dict[bytes, set[tuple[bytes, bytes]]] = defaultdict(set)
    by_identifier_set: dict[bytes, set[tuple[bytes, bytes]]] = defaultdict(set)
    for link in reads.refused({t for own in tokens for t in own}, {s for each in people for s in each.seen}):
        by_identifier_set[link[0]].add(link)
        by_token[link[1]].add(link)
    for each, own in zip(people, tokens, strict=True):
        links = set().union(*(by_token[t] for t in own), *(by_identifier_set[s] for s in each.seen))
        each.problems = _problems(own, len(links))


def _problems(kinds: Mapping[bytes, str], refused: int) -> tuple[Problem, ...]:
    found = []
    user_ids = list(kinds.values()).count("user_id")
    if user_ids > 1:
        found.append(Problem("user_id", f"the profile holds {user_ids} user_ids, which may be different people"))
    if refused:
        found.append(Problem("", f"{refused} refused links touch it: whose identifiers these are is an open case"))
    return tuple(found)


def _add_profiles(reads: ErasureReads, people: Iterable[_Person]) -> None:
    """The tokens among these that are erased with somebody."""
    rows = reads.owners({token for each in people for token in each.kinds})
    profile_of = {row.token: row.profile_id for row in rows if row.profile_id is not None}
    for each in people:
        each.profiles |= {profile_of[token] for token in each.kinds if token in profile_of}


def _add_orders(reads: ErasureReads, people: Iterable[_Person]) -> None:
    """The events about their orders that name nobody: each is sealed under a token of its own."""
    person = {profile_id: each for each in people for profile_id in each.profiles}
    for profile_id, token in reads.order_routes(person):
        person[profile_id].kinds[token] = ORDER_KIND
        person[profile_id].gone.add(identifier_set_of([token]))


def _previews(reads: ErasureReads, people: Mapping[bytes, _Person]) -> dict[bytes, Preview]:
    counts = reads.events_of({s for each in people.values() for s in each.gone})
    found = {}
    counted: set[bytes] = set()
    for token, each in people.items():
        events = sum(counts.get(s, 0) for s in each.gone - counted)
        counted |= each.gone
        kinds = dict(sorted(Counter(kind.removeprefix(":") for kind in each.kinds.values()).items()))
        found[token] = Preview(frozenset(each.kinds), frozenset(each.profiles), kinds, events, each.problems)
    return found


def same_people(wanted: Sequence[bytes], found: Mapping[bytes, Preview]) -> dict[bytes, bytes]:
    """For each requested token, the token its person is listed under in `found`."""
    first = {t: token for token, preview in found.items() for t in preview.tokens}
    return {token: token if token in found else first[token] for token in wanted}
