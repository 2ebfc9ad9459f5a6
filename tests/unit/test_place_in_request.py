"""The place of an item in its request, file or inbox fetch: `n` of a record."""

from functools import partial

from ingest.accept.accept import Acceptor
from ingest.accept.calls import Accepted, Call
from schemas.identifiers import normalise
from schemas.record import Record, decode
from tests.unit.test_accept import NOW, PHONE, WEB, PlainVault, daily, track


def records(accepted: Accepted) -> list[Record]:
    return [decode(each.value) for each in accepted.pending]


def writing(version: int = 2) -> Acceptor:
    vault = PlainVault()
    return Acceptor(vault, vault, partial(normalise, phone=PHONE), daily, version=lambda: version)


def test_items_are_numbered_as_they_were_sent_the_refused_ones_counted() -> None:
    items = [track(messageId="a"), 17, track(messageId="b"), {"type": "track"}, track(messageId="c")]
    accepted = writing().accept(items, WEB, NOW)
    assert [(record.message_id, record.n) for record in records(accepted)] == [("a", 0), ("b", 2), ("c", 4)]
    assert len(accepted.dead) == 2


def test_each_request_counts_for_itself_and_a_batch_of_a_file_goes_on() -> None:
    calls = [Call([track(messageId=f"{n}.{i}") for i in range(2)], WEB, NOW, first_n=n) for n in (0, 0, 2_000)]
    found = [[record.n for record in records(each)] for each in writing().accept_many(calls)]
    assert found == [[0, 1], [0, 1], [2_000, 2_001]]


def test_the_place_is_not_in_the_digest() -> None:
    first, second = (
        records(writing().accept([track(messageId="other")] * n + [track()], WEB, NOW))[-1] for n in (1, 5)
    )
    assert (first.n, second.n) == (1, 5)
    assert first.digest == second.digest


def test_what_must_be_readable_by_version_1_has_neither_place_nor_flags() -> None:
    items = [track(messageId="a"), track(messageId="b")]
    found = records(writing(1).accept(items, WEB, NOW))
    assert [(record.v, record.n, record.flags) for record in found] == [(1, 0, []), (1, 0, [])]
    assert [record.v for record in records(writing(2).accept(items, WEB, NOW))] == [2, 2]
