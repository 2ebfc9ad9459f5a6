"""Who is whom: evidence and rules in, profiles out (design C6). Pure; stores nothing and knows no clock.

`resolve` is the meaning; `extend` is its shortcut for evidence newer than all it touches. Tokens, signatures, event
keys and profile ids are 16 raw bytes; a profile id is one of the profile's own tokens.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from schemas.identity_rules import IdentityRules, Rank

Receipt = tuple[int, bytes]  # (received at, microseconds since 1970; event key): one total order
Link = tuple[bytes, bytes]  # a manual + edge between two tokens
Split = tuple[Collection[bytes], Collection[bytes]]  # a cannot-link: no profile holds tokens of both sides
Partners = Mapping[bytes, Mapping[str, AbstractSet[bytes]]]  # token -> higher-ranked kind -> tokens seen with it

NEVER: Final[Receipt] = (-1, b"")  # before every receipt


class Evidence(NamedTuple):
    """A signature with the receipt of its first event."""

    signature: bytes
    tokens: tuple[tuple[str, bytes], ...]  # (kind, token); never empty, in any order
    received_us: int
    event_key: bytes

    @property
    def receipt(self) -> Receipt:
        return self.received_us, self.event_key


class Refused(NamedTuple):
    """A link that was not made: `token` did not join the profile of the signature's base."""

    signature: bytes  # b"" for a manual edge
    token: bytes
    kind: str
    reason: str  # "cannot_link", or "limit:<kind>": the highest-ranked kind the union would hold too many of


@dataclass(frozen=True, slots=True)
class Profile:
    """Tokens joined by accepted links, with what is needed to go on without the evidence.

    `first_receipt`: first receipt of the token that names it. `last_receipt`: newest first receipt of all
    signatures that hold one of its tokens, refused links included.
    """

    profile_id: bytes
    tokens: Mapping[bytes, str]  # token -> kind; never a hub
    first_receipt: Receipt
    last_receipt: Receipt


class Resolution(NamedTuple):
    """What the evidence means. Every token given is in exactly one profile of `members`, a hub in its own alone."""

    owner: dict[bytes, bytes]  # signature -> profile id
    members: dict[bytes, tuple[bytes, ...]]  # profile id -> tokens, sorted; hubs' own profiles included
    refused: tuple[Refused, ...]  # manual edges first, then in order of receipt
    hubs: frozenset[bytes]  # of the tokens given
    profiles: dict[bytes, Profile]  # the same without hubs' own profiles, as `extend` takes them


class KnownToken(NamedTuple):
    """A token as it stands before the fresh evidence."""

    kind: str
    is_hub: bool
    profile_id: bytes  # a hub's is the token itself


class Extension(NamedTuple):
    """What fresh evidence changed; see `extend` for what the caller stores."""

    owner: dict[bytes, bytes]  # fresh signature -> profile id
    profiles: dict[bytes, Profile]  # every profile reached, made or merged into, as it stands now
    tokens: dict[bytes, KnownToken]  # tokens that are new or now in another profile
    merged: tuple[tuple[bytes, bytes], ...]  # (profile id that ended, profile id it went into)
    refused: tuple[Refused, ...]
    partners: dict[bytes, dict[str, frozenset[bytes]]]  # tokens whose partners grew, all their partners


class IdentityChange(NamedTuple):
    """One change of a profile id's life, as the change feed names it (contracts)."""

    profile_id: bytes
    name: str  # "moved" (new: tokens that became hubs), "split_off" (new: ids its parts have now), "merged_into"
    new: tuple[bytes, ...]


def base_token(tokens: Iterable[tuple[str, bytes]], hubs: Collection[bytes], rules: IdentityRules) -> bytes:
    """The token whose profile owns the signature: its highest-ranked one that is no hub, else its highest hub.

    Ties inside a kind go to the smaller token. It changes only when one of the tokens becomes a hub or is erased.
    """
    return min((token in hubs, rules.rank(kind), token) for kind, token in tokens)[2]


def find_hubs(evidence: Iterable[Evidence], rules: IdentityRules) -> frozenset[bytes]:
    """Tokens seen with more than N(k) distinct tokens of one higher-ranked kind k.

    Right for a token only if all evidence holding it is given.
    """
    evidence = list(evidence)
    seen: dict[bytes, int] = {}
    for each in evidence:
        others = len(each.tokens) - 1
        for _, token in each.tokens:
            seen[token] = seen.get(token, 0) + others
    few = rules.smallest_hub_limit()
    busy = {token for token, count in seen.items() if count > few}  # most tokens leave here, before any set is made
    partners: dict[bytes, dict[str, set[bytes]]] = {}
    for each in evidence:
        _note_partners(partners, each, rules, busy)
    return frozenset(token for token, kinds in partners.items() if _is_hub(kinds, rules))


