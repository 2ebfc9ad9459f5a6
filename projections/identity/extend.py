"""Decides fresh evidence from current profiles only, where that provably equals `resolve` of everything. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from projections.identity.board import Board, decide
from projections.identity.evidence import (
    Evidence,
    KnownToken,
    Link,
    Partners,
    Profile,
    Refused,
    Split,
    ordered_by_receipt,
)
from projections.identity.shared import grown_partners, is_shared
from schemas.identity_rules import IdentityRules


class Extension(NamedTuple):
    """What fresh evidence changed; see `extend` for what the caller stores."""

    owner: dict[bytes, bytes]  # fresh identifier set -> profile id
    profiles: dict[bytes, Profile]  # every profile that was reached, made or merged into, as it is now
    tokens: dict[bytes, KnownToken]  # tokens that are new or now belong to another profile
    merged: tuple[tuple[bytes, bytes], ...]  # (id of the profile that ended, id of the one it merged into)
    refused: tuple[Refused, ...]
    partners: dict[bytes, dict[str, frozenset[bytes]]]  # tokens that gained partners, each with all its partners


def extend(
    known: Mapping[bytes, KnownToken],
    profiles: Mapping[bytes, Profile],
    fresh: Iterable[Evidence],
    rules: IdentityRules,
    partners: Partners,
    *,
    manual: Sequence[Link] = (),
    cannot: Sequence[Split] = (),
) -> Extension | None:
    """Decide fresh identifier sets from current profiles only, with exactly the result of a full `resolve`.

    `fresh`: identifier sets not decided before. `known`: all of their tokens that are known. `profiles`: by id, the
    profiles of those known tokens that are not shared. `partners`: for each known unshared token, what earlier evidence
    saw it with (tokens without partners are left out). `manual`, `cannot`: at least the edges that name one of their
    tokens or a token of these profiles.

    None if this shortcut is not valid and the caller must resolve the scope: an identifier set was received no later
    than the last one that touches a profile it reaches; a token becomes shared; or a new token has a manual edge.
    Raises KeyError if the profile of a known token is missing.

    The caller stores the owner (or base token) of each fresh identifier set, each of `profiles` with its receipts, each
    of `tokens`, the ends of `merged`, `refused` as cases, and `partners` unless it asks the evidence each time.
    """
    ordered = ordered_by_receipt(fresh)
    grown = grown_partners(ordered, known, rules, partners)
    kind_of = {token: kind for each in ordered for kind, token in each.tokens}
    if any(is_shared(kind_of[token], kinds, rules) for token, kinds in grown.items()):
        return None
    shared = {token for token, row in known.items() if row.is_shared}
    board = _board_of(known, profiles, ordered, rules, cannot)
    waiting = {token for edge in manual for token in edge}
    refused: list[Refused] = []
    bases: list[tuple[bytes, bytes]] = []
    for each in ordered:
        for kind, token in each.tokens:
            if token in shared:
                continue
            if token not in board.group_of:
                if token in waiting:
                    return None
                board.seat(token, kind, each.receipt)
            elif board.group_of[token].last >= each.receipt:
                return None
        bases.append((each.identifier_set, decide(board, each, shared, refused)))
    return _extension(board, profiles, bases, refused, grown)


def _board_of(
    known: Mapping[bytes, KnownToken],
    profiles: Mapping[bytes, Profile],
    ordered: Iterable[Evidence],
    rules: IdentityRules,
    cannot: Sequence[Split],
) -> Board:
    """A board with the profiles that fresh evidence reaches."""
    board = Board(rules, cannot)
    for each in ordered:
        for _, token in each.tokens:
            row = known.get(token)
            if row is not None and not row.is_shared and token not in board.group_of:
                board.seat_profile(profiles[row.profile_id])
    return board


def _extension(
    board: Board,
    profiles: Mapping[bytes, Profile],
    bases: Iterable[tuple[bytes, bytes]],
    refused: Iterable[Refused],
    grown: Mapping[bytes, Mapping[str, AbstractSet[bytes]]],
) -> Extension:
    """What is new on the board. A base that is not seated is a shared identifier and forms its own profile."""
    now = board.profiles()
    tokens: dict[bytes, KnownToken] = {}
    merged: list[tuple[bytes, bytes]] = []
    for profile_id, profile in now.items():
        was = board.group_of[profile_id].was
        kept: Mapping[bytes, str] = profiles[profile_id].tokens if profile_id in was else {}
        merged += [(old, profile_id) for old in sorted(was) if old != profile_id]
        tokens |= {
            token: KnownToken(kind, False, profile_id) for token, kind in profile.tokens.items() if token not in kept
        }
    owner = {
        identifier_set: board.group_of[base].name[2] if base in board.group_of else base
        for identifier_set, base in bases
    }
    partners = {token: {kind: frozenset(others) for kind, others in kinds.items()} for token, kinds in grown.items()}
    return Extension(owner, now, tokens, tuple(merged), tuple(refused), partners)
