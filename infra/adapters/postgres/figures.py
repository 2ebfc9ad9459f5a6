"""The overview's figures in PostgreSQL: `FigureTx` and `KeeperTx` over an open cursor, and the read of two windows."""

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
from psycopg2.extensions import cursor as Cursor

from infra.adapters.postgres.database import Uuid, array_literal, copy_out, copy_rows, f_bytes, int8
from infra.adapters.postgres.locks import FIGURES_COMPACT, FIGURES_LOCK
from schemas.figures import (
    BY_BUCKET,
    EVENTS,
    LONGEST_DAYS,
    Amounts,
    Cells,
    Counted,
    Figures,
    Key,
    Kind,
    Window,
    add,
)

_AT_ONCE: Final = (Kind.RISK, Kind.STAGE, Kind.UNKNOWN, Kind.UNREADABLE)  # without a place in time
_COLUMNS: Final = "revision, kind, place, other, label, n, amount"
_FIRST: Final = bytes(16)
_LARGE: Final = 1 << 63
_Found = tuple[int, int, str, int, int, int]


def counted_rows(cursor: Cursor, revision: int, condition: str, rest: str = "") -> list[Counted]:
    """A revision's profiles as the figures count them."""
    rows = copy_out(
        cursor,
        f"select profile_id, state, first_us, risk, lifecycle from profiles_r{int(revision)} where {condition} {rest}",
    )
    leaves = leaves_of(cursor, revision, f"profile_id = any({array_literal([row[0] or b'' for row in rows])})")
    return [
        Counted(
            *(row[0] or b"", row[1] or b"", None if row[2] is None else int8(row[2])),
            *((row[3] or b"").decode(), (row[4] or b"").decode(), leaves.get(row[0] or b"", ())),
        )
        for row in rows
    ]


def leaves_of(cursor: Cursor, revision: int, condition: str = "true") -> dict[bytes, list[bytes]]:
    """By profile, the leaves of the trees of profiles over the cap (decision 0020)."""
    leaves: dict[bytes, list[bytes]] = {}
    query = (
        f"select profile_id, maps from order_nodes_r{int(revision)} where node > 0 and maps is not null and {condition}"
    )
    for profile_id, maps in copy_out(cursor, query):
        leaves.setdefault(profile_id or b"", []).append(maps or b"")
    return leaves


