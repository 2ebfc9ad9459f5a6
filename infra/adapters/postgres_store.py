"""`ProjectionStore` in PostgreSQL: FOLD's and DECIDE's statements, each over a whole batch (design C7).

Writes go by binary COPY, upserts through temporary tables; reads by binary COPY out. Revision tables are named
directly (`states_r3`), so no plan touches another revision.
"""

import struct
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Final

import msgspec
import psycopg2.errors
from psycopg2.extensions import cursor as Cursor

from infra.adapters.postgres import (
    COPY_END,
    COPY_HEADER,
    NULL,
    Database,
    Uuid,
    Uuids,
    array_literal,
    copy_out,
    copy_pairs,
    copy_raw,
    copy_rows,
    f_array,
    f_bool,
    f_bytes,
    f_int2,
    f_int4,
    f_int8,
    f_json,
    f_text,
    int8,
    int8_list,
    text_list,
    uuid_list,
)
from schemas.dead_letters import DeadLetter
from schemas.errors import ProgressConflict
from schemas.failpoints import failpoint
from schemas.store import (
    NO_RECEIPT,
    Advance,
    Change,
    DecideTx,
    EvidenceRow,
    FoldTx,
    Mark,
    NewMark,
    NotApplied,
    ProfileRow,
    RegisterRow,
    TokenRow,
)

ERASURE_LOCK: Final = 0x657261  # shared by FOLD, exclusive for the eraser while it names tokens
IDENTITY_LOCK: Final = 0x696465
FEED_LOCK: Final = 0x666565
FOLD_GATE: Final = 0x676174  # shared by who folds for the live revision, exclusive for who halts that
LIVE_LOCK: Final = 0x6C6976  # shared by who decides beside others, exclusive for a swap
BUILD_LOCK: Final = 0x62756C  # of the worker that builds revisions, as long as its connection
SHARD_LOCKS: Final = 0x736861  # two keys: this and the shard
CHANGES_CHANNEL: Final = "touchfold_changes"
_UUID, _TEXT, _INT8 = 2950, 25, 20
_JSON: Final = msgspec.json.Encoder(order="deterministic")

_TEMPORARY: Final = """
create temporary table if not exists new_states (signature uuid, partition smallint, state bytea)
    on commit delete rows;
create temporary table if not exists new_evidence (like evidence) on commit delete rows;
create temporary table if not exists new_tokens (like tokens) on commit delete rows;
create temporary table if not exists new_owners (signature uuid, profile_id uuid) on commit delete rows;
create temporary table if not exists new_profiles (profile_id uuid, version bigint, state bytea, decided_us bigint,
    due_us bigint, lagging boolean, first_us bigint, last_us bigint, event_count bigint, segments bytea,
    lifecycle text, risk text, points integer, reasons jsonb) on commit delete rows;
create temporary table if not exists old_memberships (segment smallint, profile_id uuid) on commit delete rows;
"""
PROFILE_COLUMNS: Final = (
    *("profile_id", "version", "state", "decided_us", "due_us", "lagging", "first_us", "last_us"),
    *("event_count", "segments", "lifecycle", "risk", "points", "reasons"),
)
_EVIDENCE: Final = ("signature", "tokens", "kinds", "first_us", "first_event", "profile_id")
_TOKEN: Final = ("token", "kind", "first_us", "first_event", "last_us", "last_event", "hub", "profile_id")
_NO_RECEIPTS: Final = b"".join(  # of a token row that only holds a lock, until its evidence is settled
    (
        *(f_int8(NO_RECEIPT[0]), f_bytes(NO_RECEIPT[1]), f_int8(NO_RECEIPT[2]), f_bytes(NO_RECEIPT[3])),
        *(f_bool(False), f_bytes(None)),
    )
)


# Rows written by the thousand are packed by one Struct each: field lengths stand as constants before the values.
_STATE_ROW: Final = struct.Struct("!i16sihi").pack  # signature, partition, length of the state
_REGISTER_ROW: Final = struct.Struct("!i16si16sihiqi16sih").pack
_PROFILE_HEAD: Final = struct.Struct("!i16siqi").pack  # profile id, version, length of the state
_MEMBER_ROW: Final = struct.Struct("!ihi16s").pack
_CHANGE_HEAD: Final = struct.Struct("!iqiii16s").pack  # batch, idx, id
_CHANGE_MIDDLE: Final = struct.Struct("!i16siq").pack  # profile id, version
_COUNT_AND_MASK: Final = struct.Struct("!iqi").pack  # event count, length of the segments
_INT8_FIELD: Final = struct.Struct("!iq").pack


