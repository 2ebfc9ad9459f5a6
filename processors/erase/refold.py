"""Folds states again from the log: the primitive behind lost copies and repairs (design C5)."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, takewhile
from typing import Final

from processors.live.applied import Applied, not_folded
from processors.live.fold_batch import Folder, save_states
from processors.live.order_evidence import followed, held
from projections.fold.state import State
from schemas.store import DecideTx, FoldTx
from schemas.store_rows import NO_EVENT, NO_RECEIPT, SHARDS, HolderRow, NewWorkItem, OrderSetRow

CHUNK: Final = 5_000  # records fetched at a time
ITEMS: Final = 64  # work items in one transaction
SIGNATURES: Final = 1_000  # identifier sets folded again in one transaction
RECORDS: Final = 20_000  # of these sets together, half a second; a single one may have more
_NO_RECEIPT: Final = NO_RECEIPT[:2]  # later than every receipt


def refold_some(folder: Folder) -> int:
    """Fold again some of the states in refold items, and queue their profiles; returns how many identifier sets.

    For a revision that has folded everything in the dedup index: the live one, or one about to replace it. One bounded
    transaction: the rest of its work items is queued again, so a crash loses nothing.
    """
    with folder.store.fold() as tx:
        tx.hold_erasures(live=folder.live)
        queued = tx.take_refolds(folder.revision, ITEMS)
        if not queued:
            return 0
        now, later = _slice(tx, queued)
        tx.add_work([NewWorkItem(folder.revision, 0, "refold", dict.fromkeys(later, (0, NO_EVENT)))] if later else [])
        tx.hold_progress(folder.revision)  # whoever folds their partitions waits, and then sees this result
        _refold(folder, tx, now)
    return len(now)


def refold_all(folder: Folder) -> int:
    """`refold_some` until no refold item is left; returns how many identifier sets."""
    total = 0
    while count := refold_some(folder):
        total += count
    return total


def _slice(tx: FoldTx, queued: Sequence[bytes]) -> tuple[Sequence[bytes], Sequence[bytes]]:
    """The identifier sets for one transaction, at least one, and the rest."""
    counts = tx.count_applied(queued[:SIGNATURES])
    sums = accumulate(counts.get(identifier_set, 0) for identifier_set in queued[:SIGNATURES])
    size = max(1, sum(1 for _ in takewhile(lambda total: total <= RECORDS, sums)))
    return queued[:size], queued[size:]


def _refold(folder: Folder, tx: FoldTx, identifier_sets: Sequence[bytes]) -> None:
    states: dict[tuple[int, bytes], State] = {}
    first: dict[bytes, tuple[int, bytes]] = {}
    holders: set[HolderRow] = set()
    sets: dict[bytes, OrderSetRow] = {}
    for chunk in chunks_at(folder, tx.positions(identifier_sets)):
        gone = tx.erased({bytes.fromhex(each.event.route_key) for each in chunk})
        kept = [each for each in chunk if not gone or bytes.fromhex(each.event.route_key) not in gone]
        for each in kept:
            first[each.identifier_set] = min(each.receipt, first.get(each.identifier_set, each.receipt))
        holders |= held(chunk)
        sets |= followed(kept)
        _apply(folder, kept, states)
    names = [*identifier_sets, *tx.order_sets_of(identifier_sets)]
    tx.delete_states(folder.revision, names)
    save_states(tx, folder.fold, folder.revision, states, {})
    known = tx.first_receipts(identifier_sets) if folder.live else {}  # evidence is the live revision's
    later = {s: first.get(s) for s, receipt in known.items() if receipt < first.get(s, _NO_RECEIPT)}
    if later:
        anew = tx.withdraw(folder.revision, later)
        tx.add_work([NewWorkItem(folder.revision, 0, "identity", dict.fromkeys(anew, (0, NO_EVENT)))])
    if folder.live:
        orders = tx.replace_holders(identifier_sets, sorted(holders))
        orders += tx.save_orders([], [sets[name] for name in sorted(sets)])
        tx.add_work([NewWorkItem(folder.revision, 0, "order", dict.fromkeys(orders, (0, NO_EVENT)))] if orders else [])
    items: dict[int, dict[bytes, tuple[int, bytes]]] = {}
    for name in names:
        items.setdefault(name[0] % SHARDS, {})[name] = (0, NO_EVENT)
    tx.add_work([NewWorkItem(folder.revision, shard, "decide", newest) for shard, newest in items.items()])


def _apply(folder: Folder, chunk: Sequence[Applied], states: dict[tuple[int, bytes], State]) -> None:
    """Fold decoded records into their states; sealed parts are opened for all of them together."""
    opened = folder.opened(chunk)
    for each in chunk:
        for name, part in each.shares:
            place = (each.partition, name)
            state = states.get(place)
            if state is None:
                state = states[place] = folder.fold.new_state()
            try:
                folder.fold.parts[part](each.event, state, opened.get(each.key))
            except Exception as err:
                raise not_folded(each, err) from err


def chunks_at(folder: Folder, positions: Iterable[tuple[int, int]]) -> Iterator[list[Applied]]:
    """The records at some positions, decoded, in log order, CHUNK at a time."""
    ordered = sorted(positions)
    for at in range(0, len(ordered), CHUNK):
        yield folder.again(folder.log.fetch(ordered[at : at + CHUNK]))


def uncapped_state(folder: Folder, tx: DecideTx, identifier_sets: Sequence[bytes]) -> State:
    """The states of identifier sets in one, folded from all their applied events, with nothing laid off."""
    states: dict[tuple[int, bytes], State] = {}
    for chunk in chunks_at(folder, tx.positions(identifier_sets)):
        _apply(folder, chunk, states)
    own = [state for (_, name), state in states.items() if name in identifier_sets]
    return folder.fold.merge_whole(own or [folder.fold.new_state()])
