"""The touchpoint record: one JSON object per log record (design C1). Encoding, decoding, hashes; no I/O.

Times are aware UTC with microseconds. Tokens, keys and signatures are 128 bits: lower-case hex in JSON
(`id` in UUID form), 16 raw bytes in code and PostgreSQL's uuid.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any, Final, NamedTuple

import msgspec

from schemas.errors import ReaderTooOld, RecordUnreadable

VERSION: Final = 1
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)


class Identifier(msgspec.Struct, frozen=True):
    """A token with its kind; the value it stands for is in the vault alone."""

    kind: str
    token: str  # 32 hex digits


class Sealed(msgspec.Struct, frozen=True):
    """What only a holder of the key reads. `data`: base64 of nonce (12) + AES-256-GCM of a JSON object."""

    key: str  # the token (32 hex digits) whose key sealed it: the record's route_key
    names: list[str]  # dotted names of what is inside, in clear: "traits.name", "context.ip"
    data: str


class Record(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A touchpoint as the log keeps it. Unknown fields of newer minor writers are ignored when read.

    `sealed.data` opens to {"properties": {…}, "context": {…}, "traits": {…}} with only the sealed leaves;
    where an identifier's value stood there is {"$token": "<hex>", "$kind": "<kind>"}.
    """

    v: int
    id: str  # UUID form of the event key
    message_id: str | None = None
    type: str  # canonical dotted type, "custom" for the rest
    name: str | None = None  # the sender's own name
    source: str
    ids: list[Identifier]  # rank order, highest first; never empty
    route_key: str
    occurred_at: datetime
    received_at: datetime
    known_at: datetime
    original_at: datetime | None = None
    sent_at: datetime | None = None
    clock_rule: str = "trusted"
    digest: str  # 32 hex digits, design C3
    properties: dict[str, Any] = {}
    context: dict[str, Any] = {}
    traits: dict[str, Any] = {}
    sealed: Sealed | None = None


class Pending(NamedTuple):
    """A record on its way into the log: `key` fixes the partition, `value` is one UTF-8 JSON object."""

    key: bytes  # 16 bytes: the route_key's token
    value: bytes


class Stored(NamedTuple):
    """A record where the log put it. Offsets rise inside a partition; gaps are allowed."""

    partition: int
    offset: int
    value: bytes


_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final = msgspec.json.Decoder(Record)
_RAW_DECODER: Final = msgspec.json.Decoder(dict[str, Any])


class _Version(msgspec.Struct):
    v: int


_VERSION_DECODER: Final = msgspec.json.Decoder(_Version)


def encode(record: Record) -> bytes:
    """The bytes of a record. They never change once they are in the log."""
    return _ENCODER.encode(record)


def decode(value: bytes) -> Record:
    """Read stored bytes. Raises RecordUnreadable, or ReaderTooOld for a record of a newer version."""
    try:
        record = _DECODER.decode(value)
        if record.v == VERSION:
            return record
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as err:
        return _other_version(value, err)
    return _other_version(value, None)


def _other_version(value: bytes, error: Exception | None) -> Record:
    """A record of an older version lifted; the reason why not, for a newer or an unreadable one."""
    try:
        version = _VERSION_DECODER.decode(value).v
        if version > VERSION:
            raise ReaderTooOld(f"touchpoint v{version}; this build reads v{VERSION}")
        if version < VERSION:
            from schemas.upcasters import lift  # noqa: PLC0415  # upcasters import nothing of ours back

            return msgspec.convert(lift("touchpoint", version, VERSION, _RAW_DECODER.decode(value)), Record)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as err:
        raise RecordUnreadable(f"not a touchpoint record: {type(err).__name__}") from err
    raise RecordUnreadable(f"not a touchpoint record: {type(error).__name__}") from error


def to_us(at: datetime) -> int:
    """Microseconds since 1970 of an aware time; exact."""
    return (at - EPOCH) // MICROSECOND


def from_us(at_us: int) -> datetime:
    """The aware UTC time of microseconds since 1970."""
    return EPOCH + timedelta(microseconds=at_us)


def event_key(secret: bytes, source: str, message_id: str) -> bytes:
    """The 128-bit key of an event: a keyed hash of (source, message id). `secret`: the vault's hash key."""
    return blake2b(f"{source}\0{message_id}".encode(), digest_size=16, key=secret, person=b"tf-event-key").digest()


def signature_of(tokens: Iterable[bytes]) -> bytes:
    """The 128-bit name of a set of tokens, whatever their order."""
    return blake2b(b"".join(sorted(tokens)), digest_size=16, person=b"tf-signature").digest()


def partition_of(key: bytes, partitions: int) -> int:
    """Where a route key goes. Tokens are random, so four of their bytes spread evenly."""
    return int.from_bytes(key[:4], "big") % partitions


def uuid_text(raw: bytes) -> str:
    """The UUID form of 16 bytes; cheaper than through UUID."""
    digits = raw.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
