"""The place of an item in its request, file or inbox fetch: `n` of a record."""

from datetime import UTC, datetime
from functools import partial

from ingest.accept.accept import Acceptor
from ingest.accept.calls import Accepted, Call
from schemas.identifiers import normalise
from schemas.record import Record, decode
from tests.unit.test_accept import NOW, PHONE, WEB, PlainVault, daily, opened, track


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


# ---------------------------------------------------------------- times with a remark


def test_an_unreadable_time_is_kept_with_the_time_of_receipt_and_its_text_sealed() -> None:
    accepted = writing().accept([track(timestamp="next week, ada@example.com")], WEB, NOW)
    [record] = records(accepted)
    assert (record.occurred_at, record.original_at, record.clock_rule) == (NOW, None, "received")
    assert record.flags == accepted.flagged == ["time_unreadable"]
    assert "unread_times" not in record.context
    assert record.sealed is not None
    assert "context.unread_times" in record.sealed.names
    assert opened(record)["context"]["unread_times"] == {"timestamp": "next week, ada@example.com"}


def test_a_sent_at_that_cannot_be_read_leaves_the_time_uncorrected() -> None:
    item = track(timestamp="2026-11-24T09:00:00Z", sentAt="just now")
    [record] = records(writing().accept([item], WEB, NOW))
    assert (record.occurred_at.hour, record.clock_rule, record.flags) == (9, "no_sent_at", ["time_unreadable"])


def test_an_archive_is_flagged_and_not_corrected() -> None:
    items = [track(timestamp=1_750_000_000, sentAt="2025-06-15T15:10:00Z"), track(messageId="b")]
    accepted = writing().accept(items, WEB, NOW)
    first, second = records(accepted)
    assert (first.occurred_at, first.clock_rule) == (datetime(2025, 6, 15, 15, 6, 40, tzinfo=UTC), "archived")
    assert accepted.flagged == first.flags == ["time_archived"]
    assert second.flags == []


def test_a_request_sent_again_with_another_reading_of_times_has_the_same_digest() -> None:
    first, second = (records(writing().accept([track(timestamp="soon", sentAt=at)], WEB, NOW))[0] for at in ("x", "y"))
    assert first.digest == second.digest
