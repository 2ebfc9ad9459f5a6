"""`FoldTx` in PostgreSQL: FOLD's statements, each over a whole batch (design C7)."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import psycopg2.errors
from psycopg2.extensions import cursor as Cursor

from infra.adapters.postgres.database import (
    Uuids,
    array_literal,
    copy_out,
    copy_raw,
    copy_rows,
    f_bytes,
    f_int2,
    f_int8,
    int8,
)
from infra.adapters.postgres.locks import ERASURE_LOCK, FOLD_GATE, IDENTITY_LOCK
from infra.adapters.postgres.order_evidence import OrderEvidenceRows
from infra.adapters.postgres.orders import LaidOffRows
from infra.adapters.postgres.rows import (
    DEDUP,
    EVIDENCE,
    STATE_ROW,
    STATES,
    by_identifier_set,
    dedup_row,
    pack_dedup,
    pack_evidence,
    read_states,
)
from infra.adapters.postgres.staging import FEW
from schemas.dead_letters import DeadLetter
from schemas.errors import ProgressConflict
from schemas.stamps import key_of, n_of
from schemas.store_rows import NO_RECEIPT, Advance, DedupRow, EvidenceRow, NotApplied

_SOME_ERASED: Final = "select exists (select from erased_tokens)"


class PostgresFold(LaidOffRows, OrderEvidenceRows):
    """`FoldTx` over an open cursor."""

    def __init__(self, cursor: Cursor) -> None:
        super().__init__(cursor)
        self._some_erased: bool | None = None  # False: nothing is erased; no erasure names new tokens until commit

    def hold_erasures(self, *, live: bool) -> None:
        # the gate first: pausing FOLD lets a building revision go on, which also holds erasures off
        gate = f"pg_advisory_xact_lock_shared({FOLD_GATE})," if live else ""
        self._some_erased = self._look(f"select {gate} pg_advisory_xact_lock_shared({ERASURE_LOCK}); {_SOME_ERASED}")

    def erased(self, tokens: Iterable[bytes]) -> set[bytes]:
        if self._some_erased is None:
            self._some_erased = self._look(_SOME_ERASED)
        if not self._some_erased:
            return set()
        rows = copy_out(self._cursor, f"select token from erased_tokens where token = any({array_literal(tokens)})")
        return {row[0] or b"" for row in rows}

    def _look(self, query: str) -> bool:
        self._cursor.execute(query)
        row = self._cursor.fetchone()
        return row is not None and bool(row[0])

    def advance(self, revision: int, batches: Sequence[Advance]) -> None:
        if not batches:
            return
        rows = ",".join([f"({b.partition}::smallint,{b.epoch},{b.start},{b.end},{b.watermark_us})" for b in batches])
        listed = ",".join([str(int(batch.partition)) for batch in batches])
        self._cursor.execute(  # in order, like claims, which also lock partitions
            f"select from progress where revision = {int(revision)} and partition in ({listed})"
            " order by partition for update;"
            ' update progress p set next_offset = v."end", watermark_us = greatest(p.watermark_us, v.watermark_us)'
            f' from (values {rows}) v (partition, epoch, start, "end", watermark_us)'
            f" where p.revision = {int(revision)} and p.partition = v.partition and p.epoch = v.epoch"
            " and p.next_offset = v.start returning p.partition"
        )
        moved = {int(row[0]) for row in self._cursor.fetchall()}
        for batch in batches:
            if batch.partition not in moved:
                raise ProgressConflict(
                    f"partition {batch.partition} of revision {revision} is not at {batch.start} in epoch {batch.epoch}"
                )

    def hold_progress(self, revision: int) -> None:
        self._cursor.execute("select from progress where revision = %s order by partition for update", (revision,))

    def deduplicate(self, rows: Sequence[DedupRow]) -> list[DedupRow]:
        rows = sorted(rows)
        return self._deduplicate_few(rows) if len(rows) <= FEW else self._deduplicate_many(rows)

    def _deduplicate_few(self, rows: Sequence[DedupRow]) -> list[DedupRow]:
        if not rows:
            return []
        source = self._stage.rows(DEDUP, list(map(pack_dedup, rows)))
        self._cursor.execute(
            f"insert into register ({DEDUP.names}) select * from {source} on conflict do nothing returning event_key"
        )
        if self._cursor.rowcount == len(rows):
            return []
        stored = {row[0] for row in self._cursor.fetchall()}
        return self._indexed([row for row in rows if row.event_key not in stored])

    def _deduplicate_many(self, rows: Sequence[DedupRow]) -> list[DedupRow]:
        # New keys are the rule: COPY first inside a savepoint, look only if a key existed (2.7-4.1 us a row).
        # Repeated, because another worker may commit one of them between the look and the second COPY.
        present: list[DedupRow] = []
        while True:
            self._cursor.execute("savepoint register")
            try:
                self._copy_dedup(rows)
            except psycopg2.errors.UniqueViolation:
                self._cursor.execute("rollback to savepoint register")
                found = self._indexed(rows)
                present += found
                known = {row.event_key for row in found}
                rows = [row for row in rows if row.event_key not in known]
            else:
                self._cursor.execute("release savepoint register")
                return present

    def _copy_dedup(self, rows: Sequence[DedupRow]) -> None:
        copy_rows(self._cursor, "register", list(DEDUP.columns), list(map(pack_dedup, rows)))

    def _indexed(self, rows: Sequence[DedupRow]) -> list[DedupRow]:
        keys = array_literal(row.event_key for row in rows)
        found = copy_out(
            self._cursor,
            'select event_key, digest, partition, "offset", signature, verdict from register'
            f" where event_key = any({keys})",
        )
        return [dedup_row(row) for row in found]

    def replace_dedup(self, rows: Sequence[DedupRow]) -> None:
        if rows:
            self._cursor.execute(
                "delete from register where event_key = any(%s)", (Uuids([row.event_key for row in rows]),)
            )
            self._copy_dedup(sorted(rows))

    def not_applied(self, rows: Sequence[NotApplied]) -> None:
        packed = [
            f_int2(row.partition) + f_int8(row.offset) + f_bytes(row.event_key) + f_int2(row.verdict) for row in rows
        ]
        copy_rows(self._cursor, "not_applied", ("partition", "offset", "event_key", "verdict"), packed)

    def is_set_aside(self, partition: int, offset: int) -> bool:
        self._cursor.execute(
            'select exists (select from set_aside where partition = %s and "offset" = %s and restored_at is null)',
            (partition, offset),
        )
        row = self._cursor.fetchone()
        return row is not None and bool(row[0])

    def restore(self, partition: int, offset: int) -> bool:
        place = (partition, offset)
        self._cursor.execute(
            'delete from not_applied where partition = %s and "offset" = %s and verdict = 3 and event_key is null',
            place,
        )
        if self._cursor.rowcount == 0:
            return False
        self._cursor.execute(
            'insert into set_aside as s (partition, "offset", at, who, code, reason, restored_at)'
            " values (%s, %s, now(), 'fold', '', '', now())"
            ' on conflict (partition, "offset") do update set restored_at = now()',
            place,
        )
        self._cursor.execute(
            "insert into facts (type, version, at, payload) values ('record.restored', 1, now(),"
            " jsonb_build_object('partition', %s, 'offset', %s))",
            place,
        )
        return True

    def delete_states(self, revision: int, identifier_sets: Iterable[bytes]) -> None:
        those = f"where signature = any({array_literal(identifier_sets)})"
        self._cursor.execute(
            f"delete from states_r{int(revision)} {those}; delete from laid_off_r{int(revision)} {those}"
        )

    def load_states(self, revision: int, keys: Iterable[tuple[int, bytes]]) -> dict[tuple[int, bytes], bytes]:
        wanted = set(keys)
        if not wanted:
            return {}
        # An identifier set is nearly always in a single partition, so little is read besides the wanted rows.
        data = copy_raw(
            self._cursor,
            f"select signature, partition, state from states_r{int(revision)}"
            f" where signature = any({array_literal({identifier_set for _, identifier_set in wanted})})",
        )
        return {key: state for key, state in read_states(data) if key in wanted}

    def save_states(self, revision: int, states: Mapping[tuple[int, bytes], bytes]) -> None:
        if not states:
            return
        pack = STATE_ROW
        packed = [
            pack(16, identifier_set, 2, partition, len(state)) + state
            for (partition, identifier_set), state in sorted(states.items(), key=by_identifier_set)
        ]
        self._cursor.execute(
            f"insert into states_r{int(revision)} select * from {self._stage.rows(STATES, packed)}"
            " on conflict (signature, partition) do update set state = excluded.state"
        )

    def take_refolds(self, revision: int, limit: int) -> list[bytes]:
        self._cursor.execute(
            "delete from marks where id in (select id from marks where revision = %s and kind = 'refold'"
            " order by id limit %s for update) returning signatures",
            (revision, limit),
        )
        return sorted(
            {identifier_set for (identifier_sets,) in self._cursor.fetchall() for identifier_set in identifier_sets}
        )

    def count_applied(self, identifier_sets: Iterable[bytes]) -> dict[bytes, int]:
        rows = copy_out(
            self._cursor,
            "select signature, count(*) from register"
            f" where verdict = 0 and signature = any({array_literal(identifier_sets)}) group by signature",
        )
        return {row[0] or b"": int8(row[1]) for row in rows}

    def first_receipts(self, identifier_sets: Iterable[bytes]) -> dict[bytes, tuple[int, bytes]]:
        rows = copy_out(
            self._cursor,
            "select signature, first_us, first_n, first_event from evidence"
            f" where signature = any({array_literal(identifier_sets)})",
        )
        return {row[0] or b"": (int8(row[1]), (row[2] or b"") + (row[3] or b"")) for row in rows}

    def save_evidence(self, rows: Sequence[EvidenceRow]) -> None:
        if not rows:
            return
        source = self._stage.rows(EVIDENCE, [pack_evidence(row) for row in sorted(rows)])
        self._cursor.execute(
            f"with saved as (insert into evidence select * from {source} on conflict (signature) do update"
            " set first_us = excluded.first_us, first_n = excluded.first_n, first_event = excluded.first_event,"
            f" tokens = case when evidence.first_us = {NO_RECEIPT[0]} then excluded.tokens else evidence.tokens end,"
            f" kinds = case when evidence.first_us = {NO_RECEIPT[0]} then excluded.kinds else evidence.kinds end"
            " where (excluded.first_us, excluded.first_n, excluded.first_event)"
            " < (evidence.first_us, evidence.first_n, evidence.first_event)"
            " returning tokens, signature)"  # as stored: an emptied one stays without an owner
            " insert into evidence_tokens select unnest(tokens), signature from saved"
            " order by 1, 2 on conflict do nothing"
        )

    def withdraw(self, revision: int, receipts: Mapping[bytes, tuple[int, bytes] | None]) -> list[bytes]:
        # Evidence without tokens belongs to an erased person, or was withdrawn before: nothing is left to correct.
        rows = ",".join(
            [
                f"('{identifier_set.hex()}'::uuid,{at_us}::bigint,{n_of(place)},'{key_of(place).hex()}'::uuid,"
                f"{receipt is None})"
                for identifier_set, receipt in sorted(receipts.items())
                for at_us, place in (receipt or NO_RECEIPT[:2],)
            ]
        )
        self._cursor.execute(
            f"select pg_advisory_xact_lock({IDENTITY_LOCK});"
            f" update progress set epoch = epoch + 1 where revision = {int(revision)};"
            f" with later (signature, first_us, first_n, first_event, gone) as (values {rows}),"
            " changed as (update evidence e set first_us = l.first_us, first_n = l.first_n,"
            "   first_event = l.first_event,"
            "   tokens = case when l.gone then '{}' else e.tokens end,"
            "   kinds = case when l.gone then '{}' else e.kinds end"
            "   from later l where e.signature = l.signature and e.tokens <> '{}' returning e.signature, l.gone)"
            " select c.signature, c.gone, t.token from changed c left join evidence_tokens t using (signature)"
        )
        found = self._cursor.fetchall()
        if not found:
            return []
        tokens = array_literal({row[2] for row in found if row[2] is not None})
        gone = array_literal({row[0] for row in found if row[1]})
        first_us, first_place, last_us, last_place = NO_RECEIPT
        self._cursor.execute(
            f"delete from evidence_tokens where signature = any({gone});"
            f" delete from tokens t where token = any({tokens})"
            "   and not exists (select from evidence_tokens h join evidence e using (signature)"
            "     where h.token = t.token and e.tokens <> '{}');"
            f" update tokens set first_us = {first_us}, first_n = {n_of(first_place)},"
            f" first_event = '{key_of(first_place).hex()}', last_us = {last_us}, last_n = {n_of(last_place)},"
            f" last_event = '{key_of(last_place).hex()}', hub = false, profile_id = null where token = any({tokens});"
            f" select signature from evidence_tokens where token = any({tokens})"
        )
        return sorted({row[0] for row in found} | {row[0] for row in self._cursor.fetchall()})

    def add_dead_letters(self, letters: Sequence[DeadLetter]) -> None:
        if not letters:
            return
        rows = [
            self._cursor.mogrify(
                "(%s, %s, %s, %s, %s, %s, %s, %s::uuid, %s, %s, %s)",
                (
                    *(letter.id.hex(), letter.stage, letter.rule, letter.path, letter.reason, letter.source),
                    letter.received_at,
                    None if letter.event_id is None else letter.event_id.hex(),
                    Uuids(letter.tokens),
                    letter.seal_key.hex(),
                    letter.sealed,
                ),
            )
            for letter in letters
        ]
        self._cursor.execute(
            b"insert into dead_letters (id, stage, rule, path, reason, source, received_at, event_id, tokens, seal_key,"
            b" sealed) values " + b",".join(rows) + b" on conflict do nothing"
        )
