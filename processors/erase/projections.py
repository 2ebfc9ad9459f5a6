"""Deletes what was computed for erased people, and leaves what is others' (design C12)."""

from collections.abc import Collection, Iterable
from collections.abc import Set as AbstractSet

from processors.erase.plan import route_key
from projections.days import LocalDays
from projections.decide.figures import add_profile
from projections.identity.evidence import Evidence
from projections.identity.shared import find_shared
from schemas.erasures import Erasure, ErasureWrites, Receipt, Seen
from schemas.figures import Cells
from schemas.identity_rules import IdentityRules
from schemas.record import identifier_set_of


def tokens_of(erasures: Iterable[Erasure]) -> list[bytes]:
    """The tokens of all of them."""
    return [token for each in erasures for token in each.token_bytes()]


def delete_projections(writes: ErasureWrites, erasures: Iterable[Erasure], rules: IdentityRules, at_us: int) -> None:
    """Delete what was computed for these people. Their identifier sets lose owner and evidence; those of others lose
    only the erased tokens, and are resolved again if that may change identities.

    A state is deleted with its route key, as in a rebuild: if that is a shared identifier that stays, the state stays
    without an owner until the shared identifier itself is erased.
    """
    erasures = list(erasures)
    erased = set(tokens_of(erasures))
    seen = {each.identifier_set: each for each in writes.evidence_of(erased)}
    ended = {bytes.fromhex(profile) for each in erasures for profile in each.profiles}
    ended |= {row.profile_id for row in writes.owners(erased) if row.profile_id in erased}
    unread = {s for s, each in seen.items() if route_key(each.tokens, rules) in erased}
    gone = unread | {s for s, each in seen.items() if each.profile_id in ended}
    left = [_without(seen[s], erased) for s in seen if s not in gone]
    beside = {token for s in seen for _, token in seen[s].tokens} - erased
    stay = beside - _shared_that_stay(writes, beside, erased, gone, rules)
    around = [each for each in writes.evidence_of(stay) if each.identifier_set not in seen]
    dead = unread | writes.nobodys(erased) | {identifier_set_of([token]) for token in erased}
    orders = writes.orders_of(gone | dead)
    writes.delete_states(dead)
    lost = writes.delete_order_sets(dead) - ended
    _uncount(writes, ended)
    published = writes.delete_profiles(ended)
    writes.empty_evidence(gone, {s: route_key(seen[s].tokens, rules) for s in gone - unread})
    writes.strip_evidence(left)
    writes.delete_tokens(erased)
    kept = {token for each in (*left, *around) for _, token in each.tokens}
    writes.delete_token_rows(stay - kept)  # of events that came after the plan: no evidence holds them now
    writes.set_receipts(_receipts([*left, *around], stay))
    writes.mark_identity([each.identifier_set for each in (*left, *around)])
    writes.mark_orders(orders)
    writes.mark_profiles(lost)
    writes.add_erased_changes(published, at_us)


def _uncount(writes: ErasureWrites, profile_ids: Collection[bytes]) -> None:
    """Take the profiles out of the overview's figures. The worker counts their orders again, without a customer."""
    days = LocalDays(writes.time_zone())
    for revision, rows in writes.counted(profile_ids).items():
        cells: Cells = {}
        for row in rows:
            add_profile(cells, row, days, -1)
        writes.add_figures(revision, cells)


def _without(each: Seen, erased: AbstractSet[bytes]) -> Seen:
    return each._replace(tokens=tuple((kind, token) for kind, token in each.tokens if token not in erased))


def _shared_that_stay(
    writes: ErasureWrites,
    beside: AbstractSet[bytes],
    erased: AbstractSet[bytes],
    gone: AbstractSet[bytes],
    rules: IdentityRules,
) -> AbstractSet[bytes]:
    """Of tokens seen with the person, those still shared without them. The others stop being shared identifiers."""
    shared = {row.token for row in writes.owners(beside) if row.is_shared}
    rest = [_without(each, erased) for each in writes.evidence_of(shared) if each.identifier_set not in gone]
    evidence = [Evidence(each.identifier_set, each.tokens, each.first_us, each.first_place) for each in rest]
    stay = shared & find_shared(evidence, rules)
    writes.clear_shared(shared - stay)
    return stay


def _receipts(evidence: Iterable[Seen], tokens: AbstractSet[bytes]) -> list[Receipt]:
    """First and last receipt of tokens, from their remaining evidence."""
    found: dict[bytes, list[tuple[int, bytes]]] = {}
    for each in evidence:
        for _, token in each.tokens:
            if token in tokens:
                found.setdefault(token, []).append((each.first_us, each.first_place))
    return [Receipt(token, min(receipts), max(receipts)) for token, receipts in sorted(found.items())]
