"""Shared identifiers: tokens that too many people share for them to identify anyone. Pure."""

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet

from projections.identity.evidence import Evidence, KnownToken, Partners
from schemas.identity_rules import IdentityRules


def find_shared(evidence: Iterable[Evidence], rules: IdentityRules) -> frozenset[bytes]:
    """Tokens seen with more distinct tokens of one kind than `IdentityRules.sharing_limit` of both kinds.

    Reliable for a token only if all evidence that holds it is given.
    """
    evidence = list(evidence)
    seen: dict[bytes, int] = {}
    for each in evidence:
        others = len(each.tokens) - 1
        for _, token in each.tokens:
            seen[token] = seen.get(token, 0) + others
    few = rules.smallest_sharing_limit()
    busy = {token for token, count in seen.items() if count > few}  # most tokens drop out here, before any set is made
    partners: dict[bytes, dict[str, set[bytes]]] = {}
    for each in evidence:
        _note_partners(partners, each, rules, busy)
    kind_of = {token: kind for each in evidence for kind, token in each.tokens if token in partners}
    return frozenset(token for token, kinds in partners.items() if is_shared(kind_of[token], kinds, rules))


def partners_of(evidence: Iterable[Evidence], rules: IdentityRules) -> dict[bytes, dict[str, set[bytes]]]:
    """For each token that has any: the distinct tokens of each kind that counts for its own that it was seen with."""
    partners: dict[bytes, dict[str, set[bytes]]] = {}
    for each in evidence:
        _note_partners(partners, each, rules, {token for _, token in each.tokens})
    return partners


def _note_partners(
    partners: dict[bytes, dict[str, set[bytes]]],
    each: Evidence,
    rules: IdentityRules,
    wanted: AbstractSet[bytes],
) -> None:
    """Add what one identifier set shows about the wanted tokens."""
    if len(each.tokens) < 2:
        return
    for kind, token in each.tokens:
        if token not in wanted:
            continue
        for other_kind, other in each.tokens:
            if other != token and rules.sharing_limit(kind, other_kind) is not None:
                partners.setdefault(token, {}).setdefault(other_kind, set()).add(other)


def is_shared(kind: str, kinds: Mapping[str, AbstractSet[bytes]], rules: IdentityRules) -> bool:
    """Whether a token of this kind is shared. `kinds`: its partners by kind."""
    for other, tokens in kinds.items():
        most = rules.sharing_limit(kind, other)
        if most is not None and len(tokens) > most:
            return True
    return False


def grown_partners(
    ordered: Iterable[Evidence], known: Mapping[bytes, KnownToken], rules: IdentityRules, partners: Partners
) -> dict[bytes, dict[str, set[bytes]]]:
    """All partners, old ones included, of the tokens that gain any from fresh evidence; leaves out shared tokens."""
    new: dict[bytes, dict[str, set[bytes]]] = {}
    for each in ordered:
        wanted = {token for _, token in each.tokens if token not in known or not known[token].is_shared}
        _note_partners(new, each, rules, wanted)
    grown = {}
    for token, kinds in new.items():
        old = partners.get(token, {})
        if any(not tokens <= old.get(kind, frozenset()) for kind, tokens in kinds.items()):
            grown[token] = {kind: {*old.get(kind, ()), *kinds.get(kind, ())} for kind in {**old, **kinds}}
    return grown
