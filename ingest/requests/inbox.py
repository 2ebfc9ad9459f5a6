"""Messages of the inbox topic: turns each into items for acceptance, or sets it aside. Pure; no connection to Kafka.

A message is a request to the door that came through Kafka: the same body, with the same limits. Nobody waits for an
answer, so whatever the door would answer with 4xx becomes a dead letter that holds the whole message.
"""

import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

import msgspec

from ingest.accept.calls import Call, SourceRules
from ingest.accept.canonical import MAX_BODY_BYTES, Mended
from ingest.requests.bodies import GZIP, IMPORT_PATH, MAX_KEY, METRICS, call_of, inflate, key_of_items, read_body
from ingest.requests.routes import authenticate
from schemas.dead_letters import INBOX, DeadLetter, dead_letter_id, seal_dead_letter
from schemas.errors import InvalidWriteKey, NotFound, StoreUnavailable, TouchfoldError
from schemas.placeholders import is_no_id
from schemas.ports import Sealer
from schemas.sources import Source, Sources

WRITE_KEY: Final = "writekey"  # the headers that are read, in lower case
PATH: Final = "path"
CALL: Final = "call"
_LONGEST_STAY: Final = timedelta(days=7)  # in the topic; an older timestamp means a clock that was never set
_SEARCHED: Final = 1_000_000  # bytes to unpack from a damaged gzip body, for erasures to search
_NOTHING_HERE: Final = "must be track, identify, page, screen, group, alias, batch, import, or a path of one"


class Message(NamedTuple):
    """One message as the broker keeps it."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int | None  # the broker's or the producer's, if any
    value: bytes
    write_key: str | None = None  # headers; None: absent
    path: str | None = None

    @property
    def place(self) -> str:
        """The same for each delivery of this message, and unique even if the topic is deleted and created again."""
        return f"{self.topic}:{self.partition}:{self.offset}:{self.timestamp_ms or 0}"


class Opened(NamedTuple):
    """A message with items to accept."""

    message: Message
    call: Call


class Refusal(NamedTuple):
    """A message to set aside whole. `source`: the sender, "" if unknown."""

    message: Message
    source: str
    rule: str
    path: str
    reason: str


class _Kept(msgspec.Struct):
    """The content of a dead letter of stage "inbox": the body as JSON, else as text, else as base64 with its text.

    Erasures search the text that is stored with the bytes.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int | None = None
    write_key: str | None = None
    path: str | None = None
    body: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    text: str | msgspec.UnsetType = msgspec.UNSET
    bytes: str | msgspec.UnsetType = msgspec.UNSET


def message_of(
    topic: str,
    partition: int,
    offset: int,
    timestamp_ms: int | None,
    value: bytes | None,
    headers: Iterable[tuple[str, str | bytes | None]],
) -> Message:
    """A message from a client library's values. Header names in any case; the first non-empty of a name counts."""
    found: dict[str, str] = {}
    for name, content in headers:
        small = name.lower()
        if small in (WRITE_KEY, PATH, CALL) and content:
            text = content if isinstance(content, str) else content.decode(errors="replace")
            found.setdefault(small, text.strip()[:MAX_KEY])
    path = found.get(PATH) or found.get(CALL) or None
    return Message(topic, partition, offset, timestamp_ms, value or b"", found.get(WRITE_KEY) or None, path)


def open_message(
    message: Message,
    sources: Sources,
    received_at: datetime,
    *,
    seen_at: datetime | None = None,
    source: Source | None = None,
) -> Opened | Refusal:
    """The items of a message and their source, or why there are none.

    `received_at`: when the door reads it, possibly hours after the broker did. `seen_at`: when a door first read it, if
    that was earlier. `source`: overrides the write key. Raises StoreUnavailable.
    """
    key = message.write_key
    try:
        call = None if message.path is None else _call(message.path)
        body = read_body(message.value, call, gzip=False)  # a gzip body is recognised by its first bytes
        key = key or body.write_key or key_of_items(body.items)
        owner = source or authenticate(_given(key), sources)
    except StoreUnavailable:
        raise
    except TouchfoldError as err:
        known = sources.find(key) if source is None and key and not isinstance(err, InvalidWriteKey) else source
        return _refused(message, known, err)
    _name_items(message, body.items)
    trusted = owner.trusted_clock or (message.path or "").strip("/") in ("import", IMPORT_PATH.strip("/"))
    rules = SourceRules(owner.name, sources.declared())
    came_at = _came_at(message, seen_at or received_at)
    return Opened(message, Call(body.items, rules, received_at, body.sent_at, body.defaults, False, trusted, came_at))