def partners_of(evidence: Iterable[Evidence], rules: IdentityRules) -> dict[bytes, dict[str, set[bytes]]]:
    """For each token with any: the distinct tokens of each higher-ranked kind it was seen with."""
    partners: dict[bytes, dict[str, set[bytes]]] = {}
    for each in evidence:
        _note_partners(partners, each, rules, {token for _, token in each.tokens})
    return partners


def resolve(
    evidence: Iterable[Evidence],
    rules: IdentityRules,
    *,
    hubs: AbstractSet[bytes] | None = None,
    manual: Sequence[Link] = (),
    cannot: Sequence[Split] = (),
) -> Resolution:
    """Decide everything anew, in order of receipt; the order and repetition of the input do not matter.

    `hubs`: who they are, when the evidence is only a scope; else found here. `manual`: + edges in their order,
    decided before any signature, by the same limits; an edge waits until both its tokens are in evidence,
    and while one is a hub.
    Repeats of a signature count once, with their earliest receipt.
    """
    ordered = _ordered(evidence)
    hubs = find_hubs(ordered, rules) if hubs is None else hubs
    board = _Board(rules, cannot)
    seen_hubs: set[bytes] = set()
    for each in ordered:
        for kind, token in each.tokens:
            if token in hubs:
                seen_hubs.add(token)
            elif token not in board.group_of:
                board.seat(token, kind, each.receipt)
    refused = _link_by_hand(board, manual)
    bases = [(each.signature, _decide(board, each, hubs, refused)) for each in ordered]
    profiles = board.profiles()
    members = {profile_id: tuple(sorted(profile.tokens)) for profile_id, profile in profiles.items()}
    members |= {hub: (hub,) for hub in seen_hubs}
    owner = {signature: base if base in seen_hubs else board.group_of[base].name[2] for signature, base in bases}
    return Resolution(owner, members, tuple(refused), frozenset(seen_hubs), profiles)


def scopes(evidence: Iterable[Evidence], hubs: AbstractSet[bytes], manual: Sequence[Link] = ()) -> list[list[Evidence]]:
    """Connected evidence: what may be resolved apart, given the hubs of all of it.

    Two signatures are connected by a token that is no hub, whether its link was accepted or refused, and by a
    manual edge. A hubs-only signature is a scope of its own. Scopes and their contents are in order of receipt.
    """
    ordered = _ordered(evidence)
    root: dict[bytes, bytes] = {}

    def find(token: bytes) -> bytes:
        while root.setdefault(token, token) != token:
            root[token] = token = root[root[token]]
        return token

    for left, right in manual:
        if left not in hubs and right not in hubs:
            root[find(left)] = find(right)
    for each in ordered:
        live = [token for _, token in each.tokens if token not in hubs]
        for token in live[1:]:
            root[find(token)] = find(live[0])
    found: dict[bytes, list[Evidence]] = {}
    for each in ordered:
        anchor = next((find(token) for _, token in each.tokens if token not in hubs), None)
        found.setdefault(b"h" + each.signature if anchor is None else b"t" + anchor, []).append(each)
    return list(found.values())


