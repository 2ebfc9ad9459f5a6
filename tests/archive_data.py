"""Records, a filled database and an archive for tests of archive and SQL: raw inserts, no product code folds."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any, Final

import psycopg2

from infra.adapters.postgres.database import Uuid
from schemas.record import Identifier, Pending, Record, Sealed, encode, identifier_set_of, uuid_text

START: Final = datetime(2024, 1, 1, tzinfo=UTC)


def raw(text: str) -> bytes:
    """16 bytes that represent a name."""
    return blake2b(text.encode(), digest_size=16).digest()


def record(
    number: int,
    who: str = "",
    type_: str = "purchase.completed",
    *,
    source: str = "shop",
    sealed: bool = True,
    minutes: int | None = None,
    **properties: Any,
) -> Record:
    """Event number `number` of a customer, one minute after the previous one."""
    token = raw(who or f"customer {number % 10}").hex()
    at = START + timedelta(minutes=number if minutes is None else minutes)
    return Record(
        v=1,
        id=uuid_text(raw(f"event {number}")),
        message_id=f"m-{number}",
        type=type_,
        name="Order Completed",
        source=source,
        ids=[Identifier("user_id", token)],
        route_key=token,
        occurred_at=at,
        received_at=at + timedelta(seconds=1),
        known_at=at + timedelta(seconds=1),
        digest=raw(f"digest {number}").hex(),
        properties=properties or {"order_id": f"o-{number}", "revenue": f"{number}.10"},
        context={"channel": "web", "campaign": {"id": "spring"}},
        sealed=Sealed(token, ["context.ip", "traits.email"], "c2VhbGVk") if sealed else None,
    )


def pending(records: Sequence[Record]) -> list[Pending]:
    return [Pending(bytes.fromhex(each.route_key), encode(each)) for each in records]


def own(dsn: str, who: Sequence[str]) -> None:
    """Evidence: each of these customers is the profile of its own token."""
    with psycopg2.connect(dsn) as connection, connection.cursor() as cursor:
        for each in who:
            token = raw(each)
            cursor.execute(
                "insert into evidence values (%s, array[%s], array['user_id'], 0, %s, %s) on conflict do nothing",
                (Uuid(identifier_set_of([token])), Uuid(token), Uuid(token), Uuid(token)),
            )
    connection.close()


def deploy(dsn: str, definitions: bytes | str, ends: Sequence[int] = (0, 0, 0, 0)) -> None:
    """A live revision 1 that has applied the log up to `ends`."""
    with psycopg2.connect(dsn) as connection, connection.cursor() as cursor:
        facts = json.dumps({"time_zone": "UTC", "region": "US", "currency": "EUR"})
        cursor.execute("insert into meta values ('deployment', %s) on conflict do nothing", (facts,))
        text = definitions.decode() if isinstance(definitions, bytes) else definitions
        cursor.execute(
            "insert into revisions (revision, state, cause, definitions, content_hash, created_at)"
            " values (1, 'live', 'initial', %s, '', now())",
            (text,),
        )
        cursor.execute("select create_revision_tables(1)")
        for partition, end in enumerate(ends):
            cursor.execute("insert into progress values (1, %s, 1, %s, 0)", (partition, end))
    connection.close()


def apply_until(dsn: str, ends: Sequence[int]) -> None:
    with psycopg2.connect(dsn) as connection, connection.cursor() as cursor:
        for partition, end in enumerate(ends):
            cursor.execute(
                "update progress set next_offset = %s where revision = 1 and partition = %s", (end, partition)
            )
    connection.close()


def skip(dsn: str, partition: int, offset: int) -> None:
    with psycopg2.connect(dsn) as connection, connection.cursor() as cursor:
        cursor.execute("insert into not_applied values (%s, %s, null, 1)", (partition, offset))
    connection.close()
