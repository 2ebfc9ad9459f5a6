"""The limits on incoming JSON, before and after parsing (size, depth, keys, strings), and its canonical bytes. Pure.

If a key occurs twice in one object the last one counts, as in every SDK's JSON reader; noticing the first would cost a
second parse.
"""

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

MAX_BODY_BYTES: Final = 4_000_000  # rudder-server's limit; Segment's SDKs stay below 500 KB
MAX_RATIO: Final = 100  # of gzip; repeated events reach 410, zeros 1,029, real batches 5 to 20
MAX_ITEMS: Final = 2_500
MAX_EVENT_BYTES: Final = 524_288  # an order of 2,000 lines with twelve fields has 420 KB
LARGE_EVENT_BYTES: Final = 32_768  # Segment's limit
MAX_DEPTH: Final = 32
MAX_KEYS: Final = 30_000  # of the same order: 24,000
MAX_STRING: Final = 32_768  # characters
MAX_NAME: Final = 512  # characters of an event's name

# Left out of the digest: an honest retry may differ in these (design C3).
NOT_IN_DIGEST: Final = frozenset(
    {"messageId", "sentAt", "receivedAt", "writeKey", "_metadata", "integrations", "requestIP", "request_ip"}
)


class Refused(ValueError):  # never leaves `ingest`
    """An item that cannot be an event; becomes a dead letter. The reason contains no personal data."""

    def __init__(self, rule: str, path: str, reason: str) -> None:
        super().__init__(reason)
        self.rule, self.path, self.reason = rule, path, reason


class Unreadable(NamedTuple):
    """Bytes of one item that are not a JSON object, with the reason."""

    raw: bytes
    refused: Refused


class Mended(NamedTuple):
    """An item whose bytes were not quite JSON, as it was read all the same."""

    item: Any


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

    Counting brackets and colons gives upper bounds that nearly every event stays within (0.3 µs). Only the others are
    measured exactly.
    """
    if len(raw) > MAX_EVENT_BYTES:
        raise Refused("too_large", "", f"larger than {MAX_EVENT_BYTES} bytes")
    if raw.count(b"{") + raw.count(b"[") > MAX_DEPTH and depth_of(raw) > MAX_DEPTH:
        raise Refused("too_deep", "", f"nested deeper than {MAX_DEPTH}")
    if len(raw) > MAX_KEYS and raw.count(b":") > MAX_KEYS and _STRING.sub(b"", raw).count(b":") > MAX_KEYS:
        raise Refused("too_many_keys", "", f"more than {MAX_KEYS} keys")


def mend_surrogates(raw: bytes) -> bytes:
    """JSON bytes with each lone surrogate (mostly a cut-off emoji) replaced by U+FFFD."""
    return _ESCAPES.sub(_mend, raw)


def _mend(escape: "re.Match[bytes]") -> bytes:
    return b"\\ufffd" if len(escape[0]) == 6 else escape[0]


def decode_item(raw: bytes) -> Any:
    """One item of a batch as Python data, limits checked first. Raises Refused."""
    check_bytes(raw)
    try:
        return _DECODER.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError) as err:
        reason = "has a number out of range" if "range" in str(err) else "is not valid JSON or not UTF-8"
        raise Refused("invalid_json", "", reason) from err
    except RecursionError as err:  # MAX_DEPTH is far below where the parser gives up
        raise Refused("too_deep", "", f"nested deeper than {MAX_DEPTH}") from err


def canonical(item: Mapping[str, Any]) -> tuple[Mapping[str, Any], bytes]:
    """The item cleaned for storage, and the canonical JSON its digest is made of. Raises Refused.

    NUL and lone surrogates in strings become U+FFFD, and a sender's own "$token" keys are renamed. All limits also
    apply to items that never were bytes.
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
            content["context"] = msgspec.Raw(own)  # saves encoding it again
        encoded = _ENCODER.encode(content)
    except (UnicodeEncodeError, TypeError, RecursionError):
        item, own = _mended(item), b""
        content = {key: value for key, value in item.items() if key not in NOT_IN_DIGEST}
        encoded = _ENCODER.encode(content)
    check_bytes(encoded)
    if len(encoded) > MAX_STRING:
        check_strings(item, "")
    # searching for one byte takes a fifth of the time of searching for seven
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
                raise Refused("key_too_long", path, f"has a key longer than {MAX_STRING} characters")
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
    raise Refused("wrong_type", "", f"has a value of type {type(value).__name__}, which JSON cannot hold")


def _key(key: object) -> str:
    if not isinstance(key, str):
        raise Refused("wrong_type", "", "has a key that is not a string")
    key = _LONE.sub("\ufffd", key)
    return "_" + key if key in ("$token", "$kind") else key
