"""What JSON may come in, before and after it is parsed: sizes, depth, keys, strings; and the bytes of a digest. Pure.

Of a key that stands twice in one object the last counts, as in every JSON reader of the SDKs; finding the first would
cost a second parse.
"""

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

MAX_BODY_BYTES: Final = 4_000_000  # rudder-server's limit; Segment's SDKs stay below 500 KB
MAX_RATIO: Final = 100  # of gzip; repeated events reach 410, zeros 1,029, real batches 5 to 20
MAX_ITEMS: Final = 2_500
MAX_EVENT_BYTES: Final = 65_536
LARGE_EVENT_BYTES: Final = 32_768
MAX_DEPTH: Final = 32
MAX_KEYS: Final = 1_000
MAX_STRING: Final = 8_192  # characters
MAX_NAME: Final = 512  # characters of an event's name

# Not of the content: an honest retry may differ in these (design C3).
NOT_IN_DIGEST: Final = frozenset(
    {"messageId", "sentAt", "receivedAt", "writeKey", "_metadata", "integrations", "requestIP", "request_ip"}
)


class Refused(ValueError):  # never leaves `ingest`
    """An item that cannot be an event; becomes a dead letter. The reason holds nobody's data."""

    def __init__(self, rule: str, path: str, reason: str) -> None:
        super().__init__(reason)
        self.rule, self.path, self.reason = rule, path, reason


class Unreadable(NamedTuple):
    """Bytes of one item that are no JSON object, with the refusal they got."""

    raw: bytes
    refused: Refused


_STRING: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_ESCAPES: Final = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[dD][89a-fA-F][0-9a-fA-F]{2}|\\.", re.DOTALL
)
_LONE: Final = re.compile("[\ud800-\udfff\0]")
_ENCODER: Final = msgspec.json.Encoder(order="sorted")
_DECODER: Final = msgspec.json.Decoder()


def depth_of(raw: bytes) -> int:
    """How deep objects and arrays of JSON bytes nest, without parsing them. Linear, no recursion."""
    deepest = depth = 0
    for byte in _STRING.sub(b"", raw):
        if byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
    return deepest


def check_bytes(raw: bytes) -> None:
    """Size, depth and number of keys of one item, before it is parsed. Raises Refused.

    The counts of brackets and colons are upper bounds that nearly every event keeps: 0.3 µs. Only others are
    looked at exactly.
    """
    if len(raw) > MAX_EVENT_BYTES:
        raise Refused("too_large", "", f"larger than {MAX_EVENT_BYTES} bytes")
    if raw.count(b"{") + raw.count(b"[") > MAX_DEPTH and depth_of(raw) > MAX_DEPTH:
        raise Refused("too_deep", "", f"nested deeper than {MAX_DEPTH}")
    if len(raw) > MAX_KEYS and raw.count(b":") > MAX_KEYS and _STRING.sub(b"", raw).count(b":") > MAX_KEYS:
        raise Refused("too_many_keys", "", f"more than {MAX_KEYS} keys")


def mend_surrogates(raw: bytes) -> bytes:
    """JSON bytes with U+FFFD for each half of a surrogate pair that stands alone (a cut emoji, mostly)."""
    return _ESCAPES.sub(_mend, raw)


def _mend(escape: "re.Match[bytes]") -> bytes:
    return b"\\ufffd" if len(escape[0]) == 6 else escape[0]


def decode_item(raw: bytes) -> Any:
    """One item of a batch as Python data, limits checked first. Raises Refused."""
    check_bytes(raw)
    try:
        return _DECODER.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError) as err:
        reason = "a number out of range" if "range" in str(err) else "no valid JSON, or no UTF-8"
        raise Refused("invalid_json", "", reason) from err
    except RecursionError as err:  # MAX_DEPTH is far below where the parser gives up
        raise Refused("too_deep", "", f"nested deeper than {MAX_DEPTH}") from err


def read_item(raw: bytes) -> object:
    """As `decode_item`; Unreadable where that refuses."""
    try:
        return decode_item(raw)
    except Refused as refused:
        return Unreadable(raw, refused)


def canonical(item: Mapping[str, Any]) -> tuple[Mapping[str, Any], bytes]:
    """The item made fit to be kept, and the canonical JSON its digest is made of. Raises Refused.

    NUL and lone surrogates in strings become U+FFFD, a sender's own "$token" keys are renamed. All limits hold for
    items that never were bytes, too.
    """
    item, encoded, _ = canonical_parts(item)
    return item, encoded


def canonical_parts(item: Mapping[str, Any]) -> tuple[Mapping[str, Any], bytes, bytes]:
    """As `canonical`, with the canonical JSON of the item's context; b"" when it has none or was mended."""
    content = dict(item)
    for name in NOT_IN_DIGEST:
        content.pop(name, None)
    context = content.get("context")
    own = b""
    try:
        if context and type(context) is dict:
            own = _ENCODER.encode(context)
            content["context"] = msgspec.Raw(own)  # spares encoding it again
        encoded = _ENCODER.encode(content)
    except (UnicodeEncodeError, TypeError, RecursionError):
        item, own = _mended(item), b""
        content = {key: value for key, value in item.items() if key not in NOT_IN_DIGEST}
        encoded = _ENCODER.encode(content)
    check_bytes(encoded)
    if len(encoded) > MAX_STRING:
        check_strings(item, "")
    # one byte is looked for in a fifth of the time of seven
    if (b"\\" in encoded and b"\\u0000" in encoded) or (b"$" in encoded and b'"$token"' in encoded):
        item, own = _mended(item), b""
    return item, encoded, own


def check_strings(value: object, path: str) -> None:
    """Refuse a string or key above MAX_STRING, naming its place. Depth is bounded before."""
    if isinstance(value, str):
        if len(value) > MAX_STRING:
            raise Refused("string_too_long", path, f"longer than {MAX_STRING} characters")
    elif isinstance(value, Mapping):
        for key, each in value.items():
            if len(key) > MAX_STRING:
                raise Refused("key_too_long", path, f"a key longer than {MAX_STRING} characters")
            check_strings(each, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for place, each in enumerate(value):
            check_strings(each, f"{path}.{place}")


def _mended(value: Any, depth: int = 0) -> Any:
    """A copy without NUL, lone surrogates and "$token" keys. Raises Refused for what JSON cannot hold."""
    if depth > MAX_DEPTH:
        raise Refused("too_deep", "", f"nested deeper than {MAX_DEPTH}")
    if isinstance(value, str):
        return _LONE.sub("\ufffd", value)
    if isinstance(value, Mapping):
        return {_key(key): _mended(each, depth + 1) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_mended(each, depth + 1) for each in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    raise Refused("wrong_type", "", f"a value of type {type(value).__name__} is no JSON")


def _key(key: object) -> str:
    if not isinstance(key, str):
        raise Refused("wrong_type", "", "a key that is no string")
    key = _LONE.sub("\ufffd", key)
    return "_" + key if key in ("$token", "$kind") else key
