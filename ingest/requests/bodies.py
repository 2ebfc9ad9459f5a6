"""The door's public request bodies and paths. Pure: bytes in, items out.

The API is lenient: it takes the paths, and the places for the write key and sentAt, of every SDK in use (Segment,
RudderStack, Jitsu), with and without `/v1`.
"""

import binascii
import re
import zlib
from base64 import b64decode
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qs

import msgspec

from ingest.accept.canonical import (
    MAX_BODY_BYTES,
    MAX_ITEMS,
    MAX_RATIO,
    Mended,
    Refused,
    Unreadable,
    decode_item,
)
from ingest.requests.broken_json import cut, mend, read_item
from schemas.errors import BadRequest, InvalidJson, Problem, TooLarge
from schemas.times import BadTime, read_time

BATCH: Final = "batch"
METRICS: Final = "metrics"  # analytics-next's own measurements: answered and discarded
EVENT: Final = "event"  # Jitsu's: the item names its own type
_LETTERS: Final = {"t": "track", "i": "identify", "p": "page", "s": "screen", "g": "group", "a": "alias"}
CALLS: Final[Mapping[str, str]] = {**_LETTERS, **{call: call for call in _LETTERS.values()}}
"""What a path may end in, and the call it means."""
PATHS: Final[Mapping[str, str]] = {
    **{f"/v1/{end}": call for end, call in CALLS.items()},
    **{f"/{end}": call for end, call in CALLS.items()},  # a host that was given without /v1
    **dict.fromkeys(
        ("/v1/batch", "/v1/b", "/b", "/batch", "/v1/batch/b", "/batch/b", "/v1/import", "/beacon/v1/batch"), BATCH
    ),
    "/v1/m": METRICS,
    "/m": METRICS,
    **{f"/api/s/{place}{end}": call for place in ("", "s2s/") for end, call in CALLS.items()},
    **dict.fromkeys(("/api/s/event", "/api/s/s2s/event"), EVENT),
}
IMPORT_PATH: Final = "/v1/import"  # for servers sending past events: their clock is trusted
LONGEST_PATH: Final = 500  # characters; beyond it nothing is looked for in a path
MAX_KEY: Final = 200  # characters of a write key
GZIP: Final = b"\x1f\x8b"
_BOM: Final = b"\xef\xbb\xbf"
_CHUNK: Final = 65_536
_SLASHES: Final = re.compile("//+")


class _Envelope(msgspec.Struct):
    batch: list[msgspec.Raw] | None = None
    context: msgspec.Raw = msgspec.Raw(b"")
    writeKey: Any = None  # noqa: N815  # the senders' names
    sentAt: Any = None  # noqa: N815


class Body(NamedTuple):
    """A decoded request. `defaults` fill in what an item lacks. An item may be Mended or Unreadable."""

    items: list[object]
    defaults: dict[str, Any] | None
    write_key: str | None
    sent_at: datetime | None


class _Numbered(msgspec.Struct):
    batch: dict[str, msgspec.Raw] = {}
    context: msgspec.Raw = msgspec.Raw(b"")
    writeKey: Any = None  # noqa: N815
    sentAt: Any = None  # noqa: N815


_DECODER: Final = msgspec.json.Decoder(_Envelope)
_NUMBERED: Final = msgspec.json.Decoder(_Numbered)
_LIST: Final = msgspec.json.Decoder(list[msgspec.Raw])


def call_of(path: str) -> str | None:
    """The call a path takes: one of the calls, `batch`, `metrics` or `event`; None if it is not a path of the door.

    Besides `PATHS`: with a `/` too many, below the path of a proxy (`/rudder/v1/track`), and any that ends in `/batch`.
    """
    return PATHS.get(path) or _call_of_odd(path)


def _call_of_odd(path: str) -> str | None:
    if len(path) > LONGEST_PATH:
        return None
    path = plain_path(path)
    found = PATHS.get(path) or PATHS.get(path[path.rfind("/v1/") :] if "/v1/" in path else "")
    return found or (BATCH if path.endswith("/batch") else None)


def plain_path(path: str) -> str:
    """A path without a `/` at its end or twice: SDKs join hosts that end in one."""
    return _SLASHES.sub("/", path).rstrip("/") or "/"