class PostgresFigureTx:
    """Mixed into transactions: needs `_cursor`."""

    _cursor: Cursor

    def add_figures(self, revision: int, cells: Mapping[Key, Sequence[int]]) -> None:
        packed = _packed(cells)
        if packed:
            self._cursor.execute(f"insert into figure_deltas values ({int(revision)}, '\\x{packed.hex()}')")

    def counted_up_to(self, revision: int) -> bytes | None:
        self._cursor.execute(
            f"select pg_advisory_xact_lock_shared({FIGURES_LOCK});"
            f" select place from figure_profile_fills where revision = {int(revision)}"
        )
        row = self._cursor.fetchone()
        return None if row is None else row[0]

    def add_nobody(self, identifier_sets: Collection[bytes]) -> None:
        if identifier_sets:
            self._cursor.execute(
                "insert into nobody_due select r.revision, s from revisions r,"
                f" unnest({array_literal(identifier_sets)}) s"
                " where r.state in ('live', 'building') on conflict do nothing"
            )

    def events_counted_before(self, partition: int, offset: int) -> bool:
        """Whether an event at this position is included in the figures; holds until commit."""
        self._cursor.execute(
            f"select pg_advisory_xact_lock_shared({FIGURES_LOCK});"
            " select exists (select from figure_event_fills"
            f" where partition = {int(partition)} and {int(offset)} >= at and {int(offset)} < until)"
        )
        row = self._cursor.fetchone()
        return row is None or not row[0]

    # ------------------------------------------------------------ keeping

    def take_nobody(self, revision: int, limit: int) -> dict[bytes, bytes | None]:
        rows = copy_out(
            self._cursor,
            "with taken as (delete from nobody_due where ctid = any (array(select ctid from nobody_due"
            f" where revision = {int(revision)} limit {int(limit)} for update skip locked)) returning signature)"
            " select t.signature, n.state from taken t left join nobody n"
            f" on n.revision = {int(revision)} and n.signature = t.signature",
        )
        return {row[0] or b"": row[1] for row in rows}

    def save_nobody(self, revision: int, orders: Mapping[bytes, bytes]) -> None:
        number = int(revision)
        self._cursor.execute(
            f"delete from nobody where revision = {number} and signature = any({array_literal(orders)})"
        )
        packed = [
            b"\0\0\0\4" + number.to_bytes(4, "big") + f_bytes(identifier_set) + f_bytes(state)
            for identifier_set, state in sorted(orders.items())
            if state
        ]
        copy_rows(self._cursor, "nobody", ("revision", "signature", "state"), packed)

    def positions_of_nobody(self, identifier_sets: Iterable[bytes]) -> list[tuple[int, int]]:
        rows = copy_out(
            self._cursor,
            'select partition, "offset" from register'
            f" where verdict in (0, 4) and signature = any({array_literal(identifier_sets)})",
        )
        return [(int8(row[0]), int8(row[1])) for row in rows]

    def owned_order_sets(self, senders: Iterable[bytes]) -> set[bytes]:
        rows = copy_out(
            self._cursor,
            "select signature from order_sets join evidence using (signature)"
            f" where own = any({array_literal(senders)}) and profile_id is not null",
        )
        return {row[0] or b"" for row in rows}

    def next_uncounted(self, revision: int, limit: int) -> list[Counted] | None:
        self._cursor.execute(
            f"select pg_advisory_xact_lock({FIGURES_LOCK});"
            f" select place from figure_profile_fills where revision = {int(revision)}"
        )
        row = self._cursor.fetchone()
        if row is None:
            return None
        after, ordered = f"profile_id > '{row[0].hex()}'", f"order by profile_id limit {int(limit)}"
        found = counted_rows(self._cursor, revision, after, ordered)
        if found:
            self._cursor.execute(
                "update figure_profile_fills set place = %s where revision = %s", (Uuid(found[-1].profile_id), revision)
            )
        else:
            self._cursor.execute("delete from figure_profile_fills where revision = %s", (revision,))
        return found

    def next_events(self) -> tuple[int, int, int] | None:
        self._cursor.execute(
            f"select pg_advisory_xact_lock({FIGURES_LOCK});"
            " select partition, at, until from figure_event_fills order by partition limit 1"
        )
        row = self._cursor.fetchone()
        return None if row is None else (int(row[0]), int(row[1]), int(row[2]))

    def events_counted(self, partition: int, upto: int) -> None:
        self._cursor.execute(
            "update figure_event_fills set at = %(upto)s where partition = %(partition)s;"
            " delete from figure_event_fills where partition = %(partition)s and at >= until",
            {"partition": partition, "upto": upto},
        )

    def compact_figures(self, limit: int, roll_up: Callable[[Cells], Cells]) -> int:
        self._cursor.execute(f"select pg_try_advisory_xact_lock({FIGURES_COMPACT})")
        row = self._cursor.fetchone()
        if row is None or not row[0]:
            return 0
        rows = copy_out(
            self._cursor,
            "with moved as (delete from figure_deltas where ctid = any (array("
            f"select ctid from figure_deltas limit {int(limit)})) returning revision, cells) select * from moved",
        )
        added: dict[int, Cells] = {}
        for revision, cells in rows:
            add_packed(added.setdefault(int8(revision), {}), cells or b"")
        for number, gathered in sorted(added.items()):
            self._store(number, roll_up(gathered))
        return len(rows)

    def _store(self, revision: int, cells: Cells) -> None:
        kept = sorted((key, cell) for key, cell in cells.items() if any(cell))
        columns = [list(column) for column in zip(*((*key, *cell) for key, cell in kept), strict=True)]
        if not kept:
            return
        self._cursor.execute(
            f"insert into figures as f ({_COLUMNS}) select {int(revision)}, * from unnest(%s::smallint[], %s::bigint[],"
            " %s::integer[], %s::text[], %s::bigint[], %s::numeric[])"
            " on conflict (revision, kind, place, other, label) do update"
            " set n = f.n + excluded.n, amount = f.amount + excluded.amount",
            columns,
        )


def _packed(cells: Mapping[Key, Sequence[int]]) -> bytes:
    """The non-zero cells, flat; b"" if there are none. An amount may exceed the integer range there."""
    flat: list[int | str] = []
    for key, (n, amount) in cells.items():
        if n or amount:
            flat += key
            flat += (n, amount if -_LARGE < amount < _LARGE else str(amount))
    return msgspec.msgpack.encode(flat) if flat else b""


def add_packed(cells: Cells, packed: bytes) -> None:
    flat = iter(msgspec.msgpack.decode(packed))
    for kind, place, other, label, n, amount in zip(*[flat] * 6, strict=True):
        add(cells, (kind, place, other, label), n, int(amount))


def forget_figures(cursor: Cursor, revision: int) -> None:
    """For a revision whose tables are dropped."""
    for table in ("figures", "figure_deltas", "figure_profile_fills", "nobody", "nobody_due"):
        cursor.execute(f"delete from {table} where revision = %s", (revision,))


def count_anew(cursor: Cursor, revision: int) -> None:
    """Drop a revision's counts; the worker counts it again from its profiles."""
    cursor.execute("select pg_advisory_xact_lock(%s)", (FIGURES_LOCK,))
    forget_figures(cursor, revision)
    cursor.execute("insert into figure_profile_fills values (%s, %s)", (revision, Uuid(_FIRST)))
    make_nobody_due(cursor, revision)


