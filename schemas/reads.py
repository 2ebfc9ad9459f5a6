"""What queries read from the live tables: rows, and the port. Instants are microseconds, keys 16 raw bytes."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any, NamedTuple, Protocol

from schemas.figures import Figures, Window


class Deployment(NamedTuple):
    """Settings fixed at the first start, because stored results depend on them."""

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
    """A profile as last decided, with its tokens as (token, kind), those received last first."""

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
    """What a token leads to. `live`: the live revision at that moment; if it is not the one requested, read again.

    `shared`: it identifies nobody, and a profile is that of events which carry nothing else.
    """

    live: int
    erased: bool
    owner: bytes | None
    profile: ProfileRead | None
    shared: bool = False


class MemberRow(NamedTuple):
    profile_id: bytes
    since_us: int | None  # None: since the first load


class ChangeRow(NamedTuple):
    """A numbered row of the feed; (seq, idx) is its position."""

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
    """A merged profile, and the period in which a person was part of it."""

    profile_id: bytes
    since_us: int
    until_us: int


class RegisteredEvent(NamedTuple):
    """An event's row in the dedup index, with the owner of its identifier set."""

    event_key: bytes
    verdict: int
    profile_id: bytes | None
    copies: int  # further copies in the log, not applied


class FoundDeadLetter(NamedTuple):
    """A dead letter without its sealed content."""

    id: bytes
    stage: str
    rule: str
    path: str
    reason: str
    source: str
    state: str
    event_id: bytes | None


class Reads(Protocol):
    """Reads committed rows; callable from any thread. Raises StoreUnavailable.

    A method that takes a revision raises RevisionReplaced when its tables are gone: call `live` again.
    """

    def deployment(self) -> Deployment: ...

    def live(self) -> int:
        """The number of the live revision."""

    def revision(self, number: int) -> RevisionRow: ...

    def building(self) -> RevisionRow | None: ...

    def profile(self, revision: int, token: bytes) -> Found: ...

    def profiles(self, revision: int, profile_ids: Sequence[bytes]) -> list[ProfileRead]:
        """The profiles among these ids that still exist, in the order given."""

    def owners(self, tokens: Sequence[bytes]) -> list[bytes]:
        """The profiles that own these tokens, each once, in the order of the tokens."""

    def holders(self, revision: int, token: bytes, limit: int) -> list[bytes]:
        """At most `limit` profiles with events that carry the token, most recently seen first."""

    def search(self, revision: int, terms: Sequence[Sequence[int]], limit: int) -> list[bytes]:
        """At most `limit` profiles that match one of the keyed terms of every part, most recently seen first."""

    def segment_sizes(self, revision: int) -> dict[int, int]:
        """Members by segment index; empty segments are left out."""

    def segment_versions(self) -> dict[str, int]: ...

    def segment_moves(self, day: date, segments: Sequence[str]) -> dict[str, tuple[int, int]]:
        """(entered, left) of these segments on a local day; segments without either are left out."""

    def segment_days(self, since: date, segments: Sequence[str]) -> list[tuple[str, date, int, int]]:
        """(segment, local day, entered, left) of these segments, from the day `since` on."""

    def segments_before(self, day: date, segments: Sequence[str]) -> set[str]:
        """The segments among these that anybody entered or left on an earlier local day."""

    def figures(self, revision: int, now: Window, before: Window, days: Sequence[int]) -> Figures:
        """The counts of two windows. `days`: the buckets where the days of `now` begin, and the end of the last day."""

    def watermark_us(self, revision: int) -> int:
        """The lowest watermark of all partitions; 0 before anything was folded."""

    def members(self, revision: int, segment: int, after: bytes, limit: int) -> list[MemberRow]:
        """Members with an id greater than `after`, ascending."""

    def listed(
        self, revision: int, after: bytes, stage: str | None, risk: str | None, limit: int
    ) -> tuple[list[bytes], bytes, bool]:
        """At most `limit` profiles with an id greater than `after`, ascending, in a stage and at a risk level if given;
        the last id examined; and whether there may be more. Examines a bounded number of profiles.
        """

    def memberships(self, revision: int, segment: int, profile_ids: Sequence[bytes]) -> list[MemberRow]:
        """The memberships of those profiles that are members."""

    def changes(self, seq: int, idx: int, limit: int, types: Sequence[str]) -> tuple[list[ChangeRow], int]:
        """At most `limit` numbered rows after (seq, idx), in order, and the highest seq at that instant.

        `types`: only these; empty for all.
        """

    def last_positions(self, profile_id: bytes, depth: int) -> tuple[int, list[tuple[int, int]]]:
        """How many applied events a profile has, and (partition, offset) of the last `depth` in each partition."""

    def newest(
        self, profile_id: bytes, before: tuple[int, bytes] | None, limit: int, types: frozenset[str] | None
    ) -> list[tuple[int, int]]:
        """(partition, offset) of the newest applied events of a profile by stamp (`schemas.stamps`), descending.

        `before`: only events older than this; `types`: only these types.
        """

    def next_offsets(self, revision: int) -> list[int]: ...

    def sources(self) -> list[str]: ...

    def registered(self, event_keys: Iterable[bytes]) -> list[RegisteredEvent]: ...

    def letters(self, event_keys: Iterable[bytes]) -> list[FoundDeadLetter]:
        """Dead letters of these events, newest first."""

    def suppressed(self, event_keys: Iterable[bytes]) -> set[bytes]: ...


class FeedGrowth(Protocol):
    """Notices when the change feed grows. `count` rises each time it does."""

    @property
    def count(self) -> int: ...

    def wait(self, seen: int, timeout_s: float) -> bool:
        """Wait until `count` differs from `seen`; False if the timeout came first."""
