"""`orders` and `refunds` of SQL as Arrow: what the fold made of each profile's order events, and nothing else. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import pyarrow as pa

from projections.orders import order_slots, orders_of, whole
from projections.state import ORDERS, OVERFLOW
from schemas.errors import SqlRefused
from schemas.event_columns import MONEY, TIME, UUID, money_array
from schemas.money import LIMIT
from schemas.record import uuid_text

PART: Final = 20_000


def _fields(*columns: tuple[str, Any]) -> list["pa.Field[Any]"]:
    return [pa.field(name, type_) for name, type_ in columns]


_ORDERS: Final = pa.schema(
    _fields(
        ("event_id", UUID), ("order_id", pa.string()), ("profile_id", UUID), ("occurred_at", TIME), ("revenue", MONEY),
        ("refunded", MONEY), ("currency", pa.string()), ("base_revenue", MONEY), ("base_refunded", MONEY),
        ("missing_rate", pa.int64()),
    )
)  # fmt: skip
_REFUNDS: Final = pa.schema(
    _fields(
        ("refund_id", UUID), ("order_id", pa.string()), ("profile_id", UUID), ("occurred_at", TIME), ("amount", MONEY),
        ("currency", pa.string()), ("base_amount", MONEY), ("of_order", pa.bool_()),
    )
)  # fmt: skip


def order_tables(
    states: Iterable[tuple[bytes | None, bytes]], leaves: Mapping[bytes, Sequence[bytes]]
) -> tuple[pa.Table, pa.Table]:
    """The two tables from (profile id or None for nobody, packed state), and the leaves of profiles over the cap.

    Raises SqlRefused while an earlier version's profile over the cap waits to be folded again.
    """
    orders, refunds = _Rows(_ORDERS), _Rows(_REFUNDS)
    for profile_id, packed in states:
        state = whole(order_slots(packed), leaves.get(profile_id or b"", ()))
        if state[ORDERS] == OVERFLOW:
            raise SqlRefused("a customer with very many orders is being read again after the upgrade: ask again soon")
        if not (state[ORDERS] or state[ORDERS + 1]):
            continue
        owner = None if profile_id is None else uuid_text(profile_id)
        mine, theirs = orders_of(state)
        orders.add(
            (
                *(uuid_text(o.event), o.order_id, owner, o.occurred_us, o.revenue, o.refunded, o.currency),
                *(o.base_revenue, o.base_refunded, o.missing_rate),
            )
            for o in mine
        )
        refunds.add(
            (uuid_text(r.event), r.order_id, owner, r.occurred_us, r.amount, r.currency, r.base_amount, r.of_order)
            for r in theirs
        )
    return orders.table(), refunds.table()


class _Rows:
    """Gathers rows; they become columns a part at a time: as tuples they take ten times the memory."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._parts: list[pa.Table] = []
        self._rows: list[tuple[Any, ...]] = []

    def add(self, rows: Iterable[tuple[Any, ...]]) -> None:
        self._rows += rows
        if len(self._rows) >= PART:
            self._flush()

    def table(self) -> pa.Table:
        self._flush()
        return pa.concat_tables(self._parts)

    def _flush(self) -> None:
        self._parts.append(_table(self._schema, self._rows))
        self._rows = []


def _table(schema: pa.Schema, rows: list[tuple[Any, ...]]) -> pa.Table:
    columns: list[Any] = [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in schema]
    arrays = [
        money_array([_told(amount) for amount in column]) if field.type == MONEY else pa.array(column, field.type)
        for field, column in zip(schema, columns, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def _told(amount: int | None) -> int | None:
    """A sum beyond what the column holds is not told: absurd amounts must not stop a statement."""
    return None if amount is None or abs(amount) >= LIMIT else amount