def is_import(path: str) -> bool:
    return len(path) <= LONGEST_PATH and plain_path(path).endswith(IMPORT_PATH)


def inflate(body: bytes, limit: int = MAX_BODY_BYTES) -> bytes:
    """A gzip body, decompressed piece by piece. Raises TooLarge beyond `limit` or MAX_RATIO, InvalidJson if broken."""
    bound = min(limit, max(len(body), 1) * MAX_RATIO)
    parts: list[bytes] = []
    total = 0
    data = body
    while data:
        stream = zlib.decompressobj(wbits=31)
        while data and not stream.eof:
            try:
                part = stream.decompress(data, _CHUNK)
            except zlib.error as err:
                raise InvalidJson("the body is declared as gzip but is not gzip") from err
            total += len(part)
            if total > bound:
                raise TooLarge(f"the body unpacks to more than {bound} bytes")
            parts.append(part)
            data = stream.unconsumed_tail
        if not stream.eof:
            raise InvalidJson("the gzip body is truncated")
        data = stream.unused_data.lstrip(b"\0")
    return b"".join(parts)


def read_body(body: bytes, call: str | None, *, gzip: bool) -> Body:
    """Decode a body for `call`. A body with `batch` is a batch, whatever the path. None, EVENT: items name their type.

    Limits are checked before any object is built from the JSON: size, count, and per item size, depth and keys. An item
    beyond them is Unreadable, and the others continue. A batch's context that cannot be used is left out, and its items
    are Mended. Raises InvalidJson, BadRequest or TooLarge for the whole body.
    """
    if call == EVENT:
        call = None
    if gzip or body.startswith(GZIP):
        body = inflate(body)
    body = body.removeprefix(_BOM)
    if len(body) > MAX_BODY_BYTES:
        raise TooLarge(f"the body is larger than {MAX_BODY_BYTES} bytes")
    envelope, body, mended = _envelope(body)
    defaults = None
    if envelope.batch is None:
        if call == BATCH:
            raise BadRequest("a batch needs items", [Problem("batch", "must be an array")])
        items = [_typed(read_item(body), call)]
    elif len(envelope.batch) > MAX_ITEMS:
        raise TooLarge(f"a batch holds at most {MAX_ITEMS} items", [Problem("batch", f"has {len(envelope.batch)}")])
    else:
        items = [read_item(bytes(raw)) for raw in envelope.batch]
        defaults, lost = _context(envelope.context)
        mended = mended or lost
        if call is not None and call != BATCH:
            defaults = {"type": call, **(defaults or {})}
    if mended:
        items = [Mended(item) if type(item) is dict else item for item in items]
    return Body(items, defaults, _key(envelope.writeKey), time_or_none(envelope.sentAt))


def _typed(item: object, call: str | None) -> object:
    """A request of one item, with the type of its path if it has none."""
    event = item.item if isinstance(item, Mended) else item
    if call is not None and isinstance(event, dict) and event.get("type") is None:
        event["type"] = call
    return item


_NOT_JSON: Final = (msgspec.DecodeError, UnicodeDecodeError)


def _envelope(body: bytes) -> tuple[_Envelope, bytes, bool]:
    """The outermost object with its items undecoded, its bytes, and whether something outside the items was mended."""
    try:
        try:
            return _decoded(body), body, False
        except msgspec.ValidationError:
            raise
        except _NOT_JSON:
            found = _of_broken(body)
            if found is None:
                raise
            return found
    except msgspec.ValidationError as err:
        raise BadRequest("the body does not fit this path", [_problem(str(err))]) from err
    except _NOT_JSON as err:
        raise InvalidJson(f"the body is not a JSON object: {_place(err)}") from err
    except RecursionError as err:
        raise InvalidJson("the body is nested too deeply") from err


def _decoded(body: bytes) -> _Envelope:
    """A body as it should be; also a bare array of items, and a batch that PHP made an object with numbers as keys."""
    try:
        return _DECODER.decode(body)
    except msgspec.ValidationError:
        if body.lstrip()[:1] == b"[":
            return _Envelope(batch=_LIST.decode(body) or None)
        numbered = _NUMBERED.decode(body)
        if not numbered.batch or not all(key.isdigit() for key in numbered.batch):
            raise
        batch = list(numbered.batch.values())
        return _Envelope(batch, numbered.context, numbered.writeKey, numbered.sentAt)


