"""What the reading side asks of the live tables: rows, and the port. Instants are microseconds, keys 16 raw bytes."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any, NamedTuple, Protocol

from schemas.figures import Figures, Window


class Deployment(NamedTuple):
    """What is fixed at the first start, because stored answers depend on it."""

    time_zone: str
    region: str
    currency: str


class RevisionRow(NamedTuple):
    """A set of definitions; `done` is 0..1 while it is being built."""

    revision: int
    cause: str
    definitions: Mapping[str, Any]
    done: float


class ProfileRead(NamedTuple):
    """A profile as last decided, with the tokens it owns as (token, kind)."""

    profile_id: bytes
    version: int
    state: bytes
    segments: int  # bit mask in the order of Evaluator.segment_names
    lifecycle: str
    risk: str
    reasons: Sequence[tuple[str, int]]
    first_us: int | None
    last_us: int | None
    event_count: int
    tokens: Sequence[tuple[bytes, str]]


class Found(NamedTuple):
    """What a token leads to. `live`: the live revision at that moment; read again when it is not the one asked."""

    live: int
    erased: bool
    owner: bytes | None
    profile: ProfileRead | None


class MemberRow(NamedTuple):
    profile_id: bytes
    since_us: int | None  # None: since the first load


class ChangeRow(NamedTuple):
    """A numbered row of the feed: (seq, idx) is its place."""

    seq: int
    idx: int
    id: bytes
    type: str
    profile_id: bytes
    version: int
    name: str | None
    old: Any
    new: Any
    at_us: int
    cause: str
    cause_event: bytes | None
    cause_definition: str | None


class PartOf(NamedTuple):
    """A joined profile, and between which instants a person was a part of it."""

    profile_id: bytes
    since_us: int
    until_us: int


class RegisteredEvent(NamedTuple):
    """The dedup index's row of an event, with the owner of its signature."""

    event_key: bytes
    verdict: int
    profile_id: bytes | None
    copies: int  # further copies in the log that are not applied


class FoundDeadLetter(NamedTuple):
    """A dead letter, without what it seals."""

    id: bytes
    stage: str
    rule: str
    path: str
    reason: str
    source: str
    state: str
    event_id: bytes | None


class Reads(Protocol):
    """Reads of committed rows; any thread may call. Raises StoreUnavailable.

    A method that names a revision raises RevisionReplaced when its tables are gone: ask `live` again.
    """

    def deployment(self) -> Deployment: ...

    def live(self) -> int:
        """The number of the live revision."""

    def revision(self, number: int) -> RevisionRow: ...

    def building(self) -> RevisionRow | None: ...

    def profile(self, revision: int, token: bytes) -> Found: ...

    def profiles(self, revision: int, profile_ids: Sequence[bytes]) -> list[ProfileRead]:
        """Those of the ids that live, in the order given."""

    def owners(self, tokens: Sequence[bytes]) -> list[bytes]:
        """The profiles that own these tokens, each once, in the order of the tokens."""

    def search(self, revision: int, terms: Sequence[Sequence[int]], limit: int) -> list[bytes]:
        """Profiles with one of the keyed terms of every part, seen last first; of more, the `limit` seen last."""

    def segment_sizes(self, revision: int) -> dict[int, int]:
        """Members by segment index; empty segments are left out."""

    def segment_versions(self) -> dict[str, int]: ...

    def segment_moves(self, day: date, segments: Sequence[str]) -> dict[str, tuple[int, int]]:
        """(entered, left) of these segments on a local day; those nobody entered or left are left out."""

    def segment_days(self, since: date, segments: Sequence[str]) -> list[tuple[str, date, int, int]]:
        """(segment, local day, entered, left) of these segments, of the days from `since` on."""

    def segments_before(self, day: date, segments: Sequence[str]) -> set[str]:
        """Those of these segments that anybody entered or left on an earlier local day."""

    def figures(self, revision: int, now: Window, before: Window, days: Sequence[int]) -> Figures:
        """What was counted in two windows. `days`: buckets where the days of `now` begin, and the end of the last."""

    def watermark_us(self, revision: int) -> int:
        """The lowest watermark of all partitions; 0 before anything was folded."""

    def members(self, revision: int, segment: int, after: bytes, limit: int) -> list[MemberRow]:
        """Members with an id greater than `after`, ascending."""

    def listed(
        self, revision: int, after: bytes, stage: str | None, risk: str | None, limit: int
    ) -> tuple[list[bytes], bytes, bool]:
        """At most `limit` profiles with an id greater than `after`, ascending, of a stage and a level of risk if given;
        the last id looked at; and whether there may be more. Looks at a bounded number of profiles.
        """

    def memberships(self, revision: int, segment: int, profile_ids: Sequence[bytes]) -> list[MemberRow]:
        """Those of the profiles that are members."""

    def changes(self, seq: int, idx: int, limit: int, types: Sequence[str]) -> tuple[list[ChangeRow], int]:
        """At most `limit` numbered rows after (seq, idx), in order, and the highest seq of the same instant.

        `types`: only these; empty for all.
        """

    def last_positions(self, profile_id: bytes, depth: int) -> tuple[int, list[tuple[int, int]]]:
        """How many applied events a profile has, and (partition, offset) of the last `depth` in each partition."""

    def newest(
        self, profile_id: bytes, before: tuple[int, bytes] | None, limit: int, types: frozenset[str] | None
    ) -> list[tuple[int, int]]:
        """(partition, offset) of the newest applied events of a profile by (occurred_us, event key), descending.

        `before`: only older ones than this; `types`: only these.
        """

    def next_offsets(self, revision: int) -> list[int]: ...

    def sources(self) -> list[str]: ...

    def registered(self, event_keys: Iterable[bytes]) -> list[RegisteredEvent]: ...

    def letters(self, event_keys: Iterable[bytes]) -> list[FoundDeadLetter]:
        """Dead letters of these events, newest first."""

    def suppressed(self, event_keys: Iterable[bytes]) -> set[bytes]: ...


class FeedGrowth(Protocol):
    """Tells that the change feed grew. `count` rises with every growth seen."""

    @property
    def count(self) -> int: ...

    def wait(self, seen: int, timeout_s: float) -> bool:
        """Wait until `count` differs from `seen`; False when the time ran out first."""