class PostgresStore:
    """One connection: one FOLD and DECIDE loop.

    `idle_s`: how long its transaction may stand still before PostgreSQL ends it, where others wait for its locks.
    """

    def __init__(self, dsn: str, name: str = "touchfold worker", *, idle_s: float | None = None) -> None:
        self._database = Database(dsn, name)
        self._idle_ms = None if idle_s is None else int(idle_s * 1_000)
        self._prepared: object = None

    @contextmanager
    def fold(self) -> Iterator[FoldTx]:
        """FOLD may be lost by a crash of PostgreSQL (the log has it all), so its commit waits for no disk."""
        with self._transaction() as cursor:
            cursor.execute("set local synchronous_commit = off")
            yield PostgresFold(cursor)
            failpoint("fold.before_commit")
        failpoint("fold.after_commit")

    @contextmanager
    def decide(self) -> Iterator[DecideTx]:
        with self._transaction() as cursor:
            yield PostgresDecide(cursor)
            failpoint("decide.before_commit")
        failpoint("decide.after_commit")

    @contextmanager
    def _transaction(self) -> Iterator[Cursor]:
        self._prepare()
        with self._database.transaction() as cursor:
            yield cursor

    def _prepare(self) -> None:
        connection = self._database.connection()
        if self._prepared is not connection:
            with self._database.transaction() as cursor:
                cursor.execute("set client_min_messages = warning")
                if self._idle_ms is not None:
                    cursor.execute("set idle_in_transaction_session_timeout = %s", (self._idle_ms,))
                cursor.execute(_TEMPORARY)
            self._prepared = connection

    def number_feed(self) -> int:
        with self._database.transaction() as cursor:
            # one round trip: the second statement's look is younger than the lock
            cursor.execute(
                f"select pg_advisory_xact_lock({FEED_LOCK});"
                " with base as (select coalesce(max(seq), 0) as top from feed_batches),"
                " fresh as (select batch, row_number() over (order by batch) as place"
                " from feed_batches where seq is null)"
                " update feed_batches b set seq = base.top + fresh.place from base, fresh where b.batch = fresh.batch"
            )
            numbered = cursor.rowcount
            if numbered:
                cursor.execute(f"notify {CHANGES_CHANNEL}")
        if numbered:
            failpoint("feed.after_number")
        return numbered

    def close(self) -> None:
        self._database.close()