def make_nobody_due(cursor: Cursor, revision: int) -> None:
    """Also count erased people's orders for a revision, besides its profiles' orders."""
    cursor.execute(
        "insert into nobody_due select %s, signature from (select signature from register where verdict = 4"
        " union select own from order_sets where route is not null"
        " union select signature from evidence e where tokens = '{}'"
        " and not exists (select from order_sets o where o.signature = e.signature)) s on conflict do nothing",
        (revision,),
    )


# ---------------------------------------------------------------- reading


def all_cells(cursor: Cursor, revision: int) -> tuple[Cells, Cells] | None:
    """A revision's cells and the deltas not yet added; None until all of its profiles are counted."""
    cursor.execute("select exists (select from figure_profile_fills where revision = %s)", (revision,))
    row = cursor.fetchone()
    if row is None or row[0]:
        return None
    cursor.execute("select kind, place, other, label, n, amount from figures where revision = %s", (revision,))
    stored = {(int(k), int(p), int(o), label): [int(n), int(a)] for k, p, o, label, n, a in cursor.fetchall()}
    deltas: Cells = {}
    for (cells,) in copy_out(cursor, f"select cells from figure_deltas where revision = {int(revision)}"):
        add_packed(deltas, cells or b"")
    return stored, deltas


# The first row: the smaller of the counted shares of profiles (ids are random, so their place is the share) and of
# events, and whether all are counted.
_READ: Final = """
with fills as (
    select ('x' || substr(place::text, 1, 8))::bit(32)::bigint / 4294967296.0 as done
    from figure_profile_fills where revision = {revision}
    union all select sum(at)::numeric / nullif(sum(until), 0) from figure_event_fills having count(*) > 0)
select 0 as what, 0::bigint as at, '' as label, 0 as side, coalesce(min(done), 1) as n,
    case when count(*) = 0 then 1 else 0 end::numeric as amount, null::bytea as cells
from fills
union all select 0, 1, '', 0, coalesce(min(watermark_us), 0), 0, null from progress where revision = {revision}
union all select -1, 0, '', 0, 0, 0, cells from figure_deltas where revision in ({events}, {revision})
{selects}
"""


def _select(what: int, columns: str, source: tuple[int, int], where: str, group: str = "") -> str:
    revision, kind = source
    return (
        f"union all select {int(what)}, {columns}, null from figures"
        f" where revision = {int(revision)} and kind = {int(kind)} and {where} {group}"
    )


def _statement(revision: int, now: Window, before: Window) -> str:
    """One SELECT of (what, at, label, side, n, amount, packed deltas); side 0 is now, 1 before."""
    selects: list[str] = []
    for kind in BY_BUCKET:
        of = EVENTS if kind == Kind.EVENT else revision
        at, label = ("other", "label") if kind == Kind.UNRATED else ("0", "''")
        days = (now.first, now.last), (before.first, before.last - 1)
        for side, (first, last) in enumerate(days):
            place = f"place - {first}" if kind == Kind.ORDERS and side == 0 else at
            where = f"place between {first} and {last}"
            columns = f"{place}, {label}, {side}, sum(n), sum(amount)"
            selects.append(_select(kind, columns, (of, Kind.DAY + kind), where, "group by 2, 3"))
        edge = f"place >= {before.last_start} and place < {before.end}"  # the last day is not over
        selects.append(_select(kind, f"{at}, {label}, 1, sum(n), sum(amount)", (of, kind), edge, "group by 2, 3"))
    for kind, stored in ((Kind.BUYERS, Kind.PERIOD_BUYERS), (Kind.FIRSTS, Kind.PERIOD_FIRSTS)):
        for side, window in enumerate((now, before)):
            where = f"other = {window.last - window.first + 1} and place <= {window.last}"
            selects.append(_select(kind, f"0, '', {side}, sum(n), 0", (revision, stored), where))
    where = f"place between {now.first} and {now.last}"
    selects.append(_select(Kind.FAMILY, "0, label, 0, sum(n), 0", (EVENTS, Kind.FAMILY), where, "group by 3"))
    for kind in _AT_ONCE:
        columns = "other, label, 0, sum(n), sum(amount)"
        selects.append(_select(kind, columns, (revision, kind), "place = 0", "group by 2, 3"))
    return _READ.format(revision=int(revision), events=EVENTS, selects="\n".join(selects))


