"""Laws of identity: a slow reference, scopes, piecemeal feeding in any order, limits and cannot-links."""

from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from itertools import pairwise
from random import Random
from typing import Final, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from projections.identity.evidence import Evidence, KnownToken, Link, Profile, Refused, Split, base_token
from projections.identity.extend import Extension, extend
from projections.identity.resolve import Resolution, changes, resolve, scopes
from projections.identity.shared import find_shared, partners_of
from schemas.identity_rules import IdentityRules
from schemas.record import identifier_set_of
from schemas.stamps import place_of

# Small limits, so that few signatures cross them. The reference below reads these tables and no rule of ours.
TABLE: Final = {  # kind, highest rank first: (limit, N, tokens in play)
    "user_id": (1, 2, 4),
    "email": (2, 2, 4),
    "crm_id": (2, 3, 2),
    "zeta_id": (1, 2, 2),
    "device_id": (2, 2, 3),
    "anonymous_id": (3, 3, 6),
}
CROWDS: Final = {("user_id", "user_id"): 2, ("user_id", "email"): 3, ("email", "crm_id"): 2}
RULES: Final = IdentityRules(
    above=("user_id", "email"),
    limits={kind: limit for kind, (limit, _, _) in TABLE.items()},
    sharing_limits={kind: most for kind, (_, most, _) in TABLE.items()},
    crowd_limits={"user_id": {"user_id": 2, "email": 3}, "email": {"crm_id": 2}},
)
POOL: Final = [
    (kind, blake2b(f"{kind}{number}".encode(), digest_size=16).digest())
    for kind, (_, _, count) in TABLE.items()
    for number in range(count)
]
KIND_OF: Final = {token: kind for kind, token in POOL}


class World(NamedTuple):
    """Evidence in order of arrival, with repeats, and what was decided by hand."""

    evidence: list[Evidence]
    manual: list[Link]
    cannot: list[Split]


@st.composite
def worlds(draw: st.DrawFn, most: int, by_hand: bool = True) -> World:
    """Up to `most` signatures over few tokens: junk ids shared by many, chains, limits crossed, equal times."""
    junk = draw(st.lists(st.sampled_from(POOL[4:]), max_size=2, unique=True))  # ids that turn up everywhere
    group = st.lists(st.sampled_from(POOL), min_size=1, max_size=4, unique=True)
    chain = st.integers(0, len(POOL) - 2).map(lambda at: POOL[at : at + 2])
    with_junk = group.map(lambda tokens: list(dict.fromkeys([*tokens, *junk])))
    just_junk = st.just(junk or POOL[-1:])
    count = draw(st.integers(1, most))
    tokens = draw(st.lists(st.one_of(group, chain, with_junk, just_junk), min_size=count, max_size=count))
    times = draw(st.lists(st.integers(0, 12), min_size=len(tokens), max_size=len(tokens)))
    if draw(st.booleans()):
        times = sorted(times)  # arrival in order: the short way of `extend`
    places = draw(st.lists(st.integers(0, 2), min_size=count, max_size=count))  # in a request received at that time
    keys = draw(st.permutations(range(count)))
    evidence = [
        Evidence(identifier_set_of(token for _, token in ids), tuple(ids), at, place_of(n, key.to_bytes(16, "big")))
        for ids, at, n, key in zip(tokens, times, places, keys, strict=True)
    ]
    token = st.sampled_from([token for _, token in POOL])
    some = st.frozensets(token, min_size=1, max_size=3)
    splits = st.tuples(some, some).filter(lambda split: not split[0] & split[1])
    links = draw(st.lists(st.tuples(token, token), max_size=2)) if by_hand else []
    return World(evidence, links, list(draw(st.lists(splits, max_size=2))) if by_hand else [])


class Slow(NamedTuple):
    """What the reference found, in the forms of `Resolution`."""

    owner: dict[bytes, bytes]
    members: dict[bytes, tuple[bytes, ...]]
    refused: set[tuple[bytes, bytes, str]]
    shared: set[bytes]