class PostgresFold:
    """`FoldTx` over an open cursor."""

    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor
        self._some_erased: bool | None = None  # nothing is erased at all; no erasure names new tokens until commit

    def hold_erasures(self, *, live: bool) -> None:
        # the gate first: who halts FOLD lets a building revision go on, which holds erasures off too
        gate = f"pg_advisory_xact_lock_shared({FOLD_GATE})," if live else ""
        self._cursor.execute(f"select {gate} pg_advisory_xact_lock_shared({ERASURE_LOCK})")

    def erased(self, tokens: Iterable[bytes]) -> set[bytes]:
        if self._some_erased is None:
            self._cursor.execute("select exists (select from erased_tokens)")
            row = self._cursor.fetchone()
            self._some_erased = row is not None and bool(row[0])
        if not self._some_erased:
            return set()
        rows = copy_out(self._cursor, f"select token from erased_tokens where token = any({array_literal(tokens)})")
        return {row[0] or b"" for row in rows}

    def advance(self, revision: int, batches: Sequence[Advance]) -> None:
        for batch in sorted(batches):
            self._cursor.execute(
                "update progress set next_offset = %s, watermark_us = greatest(watermark_us, %s)"
                " where revision = %s and partition = %s and epoch = %s and next_offset = %s",
                (batch.end, batch.watermark_us, revision, batch.partition, batch.epoch, batch.start),
            )
            if self._cursor.rowcount != 1:
                raise ProgressConflict(
                    f"partition {batch.partition} of revision {revision} is not at {batch.start} in epoch {batch.epoch}"
                )

    def hold_progress(self, revision: int) -> None:
        self._cursor.execute("select from progress where revision = %s order by partition for update", (revision,))

    def register(self, rows: Sequence[RegisterRow]) -> list[RegisterRow]:
        # New keys are the rule: COPY first inside a savepoint, look only when a key was there (2.7-4.1 us a row).
        # Again, since another worker may commit one of them between the look and the second COPY.
        rows = sorted(rows)
        present: list[RegisterRow] = []
        while True:
            self._cursor.execute("savepoint register")
            try:
                _copy_register(self._cursor, rows)
            except psycopg2.errors.UniqueViolation:
                self._cursor.execute("rollback to savepoint register")
                found = self._registered(rows)
                present += found
                known = {row.event_key for row in found}
                rows = [row for row in rows if row.event_key not in known]
            else:
                self._cursor.execute("release savepoint register")
                return present

    def _registered(self, rows: Sequence[RegisterRow]) -> list[RegisterRow]:
        keys = array_literal(row.event_key for row in rows)
        found = copy_out(
            self._cursor,
            'select event_key, digest, partition, "offset", signature, verdict from register'
            f" where event_key = any({keys})",
        )
        return [_register_row(row) for row in found]

    def replace_register(self, rows: Sequence[RegisterRow]) -> None:
        if rows:
            self._cursor.execute(
                "delete from register where event_key = any(%s)", (Uuids([row.event_key for row in rows]),)
            )
            _copy_register(self._cursor, sorted(rows))

    def not_applied(self, rows: Sequence[NotApplied]) -> None:
        packed = [
            f_int2(row.partition) + f_int8(row.offset) + f_bytes(row.event_key) + f_int2(row.verdict) for row in rows
        ]
        copy_rows(self._cursor, "not_applied", ("partition", "offset", "event_key", "verdict"), packed)

    def delete_states(self, revision: int, signatures: Iterable[bytes]) -> None:
        self._cursor.execute(
            f"delete from states_r{int(revision)} where signature = any(%s)", (Uuids(list(signatures)),)
        )

    def skipped(self, partition: int, start: int, end: int) -> set[int]:
        self._cursor.execute(
            'select "offset" from not_applied where partition = %s and "offset" >= %s and "offset" < %s',
            (partition, start, end),
        )
        return {int(row[0]) for row in self._cursor.fetchall()}

    def load_states(self, revision: int, keys: Iterable[tuple[int, bytes]]) -> dict[tuple[int, bytes], bytes]:
        wanted = set(keys)
        if not wanted:
            return {}
        # A signature is nearly always in one partition alone, so what is read beside the wanted rows is little.
        data = copy_raw(
            self._cursor,
            f"select signature, partition, state from states_r{int(revision)}"
            f" where signature = any({array_literal({signature for _, signature in wanted})})",
        )
        return {key: state for key, state in _read_states(data) if key in wanted}

    def save_states(self, revision: int, states: Mapping[tuple[int, bytes], bytes]) -> None:
        if not states:
            return
        pack = _STATE_ROW
        packed = [
            pack(16, signature, 2, partition, len(state)) + state
            for (partition, signature), state in sorted(states.items(), key=_by_signature)
        ]
        copy_rows(self._cursor, "new_states", ("signature", "partition", "state"), packed)
        self._cursor.execute(
            f"insert into states_r{int(revision)} select signature, partition, state from new_states"
            " on conflict (signature, partition) do update set state = excluded.state"
        )
        self._cursor.execute("delete from new_states")

    def take_refolds(self, revision: int) -> list[bytes]:
        self._cursor.execute(
            "delete from marks where revision = %s and kind = 'refold' returning signatures", (revision,)
        )
        return sorted({signature for (signatures,) in self._cursor.fetchall() for signature in signatures})

    def positions(self, signatures: Iterable[bytes]) -> list[tuple[int, int]]:
        return _positions(self._cursor, signatures)

    def first_receipts(self, signatures: Iterable[bytes]) -> dict[bytes, tuple[int, bytes]]:
        rows = copy_out(
            self._cursor,
            f"select signature, first_us, first_event from evidence where signature = any({array_literal(signatures)})",
        )
        return {row[0] or b"": (int8(row[1]), row[2] or b"") for row in rows}

    def save_evidence(self, rows: Sequence[EvidenceRow]) -> None:
        if not rows:
            return
        copy_rows(self._cursor, "new_evidence", _EVIDENCE, [_pack_evidence(row) for row in sorted(rows)])
        self._cursor.execute(
            "insert into evidence select * from new_evidence on conflict (signature) do update"
            " set first_us = excluded.first_us, first_event = excluded.first_event"
            " where (excluded.first_us, excluded.first_event) < (evidence.first_us, evidence.first_event)"
        )
        self._cursor.execute(
            "insert into evidence_tokens select unnest(tokens), signature from new_evidence"
            " order by 1, 2 on conflict do nothing"
        )
        self._cursor.execute("delete from new_evidence")

    def add_marks(self, marks: Sequence[NewMark]) -> list[int]:
        return _add_marks(self._cursor, marks)

    def add_dead_letters(self, letters: Sequence[DeadLetter]) -> None:
        for letter in letters:
            self._cursor.execute(
                "insert into dead_letters (id, stage, rule, path, reason, source, received_at, event_id, tokens,"
                " seal_key, sealed) values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) on conflict do nothing",
                (
                    *(letter.id.hex(), letter.stage, letter.rule, letter.path, letter.reason, letter.source),
                    letter.received_at,
                    None if letter.event_id is None else letter.event_id.hex(),
                    Uuids(letter.tokens),
                    letter.seal_key.hex(),
                    letter.sealed,
                ),
            )