def _in_deltas(packed: Iterable[bytes], now: Window, before: Window, days: Sequence[int]) -> Iterator[_Found]:
    """(what, at, label, side, n, amount) of deltas not yet among the cells."""
    cells: Cells = {}
    for each in packed:
        add_packed(cells, each)
    for (kind, place, other, label), (n, amount) in cells.items():
        if kind in _AT_ONCE:
            yield kind, other, label, 0, n, amount
            continue
        for side, window in enumerate((now, before)):
            first, last = (window.start, window.end - 1) if kind in BY_BUCKET else (window.first, window.last)
            if not first <= place <= last or (kind == Kind.FAMILY and side):
                continue
            if kind == Kind.BUYERS and other <= place - first:
                continue
            if kind == Kind.FIRSTS and place + other <= last and other < LONGEST_DAYS:
                continue
            at = bisect_right(days, place) - 1 if kind == Kind.ORDERS and side == 0 else other
            yield kind, at if kind in (Kind.ORDERS, Kind.UNRATED) else 0, label, side, n, amount


def read_figures(
    rows: Callable[[str], list[tuple[Any, ...]]], revision: int, now: Window, before: Window, days: Sequence[int]
) -> Figures:
    """`rows`: runs a statement and returns its rows."""
    found: dict[tuple[int, int], list[tuple[int, str, Amounts]]] = {}
    done, watermark_us = 1.0, 0
    packed: list[bytes] = []
    for what, at, label, side, n, amount, cells in rows(_statement(revision, now, before)):
        if what < 0:
            packed.append(bytes(cells))
        elif what:
            found.setdefault((what, side), []).append((int(at), label, Amounts(int(n or 0), int(amount or 0))))
        elif at:
            watermark_us = int(n)
        else:
            done = 1.0 if amount else min(float(n), 0.99)
    for what, at, label, side, n, amount in _in_deltas(packed, now, before, days):
        found.setdefault((what, side), []).append((at, label, Amounts(n, amount)))

    def total(kind: int, side: int) -> Amounts:
        cells = [cell for _, _, cell in found.get((kind, side), ())]
        return Amounts(sum(cell.n for cell in cells), sum(cell.amount for cell in cells))

    def named(kind: int, side: int = 0) -> dict[tuple[str, int], Amounts]:
        sums: dict[tuple[str, int], Amounts] = {}
        for at, label, cell in found.get((kind, side), ()):
            known = sums.get((label, at), Amounts(0, 0))
            sums[label, at] = Amounts(known.n + cell.n, known.amount + cell.amount)
        return {key: cell for key, cell in sums.items() if cell.n or cell.amount}

    return Figures(
        done=done,
        watermark_us=watermark_us,
        orders=(total(Kind.ORDERS, 0), total(Kind.ORDERS, 1)),
        unrated=(named(Kind.UNRATED, 0), named(Kind.UNRATED, 1)),
        buyers=(total(Kind.BUYERS, 0).n, total(Kind.BUYERS, 1).n),
        once=(total(Kind.FIRSTS, 0).n, total(Kind.FIRSTS, 1).n),
        customers=(total(Kind.CUSTOMERS, 0).n, total(Kind.CUSTOMERS, 1).n),
        events=(total(Kind.EVENT, 0).n, total(Kind.EVENT, 1).n),
        risk=named(Kind.RISK),
        stages={_stage(label): cell.n for (label, _), cell in named(Kind.STAGE).items()},
        by_day={at: cell for (_, at), cell in named(Kind.ORDERS).items()},
        by_family={label: cell.n for (label, _), cell in named(Kind.FAMILY).items()},
        unknown=total(Kind.UNKNOWN, 0).n,
        unreadable=total(Kind.UNREADABLE, 0).n,
    )


_LEFT_OUT: Final = (
    "select kind, label, sum(n), null::bytea from figures where revision = {revision} and kind in ({kinds})"
    " group by 1, 2 union all select -1, '', 0, cells from figure_deltas where revision = {revision}"
)


def amounts_left_out(rows: Callable[[str], list[tuple[Any, ...]]], revision: int) -> tuple[int, dict[str, int]]:
    """How many orders and refunds of a revision have an amount that could not be read; and how many amounts have no
    rate, by currency."""
    found: Cells = {}
    kinds = f"{Kind.UNREADABLE}, {Kind.DAY + Kind.UNRATED}"
    for kind, label, n, packed in rows(_LEFT_OUT.format(revision=int(revision), kinds=kinds)):
        if packed is not None:
            add_packed(found, bytes(packed))
        else:
            add(found, (Kind.UNRATED if kind > Kind.DAY else int(kind), 0, 0, label), int(n))
    unreadable, unrated = 0, dict[str, int]()
    for (kind, _, _, label), (n, _) in found.items():
        if kind == Kind.UNREADABLE:
            unreadable += n
        elif kind == Kind.UNRATED:
            unrated[label] = unrated.get(label, 0) + n
    return unreadable, {currency: n for currency, n in sorted(unrated.items()) if n}


def _stage(label: str) -> tuple[str, str]:
    stage, _, level = label.rpartition("/")
    return stage, level
