"""When a worker decides: after each FOLD, when a timer is due, and when states were folded again."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from processors.erase.refold import refold_some
from processors.live.claims import Claims
from processors.live.decide_batch import Decider, Outcome, Sharing
from processors.live.fold_batch import Folder
from processors.live.services import Services
from schemas.control import Beat
from schemas.errors import FoldFailed, ProgressConflict
from schemas.record import MICROSECOND, to_us
from schemas.waits import REFOLD, Wait

log = logging.getLogger("touchfold.worker")

MAX_WAIT_US: Final = timedelta(minutes=1) // MICROSECOND  # how long a due profile waits for a lagging partition
ITEMS: Final = 64  # work items in one run of DECIDE
DUE: Final = 2_000


@dataclass
class Deciding:
    """`moved` is called when another revision turns out to be live; it may replace the decider and folder here."""

    services: Services
    claims: Claims
    moved: Callable[[], None]
    decider: Decider | None = None
    folder: Folder | None = None
    broken: bool = False  # refold items cannot be processed; not tried again until the next claim

    def share(self, others: int) -> None:
        """Decide what we folded, and up to this many waiting shards of others. A worker alone decides everything."""
        if self.decider is not None and self.decider.sharing is not None:
            self.decider.sharing = Sharing(list(self.claims.epochs), others)

    def run(self, watermark_us: int, *, until_none: bool) -> bool:
        """Run while there may be more, then number the feed; True if there was work.

        `until_none`: run until nothing is found; otherwise the next step finds what a run left for later.
        """
        some = False
        while True:
            outcome = self._look(watermark_us)
            some = some or outcome.some
            if not outcome.some or not (until_none or outcome.more):
                break
        if some:
            self.services.store.number_feed()
        return some

    def _look(self, watermark_us: int, *, items: int = ITEMS, lagging: bool = False) -> Outcome:
        assert self.decider is not None, "compiling makes it"
        try:
            return self.decider.run(watermark_us, items=items, due=DUE, lagging=lagging)
        except ProgressConflict:
            self.moved()
            return Outcome(0, 0, 0, more=True)

    def keep_up(self, beat: Beat, *, catching_up: bool) -> bool:
        """Process refolds, work items and timers; True if there was work.

        `catching_up`: the owner of all partitions has just folded, so a watermark in the past will soon catch up. With
        several workers that is not certain: the lagging partition may be one that nobody folds.
        """
        worked = beat.refolds and self.refold()
        watermark_us = self.claims.lowest_us
        due_us = beat.due_us
        if beat.work or (due_us is not None and due_us <= watermark_us):
            worked = self.run(watermark_us, until_none=True) or worked
        late_us = to_us(self.services.clock.now()) - MAX_WAIT_US
        stands_still = beat.waits or not (worked or catching_up)
        if due_us is not None and watermark_us < due_us <= late_us and stands_still:
            worked = self._look(late_us, items=0, lagging=True).some or worked
        return worked

    def refold(self) -> bool:
        """Fold some states again; FOLD rarely needs it, commands sometimes. Logs an error if a record prevents it."""
        if self.folder is None or self.broken:
            return False
        try:
            done = refold_some(self.folder)
        except FoldFailed as err:
            self.broken = True
            log.error("states could not be folded again: %s", err.message)
            self.services.control.note_wait(REFOLD, Wait(0, 0, err.code, err.message), self.services.clock.now())
            return False
        if done:
            self.services.control.end_wait(REFOLD, 0)
        return bool(done)