def changes(before: Mapping[bytes, bytes], after: Resolution) -> list[IdentityChange]:
    """What resolving a scope again did to the ids that stood before. `before`: token -> profile id, of the scope.

    By id; of one id `merged_into`, its last change, comes last. An id whose token is not in `after` (erased) is
    left out. After an `extend` its `merged` says it all.
    """
    home = {token: profile_id for profile_id, members in after.members.items() for token in members}
    held: dict[bytes, list[bytes]] = {}
    for token, profile_id in before.items():
        if token in home:
            held.setdefault(profile_id, []).append(token)
    found = []
    for old in sorted(held.keys() & home.keys()):
        moved = sorted(token for token in held[old] if token in after.hubs and len(held[old]) > 1)
        parts = sorted({home[token] for token in held[old]} - {home[old], *after.hubs})
        into = [home[old]] if home[old] != old else []
        named = (("moved", moved), ("split_off", parts), ("merged_into", into))
        found += [IdentityChange(old, name, tuple(new)) for name, new in named if new]
    return found


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
    """Decide fresh signatures against the present profiles alone: exactly what `resolve` of all evidence would say.

    `fresh`: signatures not decided before. `known`: every token of theirs that is known. `profiles`: by id, the
    profile of each of these that is no hub. `partners`: for each known token that is no hub, what earlier evidence
    saw it with (nothing is kept for a token without partners). `manual`, `cannot`: at least the edges that name a
    token of theirs or of these profiles.

    None when the short way does not hold and the caller resolves the scope: a signature was received no later
    than the last one that touches a profile it reaches; a token becomes a hub; a new token has a manual edge.
    Raises KeyError when the profile of a known token is missing.

    To store: the owner (or base token) of each fresh signature; each of `profiles` with its receipts; each of
    `tokens`; the ends of `merged`; `refused` as cases; `partners`, if not asked of the evidence each time.
    """
    ordered = _ordered(fresh)
    grown = _grown_partners(ordered, known, rules, partners)
    if any(_is_hub(kinds, rules) for kinds in grown.values()):
        return None
    hubs = {token for token, row in known.items() if row.is_hub}
    board = _board_of(known, profiles, ordered, rules, cannot)
    waiting = {token for edge in manual for token in edge}
    refused: list[Refused] = []
    bases: list[tuple[bytes, bytes]] = []
    for each in ordered:
        for kind, token in each.tokens:
            if token in hubs:
                continue
            if token not in board.group_of:
                if token in waiting:
                    return None
                board.seat(token, kind, each.receipt)
            elif board.group_of[token].last >= each.receipt:
                return None
        bases.append((each.signature, _decide(board, each, hubs, refused)))
    return _extension(board, profiles, bases, refused, grown)


@dataclass(slots=True, eq=False)
class _Group:
    """A profile in the making. `name`: (first receipt, rank, token) of its canonical token; `was`: earlier ids."""

    tokens: dict[bytes, str]
    counts: dict[str, int]
    name: tuple[Receipt, Rank, bytes]
    last: Receipt = NEVER
    sides: frozenset[tuple[int, int]] = frozenset()
    was: list[bytes] = field(default_factory=list)


class _Board:
    """The groups as they stand while links are decided in order."""

    def __init__(self, rules: IdentityRules, cannot: Sequence[Split]) -> None:
        self.rules = rules
        self.group_of: dict[bytes, _Group] = {}
        self._sides: dict[bytes, set[tuple[int, int]]] = {}
        for number, split in enumerate(cannot):
            for side, tokens in enumerate(split):
                for token in tokens:
                    self._sides.setdefault(token, set()).add((number, side))

    def seat(self, token: bytes, kind: str, first: Receipt) -> None:
        """A token alone."""
        sides = frozenset(self._sides.get(token, ()))
        group = _Group({token: kind}, {kind: 1}, (first, self.rules.rank(kind), token), sides=sides)
        self.group_of[token] = group

    def seat_profile(self, profile: Profile) -> None:
        """A profile as it was stored."""
        counts: dict[str, int] = {}
        for kind in profile.tokens.values():
            counts[kind] = counts.get(kind, 0) + 1
        sides = frozenset(side for token in profile.tokens for side in self._sides.get(token, ()))
        named = self.rules.rank(profile.tokens[profile.profile_id])
        name = (profile.first_receipt, named, profile.profile_id)
        was = [profile.profile_id]
        group = _Group(dict(profile.tokens), counts, name, profile.last_receipt, sides, was)
        self.group_of.update(dict.fromkeys(profile.tokens, group))

    def join(self, base: bytes, token: bytes) -> str | None:
        """Merge the groups of two tokens; or the reason why not."""
        one, two = self.group_of[base], self.group_of[token]
        if one is two:
            return None
        reason = self._forbidden(one, two)
        if reason is None:
            self._merge(one, two)
        return reason

    def profiles(self) -> dict[bytes, Profile]:
        """Every group by its id."""
        return {
            token: Profile(token, group.tokens, group.name[0], group.last)
            for token, group in self.group_of.items()
            if group.name[2] == token
        }

    def _forbidden(self, one: _Group, two: _Group) -> str | None:
        if one.sides and two.sides and any((number, 1 - side) in two.sides for number, side in one.sides):
            return "cannot_link"
        over = [
            (self.rules.rank(kind), kind)
            for kind, count in two.counts.items()
            if kind in one.counts and count + one.counts[kind] > self.rules.limit(kind)
        ]
        return f"limit:{min(over)[1]}" if over else None

    def _merge(self, one: _Group, two: _Group) -> None:
        big, small = (one, two) if len(one.tokens) >= len(two.tokens) else (two, one)
        big.tokens.update(small.tokens)
        for kind, count in small.counts.items():
            big.counts[kind] = big.counts.get(kind, 0) + count
        big.name = min(big.name, small.name)
        big.sides |= small.sides
        big.was += small.was
        for token in small.tokens:
            self.group_of[token] = big