class PostgresDecide:
    """`DecideTx` over an open cursor."""

    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor

    def join(self, revision: int) -> None:
        self._cursor.execute(f"select pg_advisory_xact_lock_shared({LIVE_LOCK})")
        self._cursor.execute("select from revisions where revision = %s and state = 'live'", (revision,))
        if self._cursor.rowcount != 1:
            raise ProgressConflict(f"revision {revision} is not the live one any more")

    def hold_shards(self, revision: int, own: Collection[int], others: int) -> list[int]:
        mine = sorted(own)
        # the sorted list is made first (offset 0), then locked row by row until the limit is reached
        self._cursor.execute(
            "select shard from (select shard from marks where revision = %(revision)s and kind <> 'refold'"
            " group by shard having shard = any(%(mine)s::int[]) or %(others)s > 0"
            " order by shard <> all(%(mine)s::int[]), shard offset 0) s"
            f" where pg_try_advisory_xact_lock({SHARD_LOCKS}, shard) limit %(most)s",
            {"revision": revision, "mine": mine, "others": others, "most": len(mine) + others},
        )
        return [int(row[0]) for row in self._cursor.fetchall()]

    def take_marks(self, revision: int, limit: int, shards: Collection[int] | None = None) -> list[Mark]:
        those = "" if shards is None else f" and shard in ({','.join(str(int(each)) for each in shards)})"
        self._cursor.execute(
            f"select id from marks where revision = %s and kind <> 'refold'{those}"
            " order by id limit %s for update skip locked",
            (revision, limit),
        )
        ids = [int(row[0]) for row in self._cursor.fetchall()]
        if not ids:
            return []
        listed = ",".join(map(str, ids))
        rows = copy_out(
            self._cursor,
            f"select id, kind, signatures, newest_us, newest_events from marks where id in ({listed}) order by id",
        )
        return [
            Mark(int8(row[0]), (row[1] or b"").decode(), uuid_list(row[2]), int8_list(row[3]), uuid_list(row[4]))
            for row in rows
        ]

    def delete_marks(self, ids: Sequence[int]) -> None:
        if ids:
            self._cursor.execute("delete from marks where id = any(%s)", (list(ids),))

    def add_marks(self, marks: Sequence[NewMark]) -> list[int]:
        return _add_marks(self._cursor, marks)

    def due(self, revision: int, until_us: int, limit: int, *, shared: bool = False) -> list[bytes]:
        rows = copy_out(
            self._cursor,
            f"select profile_id from profiles_r{int(revision)} where due_us <= {int(until_us)}"
            f" order by due_us limit {int(limit)}{' for update skip locked' if shared else ''}",
        )
        return [row[0] or b"" for row in rows]

    def lock_identity(self) -> None:
        self._cursor.execute("select pg_advisory_xact_lock(%s)", (IDENTITY_LOCK,))

    def share_identity(self) -> None:
        self._cursor.execute(f"select pg_advisory_xact_lock_shared({IDENTITY_LOCK})")
        self._cursor.execute("savepoint identity")

    def lock_tokens(self, kinds: Mapping[bytes, str], tokens: Collection[bytes]) -> None:
        # Ascending in both statements. The insert waits for who makes the same row, so that the lock then finds it.
        packed = [f_bytes(token) + f_text(kind) + _NO_RECEIPTS for token, kind in kinds.items()]
        copy_rows(self._cursor, "new_tokens", _TOKEN, packed)
        self._cursor.execute("insert into tokens select * from new_tokens order by token on conflict do nothing")
        self._cursor.execute("delete from new_tokens")
        self._cursor.execute(f"select from tokens where token = any({array_literal(tokens)}) order by token for update")

    def unlock_tokens(self) -> None:
        self._cursor.execute("rollback to savepoint identity")

    def building(self) -> list[int]:
        self._cursor.execute("select revision from revisions where state = 'building' order by revision")
        return [int(row[0]) for row in self._cursor.fetchall()]

    def owners(self, signatures: Iterable[bytes]) -> dict[bytes, bytes]:
        return dict(
            copy_pairs(
                self._cursor,
                "select signature, profile_id from evidence"
                f" where signature = any({array_literal(signatures)}) and profile_id is not null",
            )
        )

    def evidence(self, signatures: Iterable[bytes]) -> list[EvidenceRow]:
        return self._evidence(f"signature = any({array_literal(signatures)})")

    def evidence_of_tokens(self, tokens: Iterable[bytes]) -> list[EvidenceRow]:
        held = f"select signature from evidence_tokens where token = any({array_literal(tokens)})"
        return self._evidence(f"signature in ({held})")

    def _evidence(self, condition: str) -> list[EvidenceRow]:
        rows = copy_out(self._cursor, f"select {', '.join(_EVIDENCE)} from evidence where {condition}")
        return [evidence_row(row) for row in rows]

    def evidence_of_profiles(self, profile_ids: Iterable[bytes]) -> list[tuple[bytes, bytes]]:
        return copy_pairs(
            self._cursor,
            f"select profile_id, signature from evidence where profile_id = any({array_literal(profile_ids)})",
        )

    def tokens(self, tokens: Iterable[bytes]) -> list[TokenRow]:
        return self._tokens(f"token = any({array_literal(tokens)})")

    def tokens_of_profiles(self, profile_ids: Iterable[bytes]) -> list[TokenRow]:
        return self._tokens(f"profile_id = any({array_literal(profile_ids)})")

    def _tokens(self, condition: str) -> list[TokenRow]:
        rows = copy_out(self._cursor, f"select {', '.join(_TOKEN)} from tokens where {condition}")
        return [
            TokenRow(
                *(
                    row[0] or b"",
                    (row[1] or b"").decode(),
                    int8(row[2]),
                    row[3] or b"",
                    int8(row[4]),
                    row[5] or b"",
                ),
                row[6] == b"\x01",
                row[7],
            )
            for row in rows
        ]

    def save_tokens(self, rows: Sequence[TokenRow]) -> None:
        if not rows:
            return
        packed = [
            f_bytes(row.token)
            + f_text(row.kind)
            + f_int8(row.first_us)
            + f_bytes(row.first_event)
            + f_int8(row.last_us)
            + f_bytes(row.last_event)
            + f_bool(row.hub)
            + f_bytes(row.profile_id)
            for row in sorted(rows)
        ]
        copy_rows(self._cursor, "new_tokens", _TOKEN, packed)
        self._cursor.execute(
            "insert into tokens select * from new_tokens on conflict (token) do update set first_us ="
            " excluded.first_us, first_event = excluded.first_event, last_us = excluded.last_us,"
            " last_event = excluded.last_event, hub = excluded.hub, profile_id = excluded.profile_id"
        )
        self._cursor.execute("delete from new_tokens")

    def set_owners(self, owners: Mapping[bytes, bytes]) -> None:
        if owners:
            packed = [f_bytes(signature) + f_bytes(owners[signature]) for signature in sorted(owners)]
            copy_rows(self._cursor, "new_owners", ("signature", "profile_id"), packed)
            self._cursor.execute(
                "update evidence e set profile_id = n.profile_id from new_owners n where e.signature = n.signature"
            )
            self._cursor.execute("delete from new_owners")

    def replace_refused(self, signatures: Iterable[bytes], rows: Sequence[tuple[bytes, bytes, str]]) -> None:
        self._cursor.execute("delete from refused_links where signature = any(%s)", (Uuids(list(signatures)),))
        packed = [f_bytes(row[0]) + f_bytes(row[1]) + f_text(row[2]) for row in sorted(set(rows))]
        copy_rows(self._cursor, "refused_links", ("signature", "token", "reason"), packed)

    def lock_profiles(self, revision: int, profile_ids: Iterable[bytes]) -> dict[bytes, ProfileRow]:
        # A locked row is read again after the wait, so what comes is what the lock protects.
        return _read_profiles(
            copy_raw(
                self._cursor,
                f"select {_LOCKED_PROFILE} from profiles_r{int(revision)}"
                f" where profile_id = any({array_literal(sorted(profile_ids))}) order by profile_id for update",
            )
        )

    def try_profiles(self, revision: int, profile_ids: Iterable[bytes]) -> tuple[dict[bytes, ProfileRow], set[bytes]]:
        listed = sorted(profile_ids)
        if not listed:
            return {}, set()
        table = f"profiles_r{int(revision)} where profile_id = any"
        locked = _read_profiles(
            copy_raw(
                self._cursor,
                f"select {_LOCKED_PROFILE} from {table}({array_literal(listed)})"
                " order by profile_id for update skip locked",
            )
        )
        rest = [each for each in listed if each not in locked]
        if not rest:
            return locked, set()
        busy = copy_out(self._cursor, f"select profile_id from {table}({array_literal(rest)})")
        return locked, {row[0] or b"" for row in busy}

    def states(self, revision: int, signatures: Iterable[bytes]) -> list[tuple[bytes, bytes]]:
        return copy_pairs(
            self._cursor,
            f"select signature, state from states_r{int(revision)} where signature = any({array_literal(signatures)})",
        )

    def positions(self, signatures: Iterable[bytes]) -> list[tuple[int, int]]:
        return _positions(self._cursor, signatures)

    def save_profiles(self, revision: int, rows: Sequence[ProfileRow]) -> None:
        if not rows:
            return
        copy_rows(self._cursor, "new_profiles", PROFILE_COLUMNS, [pack_profile(row) for row in sorted(rows)])
        names = ", ".join(PROFILE_COLUMNS)
        updates = ", ".join(f"{name} = excluded.{name}" for name in PROFILE_COLUMNS[1:])
        self._cursor.execute(
            f"insert into profiles_r{int(revision)} ({names}) select {names} from new_profiles"
            f" on conflict (profile_id) do update set {updates}"
        )
        self._cursor.execute("delete from new_profiles")

    def delete_profiles(self, revision: int, profile_ids: Iterable[bytes]) -> None:
        listed = Uuids(list(profile_ids))
        self._cursor.execute(f"delete from profiles_r{int(revision)} where profile_id = any(%s)", (listed,))
        self._cursor.execute(f"delete from memberships_r{int(revision)} where profile_id = any(%s)", (listed,))

    def ended_versions(self, profile_ids: Iterable[bytes]) -> dict[bytes, int]:
        ids = list(profile_ids)
        if not ids:
            return {}
        self._cursor.execute("select exists (select from ended_profiles)")
        row = self._cursor.fetchone()
        if row is None or not row[0]:
            return {}
        self._cursor.execute("select profile_id, version from ended_profiles where profile_id = any(%s)", (Uuids(ids),))
        return {row[0]: int(row[1]) for row in self._cursor.fetchall()}

    def save_ended(self, versions: Mapping[bytes, int]) -> None:
        for profile_id, version in sorted(versions.items()):
            self._cursor.execute(
                "insert into ended_profiles as e values (%s, %s) on conflict (profile_id) do update"
                " set version = greatest(e.version, excluded.version)",
                (Uuid(profile_id), version),
            )

    def change_memberships(
        self, revision: int, entered: Sequence[tuple[int, bytes, int | None]], left: Sequence[tuple[int, bytes]]
    ) -> None:
        if left:
            packed = [_MEMBER_ROW(2, segment, 16, profile_id) for segment, profile_id in sorted(left)]
            copy_rows(self._cursor, "old_memberships", ("segment", "profile_id"), packed)
            self._cursor.execute(
                f"delete from memberships_r{int(revision)} m using old_memberships o"
                " where m.segment = o.segment and m.profile_id = o.profile_id"
            )
            self._cursor.execute("delete from old_memberships")
        rows = sorted(entered, key=lambda row: row[:2])
        copy_rows(
            self._cursor,
            f"memberships_r{int(revision)}",
            ("segment", "profile_id", "since_us"),
            [_MEMBER_ROW(2, segment, 16, profile_id) + f_int8(since) for segment, profile_id, since in rows],
        )

    def add_changes(self, changes: Sequence[Change]) -> None:
        if not changes:
            return
        self._cursor.execute("insert into feed_batches default values returning batch")
        row = self._cursor.fetchone()
        assert row is not None, "insert … returning gave no row"
        batch = int(row[0])
        columns = (
            *("batch", "idx", "id", "type", "profile_id", "version", "name", "old", "new", "at_us", "cause"),
            *("cause_event", "cause_definition"),
        )
        packed = [_pack_change(batch, index, change) for index, change in enumerate(changes)]
        copy_rows(self._cursor, "changes", columns, packed)

    def mark_search(self, profile_ids: Iterable[bytes]) -> None:
        listed = sorted(profile_ids)
        if listed:
            self._cursor.execute(
                f"insert into search_due select unnest({array_literal(listed)}) on conflict do nothing"
            )

    def count_segment_days(self, counts: Mapping[tuple[str, str], tuple[int, int]]) -> None:
        for (segment, day), (entered, left) in sorted(counts.items()):
            self._cursor.execute(
                'insert into segment_days as d (segment, day, part, entered, "left")'
                " values (%s, %s, pg_backend_pid() %% 64, %s, %s)"
                " on conflict (segment, day, part) do update set entered = d.entered + excluded.entered,"
                ' "left" = d."left" + excluded."left"',
                (segment, day, entered, left),
            )