def slow_resolve(world: World) -> Slow:
    """C6 read literally: sets of tokens, everything recounted at every step. Shares no code with the product."""
    order = list(TABLE)
    first_of: dict[frozenset[bytes], tuple[int, int, bytes]] = {}
    for _, tokens, at, place in world.evidence:
        ids = frozenset(token for _, token in tokens)
        receipt = at, int.from_bytes(place[:4], "big"), place[4:]  # received at, place in the request, event key
        first_of[ids] = min(receipt, first_of.get(ids, receipt))
    shared = set()
    for token, kind in KIND_OF.items():
        counted = {higher: TABLE[higher][1] for higher in order[: order.index(kind)]}
        counted |= {other: most for (own, other), most in CROWDS.items() if own == kind}
        for other, most in counted.items():
            seen = {o for ids in first_of if token in ids for o in ids if KIND_OF[o] == other} - {token}
            if len(seen) > most:
                shared.add(token)
    present = {token for ids in first_of for token in ids}
    groups = [{token} for token in present - shared]
    refused: set[tuple[bytes, bytes, str]] = set()

    def home(token: bytes) -> set[bytes]:
        return next(group for group in groups if token in group)

    def one_more(kind: str, profile: set[bytes], other: set[bytes]) -> bool:
        """The other brings nothing that ranks higher and one token of the kind; the profile has what ranks higher."""
        place = order.index(kind)
        brought = [order.index(KIND_OF[t]) for t in other]
        known = [order.index(KIND_OF[t]) for t in profile]
        return sum(p <= place for p in brought) == brought.count(place) == 1 and any(p < place for p in known)

    def link(identifier_set: bytes, base: bytes, token: bytes) -> None:
        one, two = home(base), home(token)
        if one is two:
            return
        union = one | two
        both = {KIND_OF[t] for t in one} & {KIND_OF[t] for t in two}
        over = [k for k in order if k in both and sum(KIND_OF[t] == k for t in union) > TABLE[k][0]]
        over = [k for k in over if not one_more(k, one, two) and not one_more(k, two, one)]
        if identifier_set and KIND_OF[base] == KIND_OF[token] == "user_id":
            over = []  # the sender says that they are one person
        if any(union & set(left) and union & set(right) for left, right in world.cannot):
            refused.add((identifier_set, token, "cannot_link"))
        elif over:
            refused.add((identifier_set, token, f"limit:{over[0]}"))
        else:
            groups[:] = [g for g in groups if not g <= union] + [union]

    def weight(token: bytes) -> tuple[int, bytes]:
        return order.index(KIND_OF[token]), token

    for left, right in world.manual:
        if {left, right} <= present - shared:
            link(b"", left, right)
    by_receipt = sorted(first_of, key=lambda ids: first_of[ids])
    for ids in by_receipt:
        live = sorted(ids - shared, key=weight)
        for token in live[1:]:
            link(identifier_set_of(ids), live[0], token)

    def name(group: set[bytes]) -> bytes:
        return min(group, key=lambda t: (min(first_of[i] for i in first_of if t in i), weight(t)))

    owner = {}
    for ids in by_receipt:
        left_over = ids - shared
        owner[identifier_set_of(ids)] = name(home(min(left_over, key=weight))) if left_over else min(ids, key=weight)
    members = {name(group): tuple(sorted(group)) for group in groups} | {
        is_shared: (is_shared,) for is_shared in shared
    }
    return Slow(owner, members, refused, shared)


