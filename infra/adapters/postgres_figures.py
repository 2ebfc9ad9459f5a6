"""The overview's figures in PostgreSQL: `FigureTx` and `KeeperTx` over an open cursor, and the read of two windows."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from io import StringIO
from typing import Any, Final

from psycopg2.extensions import cursor as Cursor

from infra.adapters.postgres import Uuid, array_literal, copy_out, copy_rows, f_bytes, int8
from infra.adapters.postgres_locks import FIGURES_COMPACT, FIGURES_LOCK
from infra.adapters.postgres_staging import FEW, quoted
from schemas.figures import EVENTS, Amounts, Cells, Counted, Figures, Key, Kind, Window

_COLUMNS: Final = "revision, kind, place, other, label, n, amount"
_FIRST: Final = bytes(16)
_ESCAPES: Final = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def counted_rows(cursor: Cursor, revision: int, condition: str, rest: str = "") -> list[Counted]:
    """Profiles of a revision as the figures count them."""
    rows = copy_out(
        cursor,
        f"select profile_id, state, first_us, risk, lifecycle from profiles_r{int(revision)} where {condition} {rest}",
    )
    return [
        Counted(
            *(row[0] or b"", row[1] or b"", None if row[2] is None else int8(row[2])),
            *((row[3] or b"").decode(), (row[4] or b"").decode()),
        )
        for row in rows
    ]


class PostgresFigureTx:
    """A part of transactions: needs `_cursor`."""

    _cursor: Cursor

    def add_figures(self, revision: int, cells: Mapping[Key, Sequence[int]]) -> None:
        rows = [(*key, n, amount) for key, (n, amount) in cells.items() if n or amount]
        if not rows:
            return
        number = int(revision)
        if len(rows) <= FEW:
            values = ",".join(
                [
                    f"({number},{int(k)},{int(p)},{int(o)},{quoted(label)},{n},{amount})"
                    for k, p, o, label, n, amount in rows
                ]
            )
            self._cursor.execute(f"insert into figure_deltas ({_COLUMNS}) values {values}")
            return
        lines = [
            f"{number}\t{int(k)}\t{int(p)}\t{int(o)}\t{label.translate(_ESCAPES)}\t{n}\t{amount}\n"
            for k, p, o, label, n, amount in rows
        ]
        self._cursor.copy_expert(f"copy figure_deltas ({_COLUMNS}) from stdin", StringIO("".join(lines)))

    def counted_up_to(self, revision: int) -> bytes | None:
        self._cursor.execute(
            f"select pg_advisory_xact_lock_shared({FIGURES_LOCK});"
            f" select place from figure_profile_fills where revision = {int(revision)}"
        )
        row = self._cursor.fetchone()
        return None if row is None else row[0]

    def add_nobody(self, signatures: Collection[bytes]) -> None:
        if signatures:
            self._cursor.execute(
                f"insert into nobody_due select r.revision, s from revisions r, unnest({array_literal(signatures)}) s"
                " where r.state in ('live', 'building') on conflict do nothing"
            )

    def events_counted_before(self, partition: int, offset: int) -> bool:
        """Whether an event at this position is in the figures; holds until commit."""
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
            b"\0\0\0\4" + number.to_bytes(4, "big") + f_bytes(signature) + f_bytes(state)
            for signature, state in sorted(orders.items())
            if state
        ]
        copy_rows(self._cursor, "nobody", ("revision", "signature", "state"), packed)

    def positions_of_nobody(self, signatures: Iterable[bytes]) -> list[tuple[int, int]]:
        rows = copy_out(
            self._cursor,
            'select partition, "offset" from register'
            f" where verdict in (0, 4) and signature = any({array_literal(signatures)})",
        )
        return [(int8(row[0]), int8(row[1])) for row in rows]

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

    def compact_figures(self, limit: int) -> int:
        self._cursor.execute(f"select pg_try_advisory_xact_lock({FIGURES_COMPACT})")
        row = self._cursor.fetchone()
        if row is None or not row[0]:
            return 0
        self._cursor.execute(
            "with moved as (delete from figure_deltas where ctid = any (array("
            f"   select ctid from figure_deltas limit {int(limit)})) returning {_COLUMNS}),"
            f" added as (insert into figures as f ({_COLUMNS})"
            "   select revision, kind, place, other, label, sum(n), sum(amount) from moved group by 1, 2, 3, 4, 5"
            "   order by 1, 2, 3, 4, 5 on conflict (revision, kind, place, other, label) do update"
            "   set n = f.n + excluded.n, amount = f.amount + excluded.amount)"
            " select count(*) from moved"
        )
        row = self._cursor.fetchone()
        return int(row[0]) if row else 0


def forget_figures(cursor: Cursor, revision: int) -> None:
    """Of a revision whose tables are dropped."""
    for table in ("figures", "figure_deltas", "figure_profile_fills", "nobody", "nobody_due"):
        cursor.execute(f"delete from {table} where revision = %s", (revision,))


def count_anew(cursor: Cursor, revision: int) -> None:
    """Forget what is counted of a revision; the worker counts it again from its profiles."""
    cursor.execute("select pg_advisory_xact_lock(%s)", (FIGURES_LOCK,))
    forget_figures(cursor, revision)
    cursor.execute("insert into figure_profile_fills values (%s, %s)", (revision, Uuid(_FIRST)))
    make_nobody_due(cursor, revision)


def make_nobody_due(cursor: Cursor, revision: int) -> None:
    """The orders of those who are erased are counted for a revision, beside those of its profiles."""
    cursor.execute(
        "insert into nobody_due select %s, signature from (select signature from register where verdict = 4"
        " union select signature from evidence where tokens = '{}') s on conflict do nothing",
        (revision,),
    )


# ---------------------------------------------------------------- reading


def all_cells(cursor: Cursor, revision: int) -> Cells | None:
    """The cells of a revision, deltas added up; None while not all of its profiles are counted."""
    cursor.execute("select exists (select from figure_profile_fills where revision = %s)", (revision,))
    row = cursor.fetchone()
    if row is None or row[0]:
        return None
    cursor.execute(
        "select kind, place, other, label, sum(n), sum(amount) from (select * from figures union all"
        " select * from figure_deltas) f where revision = %s group by 1, 2, 3, 4",
        (revision,),
    )
    return {(int(k), int(p), int(o), label): [int(n), int(a)] for k, p, o, label, n, a in cursor.fetchall()}


# The first row: the smaller of the shares of profiles (ids are random: their place is the share) and of events that are
# counted, and whether all are.
_READ: Final = """
with d as materialized (select * from figure_deltas where revision in ({events}, {revision})),
fills as (
    select ('x' || substr(place::text, 1, 8))::bit(32)::bigint / 4294967296.0 as done
    from figure_profile_fills where revision = {revision}
    union all select sum(at)::numeric / nullif(sum(until), 0) from figure_event_fills having count(*) > 0),
{parts}
select 0 as what, 0 as at, '' as label, 0 as side, coalesce(min(done), 1) as n,
    case when count(*) = 0 then 1 else 0 end::numeric as amount
