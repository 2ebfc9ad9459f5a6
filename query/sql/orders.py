"""`orders` and `refunds` of SQL as Arrow, built only from what the fold made of each profile's order events. Pure."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any, Final

import pyarrow as pa

from projections.fold.state import ORDERS, REFUNDS
from projections.orders.orders import order_slots, orders_of, summed_up, whole
from projections.slots.keyed import OVERFLOW
from schemas.errors import SqlRefused
from schemas.event_columns import MONEY, TIME, UUID, money_array
from schemas.money import LIMIT
from schemas.record import uuid_text

PART: Final = 20_000


def _none(_row: object) -> None:
    """For a column that is built separately."""


# Column -> its type, and its value from an order or refund; `profile_id` comes from neither.
_ORDERS: Final[dict[str, tuple[Any, Callable[[Any], Any]]]] = {
    "event_id": (UUID, lambda order: uuid_text(order.event)),
    "order_id": (pa.string(), attrgetter("order_id")),
    "profile_id": (UUID, _none),
    "occurred_at": (TIME, attrgetter("occurred_us")),
    "revenue": (MONEY, attrgetter("revenue")),
    "refunded": (MONEY, attrgetter("refunded")),
    "currency": (pa.string(), attrgetter("currency")),
    "base_revenue": (MONEY, attrgetter("base_revenue")),
    "base_refunded": (MONEY, attrgetter("base_refunded")),
    "missing_rate": (pa.int64(), attrgetter("missing_rate")),
    "unreadable_amounts": (pa.int64(), attrgetter("unreadable_amounts")),
}
_REFUNDS: Final[dict[str, tuple[Any, Callable[[Any], Any]]]] = {
    "refund_id": (UUID, lambda refund: uuid_text(refund.event)),
    "order_id": (pa.string(), attrgetter("order_id")),
    "profile_id": (UUID, _none),
    "occurred_at": (TIME, attrgetter("occurred_us")),
    "amount": (MONEY, attrgetter("amount")),
    "currency": (pa.string(), attrgetter("currency")),
    "base_amount": (MONEY, attrgetter("base_amount")),
    "of_order": (pa.bool_(), attrgetter("of_order")),
    "unreadable": (pa.bool_(), attrgetter("unreadable")),
}


def order_tables(
    states: Iterable[tuple[bytes | None, bytes]],
    leaves: Mapping[bytes, Sequence[bytes]],
    columns: frozenset[str] | None = None,
) -> tuple[pa.Table, pa.Table]:
    """The two tables from (profile id or None for nobody, packed state), and the leaves of profiles over the cap.

    `columns`: the requested ones, None for all; the others are null. Raises SqlRefused while a profile over the cap
    from an earlier version is waiting to be folded again.
    """
    orders, refunds = _Rows(_ORDERS, columns), _Rows(_REFUNDS, columns)
    for profile_id, packed in states:
        state = order_slots(packed)
        if summed_up(state):
            state = whole(state, leaves.get(profile_id or b"", ()))
        if state[ORDERS] == OVERFLOW:
            raise SqlRefused("a customer with very many orders is being read again after the upgrade: try again soon")
        if state[ORDERS] or state[REFUNDS]:
            mine, theirs = orders_of(state)
            orders.add(profile_id, mine)
            refunds.add(profile_id, theirs)
    return orders.table(), refunds.table()


class _Rows:
    """Collects rows; a part at a time becomes columns, because as objects they take ten times the memory."""

    def __init__(self, columns: Mapping[str, tuple[Any, Callable[[Any], Any]]], wanted: frozenset[str] | None) -> None:
        self._columns = columns
        self._wanted = frozenset(columns) if wanted is None else wanted
        self._schema = pa.schema([pa.field(name, type_) for name, (type_, _) in columns.items()])
        self._parts: list[pa.Table] = []
        self._rows: list[Any] = []
        self._owners: list[bytes | None] = []

    def add(self, owner: bytes | None, rows: Sequence[Any]) -> None:
        self._rows += rows
        self._owners += [owner] * len(rows)
        if len(self._rows) >= PART:
            self._flush()

    def table(self) -> pa.Table:
        self._flush()
        return pa.concat_tables(self._parts)

    def _flush(self) -> None:
        arrays = [self._array(name, type_, value) for name, (type_, value) in self._columns.items()]
        self._parts.append(pa.Table.from_arrays(arrays, schema=self._schema))
        self._rows, self._owners = [], []

    def _array(self, name: str, type_: Any, value: Callable[[Any], Any]) -> Any:
        if name not in self._wanted:
            return pa.nulls(len(self._rows), type_)
        if name == "profile_id":
            return pa.array([None if owner is None else uuid_text(owner) for owner in self._owners], type_)
        values = list(map(value, self._rows))
        return money_array([_told(amount) for amount in values]) if type_ == MONEY else pa.array(values, type_)


def _told(amount: int | None) -> int | None:
    """A sum too large for the column is left out: absurd amounts must not stop a statement."""
    return None if amount is None or abs(amount) >= LIMIT else amount
