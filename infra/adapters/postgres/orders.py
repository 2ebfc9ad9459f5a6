"""Orders over the cap in PostgreSQL: what FOLD moves out of states, and nodes of profiles' trees (decision 0020)."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from infra.adapters.postgres.database import array_literal, copy_out, f_bytes, f_int2, int8
from infra.adapters.postgres.staging import Staging
from infra.adapters.postgres.tx import PostgresTx
from schemas.store_rows import LaidOff, NodeRow

LAID_OFF: Final = Staging("new_laid_off", {"signature": "uuid", "partition": "smallint", "maps": "bytea"})
NODES: Final = Staging(
    "new_order_nodes", {"profile_id": "uuid", "node": "smallint", "summary": "bytea", "maps": "bytea"}
)


class LaidOffRows(PostgresTx):
    """FOLD's side: rows are only added, and deleted with the states they belong to."""

    def lay_off(self, revision: int, maps: Mapping[tuple[int, bytes], bytes]) -> None:
        if not maps:
            return
        packed = [
            f_bytes(identifier_set) + f_int2(partition) + f_bytes(data)
            for (partition, identifier_set), data in sorted(maps.items(), key=lambda item: item[0][::-1])
        ]
        self._cursor.execute(
            f"insert into laid_off_r{int(revision)} (signature, partition, maps)"
            f" select * from {self._stage.rows(LAID_OFF, packed)}"
        )


class OrderTreeRows(PostgresTx):
    """DECIDE's side: under the lock on the profile's row."""

    def laid_off(
        self, revision: int, identifier_sets: Iterable[bytes], after: Mapping[int, int], joined: Iterable[bytes]
    ) -> list[LaidOff]:
        # By partition, so that each is a range of the key and rows read before cost nothing. One statement sees each
        # partition completely up to the last id it sees there.
        seen = "".join([f" when {int(partition)} then {int(last)}" for partition, last in sorted(after.items())])
        newer = f" and l.id > case p.partition{seen} else 0 end" if seen else ""
        rows = copy_out(
            self._cursor,
            "select l.* from progress p cross join lateral (select signature, partition, id, maps"
            f" from laid_off_r{int(revision)} l where l.signature = any({array_literal(identifier_sets)})"
            f" and l.partition = p.partition{newer}) l where p.revision = {int(revision)}"
            f" union all select signature, partition, id, maps from laid_off_r{int(revision)}"
            f" where signature = any({array_literal(joined)})",
        )
        return [LaidOff(row[0] or b"", int8(row[1]), int8(row[2]), row[3] or b"") for row in rows]

    def awaiting_refold(self, revision: int, identifier_sets: Iterable[bytes]) -> set[bytes]:
        rows = copy_out(
            self._cursor,
            "select s from marks cross join lateral unnest(signatures) s"
            f" where revision = {int(revision)} and kind = 'refold' and s = any({array_literal(identifier_sets)})",
        )
        return {row[0] or b"" for row in rows}

    def order_nodes(
        self, revision: int, profile_id: bytes, nodes: Collection[int], leaves: Collection[int]
    ) -> list[NodeRow]:
        wanted = ",".join([str(int(node)) for node in sorted(nodes)])
        whole = ",".join([str(int(node)) for node in sorted({0, *leaves})])
        rows = copy_out(
            self._cursor,
            f"select node, summary, case when node = any('{{{whole}}}'::smallint[]) then maps end"
            f" from order_nodes_r{int(revision)} where profile_id = '{profile_id.hex()}'::uuid"
            f" and node = any('{{{wanted}}}'::smallint[])",
        )
        return [NodeRow(int8(row[0]), row[1] or b"", row[2]) for row in rows]

    def save_order_nodes(self, revision: int, profile_id: bytes, rows: Sequence[NodeRow]) -> None:
        if not rows:
            return
        packed = [f_bytes(profile_id) + f_int2(node) + f_bytes(summary) + f_bytes(maps) for node, summary, maps in rows]
        self._cursor.execute(
            f"insert into order_nodes_r{int(revision)} select * from {self._stage.rows(NODES, packed)}"
            " on conflict (profile_id, node) do update set summary = excluded.summary, maps = excluded.maps"
        )

    def delete_order_nodes(self, revision: int, profile_ids: Iterable[bytes]) -> None:
        self._cursor.execute(
            f"delete from order_nodes_r{int(revision)} where profile_id = any({array_literal(profile_ids)})"
        )
