"""What FOLD and DECIDE keep: rows and the port of the projection store (design C7). Nouns are bytes and offsets.

Keys, digests, tokens, signatures and profile ids are 16 raw bytes; instants are microseconds since 1970.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from enum import IntEnum
from hashlib import blake2b
from typing import Any, Final, NamedTuple, Protocol

from schemas.dead_letters import DeadLetter
from schemas.figures import Cells, FigureTx, KeeperTx

NO_EVENT: Final = bytes(16)
"""Stands where a work item has no event that caused it."""

NO_RECEIPT: Final = (2**63 - 1, b"\xff" * 16, -(2**63), bytes(16))
"""First and last receipt (instant, event) of a token that no resolved evidence holds yet."""

SHARDS: Final = 8
"""Shards of DECIDE; a work item goes to one by its route token. Where several workers fold, a partition is a shard."""


class Verdict(IntEnum):
    """What became of a copy of an event."""

    APPLIED = 0
    DUPLICATE = 1
    CONFLICT = 2
    QUARANTINED = 3
    ERASED = 4


class DedupRow(NamedTuple):
    """The copy of an event that counts, or none (verdict quarantined, erased)."""

    event_key: bytes
    digest: bytes
    partition: int
    offset: int
    identifier_set: bytes
    verdict: int


class NotApplied(NamedTuple):
    """A position of the log that does not count."""

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
    """A signature with its first receipt and its owner, if decided. Erased tokens are left out of `tokens`."""

    identifier_set: bytes
    tokens: tuple[tuple[str, bytes], ...]  # (kind, token)
    first_us: int
    first_event: bytes
    profile_id: bytes | None = None


class TokenRow(NamedTuple):
    """A token as it stands; (last_us, last_event): newest first receipt of the signatures that hold it."""

    token: bytes
    kind: str
    first_us: int
    first_event: bytes
    last_us: int
    last_event: bytes
    is_shared: bool
    profile_id: bytes | None


class WorkItem(NamedTuple):
    """Signatures to decide again, with the newest event of each by stamp (NO_EVENT where none caused it)."""

    id: int
    kind: str  # fold | refold | identity | decide
    identifier_sets: Sequence[bytes]
    newest_us: Sequence[int]
    newest_events: Sequence[bytes]


class NewWorkItem(NamedTuple):
    revision: int
    shard: int
    kind: str
    newest: Mapping[bytes, tuple[int, bytes]]  # signature -> (occurred_us, event key)


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
    summed: int = 0  # another one each time the state was summed from its signatures' states; 0: where nobody asks


class LaidOff(NamedTuple):
    """Entries of maps over the cap, of one signature and partition; `id` rises in the order of commits there."""

    identifier_set: bytes
    partition: int
    id: int
    maps: bytes


class NodeRow(NamedTuple):
    """A node of a profile's orders, packed. `maps`: a leaf's entries; of node 0: the last ids of `LaidOff` in it."""

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
    """The id of a change: a hash of its content, so that a repeat has the same."""
    content = f"{version}|{type_}|{name}|{old!r}|{new!r}".encode()
    return blake2b(profile_id + content, digest_size=16, person=b"tf-change").digest()


class FoldTx(FigureTx, Protocol):
    """Open transaction of FOLD: only rows of the partitions of its batch."""

    def hold_erasures(self, *, live: bool) -> None:
        """Until commit no erasure names new tokens: what is erased now stays the whole truth for this batch.

        `live`: the live revision is written, so nobody who halts it (see `Rebuilding.halted`) looks meanwhile.
        """

    def erased(self, tokens: Iterable[bytes]) -> set[bytes]: ...

    def advance(self, revision: int, batches: Sequence[Advance]) -> None:
        """The first write: move progress. Raises ProgressConflict unless owner and start are as expected."""

    def hold_progress(self, revision: int) -> None:
        """Until commit no other transaction folds for this revision, in any partition."""

    def deduplicate(self, rows: Sequence[DedupRow]) -> list[DedupRow]:
        """Insert rows whose event key is new (ascending); returns the present rows of the other keys."""

    def replace_dedup(self, rows: Sequence[DedupRow]) -> None: ...

    def not_applied(self, rows: Sequence[NotApplied]) -> None: ...

    def is_set_aside(self, partition: int, offset: int) -> bool:
        """Whether somebody has set this record aside by hand."""

    def restore(self, partition: int, offset: int) -> bool:
        """A record that was set aside counts after all; False when it is not set aside (any more)."""

    def delete_states(self, revision: int, identifier_sets: Iterable[bytes]) -> None:
        """With what was laid off from them."""

    def lay_off(self, revision: int, maps: Mapping[tuple[int, bytes], bytes]) -> None:
        """Add entries of maps over the cap, by (partition, signature)."""

    def skipped(self, partition: int, start: int, end: int) -> set[int]:
        """Offsets in [start, end) that the live revision did not apply."""

    def load_states(self, revision: int, keys: Iterable[tuple[int, bytes]]) -> dict[tuple[int, bytes], bytes]:
        """Packed states by (partition, signature), of those that are stored."""

    def save_states(self, revision: int, states: Mapping[tuple[int, bytes], bytes]) -> None: ...

    def take_refolds(self, revision: int, limit: int) -> list[bytes]:
        """Signatures whose states must be made anew from the log, of so many work items; these go at the commit."""

    def count_applied(self, identifier_sets: Iterable[bytes]) -> dict[bytes, int]:
        """How many applied events each signature has, of those that have any."""

    def positions(self, identifier_sets: Iterable[bytes]) -> list[tuple[int, int]]:
        """(partition, offset) of the applied events of signatures."""

    def first_receipts(self, identifier_sets: Iterable[bytes]) -> dict[bytes, tuple[int, bytes]]: ...

    def save_evidence(self, rows: Sequence[EvidenceRow]) -> None:
        """Insert, or lower the first receipt of what is there."""

    def withdraw(self, revision: int, receipts: Mapping[bytes, tuple[int, bytes] | None]) -> list[bytes]:
        """Evidence whose first receipt is later than was stored, or that no event gives any more (None: nobody's).

        Returns the signatures that identity must resolve anew; token rows start from nothing. Everybody who folds for
        the revision must claim again, for what he knows of evidence is not true any more.
        """

    def add_work(self, items: Sequence[NewWorkItem]) -> list[int]:
        """Their ids, ascending."""

    def building(self) -> list[int]:
        """Revisions that are being built."""

    def add_dead_letters(self, letters: Sequence[DeadLetter]) -> None: ...


class DecideTx(KeeperTx, Protocol):
    """Open transaction of DECIDE."""

    def join(self, revision: int) -> int:
        """Until commit this revision is the live one; its lowest watermark. Raises ProgressConflict when it is not."""

    def hold_shards(self, revision: int, own: Collection[int], others: int) -> list[int]:
        """Have until commit those of our own shards that have work items, and at most `others` more that nobody has."""

    def take_work(self, revision: int, limit: int, shards: Collection[int] | None = None) -> list[WorkItem]:
        """Take away the oldest but refolds, passing over what another worker takes; a rollback brings them back.

        Of these shards alone, where given.
        """

    def add_work(self, items: Sequence[NewWorkItem]) -> list[int]:
        """Their ids, ascending."""

    def due(self, revision: int, until_us: int, limit: int, *, shared: bool = False) -> list[bytes]:
        """Profiles whose timer is due, the earliest first; `shared`: locked, those another worker has passed over."""

    def lock_identity(self) -> None:
        """Who changes who is whom does it alone, until commit."""

    def share_identity(self) -> None:
        """Beside others who lock the tokens they change; not beside one who `lock_identity`. A savepoint."""

    def lock_tokens(self, kinds: Mapping[bytes, str], tokens: Collection[bytes]) -> None:
        """Lock the rows of `tokens` ascending, until commit; those in `kinds` are made before, where they are missing.

        A row that was made so has NO_RECEIPT and no profile.
        """

    def unlock_tokens(self) -> None:
        """Back to the savepoint of `share_identity`: to lock more, in order."""

    def building(self) -> list[int]:
        """Revisions that are being built."""

    def owners(self, identifier_sets: Iterable[bytes]) -> dict[bytes, bytes]:
        """Signature -> profile id, of those that have one."""

    def evidence(self, identifier_sets: Iterable[bytes]) -> list[EvidenceRow]: ...

    def evidence_of_tokens(self, tokens: Iterable[bytes]) -> list[EvidenceRow]: ...

    def evidence_of_profiles(self, profile_ids: Iterable[bytes]) -> list[tuple[bytes, bytes]]:
        """(profile id, signature) pairs."""

    def tokens(self, tokens: Iterable[bytes]) -> list[TokenRow]: ...

    def tokens_of_profiles(self, profile_ids: Iterable[bytes]) -> list[TokenRow]: ...

    def save_tokens(self, rows: Sequence[TokenRow]) -> None: ...

    def set_owners(self, owners: Mapping[bytes, bytes]) -> None: ...

    def replace_refused(self, identifier_sets: Iterable[bytes], rows: Sequence[tuple[bytes, bytes, str]]) -> None: ...

    def lock_profiles(self, revision: int, profile_ids: Iterable[bytes]) -> dict[bytes, ProfileRow]:
        """Lock rows ascending; ids without a row are left out."""

    def try_profiles(self, revision: int, profile_ids: Iterable[bytes]) -> tuple[dict[bytes, ProfileRow], set[bytes]]:
        """As `lock_profiles`, without waiting; beside them the ids whose rows another worker has."""

    def states(self, revision: int, identifier_sets: Iterable[bytes]) -> list[tuple[bytes, bytes]]: ...

    def positions(self, identifier_sets: Iterable[bytes]) -> list[tuple[int, int]]:
        """(partition, offset) of the applied events of signatures."""

    def save_profiles(self, revision: int, rows: Sequence[ProfileRow]) -> None: ...

    def delete_profiles(self, revision: int, profile_ids: Iterable[bytes]) -> None:
        """With their memberships and orders."""

    def laid_off(
        self, revision: int, identifier_sets: Iterable[bytes], after: Mapping[int, int], joined: Iterable[bytes]
    ) -> list[LaidOff]:
        """What was laid off from these signatures' states after the ids by partition, and all of the `joined` ones."""

    def awaiting_refold(self, revision: int, identifier_sets: Iterable[bytes]) -> set[bytes]:
        """Those of these signatures whose states are to be made again: of them not all may have been laid off."""

    def order_nodes(
        self, revision: int, profile_id: bytes, nodes: Collection[int], leaves: Collection[int]
    ) -> list[NodeRow]:
        """Those of these nodes that are stored; `maps` of the root and of `leaves` alone."""

    def save_order_nodes(self, revision: int, profile_id: bytes, rows: Sequence[NodeRow]) -> None: ...

    def delete_order_nodes(self, revision: int, profile_ids: Iterable[bytes]) -> None: ...

    def ended_versions(self, profile_ids: Iterable[bytes]) -> dict[bytes, int]:
        """Last versions of those that ended once."""

    def save_ended(self, versions: Mapping[bytes, int]) -> None: ...

    def change_memberships(
        self,
        revision: int,
        entered: Sequence[tuple[int, bytes, int | None]],
        left: Sequence[tuple[int, bytes]],
    ) -> None:
        """(segment index, profile id, since) to insert; (segment index, profile id) to delete."""

    def add_changes(self, changes: Sequence[Change]) -> None: ...

    def mark_search(self, profile_ids: Iterable[bytes], acting: Collection[bytes] = ()) -> None:
        """Names or identifiers of these changed, or they are no more: the indexer looks at them again.

        `acting`: those of them that act now; they go before those of a history that is loaded.
        """

    def count_segment_days(self, counts: Mapping[tuple[str, str], tuple[int, int]]) -> None:
        """(segment, ISO day) -> (entered, left), added to what is there."""


class ProjectionStore(Protocol):
    """Opens the two transactions. Each commits when its block ends and rolls back when it raises."""

    def fold(self) -> AbstractContextManager[FoldTx]: ...

    def decide(self) -> AbstractContextManager[DecideTx]: ...

    def number_feed(self) -> int:
        """Give committed feed batches without a number the next ones, in order; returns how many."""

    def close(self) -> None:
        """Give up the connection it works on."""


class SegmentPair(NamedTuple):
    """A segment by name, with its bit in the old and the new revision (-1: not there)."""

    name: str
    old: int
    new: int


class SwapPlan(NamedTuple):
    """What a swap needs to know beside the tables."""

    old: int
    new: int
    cause: str  # definition | rebuild
    segments: Sequence[SegmentPair]
    contents: Mapping[str, str]  # segment -> hash of its condition, of the new definitions
    at_us: int


class Rebuilding(Protocol):
    """What building asks of the store beyond FOLD and DECIDE."""

    def next_profiles(self, after: bytes, limit: int) -> list[bytes]:
        """Ids of profiles that own evidence, ascending, greater than `after`."""

    def await_folds(self) -> None:
        """Until every FOLD that runs now has ended: those that begin later know of a revision that was there before."""

    def copy_states(self, old: int, new: int) -> None:
        """Take the live revision's states, refold items and progress over: right when both fold alike."""

    def lead(self) -> bool:
        """Whether it is us who build; the first who asks does, until it resigns or its connection ends."""

    def resign(self) -> None:
        """Let another build from now on."""

    def halted(self) -> AbstractContextManager[None]:
        """Nobody folds for the live revision meanwhile: all have stopped at a batch boundary."""

    def swap(self, plan: SwapPlan) -> int:
        """Make the new revision live if both have folded the same and nothing is queued; returns changes emitted.

        Raises ProgressConflict otherwise. Versions and `since` of what stays are kept; new members' is NULL.
        """


class Snapshot(Protocol):
    """One consistent view of the live revision at a batch boundary, work items drained (design C9).

    Rows come in ascending order of their key, and again each time they are asked for; one reader at a time.
    """

    @property
    def next_offsets(self) -> Sequence[int]: ...

    @property
    def watermark_us(self) -> int:
        """The lowest watermark of all partitions."""

    def skipped(self) -> Iterator[tuple[int, int]]:
        """Positions that are not applied."""

    def erased(self) -> set[bytes]: ...

    def states(self) -> Iterator[tuple[bytes, int, bytes]]:
        """(signature, partition, packed state)."""

    def evidence(self) -> Iterator[EvidenceRow]: ...

    def profiles(self) -> Iterator[ProfileRow]: ...

    def figures(self) -> tuple[Cells, Cells] | None:
        """The cells of the live revision, as stored and the deltas beside them; None while not all is counted."""

    def nobody(self) -> Iterable[bytes]:
        """The packed orders of signatures that are nobody's."""


class Indexed(NamedTuple):
    """A profile to index, as last decided. Its tokens are (token, kind)."""

    profile_id: bytes
    state: bytes
    tokens: Sequence[tuple[bytes, str]]


class SearchTx(Protocol):
    """Open transaction: the profiles taken are locked against their erasure until commit."""

    @property
    def taken(self) -> Sequence[bytes]: ...

    def profiles(self, revision: int) -> list[Indexed]:
        """Those of the taken that live."""

    def put(self, rows: Mapping[bytes, Sequence[int]]) -> None:
        """Store the terms of each; the taken that are not in `rows` have none any more."""


class SearchStore(Protocol):
    def take(self, limit: int) -> AbstractContextManager[SearchTx]:
        """Take profiles that wait; they wait no more when the block commits."""
