"""Makes states anew from the log: the primitive behind lost copies, overflowed maps and repairs (design C5)."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from processors.fold_batch import Applied, Folder, not_folded
from projections.state import State
from schemas.store import NO_EVENT, NO_RECEIPT, SHARDS, DecideTx, FoldTx, NewMark

CHUNK: Final = 5_000  # records fetched at a time
_NO_RECEIPT: Final = NO_RECEIPT[:2]  # later than every receipt


def refold_marked(folder: Folder) -> int:
    """Make the states anew that marks ask for, and mark their profiles; returns how many signatures.

    Of a revision that has folded all that is registered: the live one, or one that is about to take its place.
    """
    with folder.store.fold() as tx:
        tx.hold_erasures(live=folder.live)
        signatures = tx.take_refolds(folder.revision)
        if signatures:
            tx.hold_progress(folder.revision)  # whoever folds for their partitions waits, and finds what is made here
            _refold(folder, tx, signatures)
    return len(signatures)


def _refold(folder: Folder, tx: FoldTx, signatures: Sequence[bytes]) -> None:
    positions = tx.positions(signatures)
    states: dict[tuple[int, bytes], State] = {}
    first: dict[bytes, tuple[int, bytes]] = {}
    for each in _events(folder, positions):
        if tx.erased([bytes.fromhex(each.event.route_key)]):
            continue
        receipt = (each.received_us, each.key)
        first[each.signature] = min(receipt, first.get(each.signature, receipt))
        place = (each.partition, each.signature)
        state = states.get(place)
        if state is None:
            state = states[place] = folder.fold.new_state()
        _fold_in(folder, each, state)
    tx.delete_states(folder.revision, signatures)
    tx.save_states(folder.revision, {place: folder.fold.pack(state) for place, state in states.items()})
    known = tx.first_receipts(signatures) if folder.live else {}  # evidence is the live revision's
    later = {s: first.get(s) for s, receipt in known.items() if receipt < first.get(s, _NO_RECEIPT)}
    if later:
        anew = tx.withdraw(folder.revision, later)
        tx.add_marks([NewMark(folder.revision, 0, "identity", dict.fromkeys(anew, (0, NO_EVENT)))])
    marks: dict[int, dict[bytes, tuple[int, bytes]]] = {}
    for signature in signatures:
        marks.setdefault(signature[0] % SHARDS, {})[signature] = (0, NO_EVENT)
    tx.add_marks([NewMark(folder.revision, shard, "decide", newest) for shard, newest in marks.items()])


def _events(folder: Folder, positions: Iterable[tuple[int, int]]) -> Iterator[Applied]:
    ordered = sorted(positions)
    for at in range(0, len(ordered), CHUNK):
        yield from folder.again(folder.log.fetch(ordered[at : at + CHUNK]))


def uncapped_state(folder: Folder, tx: DecideTx, signatures: Sequence[bytes]) -> State:
    """All applied events of signatures in one state; the folder's fold was compiled with `order_cap=None`."""
    state = folder.fold.new_state()
    for each in _events(folder, tx.positions(signatures)):
        _fold_in(folder, each, state)
    return state


def _fold_in(folder: Folder, each: Applied, state: State) -> None:
    opened = folder.opened([each]).get(each.key)
    try:
        folder.fold.apply(each.event, state, opened)
    except Exception as err:
        raise not_folded(each, err) from err