def _positions(cursor: Cursor, signatures: Iterable[bytes]) -> list[tuple[int, int]]:
    rows = copy_out(
        cursor,
        f'select partition, "offset" from register where verdict = 0 and signature = any({array_literal(signatures)})',
    )
    return [(int8(row[0]), int8(row[1])) for row in rows]


_STATE_OUT: Final = struct.Struct("!hi16sihi")  # field count, signature, partition, length of the state


def _read_states(data: bytes) -> Iterator[tuple[tuple[int, bytes], bytes]]:
    """((partition, signature), state) of a binary COPY of signature, partition, state."""
    at, end = len(COPY_HEADER), len(data) - len(COPY_END)
    row_at, head = _STATE_OUT.unpack_from, _STATE_OUT.size
    while at < end:
        _, _, signature, _, partition, length = row_at(data, at)
        at += head + length
        yield (partition, signature), data[at - length : at]


def _by_signature(item: tuple[tuple[int, bytes], bytes]) -> tuple[bytes, int]:
    (partition, signature), _ = item
    return signature, partition


def _copy_register(cursor: Cursor, rows: Sequence[RegisterRow]) -> None:
    pack = _REGISTER_ROW
    packed = [
        pack(16, key, 16, digest, 2, partition, 8, offset, 16, signature, 2, verdict)
        for key, digest, partition, offset, signature, verdict in rows
    ]
    copy_rows(cursor, "register", ("event_key", "digest", "partition", "offset", "signature", "verdict"), packed)


