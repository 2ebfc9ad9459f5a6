"""What FOLD and DECIDE store, as rows (design C7).

Keys, digests, tokens, identifier sets and profile ids are 16 raw bytes; instants are microseconds since 1970; a
place is (n, event key) as `schemas.stamps.place_of` packs it.
"""

from collections.abc import Mapping, Sequence
from enum import IntEnum
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from schemas.stamps import FIRST_PLACE, LAST_PLACE

NO_EVENT: Final = bytes(16)
"""The event of a work item that no event caused."""

NO_RECEIPT: Final = (2**63 - 1, LAST_PLACE, -(2**63), FIRST_PLACE)
"""First and last receipt (instant, place) of a token that no resolved evidence holds yet."""

SHARDS: Final = 8
"""Shards of DECIDE; a work item's route token picks its shard. When several workers fold, a partition is a shard."""


class Verdict(IntEnum):
    """The outcome of a copy of an event."""

    APPLIED = 0
    DUPLICATE = 1
    CONFLICT = 2
    QUARANTINED = 3
    ERASED = 4


class DedupRow(NamedTuple):
    """The copy of an event that counts, or none (verdicts quarantined and erased)."""

    event_key: bytes
    digest: bytes
    partition: int
    offset: int
    identifier_set: bytes
    verdict: int


class NotApplied(NamedTuple):
    """A position in the log that does not count."""

    partition: int
    offset: int
    event_key: bytes | None
    verdict: int


class Advance(NamedTuple):
    """A batch of one partition: [start, end), the partition's watermark after it, and its owner's epoch."""

    partition: int
    start: int
    end: int
    watermark_us: int
    epoch: int


class EvidenceRow(NamedTuple):
    """An identifier set with its first receipt and its owner, if decided. `tokens` leaves out erased tokens."""

    identifier_set: bytes
    tokens: tuple[tuple[str, bytes], ...]  # (kind, token)
    first_us: int
    first_place: bytes
    profile_id: bytes | None = None


class HolderRow(NamedTuple):
    """An identifier set with a completion of an order (decision 0037)."""

    order_key: bytes
    source: int
    identifier_set: bytes


class OrderSetRow(NamedTuple):
    """What an identifier set said about an order of a source. `route`: the token that seals it, if it names nobody."""

    order_set: bytes
    order_key: bytes
    source: int
    sender: bytes  # identifier set
    route: bytes | None


class OrderSetOwner(NamedTuple):
    """An order set as decided, with its sender's profile. `from_nobody`: the sender named nobody, or is erased."""

    order_set: bytes
    order_key: bytes
    source: int
    sender: bytes  # identifier set
    sender_id: bytes | None
    profile_id: bytes | None
    matched: bool | None  # None: not decided yet
    from_nobody: bool


class HolderOwner(NamedTuple):
    """A holder of an order whose evidence is decided. `profile_id`: None: erased."""

    order_key: bytes
    source: int
    profile_id: bytes | None


class TokenRow(NamedTuple):
    """A token's current row. (last_us, last_place): the newest first receipt among the identifier sets that hold it."""

    token: bytes
    kind: str
    first_us: int
    first_place: bytes
    last_us: int
    last_place: bytes
    is_shared: bool
    profile_id: bytes | None


class WorkItem(NamedTuple):
    """Identifier sets to decide again, with the newest event of each by stamp (NO_EVENT if no event caused it)."""

    id: int
    kind: str  # fold | refold | identity | decide | order: keys of orders instead of identifier sets
    identifier_sets: Sequence[bytes]
    newest_us: Sequence[int]
    newest_events: Sequence[bytes]


class NewWorkItem(NamedTuple):
    revision: int
    shard: int
    kind: str
    newest: Mapping[bytes, tuple[int, bytes]]  # identifier set -> (occurred_us, event key)


class ProfileRow(NamedTuple):
    """A profile as decided."""

    profile_id: bytes
    version: int
    state: bytes  # merged and packed, for reads
    decided_us: int
    due_us: int | None
    lagging: bool
    first_us: int | None
    last_us: int | None
    event_count: int
    segments: int  # bit mask in the order of Evaluator.segment_names
    lifecycle: str
    risk: str
    points: int
    reasons: tuple[tuple[str, int], ...]
    summed: int = 0  # changes each time the state is summed from its identifier sets' states; 0: not tracked


class LaidOff(NamedTuple):
    """Entries of maps over the cap, of one identifier set and partition; `id` rises in commit order there."""

    identifier_set: bytes
    partition: int
    id: int
    maps: bytes


class NodeRow(NamedTuple):
    """A node of a profile's orders, packed. `maps`: a leaf's entries; in node 0 the last `LaidOff` ids it includes."""

    node: int
    summary: bytes
    maps: bytes | None


class Change(NamedTuple):
    """A row of the change feed (contracts, "A change")."""

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


def change_id(profile_id: bytes, version: int, type_: str, name: str | None, old: Any, new: Any) -> bytes:
    """The id of a change: a hash of its content, so that a repeat has the same id."""
    content = f"{version}|{type_}|{name}|{old!r}|{new!r}".encode()
    return blake2b(profile_id + content, digest_size=16, person=b"tf-change").digest()
