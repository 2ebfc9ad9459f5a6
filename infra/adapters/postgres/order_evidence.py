"""Who has which orders, and whose what was said about them is, in PostgreSQL (decision 0037)."""

from collections.abc import Iterable, Sequence

from infra.adapters.postgres.database import array_literal, copy_out, f_bool, f_bytes, f_int8, int8
from infra.adapters.postgres.rows import HOLDERS, ORDER_OWNERS, ORDER_SETS
from infra.adapters.postgres.tx import PostgresTx
from schemas.store_rows import NO_EVENT, NO_RECEIPT, HolderOwner, HolderRow, OrderSetOwner, OrderSetRow


class OrderEvidenceRows(PostgresTx):
    """FOLD's side."""

    def save_orders(self, holders: Sequence[HolderRow], sets: Sequence[OrderSetRow]) -> list[bytes]:
        made = []
        if holders:
            source = self._stage.rows(HOLDERS, list(map(_pack_holder, holders)))
            made.append(
                f"insert into order_holders ({HOLDERS.names}) select * from {source} order by 1, 2, 3"
                " on conflict do nothing returning order_key"
            )
        if sets:
            source = self._stage.rows(ORDER_SETS, list(map(_pack_order_set, sets)))
            made.append(
                f"insert into order_sets ({ORDER_SETS.names}) select * from {source} order by 1"
                " on conflict do nothing returning order_key"
            )
            self._cursor.execute(  # where an order set's owner stands, like every owner
                "insert into evidence (signature, tokens, kinds, first_us, first_event)"
                f" select signature, '{{}}', '{{}}', {NO_RECEIPT[0]}, '{NO_EVENT.hex()}' from {source} order by 1"
                " on conflict do nothing"
            )
        keys: set[bytes] = set()
        for statement in made:
            keys.update(row[0] or b"" for row in copy_out(self._cursor, statement))
        return sorted(keys)

    def order_sets_of(self, senders: Iterable[bytes]) -> list[bytes]:
        rows = copy_out(
            self._cursor, f"select signature from order_sets where own = any({array_literal(senders)}) order by 1"
        )
        return [row[0] or b"" for row in rows]

    def replace_holders(self, identifier_sets: Iterable[bytes], rows: Sequence[HolderRow]) -> list[bytes]:
        those = array_literal(identifier_sets)
        stored = {
            HolderRow(row[0] or b"", int8(row[1]), row[2] or b"")
            for row in copy_out(
                self._cursor, f"select {HOLDERS.names} from order_holders where signature = any({those})"
            )
        }
        gone = sorted(stored.difference(rows))
        if gone:
            source = self._stage.rows(HOLDERS, list(map(_pack_holder, gone)))
            self._cursor.execute(
                f"delete from order_holders o using {source} where o.order_key = {HOLDERS.name}.order_key"
                f" and o.source = {HOLDERS.name}.source and o.signature = {HOLDERS.name}.signature"
            )
        new = sorted(set(rows) - stored)
        return sorted({each.order_key for each in gone}.union(self.save_orders(new, [])))


class OrderOwnerRows(PostgresTx):
    """DECIDE's side."""

    def lock_order_sets(self, order_keys: Iterable[bytes], moved: Iterable[bytes]) -> list[OrderSetOwner]:
        keys, those = array_literal(order_keys), array_literal(moved)
        locked = copy_out(
            self._cursor,
            "select signature from order_sets where signature = any (array("
            f"select signature from order_sets where order_key = any({keys})"
            f" union select signature from order_sets where own = any({those})"
            " union select s.signature from order_holders h join order_sets s using (order_key)"
            f" where h.signature = any({those}))) order by signature for update",
        )
        if not locked:
            return []
        rows = copy_out(  # in a statement of its own, which sees what those we waited for have decided
            self._cursor,
            "select s.signature, s.order_key, s.source, s.own, o.profile_id, e.profile_id, s.matched,"
            " o.signature is null or o.tokens = '{}' from order_sets s"
            " join evidence e on e.signature = s.signature left join evidence o on o.signature = s.own"
            f" where s.signature = any({array_literal(row[0] or b'' for row in locked)}) order by 1",
        )
        return [
            OrderSetOwner(
                *(row[0] or b"", row[1] or b"", int8(row[2]), row[3] or b"", row[4], row[5]),
                None if row[6] is None else row[6] == b"\x01",
                row[7] == b"\x01",
            )
            for row in rows
        ]

    def holders(self, order_keys: Iterable[bytes]) -> list[HolderOwner]:
        rows = copy_out(
            self._cursor,
            "select h.order_key, h.source, e.profile_id from order_holders h"
            f" left join evidence e on e.signature = h.signature where h.order_key = any({array_literal(order_keys)})"
            " and (e.signature is null or e.profile_id is not null or e.tokens = '{}')",  # no evidence: erased
        )
        return [HolderOwner(row[0] or b"", int8(row[1]), row[2]) for row in rows]

    def save_order_owners(self, rows: Sequence[tuple[bytes, bytes | None, bool]]) -> None:
        if not rows:
            return
        packed = [f_bytes(name) + f_bytes(owner) + f_bool(matched) for name, owner, matched in sorted(rows)]
        source, name = self._stage.rows(ORDER_OWNERS, packed), ORDER_OWNERS.name
        self._cursor.execute(
            f"update evidence e set profile_id = {name}.profile_id from {source} where e.signature = {name}.signature"
        )
        self._cursor.execute(
            f"update order_sets s set matched = {name}.matched from {source} where s.signature = {name}.signature"
        )


def _pack_holder(row: HolderRow) -> bytes:
    return f_bytes(row.order_key) + f_int8(row.source) + f_bytes(row.identifier_set)


def _pack_order_set(row: OrderSetRow) -> bytes:
    head = f_bytes(row.order_set) + f_bytes(row.order_key) + f_int8(row.source)
    return head + f_bytes(row.sender) + f_bytes(row.route)
