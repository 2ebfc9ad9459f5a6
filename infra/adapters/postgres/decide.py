"""`DecideTx` in PostgreSQL: DECIDE's statements, each over a whole batch (design C7)."""

from collections.abc import Collection, Iterable, Mapping, Sequence

from infra.adapters.postgres import members as postgres_members
from infra.adapters.postgres.database import (
    Uuids,
    array_literal,
    copy_out,
    copy_pairs,
    copy_raw,
    copy_rows,
    f_bytes,
    f_text,
    int8,
    int8_list,
    uuid_list,
)
from infra.adapters.postgres.locks import IDENTITY_LOCK, LIVE_LOCK, SHARD_LOCKS
from infra.adapters.postgres.order_evidence import OrderOwnerRows
from infra.adapters.postgres.orders import OrderTreeRows
from infra.adapters.postgres.rows import (
    EVIDENCE,
    LOCKED_PROFILE,
    OWNERS,
    PROFILES,
    TOKENS,
    evidence_row,
    pack_change,
    pack_profile,
    pack_token,
    read_profiles,
    token_row,
    with_unnamed,
)
from infra.adapters.postgres.staging import quoted
from schemas.errors import ProgressConflict
from schemas.store_rows import NO_RECEIPT, Change, EvidenceRow, ProfileRow, TokenRow, WorkItem


