"""Cursors: places that survive the way to a client and back, and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from query.cursors import (
    START_OF_FEED,
    FeedPlace,
    event_cursor,
    event_place,
    feed_cursor,
    feed_place,
    member_cursor,
    member_place,
)
from schemas.errors import BadRequest

keys = st.binary(min_size=16, max_size=16)


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**31 - 1))
def test_a_place_in_the_feed_comes_back(seq: int, idx: int) -> None:
    assert feed_place(feed_cursor(FeedPlace(seq, idx))) == (seq, idx)


@given(st.integers(-(2**63), 2**63 - 1), st.binary(min_size=28, max_size=28))
def test_a_place_in_a_timeline_comes_back(at_us: int, order: bytes) -> None:
    assert event_place(event_cursor(at_us, order)) == (at_us, order)


@given(keys)
def test_a_place_among_members_comes_back(key: bytes) -> None:
    assert member_place(member_cursor(key)) == key


def test_no_cursor_is_the_beginning() -> None:
    assert feed_place(None) == feed_place("") == START_OF_FEED
    assert event_place(None) is None
    assert member_place(None) == bytes(16)


@given(st.text(max_size=40))
def test_what_is_no_cursor_is_refused_with_its_parameter(text: str) -> None:
    for read, path in ((feed_place, "after"), (event_place, "cursor"), (member_place, "cursor")):
        if text:
            with pytest.raises(BadRequest) as caught:
                read(text)
            assert caught.value.problems[0].path == path


def test_a_cursor_of_another_list_is_refused() -> None:
    with pytest.raises(BadRequest):
        feed_place(member_cursor(bytes(16)))
    with pytest.raises(BadRequest):
        event_place(feed_cursor(FeedPlace(1, 1)))


def test_a_cursor_that_was_padded_or_changed_is_refused() -> None:
    cursor = feed_cursor(FeedPlace(7, 3))
    for other in (cursor + "=", cursor + "A", cursor[:-1], " " + cursor):
        with pytest.raises(BadRequest):
            feed_place(other)
