"""The language of backups: what a destination holds, for how long, and what can be restored from it. Pure.

        touchfold-backup.json                  what this destination is, and which key seals it
        bases/<id>/part-00000 …                the cluster as pg_basebackup streams it, compressed and cut into parts
        bases/<id>/begun                       written first: until `base` is there, others remove nothing it may need
        bases/<id>/base                        written last: a base without it is incomplete and does not count
        wal/<chain>/<segment>-<time>-<days>    WAL finished since the base; a chain ends at its first gap
        wal/<chain>/until                      the instant up to which the chain is complete
        archive/<sha256>                       the archive's Parquet files, each stored once
        ledger/<time>                          the newest copy of the erasures

Every object but the first is sealed. Names hold no personal data. The name of a base or WAL object says when it was
written and how many days it may be kept, so that expired objects can be removed without the key.
"""

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple, Protocol

import msgspec

from schemas.archive import ArchiveFile

HEADER: Final = "touchfold-backup.json"
MOST_DAYS: Final = 30
EARLY: Final = timedelta(hours=2)  # deleted this long before they expire: removal runs every hour
SEGMENTS_A_LOG: Final = 256  # segments of 16 MiB in what PostgreSQL calls a log
_TIME: Final = "%Y%m%dT%H%M%S%fZ"
_BASE: Final = re.compile(r"([0-9]{8}T[0-9]{12}Z)-([0-9]{1,2})-([0-9a-f]{12})")
_WAL: Final = re.compile(
    r"wal/([0-9a-f]{12})/([0-9A-F]{8}\.history|[0-9A-F]{24}(?:\.[0-9A-F]{8}\.backup|\.partial)?)"
    r"-([0-9]{8}T[0-9]{12}Z)-([0-9]{1,2})"
)
_SEGMENT: Final = re.compile("[0-9A-F]{24}")


class Objects(Protocol):
    """A place for named bytes: a folder, or a prefix of a bucket. Raises StoreUnavailable, SettingsInvalid."""

    @property
    def url(self) -> str: ...

    def put(self, name: str, data: bytes) -> None:
        """Durable when it returns and never visible in part; replaces any object of that name."""

    def get(self, name: str) -> bytes | None:
        """None if there is no such object."""

    def names(self, start: str = "") -> dict[str, int]:
        """Name -> size in bytes, of every object whose name begins with `start`."""

    def remove(self, names: Sequence[str]) -> None: ...


class Part(msgspec.Struct, frozen=True):
    """A piece of a base. `sha256` is of its bytes before sealing."""

    name: str
    bytes: int
    sha256: str


class Base(msgspec.Struct, frozen=True, kw_only=True):
    """One complete backup as of `ended_at`; with its chain of WAL, of any later instant too."""

    id: str
    chain: str
    started_at: datetime
    ended_at: datetime  # everything committed before this is in it
    days: int
    first_segment: str  # where its WAL begins; the chain has this segment and the following ones
    product: str  # version
    postgres: str  # major version
    migrations: dict[str, int]  # main, vault
    master_checks: list[bytes]  # one opens with the vault's master key; two while the key was being replaced
    parts: list[Part]
    plain_bytes: int  # of the cluster, before compression
    archive: list[ArchiveFile]  # the manifest as of some instant before `ended_at`
    files: dict[str, bytes]  # from the data folder: settings without secrets, the server's password
    erasures: int  # how many were in the ledger


class Until(msgspec.Struct, frozen=True):
    """A chain that has `segment` holds everything committed before `at`."""

    at: datetime
    segment: str


class WalName(NamedTuple):
    """What the name of a WAL object says."""

    chain: str
    segment: str  # or the name of a history file or backup label
    at: datetime  # nothing in it is newer
    days: int

    @property
    def is_segment(self) -> bool:
        return _SEGMENT.fullmatch(self.segment) is not None


def time_text(at: datetime) -> str:
    return at.astimezone(UTC).strftime(_TIME)


