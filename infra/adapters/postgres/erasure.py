"""`ErasureStore` in PostgreSQL: jobs, erased tokens, and the deletions of an erasure (design C12)."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, time
from hashlib import blake2b
from typing import Final

import msgspec
from psycopg2.extensions import cursor as Cursor
from psycopg2.extras import Json

from infra.adapters.postgres import members as postgres_members
from infra.adapters.postgres.connection_pool import Lane
from infra.adapters.postgres.control import insert_fact
from infra.adapters.postgres.database import Database, Uuid, Uuids, array_literal
from infra.adapters.postgres.figures import counted_rows
from infra.adapters.postgres.locks import ERASURE_LOCK, IDENTITY_LOCK
from infra.adapters.postgres.order_erasure import OrderErasure
from infra.adapters.postgres.rights import Need, check_rights
from infra.adapters.postgres.search import clean as clean_search
from infra.adapters.postgres.store import PostgresStore
from schemas.erasures import STEPS, Erasure, Job, Receipt, SealedDeadLetter, Seen, TokenOwner
from schemas.facts import PersonErased
from schemas.figures import Counted
from schemas.stamps import key_of, n_of, place_of

KIND: Final = "erase"
_NEEDS: Final = (
    Need("jobs|facts|marks|feed_batches|erased_tokens", ("select", "insert")),
    Need("(states|memberships)_r[0-9]+|search|search_due|dead_letters", ("select", "delete")),
    Need("profiles_r[0-9]+|tokens|evidence|evidence_tokens|refused_links", ("select", "update", "delete")),
    Need("jobs|changes", ("select", "update", "insert")),
    Need("revisions|register|order_holders", ("select",)),
    Need("order_sets|laid_off_r[0-9]+|unnamed_tokens|ambiguous_tokens", ("select", "delete")),
    Need("search", ("maintain",)),
)
_EVIDENCE: Final = "e.signature, e.tokens, e.kinds, e.first_us, e.first_event, e.profile_id, e.first_n"


class PostgresErasures:
    """One connection; one erasure at a time through it, several in parallel through several."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._database = Database(dsn, "touchfold erase", Lane.WORK)

    def check_rights(self) -> None:
        with self._database.transaction() as cursor:
            check_rights(cursor, _NEEDS, "erasing")

    @contextmanager
    def reading(self) -> Iterator["PostgresErasure"]:
        with self._database.transaction() as cursor:
            yield PostgresErasure(cursor)

    @contextmanager
    def writing(self) -> Iterator["PostgresErasure"]:
        """Exclusive access to identity and all revisions' profiles: DECIDE locks profiles before it reads evidence,
        so no overlapping decision can write back a profile deleted here.
        """
        with self._database.transaction() as cursor:
            cursor.execute("select pg_advisory_xact_lock(%s)", (IDENTITY_LOCK,))
            erasure = PostgresErasure(cursor)
            for revision in erasure.revisions():
                cursor.execute(f"lock table profiles_r{revision} in exclusive mode")
            yield erasure

    def begin(self, make: Callable[["PostgresErasure"], Sequence[Erasure]]) -> Sequence[Erasure]:
        with self._database.transaction() as cursor:
            cursor.execute("select pg_advisory_xact_lock(%s), pg_advisory_xact_lock(%s)", (ERASURE_LOCK, IDENTITY_LOCK))
            erasures = make(PostgresErasure(cursor))
            _insert_jobs(cursor, erasures)
            for each in erasures:
                fact = PersonErased(job=each.id, tokens=each.tokens, profiles=each.profiles)
                insert_fact(cursor, fact, _morning(each.on))
        return erasures

    def add_jobs(self, erasures: Sequence[Erasure]) -> None:
        with self._database.transaction() as cursor:
            _insert_jobs(cursor, erasures)

    def open_jobs(self) -> list[Job]:
        with self._database.transaction() as cursor:
            cursor.execute(
                "select payload, step from jobs where kind = %s and finished_at is null order by created_at, id",
                (KIND,),
            )
            return [Job(msgspec.convert(row[0], Erasure), row[1]) for row in cursor.fetchall()]

    def name_tokens(self, erasures: Sequence[Erasure]) -> None:
        with self._database.transaction() as cursor:
            cursor.execute("select pg_advisory_xact_lock(%s)", (ERASURE_LOCK,))
            for on in sorted({each.on for each in erasures}):
                tokens = [token for each in erasures if each.on == on for token in each.token_bytes()]
                cursor.execute(
                    "insert into erased_tokens select token, %s from unnest(%s) as token order by 1"
                    " on conflict do nothing",
                    (on, Uuids(tokens)),
                )
            PostgresErasure(cursor).advance([each.id for each in erasures], "tokens")

    def advance(self, job_ids: Sequence[str], step: str, finished_on: date | None = None) -> None:
        with self._database.transaction() as cursor:
            PostgresErasure(cursor).advance(job_ids, step)
            if finished_on is not None:
                cursor.execute(
                    "update jobs set finished_at = %s where id = any(%s::uuid[])",
                    (_morning(finished_on), list(job_ids)),
                )

    def dead_letters_without_tokens(self, after: bytes, limit: int) -> list[SealedDeadLetter]:
        with self._database.transaction() as cursor:
            cursor.execute(
                "select id, seal_key, sealed from dead_letters where tokens = '{}' and id > %s order by id limit %s",
                (Uuid(after), limit),
            )
            return [SealedDeadLetter(row[0], row[1], bytes(row[2])) for row in cursor.fetchall()]

    def delete_dead_letters(self, ids: Sequence[bytes]) -> None:
        with self._database.transaction() as cursor:
            cursor.execute("delete from dead_letters where id = any(%s)", (Uuids(ids),))

    def not_named(self, tokens: Collection[bytes]) -> set[bytes]:
        with self._database.transaction() as cursor:
            cursor.execute("select token from erased_tokens where token = any(%s)", (Uuids(list(tokens)),))
            return set(tokens) - {row[0] for row in cursor.fetchall()}

    def clean(self) -> None:
        clean_search(self._database)

    def number_feed(self) -> None:
        store = PostgresStore(self._dsn, "touchfold erase")
        try:
            store.number_feed()
        finally:
            store.close()

    def close(self) -> None:
        self._database.close()