def _call(path: str) -> str:
    call = call_of(path if path.startswith("/") else f"/v1/{path}")
    if call is None or call == METRICS:
        raise NotFound(f"the header {PATH} {_NOTHING_HERE}")
    return call


def _given(write_key: str | None) -> str:
    if write_key is None:
        raise InvalidWriteKey(f"the message has no write key: send it in the header {WRITE_KEY}, or in the body")
    return write_key


def _refused(message: Message, source: Source | None, err: TouchfoldError) -> Refusal:
    path = err.problems[0].path if err.problems else ""
    reason = ": ".join([err.message, *(problem.reason for problem in err.problems[:1])])
    return Refusal(message, "" if source is None else source.name, err.code, path, reason)


def _name_items(message: Message, items: list[object]) -> None:
    """Give each item without a message id one that is the same for each delivery, so that it counts once."""
    for place, given in enumerate(items):
        item = given.item if isinstance(given, Mended) else given
        if type(item) is dict and is_no_id(item.get("messageId")):
            item["messageId"] = f"{message.place}:{place}"


def _came_at(message: Message, seen_at: datetime) -> datetime | None:
    """When the broker got the message, for clock correction; None: use the time it was first seen."""
    if message.timestamp_ms is None:
        return None
    try:
        at = datetime.fromtimestamp(message.timestamp_ms / 1_000, UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return at if seen_at - _LONGEST_STAY <= at < seen_at else None


# ---------------------------------------------------------------- dead letters


def dead_letter_of(
    refusal: Refusal, sealer: Sealer, secret: bytes, daily_token: bytes, received_at: datetime
) -> DeadLetter:
    """The dead letter of a whole message, sealed under the day's key. A repeated message adds no row.

    `secret`: the vault's hash key. Raises what sealing raises.
    """
    message = refusal.message
    return seal_dead_letter(
        sealer,
        dead_letter_id(secret, INBOX, "", message.place.encode()),
        INBOX,
        refusal.rule,
        refusal.path[:200],
        refusal.reason,
        refusal.source,
        received_at,
        None,
        (),
        daily_token,
        _kept(message),
    )


def _kept(message: Message) -> bytes:
    kept = _Kept(*message[:4], message.write_key, message.path)
    plain = _unpacked(message.value)
    try:
        if plain is not None:
            msgspec.json.decode(plain)
            kept.body = msgspec.Raw(plain)
            return msgspec.json.encode(kept)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass  # not JSON: text or bytes, see below
    try:
        if plain is not None:
            kept.text = plain.decode()
            return msgspec.json.encode(kept)
    except UnicodeDecodeError:
        pass  # not UTF-8 either
    kept.bytes = b64encode(message.value).decode()
    kept.text = (_beginning(message.value) if plain is None else plain).decode(errors="replace")
    return msgspec.json.encode(kept)


def _unpacked(value: bytes) -> bytes | None:
    """The value, unpacked if it is gzip; None if it does not unpack within the door's limits."""
    if not value.startswith(GZIP):
        return value
    try:
        return inflate(value, MAX_BODY_BYTES)
    except TouchfoldError:
        return None


def _beginning(value: bytes) -> bytes:
    try:
        return zlib.decompressobj(wbits=31).decompress(value, _SEARCHED)
    except zlib.error:
        return b""


def message_again(plain: bytes) -> Message:
    """The message inside an opened dead letter of stage "inbox"."""
    kept: _Kept = msgspec.json.decode(plain, type=_Kept)
    if isinstance(kept.bytes, str):
        value = b64decode(kept.bytes)
    elif isinstance(kept.text, str):
        value = kept.text.encode()
    else:
        value = bytes(kept.body) if isinstance(kept.body, msgspec.Raw) else b""
    return Message(kept.topic, kept.partition, kept.offset, kept.timestamp_ms, value, kept.write_key, kept.path)
