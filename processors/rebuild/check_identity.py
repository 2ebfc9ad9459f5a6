"""Finds the owner of each identifier set from the log alone, in bounded memory: `resolve` by scope, sorted on disk.

The live owners only serve to group what probably belongs together; they decide nothing. Groups that share a token are
joined before they are resolved (unless it is a shared identifier), and a group larger than its scope resolves the same.
"""

from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from itertools import groupby
from operator import itemgetter
from typing import Final

import msgspec

from processors.rebuild.external_sort import Scratch, Sorter
from projections.identity.evidence import Evidence
from projections.identity.resolve import resolve
from projections.identity.shared import is_shared
from schemas.identity_rules import IdentityRules

Tokens = tuple[tuple[str, bytes], ...]
Grouped = tuple[Evidence, bytes]  # with the group it is thought to belong to

_ENCODE: Final = msgspec.msgpack.Encoder().encode
_RECEIPT: Final = msgspec.msgpack.Decoder(tuple[int, bytes, Tokens]).decode
_SEEN: Final = msgspec.msgpack.Decoder(tuple[bytes, str, Tokens]).decode


def packed(received_us: int, place: bytes, tokens: Tokens) -> bytes:
    """What `earliest` reads."""
    return _ENCODE((received_us, place, tokens))


def earliest(evidence: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, Evidence]]:
    """Each identifier set once, by its first receipt. `evidence`: (identifier set, `packed`), ascending."""
    for identifier_set, found in groupby(evidence, key=itemgetter(0)):
        received_us, place, tokens = min(_RECEIPT(value) for _, value in found)
        yield identifier_set, Evidence(identifier_set, tokens, received_us, place)


def owners_of(
    read: Callable[[], Iterator[Grouped]],
    rules: IdentityRules,
    scratch: Scratch,
    unnamed: AbstractSet[bytes] = frozenset(),
) -> Sorter:
    """(identifier set, owner and tokens, 16 bytes each), ascending. `read` is called twice and must give the same.

    `unnamed`: tokens that name nobody: shared identifiers, whatever they were seen with.
    Memory: the shared identifiers, the groups that share a token with another, and one scope at a time.
    """
    shared, first_of = _ties(read(), rules, scratch, unnamed)
    scopes = scratch.sorter()
    for evidence, group in read():
        key = _find(first_of, group) + evidence.identifier_set
        scopes.add(key, packed(*evidence.receipt, evidence.tokens))
    owners = scratch.sorter()
    for _, rows in groupby(scopes, key=lambda pair: pair[0][:16]):
        scope = [
            Evidence(key[16:], tokens, at, place) for key, value in rows for at, place, tokens in [_RECEIPT(value)]
        ]
        owner = resolve(scope, rules, shared=shared).owner
        for each in scope:
            owners.add(each.identifier_set, owner[each.identifier_set] + b"".join(token for _, token in each.tokens))
    scopes.close()
    return owners


def _ties(
    read: Iterator[Grouped], rules: IdentityRules, scratch: Scratch, unnamed: AbstractSet[bytes]
) -> tuple[set[bytes], dict[bytes, bytes]]:
    """The shared identifiers, and for groups that share any other token, another group of the same scope."""
    by_token = scratch.sorter()
    for evidence, group in read:
        for kind, token in evidence.tokens:
            counted = tuple(
                pair for pair in evidence.tokens if pair[1] != token and rules.sharing_limit(kind, pair[0]) is not None
            )
            by_token.add(token, _ENCODE((group, kind, counted)))
    shared: set[bytes] = set()
    first_of: dict[bytes, bytes] = {}
    for token, rows in groupby(by_token, key=itemgetter(0)):
        groups = None if token in unnamed else _groups(map(itemgetter(1), rows), rules)
        if groups is None:
            shared.add(token)
            continue
        first, *others = {_find(first_of, group) for group in groups}
        first_of.update(dict.fromkeys(others, first))
    by_token.close()
    return shared, first_of


def _groups(rows: Iterable[bytes], rules: IdentityRules) -> set[bytes] | None:
    """The groups of one token's evidence; None for a shared identifier, where reading stops."""
    groups: set[bytes] = set()
    partners: dict[str, set[bytes]] = {}
    for value in rows:
        group, kind, counted = _SEEN(value)
        groups.add(group)
        for other_kind, other in counted:
            partners.setdefault(other_kind, set()).add(other)
        if is_shared(kind, partners, rules):
            return None
    return groups


def _find(first_of: dict[bytes, bytes], group: bytes) -> bytes:
    """The group that represents a whole scope."""
    while (other := first_of.get(group)) is not None:
        further = first_of.get(other)
        if further is not None:
            first_of[group] = further
        group = other
    return group


class Owned:
    """Owner and tokens of identifier sets; must be asked in ascending order."""

    def __init__(self, owners: Iterable[tuple[bytes, bytes]]) -> None:
        self._pairs = iter(owners)
        self._at = next(self._pairs, None)

    def of(self, identifier_set: bytes) -> bytes | None:
        found = self._value(identifier_set)
        return None if not found else found[:16]

    def tokens(self, identifier_set: bytes) -> list[bytes]:
        found = self._value(identifier_set)
        return [] if found is None else split(found[16:])

    def _value(self, identifier_set: bytes) -> bytes | None:
        while self._at is not None and self._at[0] < identifier_set:
            self._at = next(self._pairs, None)
        return self._at[1] if self._at is not None and self._at[0] == identifier_set else None


def split(tokens: bytes) -> list[bytes]:
    return [tokens[at : at + 16] for at in range(0, len(tokens), 16)]
