"""Decides which copy of an event counts: exactly one per key, in the transaction that applies it (design C3)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, NoReturn

from processors.live.applied import Applied, DeadLetterMaker, Report, dedup_row
from processors.live.restamped import Restamped
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


class Copy(NamedTuple):
    """The copy of an event that counts."""

    digest: bytes
    place: tuple[int, int]  # partition, offset


def _copy(each: Applied | DedupRow) -> Copy:
    return Copy(each.digest, (each.partition, each.offset))


@dataclass
class Dedup:
    """The dedup index of the live revision.

    `again` and `decoded` read records applied before; `wait_at` makes an event's partition wait at it. `restamped`
    says which conflicts are none, because only the times differ: a sender that stamps its retries anew.
    """

    log: EventLog
    letter: DeadLetterMaker
    fold: Fold
    revision: int
    again: Callable[[Sequence[Stored]], list[Applied]]
    decoded: Callable[[Stored], Applied]
    wait_at: Callable[[FoldTx, Applied, TouchfoldError], NoReturn]
    restamped: Restamped
    erased: list[Applied] = field(default_factory=list)  # of the last batch: erased people's events

    def choose(self, tx: FoldTx, decoded: Sequence[Applied], report: Report) -> list[Applied]:
        """The events that count now. The rest become rows of not_applied, and conflicts also dead letters."""
        winners: dict[bytes, Applied] = {}
        losers: list[tuple[Applied, Copy]] = []  # each with the copy that counts
        for each in decoded:
            other = winners.get(each.key)
            if other is None:
                winners[each.key] = each
            elif each.rank < other.rank and each.partition != other.partition:
                winners[each.key] = each
                losers.append((other, _copy(each)))
            else:
                losers.append((each, _copy(other)))
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
                losers.append((mine, _copy(row)))
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
        differing = [(row, _copy(mine)) for mine, row in replaced if row.digest != mine.digest]
        places = {(row.partition, row.offset) for row, _ in differing} - self._restamped(differing)
        same = [row for _, row in replaced if (row.partition, row.offset) not in places]
        others = [row for row, _ in differing if (row.partition, row.offset) in places]
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

    def _set_aside(self, tx: FoldTx, losers: Sequence[tuple[Applied, Copy]], report: Report) -> None:
        if not losers:
            return
        differing = [(each, copy) for each, copy in losers if each.digest != copy.digest]
        retries = self._restamped(differing)
        conflicts = {(each.partition, each.offset): each for each, _ in differing}
        conflicts = {place: each for place, each in conflicts.items() if place not in retries}
        rows = []
        for each, _ in losers:
            differs = (each.partition, each.offset) in conflicts
            verdict = Verdict.CONFLICT if differs else Verdict.DUPLICATE
            rows.append(NotApplied(each.partition, each.offset, each.key, verdict))
        tx.not_applied(rows)
        report.duplicates += len(rows) - len(conflicts)
        report.conflicts += len(conflicts)
        stored = self.log.fetch(list(conflicts)) if conflicts else []
        letters = [self.letter(each, REUSED, _REUSED, conflicts[each.partition, each.offset]) for each in stored]
        tx.add_dead_letters(letters)

    def _restamped(self, differing: Sequence[tuple[Applied | DedupRow, Copy]]) -> set[tuple[int, int]]:
        """The places, among those with another digest than the copy that counts, where only the times differ."""
        return self.restamped.of(((each.partition, each.offset), copy.place) for each, copy in differing)