from fills
union all select 0, 1, '', 0, coalesce(min(watermark_us), 0), 0 from progress where revision = {revision}
{selects}
"""


def _cells(name: str, revision: int, kind: int, low: int, high: int) -> str:
    """A CTE of the cells of one kind in [low, high)."""
    where = f"where revision = {int(revision)} and kind = {int(kind)} and place >= {int(low)} and place < {int(high)}"
    return (
        f"{name} as not materialized (select place, other, label, n, amount from figures {where}"
        f" union all select place, other, label, n, amount from d {where})"
    )


def _statement(revision: int, now: Window, before: Window, days: Sequence[int]) -> str:
    """One SELECT of (what, at, label, side, n, amount); side 0 is now, 1 before."""
    midnights = "array[" + ",".join(str(int(day)) for day in days[:-1]) + "]::bigint[]"
    parts: list[str] = []
    selects: list[str] = []
    for side, window in enumerate((now, before)):
        by_bucket = (
            (Kind.ORDERS, revision),
            (Kind.UNRATED, revision),
            (Kind.CUSTOMERS, revision),
            (Kind.EVENT, EVENTS),
        )
        for kind, of in by_bucket:
            name = f"c{int(kind)}_{side}"
            parts.append(_cells(name, of, kind, window.start, window.end))
            if kind == Kind.ORDERS and side == 0:
                at = f"width_bucket(place, {midnights}) - 1"
            else:
                at = "other" if kind == Kind.UNRATED else "0"
            label = "label" if kind == Kind.UNRATED else "''"
            selects.append(f"select {int(kind)}, {at}, {label}, {side}, sum(n), sum(amount) from {name} group by 2, 3")
        for kind in (Kind.BUYERS, Kind.FIRSTS):
            name = f"c{int(kind)}_{side}"
            parts.append(_cells(name, revision, kind, window.first, window.last + 1))
            alone = f"other > place - {window.first}" if kind == Kind.BUYERS else f"place + other > {window.last}"
            selects.append(f"select {int(kind)}, 0, '', {side}, sum(n), 0 from {name} where {alone}")
    parts.append(_cells("family", EVENTS, Kind.FAMILY, now.first, now.last + 1))
    selects.append(f"select {Kind.FAMILY}, 0, label, 0, sum(n), 0 from family group by 3")
    for kind in (Kind.RISK, Kind.STAGE, Kind.UNKNOWN):
        parts.append(_cells(f"c{int(kind)}", revision, kind, 0, 1))
        selects.append(f"select {int(kind)}, other, label, 0, sum(n), sum(amount) from c{int(kind)} group by 2, 3")
    return _READ.format(
        revision=int(revision),
        events=EVENTS,
        parts=",\n".join(parts),
        selects="\n".join(f"union all {select}" for select in selects),
    )


def read_figures(
    rows: Callable[[str], list[tuple[Any, ...]]], revision: int, now: Window, before: Window, days: Sequence[int]
) -> Figures:
    """`rows`: runs a statement and gives its rows."""
    found: dict[tuple[int, int], list[tuple[int, str, Amounts]]] = {}
    done, watermark_us = 1.0, 0
    for what, at, label, side, n, amount in rows(_statement(revision, now, before, days)):
        if what:
            found.setdefault((what, side), []).append((int(at), label, Amounts(int(n or 0), int(amount or 0))))
        elif at:
            watermark_us = int(n)
        else:
            done = 1.0 if amount else min(float(n), 0.99)

    def total(kind: int, side: int) -> Amounts:
        cells = [cell for _, _, cell in found.get((kind, side), ())]
        return Amounts(sum(cell.n for cell in cells), sum(cell.amount for cell in cells))

    def named(kind: int, side: int = 0) -> dict[tuple[str, int], Amounts]:
        return {(label, at): cell for at, label, cell in found.get((kind, side), ()) if cell.n or cell.amount}

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
        by_day={at: cell for at, _, cell in found.get((Kind.ORDERS, 0), ())},
        by_family={label: cell.n for (label, _), cell in named(Kind.FAMILY).items()},
        unknown=total(Kind.UNKNOWN, 0).n,
    )


def _stage(label: str) -> tuple[str, str]:
    stage, _, level = label.rpartition("/")
    return stage, level
