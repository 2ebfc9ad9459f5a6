"""Resolves identity from all evidence; this defines what identity means (design C6), `extend` is a shortcut. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from projections.identity.board import Board, decide
from projections.identity.evidence import Evidence, Link, Profile, Refused, Split, ordered_by_receipt
from projections.identity.shared import find_shared
from schemas.identity_rules import IdentityRules


class Resolution(NamedTuple):
    """The result. Every given token is in exactly one profile of `members`, a shared one in its own."""

    owner: dict[bytes, bytes]  # identifier set -> profile id
    members: dict[bytes, tuple[bytes, ...]]  # profile id -> tokens, sorted; includes shared identifiers' own profiles
    refused: tuple[Refused, ...]  # manual edges first, then in order of receipt
    shared: frozenset[bytes]  # among the tokens given
    profiles: dict[bytes, Profile]  # as `members`, without shared identifiers' own profiles, in the form `extend` takes


class IdentityChange(NamedTuple):
    """One change in the life of a profile id, named as in the change feed (contracts)."""

    profile_id: bytes
    name: str  # "moved" (new: tokens that became shared), "split_off" (new: ids its parts have now), "merged_into"
    new: tuple[bytes, ...]


def resolve(
    evidence: Iterable[Evidence],
    rules: IdentityRules,
    *,
    shared: AbstractSet[bytes] | None = None,
    manual: Sequence[Link] = (),
    cannot: Sequence[Split] = (),
) -> Resolution:
    """Decide everything from the start, in order of receipt; the order and repetition of the input do not matter.

    `shared`: the shared identifiers, if the evidence is only one scope; otherwise they are found here. `manual`: "same
    person" edges in order, decided before any identifier set and under the same limits; an edge waits until both its
    tokens are in evidence, and as long as one is a shared identifier.
    An identifier set that is repeated counts once, with its earliest receipt.
    """
    ordered = ordered_by_receipt(evidence)
    shared = find_shared(ordered, rules) if shared is None else shared
    board = Board(rules, cannot)
    seen_shared: set[bytes] = set()
    for each in ordered:
        for kind, token in each.tokens:
            if token in shared:
                seen_shared.add(token)
            elif token not in board.group_of:
                board.seat(token, kind, each.receipt)
    refused = _link_by_hand(board, manual)
    bases = [(each.identifier_set, decide(board, each, shared, refused)) for each in ordered]
    profiles = board.profiles()
    members = {profile_id: tuple(sorted(profile.tokens)) for profile_id, profile in profiles.items()}
    members |= {token: (token,) for token in seen_shared}
    owner = {
        identifier_set: base if base in seen_shared else board.group_of[base].name[2] for identifier_set, base in bases
    }
    return Resolution(owner, members, tuple(refused), frozenset(seen_shared), profiles)


def _link_by_hand(board: Board, manual: Sequence[Link]) -> list[Refused]:
    """Decide the manual edges that have both tokens on the board."""
    refused = []
    for left, right in manual:
        if left in board.group_of and right in board.group_of:
            reason = board.join(left, right)
            if reason is not None:
                refused.append(Refused(b"", right, board.group_of[right].tokens[right], reason))
    return refused


def scopes(
    evidence: Iterable[Evidence], shared: AbstractSet[bytes], manual: Sequence[Link] = ()
) -> list[list[Evidence]]:
    """Connected evidence: the parts that can be resolved separately, given the shared identifiers of all of it.

    Two identifier sets are connected by an unshared token, whether its link was accepted or refused, and by a manual
    edge. An identifier set of only shared tokens is its own scope. Scopes and their contents are in order of receipt.
    """
    ordered = ordered_by_receipt(evidence)
    root: dict[bytes, bytes] = {}

    def find(token: bytes) -> bytes:
        while root.setdefault(token, token) != token:
            root[token] = token = root[root[token]]
        return token

    for left, right in manual:
        if left not in shared and right not in shared:
            root[find(left)] = find(right)
    for each in ordered:
        live = [token for _, token in each.tokens if token not in shared]
        for token in live[1:]:
            root[find(token)] = find(live[0])
    found: dict[bytes, list[Evidence]] = {}
    for each in ordered:
        anchor = next((find(token) for _, token in each.tokens if token not in shared), None)
        found.setdefault(b"h" + each.identifier_set if anchor is None else b"t" + anchor, []).append(each)
    return list(found.values())


def changes(before: Mapping[bytes, bytes], after: Resolution) -> list[IdentityChange]:
    """How resolving a scope again changed its earlier profile ids. `before`: token -> profile id, for the scope.

    Sorted by id; `merged_into`, the last change of an id, comes last. Ids whose token is not in `after` (erased) are
    left out. After an `extend`, its `merged` is the complete answer.
    """
    home = {token: profile_id for profile_id, members in after.members.items() for token in members}
    held: dict[bytes, list[bytes]] = {}
    for token, profile_id in before.items():
        if token in home:
            held.setdefault(profile_id, []).append(token)
    found = []
    for old in sorted(held.keys() & home.keys()):
        moved = sorted(token for token in held[old] if token in after.shared and len(held[old]) > 1)
        parts = sorted({home[token] for token in held[old]} - {home[old], *after.shared})
        into = [home[old]] if home[old] != old else []
        named = (("moved", moved), ("split_off", parts), ("merged_into", into))
        found += [IdentityChange(old, name, tuple(new)) for name, new in named if new]
    return found
