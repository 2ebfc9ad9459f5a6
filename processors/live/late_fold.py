"""Folds one record late: it was set aside, and can be read now. State does not depend on order: late, but right."""

from processors.live.fold_batch import Folder
from schemas.record import Stored
from schemas.store import NO_EVENT, NewWorkItem


def fold_late(folder: Folder, record: Stored) -> None:
    """Apply a record that was set aside, in one transaction. Nothing where it was applied meanwhile.

    Exactly once: the position leaves `not_applied` in the transaction that registers the event. Revisions that are
    being built make its signature's states anew, for they may have passed it. `folder`: of the live revision.
    Raises RecordUnreadable, ReaderTooOld, KeyMissing, SealBroken: nothing is kept.
    """
    with folder.store.fold() as tx:
        tx.hold_erasures(live=True)
        tx.hold_progress(folder.revision)  # whoever folds for its partition waits, and finds what is made here
        if not tx.restore(record.partition, record.offset):
            return
        anew = dict.fromkeys(folder.late(tx, record), (0, NO_EVENT))
        if anew:
            tx.add_work([NewWorkItem(revision, 0, "refold", anew) for revision in tx.building()])