class Store:
    """What a caller keeps, fed batch by batch: `extend` where it answers, else `resolve` of the scope."""

    def __init__(self, manual: Sequence[Link], cannot: Sequence[Split]) -> None:
        self.manual, self.cannot = manual, cannot
        self.evidence: dict[bytes, Evidence] = {}
        self.tokens: dict[bytes, KnownToken] = {}
        self.profiles: dict[bytes, Profile] = {}
        self.owner: dict[bytes, bytes] = {}
        self.refused: set[Refused] = set()
        self.partners: dict[bytes, dict[str, frozenset[bytes]]] = {}
        self.ended: set[bytes] = set()
        self.short = self.long = 0

    def feed(self, batch: Sequence[Evidence]) -> None:
        fresh = [e for e in batch if e.identifier_set not in self.evidence]
        earlier = [
            e
            for e in batch
            if e.identifier_set in self.evidence and e.receipt < self.evidence[e.identifier_set].receipt
        ]
        known = {t: self.tokens[t] for e in fresh for _, t in e.tokens if t in self.tokens}
        reached = {row.profile_id for row in known.values() if not row.is_shared}
        extension = None
        if not earlier:
            profiles = {profile_id: self.profiles[profile_id] for profile_id in reached}
            partners = {token: self.partners.get(token, {}) for token in known}
            extension = extend(known, profiles, fresh, RULES, partners, manual=self.manual, cannot=self.cannot)
        for each in sorted([*fresh, *earlier], key=lambda e: e.receipt, reverse=True):
            self.evidence[each.identifier_set] = each
        if extension is not None:
            self.short += 1
            self._apply(extension)
        else:
            self.long += 1
            self._resolve_again([*fresh, *earlier])

    def _apply(self, extension: Extension) -> None:
        for old, new in extension.merged:
            del self.profiles[old]
            assert new in extension.profiles
        self.profiles |= extension.profiles
        self.tokens |= extension.tokens
        self.owner |= extension.owner
        ended = dict(extension.merged)
        self.owner = {identifier_set: ended.get(owner, owner) for identifier_set, owner in self.owner.items()}
        self.refused |= set(extension.refused)
        self.partners |= extension.partners

    def _resolve_again(self, changed: Iterable[Evidence]) -> None:
        shared = {token for token, row in self.tokens.items() if row.is_shared}
        scope = {e.identifier_set for e in changed}
        tokens: set[bytes] = set()
        while True:
            near = {t for s in scope for _, t in self.evidence[s].tokens} - shared
            near |= {t for edge in self.manual if set(edge) & near for t in edge} - shared
            wider = scope | {s for s, e in self.evidence.items() if {t for _, t in e.tokens} & near}
            if wider == scope and near == tokens:
                break
            scope, tokens = wider, near
        evidence = [self.evidence[identifier_set] for identifier_set in scope]
        shared |= find_shared(evidence, RULES)
        found = resolve(evidence, RULES, shared=shared, manual=self.manual, cannot=self.cannot)
        before = {t: self.tokens[t].profile_id for t in tokens if t in self.tokens}
        for old in set(before.values()):
            del self.profiles[old]
        ended = {each.profile_id for each in changes(before, found) if each.name == "merged_into"}
        assert ended == set(before.values()) - found.members.keys()
        self.profiles |= found.profiles
        self.owner |= found.owner
        for profile_id, members in found.members.items():
            for token in members:
                self.tokens[token] = KnownToken(KIND_OF[token], profile_id not in found.profiles, profile_id)
        stale = {r for r in self.refused if r.identifier_set in scope or (not r.identifier_set and r.token in tokens)}
        self.refused = (self.refused - stale) | set(found.refused)
        for token, kinds in partners_of(evidence, RULES).items():
            if token in tokens:
                self.partners[token] = {kind: frozenset(others) for kind, others in kinds.items()}


def same(one: Resolution, two: Resolution) -> bool:
    return one._replace(refused=()) == two._replace(refused=()) and set(one.refused) == set(two.refused)


def whole(world: World) -> Resolution:
    return resolve(world.evidence, RULES, manual=world.manual, cannot=world.cannot)


def check_reference(world: World) -> None:
    fast, slow = whole(world), slow_resolve(world)
    assert fast.owner == slow.owner
    assert fast.members == slow.members
    assert {(r.identifier_set, r.token, r.reason) for r in fast.refused} == slow.refused
    assert fast.shared == slow.shared
    assert all(KIND_OF[r.token] == r.kind for r in fast.refused)