def _insert_jobs(cursor: Cursor, erasures: Iterable[Erasure]) -> None:
    for each in erasures:
        cursor.execute(
            "insert into jobs (id, kind, step, payload, created_at) values (%s, %s, 'fact', %s, %s)"
            " on conflict (id) do update set step = 'fact', finished_at = null",
            (each.id, KIND, Json(msgspec.to_builtins(each)), _morning(each.on)),
        )


def _receipt(receipt: tuple[int, bytes]) -> tuple[int, int, Uuid]:
    """The columns of a receipt."""
    at_us, place = receipt
    return at_us, n_of(place), Uuid(key_of(place))


def _morning(day: date) -> datetime:
    """For time columns whose exact moment must not be stored."""
    return datetime.combine(day, time(), UTC)


class PostgresErasure(OrderErasure):
    """`ErasureReads` and `ErasureWrites` over an open cursor."""

    def time_zone(self) -> str:
        self._cursor.execute("select value ->> 'time_zone' from meta where key = 'deployment'")
        row = self._cursor.fetchone()
        return "UTC" if row is None else str(row[0])

    def counted(self, profile_ids: Collection[bytes]) -> dict[int, list[Counted]]:
        found = {}
        for revision in self.revisions():
            upto = self.counted_up_to(revision)
            rows = counted_rows(self._cursor, revision, f"profile_id = any({array_literal(profile_ids)})")
            found[revision] = [each for each in rows if upto is None or each.profile_id <= upto]
        return found

    def owners(self, tokens: Iterable[bytes]) -> list[TokenOwner]:
        return self._owners("token", tokens)

    def members(self, profile_ids: Iterable[bytes]) -> list[TokenOwner]:
        return self._owners("profile_id", profile_ids)

    def _owners(self, column: str, wanted: Iterable[bytes]) -> list[TokenOwner]:
        self._cursor.execute(
            f"select token, kind, hub, profile_id from tokens where {column} = any(%s) order by token",
            (Uuids(list(wanted)),),
        )
        return [TokenOwner(*row) for row in self._cursor.fetchall()]

    def evidence_of(self, tokens: Iterable[bytes]) -> list[Seen]:
        self._cursor.execute(
            f"select {_EVIDENCE} from evidence e where e.signature in"
            " (select signature from evidence_tokens where token = any(%s)) and e.tokens <> '{}' order by e.signature",
            (Uuids(list(tokens)),),
        )
        return [
            Seen(row[0], tuple(zip(row[2], row[1], strict=True)), row[3], place_of(row[6], row[4]), row[5])
            for row in self._cursor.fetchall()
        ]

    def nobodys(self, routes: Iterable[bytes]) -> set[bytes]:
        self._cursor.execute(  # from the tokens to their evidence: after many erasures most evidence has no tokens
            "with own as materialized (select signature from evidence_tokens where token = any(%s))"
            " select e.signature from own cross join lateral"
            " (select signature from evidence o where o.signature = own.signature and o.tokens = '{}' offset 0) e",
            (Uuids(list(routes)),),
        )
        return {row[0] for row in self._cursor.fetchall()}

    def events_of(self, identifier_sets: Iterable[bytes]) -> dict[bytes, int]:
        self._cursor.execute(
            "select signature, count(*) from register where verdict = 0 and signature = any(%s) group by 1",
            (Uuids(list(identifier_sets)),),
        )
        return {row[0]: int(row[1]) for row in self._cursor.fetchall()}

    def refused(self, tokens: Iterable[bytes], identifier_sets: Iterable[bytes]) -> list[tuple[bytes, bytes]]:
        self._cursor.execute(
            "select signature, token from refused_links where token = any(%s) or signature = any(%s)",
            (Uuids(list(tokens)), Uuids(list(identifier_sets))),
        )
        return [(row[0], row[1]) for row in self._cursor.fetchall()]

    def delete_profiles(self, profile_ids: Collection[bytes]) -> list[tuple[bytes, int]]:
        ids = Uuids(list(profile_ids))
        live = self._live()
        versions: dict[bytes, int] = {}
        self._cursor.execute(
            "select profile_id, max(version) from changes where profile_id = any(%s) group by 1", (ids,)
        )
        versions.update((row[0], int(row[1])) for row in self._cursor.fetchall())
        for revision in self.revisions():
            postgres_members.remove(self._cursor, revision, f"where profile_id = any({array_literal(profile_ids)})")
            self._cursor.execute(f"delete from order_nodes_r{revision} where profile_id = any(%s)", (ids,))
            self._cursor.execute(
                f"delete from profiles_r{revision} where profile_id = any(%s) returning profile_id, version", (ids,)
            )
            for profile_id, version in self._cursor.fetchall():
                if revision == live:
                    versions[profile_id] = max(versions.get(profile_id, 0), int(version))
        # After the profile rows, whose locks an indexer holds until it has written.
        self._cursor.execute("delete from search where profile_id = any(%s)", (ids,))
        self._cursor.execute("delete from search_due where profile_id = any(%s)", (ids,))
        self._cursor.execute(  # the person's trait values are removed; the fact that something changed stays
            "update changes set old = null, new = null where profile_id = any(%s) and type = 'profile'", (ids,)
        )
        return [(profile_id, version + 1) for profile_id, version in sorted(versions.items())]

    def empty_evidence(self, identifier_sets: Collection[bytes], routes: Mapping[bytes, bytes]) -> None:
        gone = Uuids(list(identifier_sets))
        self._cursor.execute(
            "update evidence set tokens = '{}', kinds = '{}', profile_id = null where signature = any(%s)", (gone,)
        )
        self._cursor.execute(
            "delete from evidence_tokens where signature = any(%s)"
            " and (signature, token) not in (select * from unnest(%s, %s))",
            (gone, Uuids(list(routes)), Uuids(list(routes.values()))),
        )
        self._cursor.execute("delete from refused_links where signature = any(%s)", (gone,))
        self.add_nobody(identifier_sets)

    def strip_evidence(self, rows: Sequence[Seen]) -> None:
        for row in rows:
            self._cursor.execute(
                "update evidence set tokens = %s, kinds = %s::text[], profile_id = %s where signature = %s",
                (
                    Uuids([token for _, token in row.tokens]),
                    [kind for kind, _ in row.tokens],
                    None if row.profile_id is None else Uuid(row.profile_id),
                    Uuid(row.identifier_set),
                ),
            )

    def delete_tokens(self, tokens: Collection[bytes]) -> None:
        gone = Uuids(list(tokens))
        for table in ("tokens", "evidence_tokens", "refused_links", "unnamed_tokens", "ambiguous_tokens"):
            self._cursor.execute(f"delete from {table} where token = any(%s)", (gone,))
        self._cursor.execute("delete from dead_letters where tokens && %s or seal_key = any(%s)", (gone, gone))

    def delete_token_rows(self, tokens: Collection[bytes]) -> None:
        self._cursor.execute("delete from tokens where token = any(%s)", (Uuids(list(tokens)),))

    def clear_shared(self, tokens: Collection[bytes]) -> None:
        self._cursor.execute("update tokens set hub = false where token = any(%s)", (Uuids(list(tokens)),))

    def set_receipts(self, rows: Sequence[Receipt]) -> None:
        for row in rows:
            self._cursor.execute(
                "update tokens set first_us = %s, first_n = %s, first_event = %s, last_us = %s, last_n = %s,"
                " last_event = %s where token = %s",
                (*_receipt(row.first), *_receipt(row.last), Uuid(row.token)),
            )

    def mark_identity(self, identifier_sets: Collection[bytes]) -> None:
        live = self._live()
        if live is not None:
            self._mark(live, "identity", identifier_sets)

    def add_erased_changes(self, profiles: Sequence[tuple[bytes, int]], at_us: int) -> None:
        """The last change of each profile (contracts, "A change")."""
        if not profiles:
            return
        self._cursor.execute("insert into feed_batches default values returning batch")
        row = self._cursor.fetchone()
        assert row is not None, "insert … returning gave no row"
        for index, (profile_id, version) in enumerate(profiles):
            content = msgspec.json.encode([profile_id.hex(), version, "erased"])
            self._cursor.execute(
                "insert into changes (batch, idx, id, type, profile_id, version, at_us, cause)"
                " values (%s, %s, %s, 'erased', %s, %s, %s, 'erasure')",
                (
                    *(row[0], index, Uuid(blake2b(content, digest_size=16, person=b"tf-change").digest())),
                    *(Uuid(profile_id), version, at_us),
                ),
            )

    def not_past(self, job_ids: Sequence[str], step: str) -> set[str]:
        self._cursor.execute(
            "select id from jobs where id = any(%s::uuid[]) and step = any(%s) order by id for update",
            (list(job_ids), list(STEPS[: STEPS.index(step) + 1])),
        )
        return {row[0].hex() for row in self._cursor.fetchall()}

    def advance(self, job_ids: Sequence[str], step: str) -> None:
        self._cursor.execute("update jobs set step = %s where id = any(%s::uuid[])", (step, list(job_ids)))
