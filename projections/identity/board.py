"""The groups of tokens at a point while links are decided, in order of receipt. Pure."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from projections.identity.evidence import NEVER, Evidence, Profile, Receipt, Refused, Split, base_token
from schemas.identity_rules import IdentityRules, Rank


@dataclass(slots=True, eq=False)
class _Group:
    """A profile in the making. `name`: (first receipt, rank, token) of its canonical token; `was`: earlier ids.

    `highest`: the rank of its highest-ranked kind.
    """

    tokens: dict[bytes, str]
    counts: dict[str, int]
    highest: Rank
    name: tuple[Receipt, Rank, bytes]
    last: Receipt = NEVER
    sides: frozenset[tuple[int, int]] = frozenset()
    was: list[bytes] = field(default_factory=list)


class Board:
    """The groups at a point while links are decided in order."""

    def __init__(self, rules: IdentityRules, cannot: Sequence[Split]) -> None:
        self.rules = rules
        self.group_of: dict[bytes, _Group] = {}
        self._sides: dict[bytes, set[tuple[int, int]]] = {}
        for number, split in enumerate(cannot):
            for side, tokens in enumerate(split):
                for token in tokens:
                    self._sides.setdefault(token, set()).add((number, side))

    def seat(self, token: bytes, kind: str, first: Receipt) -> None:
        """Add a token as a group of its own."""
        sides = frozenset(self._sides.get(token, ()))
        rank = self.rules.rank(kind)
        group = _Group({token: kind}, {kind: 1}, rank, (first, rank, token), sides=sides)
        self.group_of[token] = group

    def seat_profile(self, profile: Profile) -> None:
        """Add a profile as it is stored."""
        counts: dict[str, int] = {}
        for kind in profile.tokens.values():
            counts[kind] = counts.get(kind, 0) + 1
        sides = frozenset(side for token in profile.tokens for side in self._sides.get(token, ()))
        named = self.rules.rank(profile.tokens[profile.profile_id])
        name = (profile.first_receipt, named, profile.profile_id)
        was = [profile.profile_id]
        highest = min(map(self.rules.rank, counts))
        group = _Group(dict(profile.tokens), counts, highest, name, profile.last_receipt, sides, was)
        self.group_of.update(dict.fromkeys(profile.tokens, group))

    def join(self, base: bytes, token: bytes, *, stated: bool = False) -> str | None:
        """Merge the groups of two tokens; returns the reason if that is not allowed.

        `stated`: the sender says that these are one person, so no limit applies.
        """
        one, two = self.group_of[base], self.group_of[token]
        if one is two:
            return None
        reason = self._forbidden(one, two, stated)
        if reason is None:
            self._merge(one, two)
        return reason

    def profiles(self) -> dict[bytes, Profile]:
        """Every group, by its id."""
        return {
            token: Profile(token, group.tokens, group.name[0], group.last)
            for token, group in self.group_of.items()
            if group.name[2] == token
        }

    def _forbidden(self, one: _Group, two: _Group, stated: bool) -> str | None:
        if one.sides and two.sides and any((number, 1 - side) in two.sides for number, side in one.sides):
            return "cannot_link"
        if stated:
            return None
        over = [
            (self.rules.rank(kind), kind)
            for kind, count in two.counts.items()
            if kind in one.counts
            and count + one.counts[kind] > self.rules.limit(kind)
            and not self._grows(one, two, kind)
            and not self._grows(two, one, kind)
        ]
        return f"limit:{min(over)[1]}" if over else None

    def _grows(self, profile: _Group, other: _Group, kind: str) -> bool:
        """Whether `other` is a further identifier of a profile with a higher-ranked one: a new address, a new phone.

        Limits keep two profiles apart that have grown; they do not keep a person from getting a sixth address.
        """
        rank = self.rules.rank(kind)
        return other.counts[kind] == 1 and other.highest == rank and profile.highest < rank

    def _merge(self, one: _Group, two: _Group) -> None:
        big, small = (one, two) if len(one.tokens) >= len(two.tokens) else (two, one)
        big.tokens.update(small.tokens)
        for kind, count in small.counts.items():
            big.counts[kind] = big.counts.get(kind, 0) + count
        big.highest = min(big.highest, small.highest)
        big.name = min(big.name, small.name)
        big.sides |= small.sides
        big.was += small.was
        for token in small.tokens:
            self.group_of[token] = big


def decide(board: Board, each: Evidence, shared: AbstractSet[bytes], refused: list[Refused]) -> bytes:
    """Make or refuse the links of one identifier set; returns the token that owns it. All its live tokens are seated.

    Identifier sets must come in order of receipt, so that each is the newest to touch the groups it is left with.
    """
    rank = board.rules.rank
    live = [(rank(kind), token, kind) for kind, token in each.tokens if token not in shared]
    if not live:
        return base_token(each.tokens, shared, board.rules)
    live.sort()
    _, base, highest = live[0]
    for _, token, kind in live[1:]:
        stated = kind == highest and board.rules.names_a_person(kind)  # an alias of two user_ids
        reason = board.join(base, token, stated=stated)
        if reason is not None:
            refused.append(Refused(each.identifier_set, token, kind, reason))
            board.group_of[token].last = each.receipt
    board.group_of[base].last = each.receipt
    return base