def time_of(text: str) -> datetime:
    return datetime.strptime(text, _TIME).replace(tzinfo=UTC)


def base_id(at: datetime, days: int, random: str) -> str:
    """`random`: 12 hex digits."""
    return f"{time_text(at)}-{days}-{random}"


def base_of(name: str) -> str | None:
    """The id of the base that an object belongs to."""
    parts = name.split("/")
    return parts[1] if len(parts) == 3 and parts[0] == "bases" and _BASE.fullmatch(parts[1]) else None


def base_time(id_: str) -> tuple[datetime, int]:
    """When a base was begun, and how many days it may be kept."""
    found = _BASE.fullmatch(id_)
    if found is None:
        raise ValueError(f"{id_} is no id of a base")
    return time_of(found[1]), int(found[2])


def wal_object(chain: str, segment: str, at: datetime, days: int) -> str:
    return f"wal/{chain}/{segment}-{time_text(at)}-{days}"


def wal_name(name: str) -> WalName | None:
    found = _WAL.fullmatch(name)
    return None if found is None else WalName(found[1], found[2], time_of(found[3]), int(found[4]))


def until_object(chain: str) -> str:
    return f"wal/{chain}/until"


def next_segment(segment: str) -> str:
    """The name of the next WAL segment on the timeline."""
    timeline, log, number = segment[:8], int(segment[8:16], 16), int(segment[16:], 16)
    log, number = (log + 1, 0) if number + 1 == SEGMENTS_A_LOG else (log, number + 1)
    return f"{timeline}{log:08X}{number:08X}"


def ends_at(created_at: datetime, days: int, days_now: int) -> datetime:
    """When a copy must be gone. Raising the days later does not extend what an erasure's receipt may have promised."""
    return created_at + timedelta(days=min(days, days_now))


def is_due(created_at: datetime, days: int, days_now: int, now: datetime) -> bool:
    """Whether a copy is due for removal."""
    return now >= ends_at(created_at, days, days_now) - EARLY


class Reach(NamedTuple):
    """What a base and its chain can be restored to: any instant between these, both included."""

    base: Base
    since: datetime
    until: datetime
    gap_after: str  # the last segment before a gap; empty if there is no gap


def reach_of(base: Base, wal: Iterable[WalName], until: Until | None) -> Reach:
    """`wal` and `until` belong to the base's chain."""
    times = {each.segment: each.at for each in wal if each.is_segment and each.chain == base.chain}
    last = base.first_segment
    while (following := next_segment(last)) in times:
        last = following
    newest = max(times, default=last)
    gap = last if newest > last else ""
    if until is not None and base.first_segment <= until.segment <= last:
        return Reach(base, base.ended_at, max(base.ended_at, until.at), gap)
    return Reach(base, base.ended_at, max(base.ended_at, times.get(last, base.ended_at)), gap)


def choose(reaches: Sequence[Reach], at: datetime | None) -> Reach | None:
    """The reach to restore an instant from: the one that covers it with the nearest base. None if none covers it."""
    fitting = [each for each in reaches if at is None or each.since <= at <= each.until]
    if at is None:
        return max(fitting, key=lambda each: each.until, default=None)
    return max(fitting, key=lambda each: each.since, default=None)


def superfluous_wal(names: Iterable[str], bases: Iterable[Base], growing: str | None) -> list[str]:
    """WAL objects that no base needs. `growing`: the chain whose first base may still be under way."""
    first: dict[str, str] = {}
    for base in bases:
        first[base.chain] = min(first.get(base.chain, base.first_segment), base.first_segment)
    found = []
    for name in names:
        chain = name.split("/")[1] if name.startswith("wal/") and name.count("/") == 2 else None
        if chain is None or (chain == growing and chain not in first):
            continue
        told = wal_name(name)
        if chain not in first or (told is not None and told.is_segment and told.segment < first[chain]):
            found.append(name)
    return found
