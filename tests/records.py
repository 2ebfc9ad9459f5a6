"""Touchpoint records for tests of everything after the door: tokens are made up, nothing is sealed."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any

from schemas.identity_rules import DEFAULT_RULES
from schemas.record import Identifier, Pending, Record, encode, event_key, partition_of, uuid_text

SECRET = b"test" * 8
START = datetime(2026, 1, 1, tzinfo=UTC)


def key_of_partition(partition: int) -> bytes:
    """A routing key whose records go to this partition, out of a folder's four."""
    return next(key for n in range(99) if partition_of(key := bytes([0, 0, 0, n]) + bytes(12), 4) == partition)


def token(kind: str, value: str) -> bytes:
    """The token of an identifier, as a vault would store it."""
    return blake2b(f"{kind}\0{value}".encode(), digest_size=16).digest()


def record(
    ids: Iterable[tuple[str, str]],
    message_id: str,
    *,
    type_: str = "web.page_viewed",
    at: datetime = START,
    received_after: timedelta = timedelta(seconds=1),
    properties: dict[str, Any] | None = None,
    traits: dict[str, Any] | None = None,
    source: str = "test",
    name: str | None = None,
    n: int = 0,
) -> Record:
    """A record of one event. As at the door, the digest covers everything except message id and receipt time."""
    ranked = sorted(ids, key=lambda each: (DEFAULT_RULES.rank(each[0]), token(*each)))
    identifiers = [Identifier(kind, token(kind, value).hex()) for kind, value in ranked]
    content = repr((ranked, type_, at, properties, traits, name)).encode()
    return Record(
        v=2 if n else 1,
        n=n,
        id=uuid_text(event_key(SECRET, source, message_id)),
        message_id=message_id,
        type=type_,
        name=name,
        source=source,
        ids=identifiers,
        route_key=identifiers[0].token,
        occurred_at=at,
        received_at=at + received_after,
        known_at=at + received_after,
        digest=blake2b(content, digest_size=16).hexdigest(),
        properties=properties or {},
        traits=traits or {},
    )


def purchase(ids: Iterable[tuple[str, str]], order_id: str, revenue: str, at: datetime = START, **more: Any) -> Record:
    """A purchase with its own order id."""
    type_ = more.pop("type_", "purchase.completed")
    properties = {"order_id": order_id, "revenue": revenue, "currency": "USD"}
    message_id = more.pop("message_id", f"{type_}-{order_id}")
    return record(ids, message_id, type_=type_, at=at, properties=properties, **more)


def pending(records: Iterable[Record]) -> list[Pending]:
    """The records, ready to append."""
    return [Pending(bytes.fromhex(each.route_key), encode(each)) for each in records]