def _ordered(evidence: Iterable[Evidence]) -> list[Evidence]:
    """By first receipt, each signature once. Ties (no two applied events have one receipt) go by signature."""
    earliest: dict[bytes, Evidence] = {}
    for each in sorted(evidence, key=lambda e: (e.received_us, e.event_key, e.signature)):
        earliest.setdefault(each.signature, each)
    return list(earliest.values())


def _decide(board: _Board, each: Evidence, hubs: AbstractSet[bytes], refused: list[Refused]) -> bytes:
    """Make or refuse the links of one signature; returns the token that owns it. All its live tokens are seated.

    Signatures come in order of receipt, so that each is the newest to touch the groups it is left with.
    """
    rank = board.rules.rank
    live = [(rank(kind), token, kind) for kind, token in each.tokens if token not in hubs]
    if not live:
        return base_token(each.tokens, hubs, board.rules)
    live.sort()
    base = live[0][1]
    for _, token, kind in live[1:]:
        reason = board.join(base, token)
        if reason is not None:
            refused.append(Refused(each.signature, token, kind, reason))
            board.group_of[token].last = each.receipt
    board.group_of[base].last = each.receipt
    return base


def _link_by_hand(board: _Board, manual: Sequence[Link]) -> list[Refused]:
    """Decide the manual + edges whose tokens are both seated."""
    refused = []
    for left, right in manual:
        if left in board.group_of and right in board.group_of:
            reason = board.join(left, right)
            if reason is not None:
                refused.append(Refused(b"", right, board.group_of[right].tokens[right], reason))
    return refused


def _note_partners(
    partners: dict[bytes, dict[str, set[bytes]]],
    each: Evidence,
    rules: IdentityRules,
    wanted: AbstractSet[bytes],
) -> None:
    """Add what one signature shows of the tokens wanted."""
    if len(each.tokens) < 2:
        return
    for kind, token in each.tokens:
        if token not in wanted:
            continue
        rank = rules.rank(kind)
        for other_kind, other in each.tokens:
            if rules.rank(other_kind) < rank:
                partners.setdefault(token, {}).setdefault(other_kind, set()).add(other)


def _is_hub(kinds: Mapping[str, AbstractSet[bytes]], rules: IdentityRules) -> bool:
    return any(len(tokens) > rules.hub_limit(kind) for kind, tokens in kinds.items())


def _grown_partners(
    ordered: Iterable[Evidence], known: Mapping[bytes, KnownToken], rules: IdentityRules, partners: Partners
) -> dict[bytes, dict[str, set[bytes]]]:
    """The partners of tokens that fresh evidence adds to, old ones included; tokens that are hubs are left out."""
    new: dict[bytes, dict[str, set[bytes]]] = {}
    for each in ordered:
        wanted = {token for _, token in each.tokens if token not in known or not known[token].is_hub}
        _note_partners(new, each, rules, wanted)
    grown = {}
    for token, kinds in new.items():
        old = partners.get(token, {})
        if any(not tokens <= old.get(kind, frozenset()) for kind, tokens in kinds.items()):
            grown[token] = {kind: {*old.get(kind, ()), *kinds.get(kind, ())} for kind in {**old, **kinds}}
    return grown


def _board_of(
    known: Mapping[bytes, KnownToken],
    profiles: Mapping[bytes, Profile],
    ordered: Iterable[Evidence],
    rules: IdentityRules,
    cannot: Sequence[Split],
) -> _Board:
    """The profiles that fresh evidence reaches, seated."""
    board = _Board(rules, cannot)
    for each in ordered:
        for _, token in each.tokens:
            row = known.get(token)
            if row is not None and not row.is_hub and token not in board.group_of:
                board.seat_profile(profiles[row.profile_id])
    return board


def _extension(
    board: _Board,
    profiles: Mapping[bytes, Profile],
    bases: Iterable[tuple[bytes, bytes]],
    refused: Iterable[Refused],
    grown: Mapping[bytes, Mapping[str, AbstractSet[bytes]]],
) -> Extension:
    """What the board says that was not so before. A base that is not seated is a hub and its own profile."""
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
    owner = {signature: board.group_of[base].name[2] if base in board.group_of else base for signature, base in bases}
    partners = {token: {kind: frozenset(others) for kind, others in kinds.items()} for token, kinds in grown.items()}
    return Extension(owner, now, tokens, tuple(merged), tuple(refused), partners)
