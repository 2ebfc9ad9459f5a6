"""Rows and ports of the publisher: its place in the change feed, and the topics it writes."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from schemas.reads import ChangeRow, ProfileRead


class Place(NamedTuple):
    """After the change `idx` of the numbered batch `seq`."""

    seq: int
    idx: int


class Message(NamedTuple):
    """`topic` is the short name. Messages with the same key stay in order. No value: a tombstone."""

    topic: str
    key: bytes
    value: bytes | None
    headers: list[tuple[str, str | bytes | None]]


class FeedToPublish(Protocol):
    """The change feed as its publisher uses it. All methods raise StoreUnavailable, which ends the claim."""

    @property
    def claimed(self) -> bool: ...

    def claim(self) -> bool:
        """Become the only publisher; False while there is another. A claim ends with its connection."""

    def place(self) -> Place:
        """How far the feed has been published. Raises ProgressConflict if another publisher has claimed it since."""

    def changes(self, after: Place, limit: int) -> list[ChangeRow]:
        """Numbered changes after a place, in order."""

    def live(self) -> int:
        """The number of the live revision."""

    def profiles(self, revision: int, profile_ids: Sequence[bytes]) -> list[ProfileRead]:
        """The profiles among these ids that still exist. Raises RevisionReplaced if the revision is not live."""

    def settle(self) -> None:
        """Make sure that what was read survives a database crash. Raises ProgressConflict as `place` does."""

    def advance(self, place: Place) -> None:
        """Record that everything up to a place is acknowledged. Raises ProgressConflict as `place` does."""


class TopicWriter(Protocol):
    """Writes topics; one thread. Opening fences the previous writer: the brokers refuse anything it still sends."""

    @property
    def is_open(self) -> bool: ...

    def open(self) -> None:
        """Raises StoreUnavailable."""

    def publish(self, messages: Sequence[Message]) -> None:
        """Write all messages in order; on return the brokers have acknowledged every one.

        Raises StoreUnavailable (none, some or all may be there) or ProgressConflict (another writer has opened since).
        Either closes the writer.
        """

    def close(self) -> None: ...
