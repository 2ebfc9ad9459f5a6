"""Rows and ports of the publisher: its place in the change feed, and the topics it writes."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from schemas.reads import ChangeRow, ProfileRead


class Place(NamedTuple):
    """After the change `idx` of the numbered batch `seq`."""

    seq: int
    idx: int


class Message(NamedTuple):
    """`topic` is its short name. Messages of one key stay in order. No value: a tombstone."""

    topic: str
    key: bytes
    value: bytes | None
    headers: list[tuple[str, str | bytes | None]]


class FeedToPublish(Protocol):
    """The change feed for the one who publishes it. All raise StoreUnavailable, which ends the claim."""

    @property
    def claimed(self) -> bool: ...

    def claim(self) -> bool:
        """Become the one publisher; False while another one is. A claim ends with its connection."""

    def place(self) -> Place:
        """How far the feed was published. Raises ProgressConflict when another publisher has claimed it since."""

    def changes(self, after: Place, limit: int) -> list[ChangeRow]:
        """Numbered changes after a place, in order."""

    def live(self) -> int:
        """The number of the live revision."""

    def profiles(self, revision: int, profile_ids: Sequence[bytes]) -> list[ProfileRead]:
        """Those of the ids that live. Raises RevisionReplaced when the revision is not the live one (any more)."""

    def settle(self) -> None:
        """What was read survives a crash of the database. Raises ProgressConflict as `place` does."""

    def advance(self, place: Place) -> None:
        """What lies up to a place is acknowledged. Raises ProgressConflict as `place` does."""


class TopicWriter(Protocol):
    """Writes topics; one thread. Opening fences whoever wrote before: nothing of theirs is taken any more."""

    @property
    def is_open(self) -> bool: ...

    def open(self) -> None:
        """Raises StoreUnavailable."""

    def publish(self, messages: Sequence[Message]) -> None:
        """Write all in order; every one is acknowledged by the brokers when it returns.

        Raises StoreUnavailable (none, some or all may be there) or ProgressConflict (another one has opened since).
        Either closes the writer.
        """

    def close(self) -> None: ...
