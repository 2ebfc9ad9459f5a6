"""Decides which copy of an event counts: exactly one per key, in the transaction that applies it (design C3)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NoReturn

from processors.live.applied import Applied, DeadLetterMaker, Report, dedup_row
from projections.decide.figures import add_events
from projections.fold.fold import Fold
from schemas.dead_letters import REUSED
from schemas.errors import FoldFailed, TouchfoldError
from schemas.figures import EVENTS, Cells
from schemas.ports import EventLog
from schemas.record import Stored
from schemas.store import FoldTx
from schemas.store_rows import NO_EVENT, DedupRow, NewWorkItem, NotApplied, Verdict

_REUSED: Final = "an event with this message id and different content was received before"


@dataclass
class Dedup:
    """The dedup index of the live revision.

    `again` and `decoded` read records applied before; `wait_at` makes an event's partition wait at it.
    """

    log: EventLog
    letter: DeadLetterMaker
    fold: Fold
    revision: int
    again: Callable[[Sequence[Stored]], list[Applied]]
    decoded: Callable[[Stored], Applied]
    wait_at: Callable[[FoldTx, Applied, TouchfoldError], NoReturn]
    erased: list[Applied] = field(default_factory=list)  # of the last batch: erased people's events

    def choose(self, tx: FoldTx, decoded: Sequence[Applied], report: Report) -> list[Applied]:
        """The events that count now. The rest become rows of not_applied, and conflicts also dead letters."""
        winners: dict[bytes, Applied] = {}
        losers: list[tuple[Applied, bytes]] = []  # each with the digest of the copy that counts
        for each in decoded:
            other = winners.get(each.key)
            if other is None:
                winners[each.key] = each
            elif each.rank < other.rank and each.partition != other.partition:
                winners[each.key] = each
                losers.append((other, each.digest))
            else:
                losers.append((each, other.digest))
        gone = tx.erased({token for each in winners.values() for _, token in each.tokens})
        rows = [dedup_row(each, gone) for each in winners.values()]
        present = {row.event_key: row for row in tx.deduplicate(rows)}
        others = self._counted_elsewhere(tx, winners, present)
        replaced: list[tuple[Applied, DedupRow]] = []
        for key, row in present.items():
            mine = winners.pop(key)
            if key in others and mine.rank < others[key].rank:
                replaced.append((mine, row))
            else:
                losers.append((mine, row.digest))
        self._unseat(tx, replaced, report)
        mine_now = [mine for mine, _ in replaced]
        tx.replace_dedup([dedup_row(each, gone) for each in mine_now])
        self._set_aside(tx, losers, report)
        counted = [*winners.values(), *mine_now]
        self._count(tx, counted, [others[row.event_key] for _, row in replaced])
        self.erased = [each for each in counted if gone and bytes.fromhex(each.event.route_key) in gone]
        tx.add_nobody({each.identifier_set for each in self.erased})
        report.erased += len(self.erased)
        lost = {each.key for each in self.erased}
        return [each for each in counted if each.key not in lost] if lost else counted

    def _count(self, tx: FoldTx, counted: Sequence[Applied], unseated: Sequence[Applied]) -> None:
        """The events that count from now on, including erased people's, and those that no longer count."""
        cells: Cells = {}
        add_events(cells, [(each.event.type, each.occurred_us) for each in counted], self.fold.days)
        if unseated:
            known = [each for each in unseated if tx.events_counted_before(each.partition, each.offset)]
            add_events(cells, [(each.event.type, each.occurred_us) for each in known], self.fold.days, -1)
        tx.add_figures(EVENTS, cells)

    def _counted_elsewhere(
        self, tx: FoldTx, winners: Mapping[bytes, Applied], present: Mapping[bytes, DedupRow]
    ) -> dict[bytes, Applied]:
        """The indexed copies that may be replaced, by event key.

        Within a partition the lower offset counts, so the indexed copy stays; across partitions, the earlier receipt.
        """
        rows = {
            (row.partition, row.offset): key
            for key, row in present.items()
            if row.partition != winners[key].partition and row.verdict == Verdict.APPLIED
        }
        found = self.log.fetch(list(rows)) if rows else []
        assert len(found) == len(rows), "what is in the dedup index is in the log or in its archive"
        others: dict[bytes, Applied] = {}
        for record in found:
            key = rows[record.partition, record.offset]
            try:
                [others[key]] = self.again([record])
            except FoldFailed as err:
                self.wait_at(tx, winners[key], err)
        return others

    def _unseat(self, tx: FoldTx, replaced: Sequence[tuple[Applied, DedupRow]], report: Report) -> None:
        """Replace copies that counted until now by earlier ones; their identifier sets' states are folded again."""
        if not replaced:
            return
        same = [row for mine, row in replaced if row.digest == mine.digest]
        others = [row for mine, row in replaced if row.digest != mine.digest]
        tx.not_applied(
            [NotApplied(row.partition, row.offset, row.event_key, Verdict.DUPLICATE) for row in same]
            + [NotApplied(row.partition, row.offset, row.event_key, Verdict.CONFLICT) for row in others]
        )
        anew = dict.fromkeys((row.identifier_set for _, row in replaced), (0, NO_EVENT))
        tx.add_work([NewWorkItem(revision, 0, "refold", anew) for revision in (self.revision, *tx.building())])
        report.duplicates += len(same)
        report.conflicts += len(others)
        stored = self.log.fetch([(row.partition, row.offset) for row in others]) if others else []
        tx.add_dead_letters([self.letter(each, REUSED, _REUSED, self.decoded(each)) for each in stored])

    def _set_aside(self, tx: FoldTx, losers: Sequence[tuple[Applied, bytes]], report: Report) -> None:
        if not losers:
            return
        rows = []
        conflicts = []
        for each, digest in losers:
            same = each.digest == digest
            rows.append(
                NotApplied(each.partition, each.offset, each.key, Verdict.DUPLICATE if same else Verdict.CONFLICT)
            )
            if not same:
                conflicts.append(each)
        tx.not_applied(rows)
        report.duplicates += len(rows) - len(conflicts)
        report.conflicts += len(conflicts)
        stored = {(s.partition, s.offset): s for s in self.log.fetch([(c.partition, c.offset) for c in conflicts])}
        tx.add_dead_letters([self.letter(stored[c.partition, c.offset], REUSED, _REUSED, c) for c in conflicts])