def _of_broken(body: bytes) -> tuple[_Envelope, bytes, bool] | None:
    """A batch cut into items that are then read one by one, else a mended body; None: nothing can be read."""
    pieces = cut(body)
    if pieces is None:
        whole = mend(body)
        try:
            return _decoded(whole), whole, True
        except msgspec.ValidationError:
            raise
        except _NOT_JSON:
            return None
    envelope = pieces.envelope
    for mended in (False, True):
        try:
            found = _DECODER.decode(mend(envelope) if mended else envelope)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue
        found.batch = [msgspec.Raw(item) for item in pieces.items]
        return found, body, mended
    return None


def _problem(text: str) -> Problem:
    """msgspec's "Expected `array`, got `object` - at `$.batch`" as path and reason; names types, never values."""
    reason, _, place = text.partition(" - at ")
    return Problem(place.strip("`").removeprefix("$").strip("."), reason)


def _place(err: Exception) -> str:
    if isinstance(err, UnicodeDecodeError):
        return "it is not UTF-8"
    return str(err).removeprefix("JSON is malformed: ")


def _context(raw: msgspec.Raw) -> tuple[dict[str, Any] | None, bool]:
    """The context of a batch as defaults, and whether it had to be mended or left out. PHP's empty one is an array."""
    data = bytes(raw)
    if not data or data in (b"null", b"[]", b'""'):
        return None, False
    try:
        value, mended = decode_item(data), False
    except Refused:
        value, mended = read_item(data), True
    if isinstance(value, Mended):
        value = value.item
    return ({"context": value}, mended) if isinstance(value, dict) else (None, True)


def _text(value: object) -> str | None:
    return value.strip()[:MAX_KEY] or None if isinstance(value, str) else None


def _key(value: object) -> str | None:
    """A write key in a body. Jitsu's SDKs write a masked one there (`id:***`), and the key into a header."""
    text = _text(value)
    return None if text is None or text.endswith("***") else text


def time_or_none(value: object) -> datetime | None:
    """A request's sentAt; None if it cannot be read, because it only serves to correct clocks."""
    if value is None:
        return None
    try:
        return read_time(value)
    except BadTime:
        return None


def header_key(headers: Mapping[str, str]) -> str | None:
    """The write key of `Authorization: Basic base64(key:)`, with or without the colon; Jitsu's is `id:secret`."""
    header = headers.get("authorization")
    if not header:
        return None
    return _basic_key(header) if len(header) <= MAX_KEY * 2 else _read_basic_key(header)


def _read_basic_key(header: str) -> str | None:
    scheme, _, value = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        decoded = b64decode(value.strip() + "=" * (-len(value.strip()) % 4), validate=True).decode()
    except (binascii.Error, ValueError):
        return None
    return _text(decoded.strip().removesuffix(":"))


_basic_key: Final = lru_cache(maxsize=1_024)(_read_basic_key)  # the same header every time: 0.1, not 4 µs


def query_of(query: str) -> dict[str, str]:
    """The first value of each name in a query string; malformed parts are left out."""
    if not query:
        return {}
    try:
        return {name: values[0] for name, values in parse_qs(query, max_num_fields=50).items()}
    except ValueError:
        return {}


def write_key_of(headers: Mapping[str, str], body: Body | None, query: Mapping[str, str]) -> str | None:
    """The write key from the first place that has one: Basic, body, query, X-Write-Key, items."""
    return (
        header_key(headers)
        or (body.write_key if body else None)
        or _text(query.get("writeKey") or query.get("writekey"))
        or _text(headers.get("x-write-key"))
        or (key_of_items(body.items) if body else None)
    )


def key_of_items(items: list[object]) -> str | None:
    """The first key that an item names, if any. Items that name another are replaced: they are not for this source."""
    found: str | None = None
    for place, given in enumerate(items):
        item = given.item if isinstance(given, Mended) else given
        key = _key(item.get("writeKey")) if type(item) is dict else None
        found = found or key
        if key is not None and key != found:
            raw = msgspec.json.encode(item)
            items[place] = Unreadable(raw, Refused("other_write_key", "writeKey", "is not that of the first item"))
    return found
