"""Cursors: opaque to clients, a place in an order to us. Pure."""

import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any, Final, NamedTuple

from schemas.errors import BadRequest, Problem
from schemas.stamps import ORDER_BYTES

_FEED: Final = struct.Struct("!cQI")
_EVENT: Final = struct.Struct(f"!cq{ORDER_BYTES}s")
_MEMBER: Final = struct.Struct("!c16s")
END_OF_BATCH: Final = 2**31 - 1  # after every change in a batch: idx is a PostgreSQL integer


class FeedPlace(NamedTuple):
    """After the change `idx` of the batch numbered `seq`."""

    seq: int
    idx: int


START_OF_FEED: Final = FeedPlace(0, END_OF_BATCH)  # numbering starts at 1


def feed_cursor(place: FeedPlace) -> str:
    return _text(_FEED.pack(b"f", *place))


def feed_place(cursor: str | None) -> FeedPlace:
    """The place of a cursor; without one, before the first change. Raises BadRequest."""
    if not cursor:
        return START_OF_FEED
    _, seq, idx = _read(cursor, _FEED, b"f", "after")
    if seq > 2**63 - 1 or idx > END_OF_BATCH:
        raise _not_ours("after")
    return FeedPlace(seq, idx)


def event_cursor(occurred_us: int, order: bytes) -> str:
    return _text(_EVENT.pack(b"e", occurred_us, order))


def event_place(cursor: str | None) -> tuple[int, bytes] | None:
    """The stamp (occurred_us, order) of the last event seen. Raises BadRequest."""
    if not cursor:
        return None
    _, occurred_us, order = _read(cursor, _EVENT, b"e", "cursor")
    return occurred_us, order


def member_cursor(profile_id: bytes) -> str:
    return _text(_MEMBER.pack(b"m", profile_id))


def member_place(cursor: str | None) -> bytes:
    """The last profile id seen. Raises BadRequest."""
    return bytes(_read(cursor, _MEMBER, b"m", "cursor")[1]) if cursor else bytes(16)


def _text(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def _read(cursor: str, form: struct.Struct, kind: bytes, path: str) -> tuple[Any, ...]:
    try:
        raw = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        fields = form.unpack(raw)
    except (ValueError, struct.error) as err:
        raise _not_ours(path) from err
    if fields[0] != kind or _text(raw) != cursor:
        raise _not_ours(path)
    return fields


def _not_ours(path: str) -> BadRequest:
    reason = "is not a cursor of this list: use `next` or `cursor` from an earlier response, or leave it out"
    return BadRequest("not a cursor", [Problem(path, reason)])
