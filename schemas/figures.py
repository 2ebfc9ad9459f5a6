"""Figures that are kept up to date: cells, and the ports that write and read them (decision 0018).

A cell is a sum by kind, place in time and label. Cells only grow by deltas, negative ones too, each written in the
transaction that changes what it counts; so they equal a sum over everything at any instant.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

BUCKET_US: Final = 900_000_000  # a quarter of an hour: days of every time zone begin at one
PERIODS: Final = (7, 30, 90, 365)  # days of the periods that can be asked for
LONGEST_DAYS: Final = PERIODS[-1]  # gaps between orders are told apart up to it
EVENTS: Final = 0  # stands for the revision of cells that count events: these are the same in all


class Kind:
    """What a cell counts; (place, other, label): n, amount. Plain numbers: hashing an enum's takes a microsecond.

    A bucket is occurred_us // BUCKET_US, a day local.
    """

    ORDERS: Final = 1  # (bucket, 0, ""): orders; their amounts less refunds, in base currency
    UNRATED: Final = 2  # (bucket, 0 order or 1 refund, currency): amounts without a rate; their sum in that currency
    BUYERS: Final = 3  # (day, gap): customers who ordered on a day, by the days since their day of orders before it
    FIRSTS: Final = 4  # (day, gap): customers whose first day of orders has one order, by the days until their next one
    CUSTOMERS: Final = 5  # (bucket, 0, ""): customers by their first event
    RISK: Final = (
        6  # (0, 0, level): customers; all their amounts less refunds. (0, 1, level): amounts of theirs without rate
    )
    EVENT: Final = 7  # (bucket, 0, ""): applied events
    FAMILY: Final = 8  # (day, 0, first word of the type): applied events
    STAGE: Final = 10  # (0, 0, "stage/level"): customers
    UNKNOWN: Final = 9  # (0, 0, ""): customers whose orders are not at hand
    # Rolled up from those above (`projections.decide.figures.roll_up`) when deltas are added up into cells.
    DAY: Final = 20  # + ORDERS, UNRATED, CUSTOMERS or EVENT: (day, other, label): the same by local days
    PERIOD_BUYERS: Final = 31  # (day, days of a period): as of BUYERS the change of the sum from the period that ends
    PERIOD_FIRSTS: Final = 32  # the day before, and the same of FIRSTS; so the sum up to a day is that of its period


BY_BUCKET: Final = (Kind.ORDERS, Kind.UNRATED, Kind.CUSTOMERS, Kind.EVENT)


Key = tuple[int, int, int, str]  # kind, place, other, label
Cells = dict[Key, list[int]]  # n, scaled amount


def add(cells: Cells, key: Key, n: int, amount: int = 0) -> None:
    cell = cells.get(key)
    if cell is None:
        cells[key] = [n, amount]
    else:
        cell[0] += n
        cell[1] += amount


class Counted(NamedTuple):
    """What figures count of a profile row."""

    profile_id: bytes
    state: bytes
    first_us: int | None
    risk: str
    lifecycle: str
    leaves: Sequence[bytes] = ()  # packed, of the tree that holds its orders where the state has their summary


class FigureTx(Protocol):
    """What a transaction does for the figures. Deltas that are zero are left out."""

    def add_figures(self, revision: int, cells: Mapping[Key, Sequence[int]]) -> None: ...

    def counted_up_to(self, revision: int) -> bytes | None:
        """Profiles up to this id are counted; None: all. Holds until commit: call it after locking profiles."""

    def add_nobody(self, identifier_sets: Collection[bytes]) -> None:
        """These belong to nobody: of every revision their orders will be counted without a customer."""

    def events_counted_before(self, partition: int, offset: int) -> bool:
        """Whether an event at this position is in the figures; holds until commit."""


class KeeperTx(FigureTx, Protocol):
    """What keeping the figures up to date does beside those who write them."""

    def take_nobody(self, revision: int, limit: int) -> dict[bytes, bytes | None]:
        """Identifier sets of nobody to count anew, with the orders counted of them before; they are due no more."""

    def save_nobody(self, revision: int, orders: Mapping[bytes, bytes]) -> None: ...

    def positions_of_nobody(self, identifier_sets: Iterable[bytes]) -> list[tuple[int, int]]:
        """(partition, offset) of their events, those that came after an erasure too."""

    def next_uncounted(self, revision: int, limit: int) -> list[Counted] | None:
        """The next profiles to count, by id; counted when this commits. None: all are."""

    def next_events(self) -> tuple[int, int, int] | None:
        """(partition, from, until) of events that were applied before there were figures. None: all are counted."""

    def skipped(self, partition: int, start: int, end: int) -> set[int]: ...

    def events_counted(self, partition: int, upto: int) -> None:
        """Those before `upto` are."""

    def compact_figures(self, limit: int, roll_up: Callable[[Cells], Cells]) -> int:
        """Add the deltas of so many transactions up into cells; of how many. 0 too where another process does it."""


class Window(NamedTuple):
    """A period in buckets and days: [start, end) of what counts by bucket, first to last by day."""

    start: int
    end: int
    first: int
    last: int
    last_start: int  # the bucket where the last day begins


class Amounts(NamedTuple):
    n: int
    amount: int


class Figures(NamedTuple):
    """What the cells of two windows come to. `done` below 1: not all is counted yet, and nothing here says anything."""

    done: float
    watermark_us: int
    orders: tuple[Amounts, Amounts]  # now, before
    unrated: tuple[Mapping[tuple[str, int], Amounts], Mapping[tuple[str, int], Amounts]]  # (currency, order or refund)
    buyers: tuple[int, int]
    once: tuple[int, int]  # buyers of one order, who had none before
    customers: tuple[int, int]  # new ones
    events: tuple[int, int]
    risk: Mapping[tuple[str, int], Amounts]  # (level, 0 or 1 as in the kind)
    stages: Mapping[tuple[str, str], int]  # (stage, risk level): customers
    by_day: Mapping[int, Amounts]  # place of the day in the window: orders
    by_family: Mapping[str, int]
    unknown: int