def _register_row(row: tuple[bytes | None, ...]) -> RegisterRow:
    return RegisterRow(row[0] or b"", row[1] or b"", int8(row[2]), int8(row[3]), row[4] or b"", int8(row[5]))


def _pack_evidence(row: EvidenceRow) -> bytes:
    return (
        f_bytes(row.signature)
        + f_array(_UUID, [f_bytes(token) for _, token in row.tokens])
        + f_array(_TEXT, [f_text(kind) for kind, _ in row.tokens])
        + f_int8(row.first_us)
        + f_bytes(row.first_event)
        + f_bytes(row.profile_id)
    )


def _add_marks(cursor: Cursor, marks: Sequence[NewMark]) -> list[int]:
    if not marks:
        return []
    cursor.execute("select nextval(pg_get_serial_sequence('marks', 'id')) from generate_series(1, %s)", (len(marks),))
    ids = sorted(int(row[0]) for row in cursor.fetchall())
    packed = []
    for number, mark in zip(ids, marks, strict=True):
        signatures = sorted(mark.newest)
        packed.append(
            f_int8(number)
            + f_int4(mark.revision)
            + f_int2(mark.shard)
            + f_text(mark.kind)
            + f_array(_UUID, [f_bytes(signature) for signature in signatures])
            + f_array(_INT8, [f_int8(mark.newest[signature][0]) for signature in signatures])
            + f_array(_UUID, [f_bytes(mark.newest[signature][1]) for signature in signatures])
        )
    columns = ("id", "revision", "shard", "kind", "signatures", "newest_us", "newest_events")
    copy_rows(cursor, "marks", columns, packed)
    return ids


