"""What identity is resolved from, and the result: evidence, links, profiles. Pure values (design C6).

Tokens, identifier sets, event keys and profile ids are 16 raw bytes; a profile id is one of the profile's own tokens.
"""

from collections.abc import Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final, NamedTuple

from schemas.identity_rules import IdentityRules

Receipt = tuple[int, bytes]  # (received at in microseconds since 1970, `schemas.stamps.place_of`): a total order
Link = tuple[bytes, bytes]  # a manual "same person" edge between two tokens
Split = tuple[Collection[bytes], Collection[bytes]]  # a cannot-link: no profile holds tokens from both sides
Partners = Mapping[bytes, Mapping[str, AbstractSet[bytes]]]  # token -> kind that counts -> tokens seen with it
NEVER: Final[Receipt] = (-1, b"")  # before every receipt


class Evidence(NamedTuple):
    """An identifier set with the receipt of its first event."""

    identifier_set: bytes
    tokens: tuple[tuple[str, bytes], ...]  # (kind, token); never empty, in any order
    received_us: int
    place: bytes  # among what was received then: `schemas.stamps.place_of`

    @property
    def receipt(self) -> Receipt:
        return self.received_us, self.place


class Refused(NamedTuple):
    """A link that was not made: `token` did not join the profile of the identifier set's base."""

    identifier_set: bytes  # b"" for a manual edge
    token: bytes
    kind: str
    reason: str  # "cannot_link", or "limit:<kind>": the highest-ranked kind that the union would hold too many of


@dataclass(frozen=True, slots=True)
class Profile:
    """Tokens joined by accepted links, with what is needed to continue without the evidence.

    `first_receipt`: first receipt of the token that names the profile. `last_receipt`: newest first receipt among all
    identifier sets that hold one of its tokens, including those with refused links.
    """

    profile_id: bytes
    tokens: Mapping[bytes, str]  # token -> kind; never a shared identifier
    first_receipt: Receipt
    last_receipt: Receipt


class KnownToken(NamedTuple):
    """A token's position before the fresh evidence."""

    kind: str
    is_shared: bool
    profile_id: bytes  # a shared identifier's profile id is the token itself


def base_token(tokens: Iterable[tuple[str, bytes]], shared: Collection[bytes], rules: IdentityRules) -> bytes:
    """The token whose profile owns the identifier set: its highest-ranked unshared one, else its highest shared one.

    Ties within a kind go to the smaller token. It changes only if a token becomes shared or is erased.
    """
    return min((token in shared, rules.rank(kind), token) for kind, token in tokens)[2]


def ordered_by_receipt(evidence: Iterable[Evidence]) -> list[Evidence]:
    """By first receipt, each identifier set once. Ties (no two applied events share a receipt) go by set."""
    earliest: dict[bytes, Evidence] = {}
    for each in sorted(evidence, key=lambda e: (e.received_us, e.place, e.identifier_set)):
        earliest.setdefault(each.identifier_set, each)
    return list(earliest.values())
