"""Publishes the change feed to topics: in the sequencer's order, at least once, with stable ids (design C10).

A batch is read, written and acknowledged by the brokers before the position in the feed moves. There is one publisher
at a time: it holds a claim in the database, and the brokers refuse whatever an earlier one still sends.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, Protocol
from uuid import UUID

import msgspec

from processors.live.compiled import Compiled
from schemas.answers import computed, iso, sent
from schemas.changes import change_body
from schemas.errors import ProgressConflict, RevisionReplaced, StoreUnavailable
from schemas.failpoints import failpoint
from schemas.ports import Clock
from schemas.publishing import FeedToPublish, Message, Place, TopicWriter
from schemas.reads import ChangeRow, ProfileRead
from schemas.record import to_us, uuid_text
from schemas.topics import (
    CHANGE_ID_HEADER,
    PROFILE_CHANGES,
    PROFILES,
    SCHEMA_VERSION,
    STATE,
    TOPIC_OF,
    TYPE_HEADER,
    VERSION_HEADER,
)

BATCH: Final = 5_000  # changes read, written and acknowledged together
_TRIES: Final = 4  # attempts to read profiles while revisions are swapped
_encode: Final = msgspec.json.Encoder().encode
_VERSION: Final = (VERSION_HEADER, str(SCHEMA_VERSION).encode())


class Opened(Protocol):
    """Adds direct personal values to the changes of topics that are granted them."""

    def open(self, compiled: Compiled, rows: Sequence[ChangeRow], living: Mapping[bytes, ProfileRead]) -> list[Any]:
        """`new` of each row with the profile's current values; unchanged if nothing is personal or nothing is left."""


@dataclass
class Publisher:
    """One step of the loop. `compile`: the functions of a revision. `personal`: None if no topic is granted values."""

    feed: FeedToPublish
    topics: TopicWriter
    compile: Callable[[int], Compiled]
    clock: Clock
    personal: Opened | None = None
    batch: int = BATCH
    _place: Place = field(default=Place(0, -1), init=False)
    _compiled: Compiled | None = field(default=None, init=False)

    def run_once(self) -> int | None:
        """Publish new changes, at most one batch; returns how many. None: another publisher is at work.

        On StoreUnavailable or ProgressConflict, try again; nothing is lost.
        """
        if not self.feed.claimed:
            self.topics.close()  # the claim it was opened for has ended
            if not self.feed.claim():
                return None
        if not self.topics.is_open:
            self.feed.place()  # fails if we lost the claim, so we fence nobody; keeps it alive in an outage
            self.topics.open()
            self._place = self.feed.place()  # read after fencing: whoever claims later also fences us later
        try:
            return self._publish()
        except (StoreUnavailable, ProgressConflict):
            self.topics.close()
            raise

    def _publish(self) -> int:
        rows = self.feed.changes(self._place, self.batch)
        if not rows:
            return 0
        compiled, living = self._living(_touched(rows))
        self.feed.settle()
        self.topics.publish([*self._changes(compiled, rows, living), *self._states(compiled, rows, living)])
        failpoint("publish.after_ack")
        place = Place(rows[-1].seq, rows[-1].idx)
        self.feed.advance(place)
        self._place = place
        return len(rows)

    def _living(self, profile_ids: Sequence[bytes]) -> tuple[Compiled, dict[bytes, ProfileRead]]:
        """The profiles that still exist, as they are now, with the functions of their revision."""
        compiled = self._compiled
        for _ in range(_TRIES):
            if compiled is None:
                compiled = self._compiled = self.compile(self.feed.live())
            try:
                found = self.feed.profiles(compiled.revision.revision, profile_ids)
            except RevisionReplaced:
                compiled = None
                continue
            return compiled, {each.profile_id: each for each in found}
        raise StoreUnavailable("the definitions change faster than they can be read", retry_after_s=1)

    def _changes(
        self, compiled: Compiled, rows: Sequence[ChangeRow], living: Mapping[bytes, ProfileRead]
    ) -> list[Message]:
        news = [row.new for row in rows] if self.personal is None else self.personal.open(compiled, rows, living)
        return [change_message(row._replace(new=new)) for row, new in zip(rows, news, strict=True)]

    def _states(
        self, compiled: Compiled, rows: Sequence[ChangeRow], living: Mapping[bytes, ProfileRead]
    ) -> list[Message]:
        writer = StateWriter(compiled, self.clock)
        return [
            tombstone(profile_id) if profile_id not in living else writer.message(living[profile_id])
            for profile_id in _touched(rows)
        ]

    def close(self) -> None:
        self.topics.close()


def _touched(rows: Sequence[ChangeRow]) -> list[bytes]:
    """The profiles of these changes, and those they moved into or out of; each once."""
    found: dict[bytes, None] = {}
    for row in rows:
        found[row.profile_id] = None
        if row.type == "identity" and isinstance(row.new, list):
            found.update(dict.fromkeys(UUID(each).bytes for each in row.new))
    return list(found)


def change_message(row: ChangeRow) -> Message:
    """A change as a message for its topic."""
    headers: list[tuple[str, str | bytes | None]] = [
        (CHANGE_ID_HEADER, uuid_text(row.id)),
        (TYPE_HEADER, row.type),
        _VERSION,
    ]
    return Message(TOPIC_OF.get(row.type, PROFILE_CHANGES), _key(row.profile_id), _encode(change_body(row)), headers)


def tombstone(profile_id: bytes) -> Message:
    """The end of a profile in the compacted topic: erased, or merged into another."""
    return Message(PROFILES, _key(profile_id), None, [(TYPE_HEADER, STATE), _VERSION])


def _key(profile_id: bytes) -> bytes:
    return uuid_text(profile_id).encode()


@dataclass
class StateWriter:
    """Messages of the compacted topic: profiles at one moment, without identifiers and direct traits."""

    compiled: Compiled
    clock: Clock

    @cached_property
    def _now(self) -> tuple[int, str]:
        at = self.clock.now()
        return to_us(at), iso(at)

    def message(self, profile: ProfileRead) -> Message:
        evaluator = self.compiled.evaluator
        state = self.compiled.fold.unpack(profile.state)
        at_us, at = self._now
        body = {
            "profile_id": uuid_text(profile.profile_id),
            "version": profile.version,
            "at": at,
            "traits": {name: sent(value) for name, value in sorted(evaluator.attributes(state).items())},
            "computed": {name: computed(value) for name, value in evaluator.values(state, at_us).items()},
            "segments": evaluator.names_of(profile.segments),
            "lifecycle": profile.lifecycle,
            "risk": {
                "level": profile.risk,
                "reasons": [{"code": code, "points": points} for code, points in profile.reasons],
            },
        }
        return Message(PROFILES, _key(profile.profile_id), _encode(body), [(TYPE_HEADER, STATE), _VERSION])