def pack_profile(row: ProfileRow) -> bytes:
    """A row of profiles_rN for COPY, fields in the order of PROFILE_COLUMNS."""
    profile_id, version, state, decided_us, due_us, lagging, first_us, last_us, count = row[:9]
    segments, lifecycle, risk, points, reasons = row[9:]
    mask = segments.to_bytes((segments.bit_length() + 7) // 8, "little")
    return b"".join(
        (
            _PROFILE_HEAD(16, profile_id, 8, version, len(state)),
            state,
            _INT8_FIELD(8, decided_us),
            f_int8(due_us),
            b"\0\0\0\1\1" if lagging else b"\0\0\0\1\0",
            f_int8(first_us),
            f_int8(last_us),
            _COUNT_AND_MASK(8, count, len(mask)),
            mask,
            _word(lifecycle),
            _word(risk),
            f_int4(points),
            _reasons(reasons),
        )
    )


@lru_cache(maxsize=10_000)
def _word(word: str | None) -> bytes:
    """The field of a word from a small vocabulary."""
    return f_text(word)


@lru_cache(maxsize=10_000)
def _reasons(reasons: tuple[tuple[str, int], ...]) -> bytes:
    return f_json(_JSON.encode(reasons))


def evidence_row(row: tuple[bytes | None, ...]) -> EvidenceRow:
    """A row of evidence read by COPY, columns as in `_EVIDENCE`."""
    tokens = tuple(zip(text_list(row[2]), uuid_list(row[1]), strict=True))
    return EvidenceRow(row[0] or b"", tokens, int8(row[3]), row[4] or b"", row[5])


_NO_TIME: Final = -(2**63)
_LOCKED_PROFILE: Final = (  # no fixed field is NULL, so that two Structs read a row
    f"profile_id, version, state, decided_us, coalesce(due_us, {_NO_TIME}), lagging, coalesce(first_us, {_NO_TIME}),"
    f" coalesce(last_us, {_NO_TIME}), event_count, segments, lifecycle, risk, points, reasons"
)
_PROFILE_START: Final = struct.Struct("!hi16siqi")  # field count, profile id, version, length of the state
_PROFILE_TIMES: Final = struct.Struct("!iqiqi?iqiqiqi")  # decided to event_count, length of the segments
_PROFILE_REST: Final = struct.Struct("!iii")  # points, length of the reasons
_FIELD_LENGTH: Final = struct.Struct("!i")


def _read_profiles(data: bytes) -> dict[bytes, ProfileRow]:
    """Rows of `_LOCKED_PROFILE` from their binary COPY: a third of the cost of `copy_out` and `profile_row`."""
    found: dict[bytes, ProfileRow] = {}
    at, end = len(COPY_HEADER), len(data) - len(COPY_END)
    while at < end:
        _, _, profile_id, _, version, size = _PROFILE_START.unpack_from(data, at)
        at += _PROFILE_START.size
        state = data[at : at + size]
        at += size
        times = _PROFILE_TIMES.unpack_from(data, at)
        _, decided_us, _, due_us, _, lagging, _, first_us, _, last_us, _, count, size = times
        at += _PROFILE_TIMES.size
        segments = int.from_bytes(data[at : at + size], "little")
        at += size
        (size,) = _FIELD_LENGTH.unpack_from(data, at)
        lifecycle = _decoded(data[at + 4 : at + 4 + size])
        at += 4 + size
        (size,) = _FIELD_LENGTH.unpack_from(data, at)
        risk = _decoded(data[at + 4 : at + 4 + size])
        at += 4 + size
        _, points, size = _PROFILE_REST.unpack_from(data, at)
        at += _PROFILE_REST.size + size
        found[profile_id] = ProfileRow(
            profile_id,
            version,
            state,
            decided_us,
            None if due_us == _NO_TIME else due_us,
            lagging,
            None if first_us == _NO_TIME else first_us,
            None if last_us == _NO_TIME else last_us,
            count,
            segments,
            lifecycle,
            risk,
            points,
            _read_reasons(data[at - size : at]),
        )
    return found


@lru_cache(maxsize=10_000)
def _decoded(word: bytes) -> str:
    """A word of a small vocabulary."""
    return word.decode()


@lru_cache(maxsize=10_000)
def _read_reasons(field: bytes) -> tuple[tuple[str, int], ...]:
    """The reasons from their jsonb field."""
    return msgspec.json.decode(field[1:], type=tuple[tuple[str, int], ...])


def profile_row(row: tuple[bytes | None, ...]) -> ProfileRow:
    reasons = _read_reasons(row[13] or b"\x01[]")
    return ProfileRow(
        *(row[0] or b"", int8(row[1]), row[2] or b"", int8(row[3])),
        None if row[4] is None else int8(row[4]),
        row[5] == b"\x01",
        None if row[6] is None else int8(row[6]),
        None if row[7] is None else int8(row[7]),
        int8(row[8]),
        int.from_bytes(row[9] or b"", "little"),
        (row[10] or b"").decode(),
        (row[11] or b"").decode(),
        int8(row[12]),
        reasons,
    )


def _pack_change(batch: int, index: int, change: Change) -> bytes:
    id_, type_, profile_id, version, name, old, new, at_us, cause, event, definition = change
    return b"".join(
        (
            _CHANGE_HEAD(8, batch, 4, index, 16, id_),
            _word(type_),
            _CHANGE_MIDDLE(16, profile_id, 8, version),
            _word(name),
            _value(old),
            _value(new),
            _INT8_FIELD(8, at_us),
            _word(cause),
            NULL if event is None else b"\0\0\0\x10" + event,
            _word(definition),
        )
    )


_TRUE: Final = f_json(b"true")
_FALSE: Final = f_json(b"false")


def _value(value: Any) -> bytes:
    if value is None:
        return NULL
    if value is True:
        return _TRUE
    return _FALSE if value is False else f_json(_JSON.encode(value))