def check_piecemeal(world: World, cuts: Iterable[int]) -> Store:
    store = Store(world.manual, world.cannot)
    ends = sorted({0, len(world.evidence), *(cut % (len(world.evidence) + 1) for cut in cuts)})
    for start, end in pairwise(ends):
        store.feed(world.evidence[start:end])
    full = whole(world)
    assert store.owner == full.owner
    assert store.profiles == full.profiles
    assert {token: row.profile_id for token, row in store.tokens.items()} == {
        token: profile_id for profile_id, members in full.members.items() for token in members
    }
    assert {token for token, row in store.tokens.items() if row.is_shared} == full.shared
    assert store.refused == set(full.refused)
    return store


quick: Final = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
thorough: Final = settings(max_examples=3_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
CUTS: Final = st.lists(st.integers(0, 60), max_size=8)


@quick
@given(worlds(14))
def test_resolving_equals_the_slow_reference(world: World) -> None:
    check_reference(world)


@quick
@given(worlds(14), st.randoms(use_true_random=False))
def test_order_and_repetition_of_the_input_do_not_matter(world: World, random: Random) -> None:
    again = [*world.evidence, *random.sample(world.evidence, len(world.evidence) // 2)]
    random.shuffle(again)
    mixed = [e._replace(tokens=tuple(random.sample(e.tokens, len(e.tokens)))) for e in again]
    assert whole(world._replace(evidence=mixed)) == whole(world)


@quick
@given(worlds(14))
def test_scopes_resolved_apart_equal_all_resolved_together(world: World) -> None:
    full = whole(world)
    parts = scopes(world.evidence, full.shared, world.manual)
    found = [resolve(part, RULES, shared=full.shared, manual=world.manual, cannot=world.cannot) for part in parts]
    joined = Resolution({}, {}, (), frozenset(), {})
    for each in found:
        joined = Resolution(
            joined.owner | each.owner,
            joined.members | each.members,
            (*joined.refused, *each.refused),
            joined.shared | each.shared,
            joined.profiles | each.profiles,
        )
    assert same(joined, full)


@quick
@given(worlds(14), CUTS)
def test_feeding_piecemeal_in_any_order_ends_where_one_resolution_does(world: World, cuts: list[int]) -> None:
    check_piecemeal(world, cuts)


@quick
@given(worlds(20), CUTS)
def test_no_profile_is_over_its_highest_limit_holds_a_hub_or_both_sides_of_a_split(
    world: World, cuts: list[int]
) -> None:
    full = whole(world)
    assert sorted(token for members in full.members.values() for token in members) == sorted(
        {token for each in world.evidence for _, token in each.tokens}
    )
    for profile_id, profile in full.profiles.items():
        kinds = list(profile.tokens.values())
        aliased = any(
            sum(kind == "user_id" and t in profile.tokens for kind, t in e.tokens) > 1 for e in world.evidence
        )
        if not aliased:
            assert kinds.count("user_id") <= 1
            highest = min(kinds, key=list(TABLE).index)
            assert all(kinds.count(kind) <= TABLE[kind][0] for kind in kinds if kind == highest)
        assert profile_id in profile.tokens
        assert not full.shared & profile.tokens.keys()
        for left, right in world.cannot:
            assert not (profile.tokens.keys() & set(left) and profile.tokens.keys() & set(right))
    for each in world.evidence:
        base = base_token(each.tokens, full.shared, RULES)
        assert base in full.members[full.owner[each.identifier_set]]


def test_both_ways_of_deciding_are_taken() -> None:
    """The generator is of use only if `extend` answers often and also declines."""
    taken = {"short": 0, "long": 0}

    @settings(max_examples=100, deadline=None, database=None, derandomize=True)
    @given(worlds(14, by_hand=False))
    def run(world: World) -> None:
        store = check_piecemeal(world, range(60))
        taken["short"] += store.short
        taken["long"] += store.long

    run()
    assert taken["short"] > 50
    assert taken["long"] > 50


@pytest.mark.long
@pytest.mark.parametrize("check", [check_reference, lambda world: check_piecemeal(world, range(0, 60, 2))])
def test_the_laws_hold_for_many_larger_worlds(check: Callable[[World], object]) -> None:
    @thorough
    @given(worlds(40))
    def run(world: World) -> None:
        check(world)

    run()
