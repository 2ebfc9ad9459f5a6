"""Limits before parsing, what is mended, and the bytes a digest is made of."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.accept.canonical import (
    MAX_DEPTH,
    MAX_EVENT_BYTES,
    MAX_KEYS,
    MAX_STRING,
    Refused,
    canonical,
    check_bytes,
    decode_item,
    depth_of,
    mend_surrogates,
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=25,
)  # fmt: skip


def slow_depth(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(slow_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(slow_depth, value), default=0)
    return 0


@given(json_values, st.booleans())
def test_depth_is_that_of_the_parsed_value(value: object, ascii_only: bool) -> None:
    assert depth_of(json.dumps(value, ensure_ascii=ascii_only).encode(errors="surrogatepass")) == slow_depth(value)


def test_brackets_in_strings_do_not_count() -> None:
    assert depth_of(rb'{"a":"[[[[\"[[\\"}') == 1
    check_bytes(json.dumps({"a": "[" * 500, "b": ":" * 2_000}).encode())


def refused(raw: bytes) -> str:
    with pytest.raises(Refused) as caught:
        decode_item(raw)
    return caught.value.rule


def nested(depth: int) -> bytes:
    return b'{"a":' * depth + b"1" + b"}" * depth


def test_each_limit_holds_at_its_edge() -> None:
    decode_item(nested(MAX_DEPTH))
    assert refused(nested(MAX_DEPTH + 1)) == "too_deep"
    decode_item(json.dumps({str(n): 1 for n in range(MAX_KEYS)}).encode())
    assert refused(json.dumps({str(n): 1 for n in range(MAX_KEYS + 1)}).encode()) == "too_many_keys"
    decode_item(b'"' + b"x" * (MAX_EVENT_BYTES - 2) + b'"')
    assert refused(b'"' + b"x" * (MAX_EVENT_BYTES - 1) + b'"') == "too_large"


@pytest.mark.parametrize("depth", [1_000, 10_000, 30_000])
def test_nothing_nests_deep_enough_for_a_recursion_error(depth: int) -> None:
    assert refused(b"[" * depth) == "too_deep"
    assert refused(b"[" * depth + b"]" * depth) == "too_deep"


@pytest.mark.parametrize("raw", [b'{"a":NaN}', b'{"a":Infinity}', b'{"a":1e999}', b"{", b'{"a":\xff}', b'"\xff"', b""])
def test_what_is_no_json_is_refused(raw: bytes) -> None:
    assert refused(raw) == "invalid_json"


def test_of_a_key_that_stands_twice_the_last_counts() -> None:
    assert decode_item(b'{"a":1,"a":2}') == {"a": 2}


@pytest.mark.parametrize(
    ("raw", "mended"),
    [
        (rb'"\ud83d"', rb'"\ufffd"'),
        (rb'"\ude00x"', rb'"\ufffdx"'),
        (rb'"\ud83d\ude00"', rb'"\ud83d\ude00"'),
        (rb'"\ud83d\ud83d\ude00"', rb'"\ufffd\ud83d\ude00"'),
        (rb'"\\ud83d"', rb'"\\ud83d"'),
        (rb'"\\\ud83d"', rb'"\\\ufffd"'),
    ],
)
def test_only_lone_surrogates_are_replaced(raw: bytes, mended: bytes) -> None:
    assert mend_surrogates(raw) == mended


def test_the_digest_covers_the_content_and_not_the_sending() -> None:
    item = {"type": "track", "event": "E", "userId": "u", "properties": {"b": 1, "a": 25.0}}
    sending = {"messageId": "m", "sentAt": "s", "receivedAt": "r", "writeKey": "w", "_metadata": {}, "integrations": {}}
    _, plain = canonical(item)
    _, sent = canonical({**sending, **item, "request_ip": "203.0.113.1"})
    assert plain == sent == b'{"event":"E","properties":{"a":25.0,"b":1},"type":"track","userId":"u"}'
    assert canonical({**item, "userId": "v"})[1] != plain


@given(st.dictionaries(st.text(max_size=8), json_values, max_size=5), st.randoms())
def test_the_digest_does_not_depend_on_the_order_of_keys(item: dict[str, object], rnd: object) -> None:
    keys = list(item)
    rnd.shuffle(keys)  # type: ignore[attr-defined]  # hypothesis gives a random.Random
    assert canonical(item)[1] == canonical({key: item[key] for key in keys})[1]


def test_nul_surrogates_and_reserved_keys_are_mended_in_python_data_too() -> None:
    item = {"a": "x\0y", "b": ["\ud83d"], "c": {"$token": "00", "$kind": "email"}, "d\0": 2**70}
    mended, encoded = canonical(item)
    assert mended == {"a": "x\ufffdy", "b": ["\ufffd"], "c": {"_$token": "00", "_$kind": "email"}, "d\ufffd": 2**70}
    assert canonical(item)[1] == encoded


@pytest.mark.parametrize(
    ("item", "rule", "path"),
    [
        ({"properties": {"n": ["x" * (MAX_STRING + 1)]}}, "string_too_long", "properties.n.0"),
        ({"k" * (MAX_STRING + 1): 1}, "key_too_long", ""),
        ({"a": {1: 2}}, "wrong_type", ""),
        ({"a": {1, 2}, "b": object()}, "wrong_type", ""),
    ],
)
def test_python_data_is_held_to_the_same_limits(item: dict[str, object], rule: str, path: str) -> None:
    with pytest.raises(Refused) as caught:
        canonical(item)
    assert (caught.value.rule, caught.value.path) == (rule, path)


def test_python_data_that_holds_itself_is_refused() -> None:
    loop: dict[str, object] = {}
    loop["a"] = loop
    with pytest.raises(Refused, match="deeper"):
        canonical(loop)
