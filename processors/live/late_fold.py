"""Folds a record that was set aside and can be read now. State does not depend on order, so the result is right."""

from processors.live.fold_batch import Folder
from schemas.record import Stored
from schemas.store_rows import NO_EVENT, NewWorkItem


def fold_late(folder: Folder, record: Stored) -> None:
    """Apply a record that was set aside, in one transaction; does nothing if it has been applied meanwhile.

    Exactly once: the position leaves `not_applied` in the transaction that registers the event. Revisions being built
    fold its identifier set's states again, because they may already be past it. `folder`: of the live revision.
    Raises RecordUnreadable, ReaderTooOld, KeyMissing, SealBroken: nothing is kept.
    """
    with folder.store.fold() as tx:
        tx.hold_erasures(live=True)
        tx.hold_progress(folder.revision)  # whoever folds its partition waits, and then sees this result
        if not tx.restore(record.partition, record.offset):
            return
        anew = dict.fromkeys(folder.late(tx, record), (0, NO_EVENT))
        if anew:
            tx.add_work([NewWorkItem(revision, 0, "refold", anew) for revision in tx.building()])
