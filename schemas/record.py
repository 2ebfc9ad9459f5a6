"""The touchpoint record: one JSON object per log record (design C1). Encoding, decoding, hashes; no I/O.

Times are aware UTC with microseconds. Tokens, keys and identifier sets are 128 bits: lower-case hex in JSON
(`id` in UUID form), 16 raw bytes in code and PostgreSQL's uuid.
"""

from binascii import a2b_base64
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Annotated, Any, Final, NamedTuple

import msgspec

from schemas.errors import ReaderTooOld, RecordUnreadable
from schemas.upcasters import UPCASTERS, Payload, lift

VERSION: Final = 2
SAME_SHAPE: Final = 1
"""The oldest version that a reader of VERSION reads as it is: version 2 only added `n` and `flags`."""
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)
FLAGS: Final = (
    "large",  # above Segment's 32 KB
    "time_unreadable",  # a time of it could not be read or cannot be: the time of receipt stands in
    "time_archived",  # sent a day to two years ago: its time is not corrected
    "amount_unreadable",  # an amount that could not be read: it counts nowhere
    "bot",  # sent by a crawler, not a person
    "mended",  # bytes or values that JSON cannot hold were replaced
)
"""What the door noticed about an event and accepted all the same; `flags` of a record and of SQL's `events`."""
Instant = Annotated[datetime, msgspec.Meta(tz=True)]
"""Refuse a time without a zone, because its meaning would depend on the reader."""


class Reader(NamedTuple):
    """Which records a build reads: those of `version` as they are, older ones through `steps`, newer ones never."""

    version: int = VERSION
    steps: Mapping[tuple[str, int], Callable[[Payload], Payload]] = UPCASTERS

    def reads_as_is(self, version: int) -> bool:
        """Whether a record of this version needs no lifting; old logs are large, and lifting costs 20 µs a record."""
        return version == self.version or (self.version == VERSION and SAME_SHAPE <= version < VERSION)


CURRENT: Final = Reader()
"""This build."""


class Identifier(msgspec.Struct, frozen=True):
    """A token with its kind; only the vault holds the value it stands for."""

    kind: str
    token: str  # 32 hex digits


class Sealed(msgspec.Struct, frozen=True):
    """The part that only a key holder can read. `data`: base64 of nonce (12) + AES-256-GCM of a JSON object."""

    key: str  # the token (32 hex digits) whose key sealed it: the record's route_key
    names: list[str]  # dotted names of the contents, in clear: "traits.name", "context.ip"
    data: str


