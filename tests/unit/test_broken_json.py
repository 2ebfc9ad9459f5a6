"""Bodies that are almost JSON: what is certain is read, and what is not costs only its own item."""

from functools import partial
from typing import Any

import pytest

from ingest.accept.accept import Acceptor
from ingest.accept.canonical import Mended, Unreadable
from ingest.requests.bodies import read_body
from ingest.requests.broken_json import mend
from schemas.identifiers import normalise
from schemas.record import decode
from tests.unit.test_accept import NOW, WEB, PlainVault, daily


def items(raw: bytes) -> list[Any]:
    """The items of a batch: as they were read, mended ones in a pair with True, unreadable ones as bytes."""
    found = read_body(raw, "batch", gzip=False).items
    return [
        (each.item, True) if isinstance(each, Mended) else each.raw if isinstance(each, Unreadable) else each
        for each in found
    ]


GOOD = b'{"type":"track","event":"Good","userId":"u"}'
READ = {"type": "track", "event": "Good", "userId": "u"}


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (b"NaN", None),
        (b"-Infinity", None),
        (b"nan", None),
        (b"undefined", None),
        (b"None", None),
        (b"True", True),
        (b"+5", 5),
        (b".5", 0.5),
        (b"5.", 5.0),
        (b"1e999", "1e999"),
        (b"[1,2,]", [1, 2]),
        (b'{"a":1,}', {"a": 1}),
        (b"{a:1, $b : 2}", {"a": 1, "$b": 2}),
        (b'"two\nlines\t"', "two\nlines\t"),
        (b'"\x01"', "\x01"),
        (b'"Caf\xe9"', "Caf\ufffd"),
        (rb'"cut \ud83d"', "cut \ufffd"),
        (rb'"it\'s \x41"', "it's A"),
        (rb'"NaN, True, [1,]"', "NaN, True, [1,]"),
    ],
)
def test_what_can_mean_one_thing_is_read_and_said_to_be_mended(value: bytes, read: object) -> None:
    bad = b'{"type":"track","event":"Odd","userId":"u","properties":{"x":' + value + b"}}"
    odd = {"type": "track", "event": "Odd", "userId": "u", "properties": {"x": read}}
    found = items(b'{"batch":[' + GOOD + b"," + bad + b"," + GOOD + b'],"writeKey":"k"}')
    if value.startswith(b'"NaN'):
        assert found == [READ, odd, READ]
    else:
        assert found == [READ, (odd, True), READ]


@pytest.mark.parametrize(
    "bad",
    [
        b'{"type":"track","event":"say "hi"","userId":"u"}',
        b'{"type":"track","event":"5" screen","userId":"u"}',
        b'{"type":"track","event":"A","userId":"u"',
        b'{"type":"track","event":"A","products":[{"a":1},{"b":2},"userId":"u"}',
        rb'{"type":"track","event":"C:\new\dir","userId":"u"}',
        b'{"type":"track","event":"A","userId":007}',
        b"{'type':'track','event':'A','userId':'u'}",
        b'{"type":"track" "event":"A","userId":"u"}',
        b"<html>",
    ],
)
def test_what_could_mean_two_things_costs_its_own_item(bad: bytes) -> None:
    found = items(b'{"batch":[' + GOOD + b"," + bad + b"," + GOOD + b'],"writeKey":"k"}')
    assert found == [READ, bad, READ]
    twice = items(b'{"batch":[' + b",".join([bad, GOOD, bad, GOOD]) + b'],"writeKey":"k"}')
    assert [each for each in twice if not isinstance(each, bytes)] == [READ, READ]


def test_a_body_that_ends_early_keeps_its_complete_items() -> None:
    assert items(b'{"writeKey":"k","batch":[' + GOOD + b"," + GOOD + b',{"type":"tra') == [READ, READ, b'{"type":"tra']


def test_the_key_is_found_behind_a_broken_item() -> None:
    body = read_body(
        b'{"batch":[{"x":"5" y"},' + GOOD + b'],"sentAt":"2026-01-01","writeKey":"k"}', "batch", gzip=False
    )
    assert body.write_key == "k"
    assert body.items[1] == READ


def test_empty_objects_of_php_are_empty() -> None:
    body = read_body(b'{"batch":[' + GOOD + b'],"context":[]}', "batch", gzip=False)
    assert (body.items, body.defaults) == ([READ], None)
    assert items(b'{"batch":{"0":' + GOOD + b',"2":' + GOOD + b"}}") == [READ, READ]
    assert items(b"[" + GOOD + b"]") == [READ]


def test_a_context_of_the_batch_that_cannot_be_used_is_left_out() -> None:
    deep = b'{"a":' * 40 + b"1" + b"}" * 40
    for context in (b'"web"', b"5", b'["x"]', deep):
        body = read_body(b'{"batch":[' + GOOD + b'],"context":' + context + b"}", "batch", gzip=False)
        assert (body.items, body.defaults) == ([Mended(READ)], None)


def test_a_single_item_is_mended_too() -> None:
    body = read_body(b'{"event":"E","x":Infinity}', "track", gzip=False)
    assert body.items == [Mended({"event": "E", "x": None, "type": "track"})]


def test_a_large_body_of_broken_items_takes_no_longer_than_its_size() -> None:
    raw = b'{"batch":[' + b'{"type":"track","event":"5" tall","products":[{"a":1},{"a":2}]},' * 2_000 + GOOD + b"]}"
    assert items(raw)[-1] == READ
    assert mend(b'"' + b"a" * 1_000_000) == b'"' + b"a" * 1_000_000


@pytest.fixture
def acceptor() -> Acceptor:
    vault = PlainVault()
    return Acceptor(vault, vault, partial(normalise, phone=lambda _text: None), daily, random_bytes=lambda n: b"r" * n)


def test_mended_items_are_events_with_a_flag(acceptor: Acceptor) -> None:
    raw = (
        b'{"batch":[{"type":"track","event":"A","userId":"u","properties":{"x":NaN}},' + GOOD
        + rb',{"type":"track","event":"nul\u0000","userId":"u"}]}'
    )  # fmt: skip
    records = [
        decode(each.value) for each in acceptor.accept(read_body(raw, "batch", gzip=False).items, WEB, NOW).pending
    ]
    assert [(each.name, each.flags) for each in records] == [("A", ["mended"]), ("Good", []), ("nul\ufffd", ["mended"])]


def test_a_replaced_character_names_nobody(acceptor: Acceptor) -> None:
    """Jos\xe9 and Jos\xe8 in Latin-1 would both be Jos\ufffd: one person."""
    raw = b'{"batch":[{"type":"page","userId":"Jos\xe9"},{"type":"page","userId":"Jos\xe8","anonymousId":"a-1"}]}'
    accepted = acceptor.accept(read_body(raw, "batch", gzip=False).items, WEB, NOW)
    assert [each.status for each in accepted.results] == ["dead_letter", "accepted"]
    assert [each.kind for each in decode(accepted.pending[0].value).ids] == ["anonymous_id"]


def test_an_empty_section_is_no_error(acceptor: Acceptor) -> None:
    sent: list[object] = [
        {"type": "track", "event": "A", "userId": "u", "properties": [], "context": []},
        {"type": "identify", "userId": "u", "traits": []},
        {"type": "group", "userId": "u", "groupId": "g", "traits": []},
    ]
    accepted = acceptor.accept(sent, WEB, NOW, defaults={"context": {"locale": "de"}})
    assert [each.status for each in accepted.results] == ["accepted"] * 3
    assert decode(accepted.pending[0].value).context == {"locale": "de"}