class PostgresDecide(OrderTreeRows, OrderOwnerRows):
    """`DecideTx` over an open cursor."""

    def join(self, revision: int) -> int:
        self._cursor.execute(
            f"select pg_advisory_xact_lock_shared({LIVE_LOCK});"
            f" select (select min(watermark_us) from progress where revision = {int(revision)})"
            f" from revisions where revision = {int(revision)} and state = 'live'"
        )
        row = self._cursor.fetchone()
        if row is None:
            raise ProgressConflict(f"revision {revision} is no longer the live one")
        return int(row[0] or 0)

    def hold_shards(self, revision: int, own: Collection[int], others: int) -> list[int]:
        mine = sorted(own)
        # first build the sorted list (offset 0), then lock row by row until the limit is reached
        self._cursor.execute(
            "select shard from (select shard from marks where revision = %(revision)s and kind <> 'refold'"
            " group by shard having shard = any(%(mine)s::int[]) or %(others)s > 0"
            " order by shard <> all(%(mine)s::int[]), shard offset 0) s"
            f" where pg_try_advisory_xact_lock({SHARD_LOCKS}, shard) limit %(most)s",
            {"revision": revision, "mine": mine, "others": others, "most": len(mine) + others},
        )
        return [int(row[0]) for row in self._cursor.fetchall()]

    def take_work(self, revision: int, limit: int, shards: Collection[int] | None = None) -> list[WorkItem]:
        those = "" if shards is None else f" and shard in ({','.join(str(int(each)) for each in shards)})"
        rows = copy_out(
            self._cursor,
            "with taken as (select id from marks"
            f" where revision = {int(revision)} and kind <> 'refold'{those}"
            f" order by id limit {int(limit)} for update skip locked)"
            " delete from marks m using taken t where m.id = t.id"
            " returning m.id, m.kind, m.signatures, m.newest_us, m.newest_events",
        )
        return sorted(
            WorkItem(int8(row[0]), (row[1] or b"").decode(), uuid_list(row[2]), int8_list(row[3]), uuid_list(row[4]))
            for row in rows
        )

    def due(self, revision: int, until_us: int, limit: int, *, shared: bool = False) -> list[bytes]:
        rows = copy_out(
            self._cursor,
            f"select profile_id from profiles_r{int(revision)} where due_us <= {int(until_us)}"
            f" order by due_us limit {int(limit)}{' for no key update skip locked' if shared else ''}",
        )
        return [row[0] or b"" for row in rows]

    def lock_identity(self) -> None:
        self._cursor.execute("select pg_advisory_xact_lock(%s)", (IDENTITY_LOCK,))

    def share_identity(self) -> None:
        self._cursor.execute(f"select pg_advisory_xact_lock_shared({IDENTITY_LOCK}); savepoint identity")

    def lock_tokens(self, kinds: Mapping[bytes, str], tokens: Collection[bytes]) -> None:
        # Ascending in both statements. The insert waits for anyone creating the same row, so the lock then finds it.
        made = ""
        if kinds:
            packed = [pack_token(TokenRow(token, kind, *NO_RECEIPT, False, None)) for token, kind in kinds.items()]
            source = self._stage.rows(TOKENS, packed)
            made = f"insert into tokens select * from {source} order by token on conflict do nothing; "
        self._cursor.execute(
            f"{made}select from tokens where token = any({array_literal(tokens)}) order by token for update"
        )

    def unlock_tokens(self) -> None:
        self._cursor.execute("rollback to savepoint identity")

    def owners(self, identifier_sets: Iterable[bytes]) -> dict[bytes, bytes]:
        return dict(
            copy_pairs(
                self._cursor,
                "select signature, profile_id from evidence"
                f" where signature = any({array_literal(identifier_sets)}) and profile_id is not null",
            )
        )

    def evidence(self, identifier_sets: Iterable[bytes]) -> list[EvidenceRow]:
        return self._evidence(f"signature = any({array_literal(identifier_sets)})")

    def evidence_of_tokens(self, tokens: Iterable[bytes]) -> list[EvidenceRow]:
        held = f"select signature from evidence_tokens where token = any({array_literal(tokens)})"
        return self._evidence(f"signature in ({held}) and tokens <> '{{}}'")  # not what an erasure has emptied

    def _evidence(self, condition: str) -> list[EvidenceRow]:
        rows = copy_out(self._cursor, f"select {EVIDENCE.names} from evidence where {condition}")
        return [evidence_row(row) for row in rows]

    def evidence_of_profiles(self, profile_ids: Iterable[bytes]) -> list[tuple[bytes, bytes]]:
        return copy_pairs(
            self._cursor,
            f"select profile_id, signature from evidence where profile_id = any({array_literal(profile_ids)})",
        )

    def tokens(self, tokens: Iterable[bytes]) -> list[TokenRow]:
        wanted = array_literal(tokens)
        found = self._tokens(f"token = any({wanted})")
        nobody = copy_out(self._cursor, f"select token, kind from unnamed_tokens where token = any({wanted})")
        return with_unnamed(found, {token or b"": (kind or b"").decode() for token, kind in nobody})

    def tokens_of_profiles(self, profile_ids: Iterable[bytes]) -> list[TokenRow]:
        return self._tokens(f"profile_id = any({array_literal(profile_ids)})")

    def _tokens(self, condition: str) -> list[TokenRow]:
        return list(map(token_row, copy_out(self._cursor, f"select {TOKENS.names} from tokens where {condition}")))

    def save_tokens(self, rows: Sequence[TokenRow]) -> None:
        if not rows:
            return
        source = self._stage.rows(TOKENS, [pack_token(row) for row in sorted(rows)])
        self._cursor.execute(
            f"insert into tokens select * from {source} on conflict (token) do update set first_us ="
            " excluded.first_us, first_event = excluded.first_event, last_us = excluded.last_us,"
            " last_event = excluded.last_event, first_n = excluded.first_n, last_n = excluded.last_n,"
            " hub = excluded.hub, profile_id = excluded.profile_id"
        )

    def set_owners(self, owners: Mapping[bytes, bytes]) -> None:
        if not owners:
            return
        packed = [f_bytes(identifier_set) + f_bytes(owners[identifier_set]) for identifier_set in sorted(owners)]
        self._cursor.execute(
            f"update evidence e set profile_id = new_owners.profile_id from {self._stage.rows(OWNERS, packed)}"
            " where e.signature = new_owners.signature"
        )

    def replace_refused(self, identifier_sets: Iterable[bytes], rows: Sequence[tuple[bytes, bytes, str]]) -> None:
        self._cursor.execute("delete from refused_links where signature = any(%s)", (Uuids(list(identifier_sets)),))
        packed = [f_bytes(row[0]) + f_bytes(row[1]) + f_text(row[2]) for row in sorted(set(rows))]
        copy_rows(self._cursor, "refused_links", ("signature", "token", "reason"), packed)

    def lock_profiles(self, revision: int, profile_ids: Iterable[bytes]) -> dict[bytes, ProfileRow]:
        # A locked row is read again after the wait, so the result is what the lock protects.
        listed = sorted(profile_ids)
        if not listed:
            return {}
        return read_profiles(
            copy_raw(
                self._cursor,
                f"select {LOCKED_PROFILE} from profiles_r{int(revision)}"
                f" where profile_id = any({array_literal(listed)}) order by profile_id for no key update",
            )
        )

    def try_profiles(self, revision: int, profile_ids: Iterable[bytes]) -> tuple[dict[bytes, ProfileRow], set[bytes]]:
        listed = sorted(profile_ids)
        if not listed:
            return {}, set()
        table = f"profiles_r{int(revision)} where profile_id = any"
        locked = read_profiles(
            copy_raw(
                self._cursor,
                f"select {LOCKED_PROFILE} from {table}({array_literal(listed)})"
                " order by profile_id for no key update skip locked",
            )
        )
        rest = [each for each in listed if each not in locked]
        if not rest:
            return locked, set()
        busy = copy_out(self._cursor, f"select profile_id from {table}({array_literal(rest)})")
        return locked, {row[0] or b"" for row in busy}

    def states(self, revision: int, identifier_sets: Iterable[bytes]) -> list[tuple[bytes, bytes]]:
        return copy_pairs(
            self._cursor,
            f"select signature, state from states_r{int(revision)}"
            f" where signature = any({array_literal(identifier_sets)})",
        )

    def save_profiles(self, revision: int, rows: Sequence[ProfileRow]) -> None:
        if not rows:
            return
        updates = ", ".join(f"{name} = excluded.{name}" for name in PROFILES.columns if name != "profile_id")
        self._cursor.execute(
            f"insert into profiles_r{int(revision)} ({PROFILES.names})"
            f" select * from {self._stage.rows(PROFILES, [pack_profile(row) for row in sorted(rows)])}"
            f" on conflict (profile_id) do update set {updates}"
        )

    def delete_profiles(self, revision: int, profile_ids: Iterable[bytes]) -> None:
        those = f"where profile_id = any({array_literal(profile_ids)})"
        self._cursor.execute(
            f"delete from profiles_r{int(revision)} {those}; delete from order_nodes_r{int(revision)} {those}"
        )
        postgres_members.remove(self._cursor, int(revision), those)

    def ended_versions(self, profile_ids: Iterable[bytes]) -> dict[bytes, int]:
        ids = list(profile_ids)
        if not ids:
            return {}
        self._cursor.execute("select profile_id, version from ended_profiles where profile_id = any(%s)", (Uuids(ids),))
        return {row[0]: int(row[1]) for row in self._cursor.fetchall()}

    def save_ended(self, versions: Mapping[bytes, int]) -> None:
        if not versions:
            return
        rows = ",".join([f"('{profile_id.hex()}',{int(version)})" for profile_id, version in sorted(versions.items())])
        self._cursor.execute(
            f"insert into ended_profiles as e values {rows} on conflict (profile_id) do update"
            " set version = greatest(e.version, excluded.version)"
        )

    def change_memberships(
        self, revision: int, entered: Sequence[tuple[int, bytes, int | None]], left: Sequence[tuple[int, bytes]]
    ) -> None:
        postgres_members.change(self._cursor, self._stage, int(revision), entered, left)

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
        packed = [pack_change(batch, index, change) for index, change in enumerate(changes)]
        copy_rows(self._cursor, "changes", columns, packed)

    def mark_search(self, profile_ids: Iterable[bytes], acting: Collection[bytes] = ()) -> None:
        listed = set(profile_ids)
        for now, those in ((True, sorted(listed.intersection(acting))), (False, sorted(listed.difference(acting)))):
            if those:
                self._cursor.execute(
                    f"insert into search_due as d (profile_id, acting) select unnest({array_literal(those)}), {now}"
                    " on conflict (profile_id) do update set acting = true where excluded.acting and not d.acting"
                )

    def count_segment_days(self, counts: Mapping[tuple[str, str], tuple[int, int]]) -> None:
        if not counts:
            return
        rows = ",".join(
            [
                f"({quoted(segment)},{quoted(day)},pg_backend_pid() % 64,{int(entered)},{int(left)})"
                for (segment, day), (entered, left) in sorted(counts.items())
            ]
        )
        self._cursor.execute(
            f'insert into segment_days as d (segment, day, part, entered, "left") values {rows}'
            " on conflict (segment, day, part) do update set entered = d.entered + excluded.entered,"
            ' "left" = d."left" + excluded."left"'
        )