class Record(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A touchpoint as the log keeps it. Unknown fields of newer minor writers are ignored when read.

    `sealed.data` opens to {"properties": {…}, "context": {…}, "traits": {…}} with only the sealed leaves;
    an identifier's value is replaced by {"$token": "<hex>", "$kind": "<kind>"}.
    """

    v: int
    id: str  # UUID form of the event key
    message_id: str | None = None
    type: str  # canonical dotted type, "custom" for the rest
    name: str | None = None  # the sender's own name
    source: str
    ids: list[Identifier]  # rank order, highest first; never empty
    route_key: str
    occurred_at: Instant
    received_at: Instant
    known_at: Instant
    original_at: Instant | None = None
    sent_at: Instant | None = None
    clock_rule: str = "trusted"
    n: int = 0  # place in its request, file or inbox fetch; outside the digest; from version 2 on
    flags: list[str] = []  # words of FLAGS that hold; outside the digest; from version 2 on
    mapped: list[str] = []  # our fields that the door filled in from what the sender has; from version 2 on
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
    """A record at its place in the log. Offsets rise inside a partition; gaps are allowed."""

    partition: int
    offset: int
    value: bytes


_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final = msgspec.json.Decoder(Record)
_RAW_DECODER: Final = msgspec.json.Decoder(dict[str, Any])


class _Version(msgspec.Struct):
    """Only the version: a newer record may have a different shape."""

    v: int = 0


class _Received(msgspec.Struct):
    received_at: Instant


_VERSION_DECODER: Final = msgspec.json.Decoder(_Version)
_RECEIVED_DECODER: Final = msgspec.json.Decoder(_Received)
_NOT_JSON: Final = (msgspec.MsgspecError, RecursionError, ValueError)  # UnicodeDecodeError is a ValueError


def encode(record: Record) -> bytes:
    """The bytes of a record. They never change once they are in the log."""
    return _ENCODER.encode(record)


def decode(value: bytes, reader: Reader = CURRENT) -> Record:
    """Read stored bytes from any writer; the only place that decides what is a record.

    Raises RecordUnreadable, or ReaderTooOld for a record of a newer version; nothing else.
    """
    try:
        record = _DECODER.decode(value)
        if not reader.reads_as_is(record.v):
            record = _other_version(value, reader)
        _check(record)
    except _NOT_JSON as err:
        if version_of(value) > reader.version:
            raise _too_old(value, reader) from err
        raise RecordUnreadable(f"not a touchpoint record: {type(err).__name__}") from err
    return record


def _other_version(value: bytes, reader: Reader) -> Record:
    """A record of an older version, lifted to the current one."""
    version = version_of(value)
    if version > reader.version:
        raise _too_old(value, reader)
    payload = _RAW_DECODER.decode(value)
    try:
        lifted = lift("touchpoint", version, reader.version, payload, reader.steps)
    except (LookupError, TypeError, AttributeError, ArithmeticError) as err:  # the payload is malformed
        raise RecordUnreadable(f"not a touchpoint record of version {version}: {type(err).__name__}") from err
    return msgspec.convert(lifted | {"v": reader.version}, Record)


def _too_old(value: bytes, reader: Reader) -> ReaderTooOld:
    return ReaderTooOld(f"touchpoint v{version_of(value)}; this build reads v{reader.version}")


def _check(record: Record) -> None:
    """Check what the JSON types cannot express. Raises ValueError."""
    if not record.ids:
        raise ValueError("no identifier")
    names = [record.id.replace("-", ""), record.route_key, record.digest]
    names += [identifier.token for identifier in record.ids]
    if record.sealed is not None:
        names.append(record.sealed.key)
        a2b_base64(record.sealed.data)
    if {*map(len, names)} != {32} or len(bytes.fromhex("".join(names))) != 16 * len(names):  # fromhex skips spaces
        raise ValueError("not 32 hexadecimal digits")


def sixteen(text: str) -> bytes:
    """The 16 bytes of 32 hexadecimal digits. Raises ValueError."""
    value = bytes.fromhex(text)
    if len(value) != 16:
        raise ValueError("not 32 hexadecimal digits")
    return value


def version_of(value: bytes) -> int:
    """The version a record says it has; 0 if it has none."""
    try:
        return _VERSION_DECODER.decode(value).v
    except _NOT_JSON:
        return 0


def received_us(value: bytes) -> int | None:
    """When a record was received, in microseconds, even if the rest cannot be read; None if it does not say."""
    try:
        return to_us(_RECEIVED_DECODER.decode(value).received_at)
    except _NOT_JSON:
        return None


def to_us(at: datetime) -> int:
    """Microseconds since 1970 of an aware time; exact."""
    return (at - EPOCH) // MICROSECOND


def from_us(at_us: int) -> datetime:
    """The aware UTC time of microseconds since 1970."""
    return EPOCH + timedelta(microseconds=at_us)


def event_key(secret: bytes, source: str, message_id: str) -> bytes:
    """The 128-bit key of an event: a keyed hash of (source, message id). `secret`: the vault's hash key."""
    return blake2b(f"{source}\0{message_id}".encode(), digest_size=16, key=secret, person=b"tf-event-key").digest()


def identifier_set_of(tokens: Iterable[bytes]) -> bytes:
    """The 128-bit name of a set of tokens, independent of their order."""
    return blake2b(b"".join(sorted(tokens)), digest_size=16, person=b"tf-signature").digest()


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a route key. Tokens are random, so four of their bytes spread evenly."""
    return int.from_bytes(key[:4], "big") % partitions


def uuid_text(raw: bytes) -> str:
    """The UUID form of 16 bytes; cheaper than through UUID."""
    digits = raw.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
