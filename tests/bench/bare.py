"""The bare path: decode, deduplicate, read and write one 100-byte state per identifier set, one commit; no logic.

Each step is done the fastest known way (COPY into the dedup index, `= ANY` to read, COPY and upsert to write), so that
the ratio shows what the product's work costs, rather than how a table is written.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec

from infra.adapters.postgres.database import Database, array_literal, copy_out, copy_rows, f_bytes, f_int2, f_int8
from schemas.record import Identifier, Stored, identifier_set_of

_TABLES: Final = """
create table bare_register (event_key uuid primary key, digest uuid not null, partition smallint not null,
    "offset" bigint not null, signature uuid not null, verdict smallint not null);
create table bare_states (signature uuid primary key, state bytea not null) with (fillfactor = 70);
create temporary table bare_new (signature uuid, state bytea) on commit delete rows;
"""
_REGISTER: Final = ("event_key", "digest", "partition", "offset", "signature", "verdict")
_STATE: Final = bytes(100)


class _Properties(msgspec.Struct, gc=False):
    order_id: str | None = None
    revenue: str | None = None
    currency: str | None = None


class _Event(msgspec.Struct):
    """What a fold of orders would need; the rest of the record is skipped."""

    id: str
    digest: str
    type: str
    ids: list[Identifier]
    occurred_at: datetime
    received_at: datetime
    properties: _Properties


_DECODER: Final = msgspec.json.Decoder(_Event)


class BarePath:
    """One connection, with its own tables next to the product's."""

    def __init__(self, dsn: str) -> None:
        self._database = Database(dsn, "bench bare path")
        with self._database.transaction() as cursor:
            cursor.execute(_TABLES)

    def run(self, records: Sequence[Stored]) -> None:
        """Process one batch in one commit."""
        rows: list[tuple[bytes, bytes]] = []
        identifier_sets: set[bytes] = set()
        for record in records:
            event = _DECODER.decode(record.value)
            identifier_set = identifier_set_of(bytes.fromhex(each.token) for each in event.ids)
            identifier_sets.add(identifier_set)
            key = bytes.fromhex(event.id.replace("-", ""))
            position = f_int2(record.partition) + f_int8(record.offset)
            tail = f_bytes(bytes.fromhex(event.digest)) + position + f_bytes(identifier_set) + f_int2(0)
            rows.append((key, f_bytes(key) + tail))
        rows.sort()
        ordered = sorted(identifier_sets)
        with self._database.transaction() as cursor:
            copy_rows(cursor, "bare_register", _REGISTER, [row for _, row in rows])
            wanted = array_literal(ordered)
            found = copy_out(cursor, f"select signature, state from bare_states where signature = any({wanted})")
            states = {row[0]: row[1] for row in found}
            changed = [
                f_bytes(identifier_set) + f_bytes(states.get(identifier_set) or _STATE) for identifier_set in ordered
            ]
            copy_rows(cursor, "bare_new", ("signature", "state"), changed)
            cursor.execute(
                "insert into bare_states select signature, state from bare_new"
                " on conflict (signature) do update set state = excluded.state"
            )

    def close(self) -> None:
        self._database.close()
