"""The inputs and results of FOLD: batches of the log, the decoded events, and the counts of a batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from projections.fold.event import FoldEvent
from projections.orders.parts import Order, Part
from schemas.dead_letters import DeadLetter
from schemas.errors import FoldFailed
from schemas.identifiers import ORDER_KIND
from schemas.record import Stored
from schemas.stamps import key_of
from schemas.store_rows import DedupRow, Verdict


class Batch(NamedTuple):
    """Records of one partition from `start` on; `end` is the next offset after them."""

    partition: int
    start: int
    end: int
    records: Sequence[Stored]
    watermark_us: int  # received_at of the first record not yet in a batch, else the clock's time (design C8)


class Applied(NamedTuple):
    """One event to be folded into a state, decoded once."""

    event: FoldEvent
    key: bytes
    digest: bytes
    tokens: tuple[tuple[str, bytes], ...]
    identifier_set: bytes
    partition: int
    offset: int
    received_us: int
    occurred_us: int
    of_order: Order | None = None  # that it names

    @property
    def shares(self) -> tuple[tuple[bytes, Part], ...]:
        """What of it is folded into which states, by identifier set or order set (decision 0037)."""
        if self.of_order is not None and self.of_order.order_set is not None:
            its = (self.of_order.order_set, Part.ORDER)
            return (its,) if self.names_nobody else ((self.identifier_set, Part.OWN), its)
        return () if self.names_nobody else ((self.identifier_set, Part.WHOLE),)

    @property
    def names_nobody(self) -> bool:
        """Whether it came without an identifier of anybody: its only token stands for its order."""
        return self.tokens[0][0] == ORDER_KIND

    @property
    def rank(self) -> tuple[int, int, int]:
        """Which of two copies counts: the lower (design C3)."""
        return self.received_us, self.partition, self.offset

    @property
    def receipt(self) -> tuple[int, bytes]:
        """When it was received, and its place among what was received then (`schemas.stamps`)."""
        return self.received_us, self.event.order[8:]


DeadLetterMaker = Callable[[Stored, str, str, Applied | None], DeadLetter]
"""(record, rule, reason, its decoded event if any) -> a sealed dead letter of stage "fold"."""


@dataclass
class Report:
    """The result of a batch, for counters and tests."""

    records: int = 0
    applied: int = 0
    duplicates: int = 0
    conflicts: int = 0
    quarantined: int = 0
    erased: int = 0


def newest_of(events: Sequence[Applied]) -> tuple[int, bytes]:
    """The time and the key of the newest of some events."""
    if len(events) == 1:
        return events[0].occurred_us, events[0].key
    occurred_us, order = max((each.occurred_us, each.event.order) for each in events)
    return occurred_us, key_of(order)


def dedup_row(each: Applied, gone: set[bytes]) -> DedupRow:
    erased = bool(gone) and bytes.fromhex(each.event.route_key) in gone
    verdict = Verdict.ERASED if erased else Verdict.APPLIED
    return DedupRow(each.key, each.digest, each.partition, each.offset, each.identifier_set, verdict)


def not_folded(each: Applied, err: Exception) -> FoldFailed:
    """The error for a record that was applied before but fails in this fold."""
    place = f"partition {each.partition} offset {each.offset}"
    return FoldFailed(f"{place} was applied before but cannot be folded with these definitions ({type(err).__name__})")
