"""The port of the projection store: what FOLD and DECIDE read and write, as rows of `store_rows` (design C7)."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from schemas.dead_letters import DeadLetter
from schemas.figures import FigureTx, KeeperTx
from schemas.store_rows import (
    Advance,
    Change,
    DedupRow,
    EvidenceRow,
    HolderOwner,
    HolderRow,
    LaidOff,
    NewWorkItem,
    NodeRow,
    NotApplied,
    OrderSetOwner,
    OrderSetRow,
    ProfileRow,
    TokenRow,
    WorkItem,
)


class FoldTx(FigureTx, Protocol):
    """An open FOLD transaction; it touches only rows of its batch's partitions."""

    def hold_erasures(self, *, live: bool) -> None:
        """Keep erasures from adding tokens until commit, so that `erased` stays complete for this batch.

        `live`: this writes the live revision, so whoever halts it (see `Rebuilding.halted`) waits meanwhile.
        """

    def erased(self, tokens: Iterable[bytes]) -> set[bytes]: ...

    def advance(self, revision: int, batches: Sequence[Advance]) -> None:
        """Move progress, as the first write. Raises ProgressConflict unless owner and start are as expected."""

    def hold_progress(self, revision: int) -> None:
        """Keep other transactions from folding for this revision, in any partition, until commit."""

    def deduplicate(self, rows: Sequence[DedupRow]) -> list[DedupRow]:
        """Insert the rows whose event key is new (ascending); returns the existing rows of the other keys."""

    def replace_dedup(self, rows: Sequence[DedupRow]) -> None: ...

    def not_applied(self, rows: Sequence[NotApplied]) -> None: ...

    def is_set_aside(self, partition: int, offset: int) -> bool:
        """Whether this record was set aside by hand."""

    def restore(self, partition: int, offset: int) -> bool:
        """Let a record that was set aside count after all; False if it is not (or no longer) set aside."""

    def delete_states(self, revision: int, identifier_sets: Iterable[bytes]) -> None:
        """Delete states, with what was laid off from them."""

    def lay_off(self, revision: int, maps: Mapping[tuple[int, bytes], bytes]) -> None:
        """Add entries of maps over the cap, by (partition, identifier set)."""

    def skipped(self, partition: int, start: int, end: int) -> set[int]:
        """Offsets in [start, end) that the live revision did not apply."""

    def load_states(self, revision: int, keys: Iterable[tuple[int, bytes]]) -> dict[tuple[int, bytes], bytes]:
        """Packed states by (partition, identifier set); keys without a stored state are left out."""

    def save_states(self, revision: int, states: Mapping[tuple[int, bytes], bytes]) -> None: ...

    def take_refolds(self, revision: int, limit: int) -> list[bytes]:
        """Identifier sets to fold again from the log, of up to `limit` work items, which are deleted at commit."""

    def count_applied(self, identifier_sets: Iterable[bytes]) -> dict[bytes, int]:
        """How many applied events each identifier set has; those without any are left out."""

    def positions(self, identifier_sets: Iterable[bytes]) -> list[tuple[int, int]]:
        """(partition, offset) of the applied events of identifier sets."""

    def first_receipts(self, identifier_sets: Iterable[bytes]) -> dict[bytes, tuple[int, bytes]]: ...

    def save_evidence(self, rows: Sequence[EvidenceRow]) -> None:
        """Insert evidence, or lower the first receipt of existing evidence."""

    def save_orders(self, holders: Sequence[HolderRow], sets: Sequence[OrderSetRow]) -> list[bytes]:
        """Insert those that are new, ascending; returns their order keys."""

    def order_sets_of(self, senders: Iterable[bytes]) -> list[bytes]:
        """The order sets of what these identifier sets sent."""

    def replace_holders(self, identifier_sets: Iterable[bytes], rows: Sequence[HolderRow]) -> list[bytes]:
        """Make these the only orders that the identifier sets hold; returns the keys of orders that changed."""

    def withdraw(self, revision: int, receipts: Mapping[bytes, tuple[int, bytes] | None]) -> list[bytes]:
        """Correct evidence whose first receipt is later than stored, or that no event supports any more (None).

        Returns the identifier sets to resolve again; their token rows start empty. Every worker that folds for the
        revision must claim again, because its cached evidence is out of date.
        """

    def add_work(self, items: Sequence[NewWorkItem]) -> list[int]:
        """Their ids, ascending."""

    def building(self) -> list[int]:
        """Revisions that are being built."""

    def add_dead_letters(self, letters: Sequence[DeadLetter]) -> None: ...


class DecideTx(KeeperTx, Protocol):
    """An open DECIDE transaction."""

    def join(self, revision: int) -> int:
        """Keep this revision live until commit; returns its lowest watermark. Raises ProgressConflict if it is not."""

    def hold_shards(self, revision: int, own: Collection[int], others: int) -> list[int]:
        """Take, until commit, those of our own shards that have work items, and at most `others` more that are free."""

    def take_work(self, revision: int, limit: int, shards: Collection[int] | None = None) -> list[WorkItem]:
        """Take the oldest work items except refolds, skipping those another worker takes; a rollback restores them.

        `shards`: only from these, if given.
        """

    def add_work(self, items: Sequence[NewWorkItem]) -> list[int]:
        """Their ids, ascending."""

    def due(self, revision: int, until_us: int, limit: int, *, shared: bool = False) -> list[bytes]:
        """Profiles whose timer is due, earliest first. `shared`: lock them, skipping those another worker holds."""

    def lock_identity(self) -> None:
        """Take the exclusive lock on identity, until commit."""

    def share_identity(self) -> None:
        """Share identity with workers that lock the tokens they change, not with `lock_identity`. Sets a savepoint."""

    def lock_tokens(self, kinds: Mapping[bytes, str], tokens: Collection[bytes]) -> None:
        """Lock the rows of `tokens` in ascending order, until commit. Missing rows of `kinds` are created first.

        A row created this way has NO_RECEIPT and no profile.
        """

    def unlock_tokens(self) -> None:
        """Return to the savepoint of `share_identity`, to lock more tokens in order."""

    def building(self) -> list[int]:
        """Revisions that are being built."""

    def owners(self, identifier_sets: Iterable[bytes]) -> dict[bytes, bytes]:
        """Identifier set -> profile id, for those that have one."""

    def evidence(self, identifier_sets: Iterable[bytes]) -> list[EvidenceRow]: ...

    def evidence_of_tokens(self, tokens: Iterable[bytes]) -> list[EvidenceRow]: ...

    def evidence_of_profiles(self, profile_ids: Iterable[bytes]) -> list[tuple[bytes, bytes]]:
        """(profile id, identifier set) pairs."""

    def lock_order_sets(self, order_keys: Iterable[bytes], moved: Iterable[bytes]) -> list[OrderSetOwner]:
        """Lock the order sets of these orders, and of those that `moved` identifier sets hold or sent something about.

        Ascending, until commit; read after the wait.
        """

    def holders(self, order_keys: Iterable[bytes]) -> list[HolderOwner]:
        """Everybody who has these orders, without evidence that is not decided yet."""

    def save_order_owners(self, rows: Sequence[tuple[bytes, bytes | None, bool]]) -> None:
        """Store (order set, profile id, matched)."""

    def tokens(self, tokens: Iterable[bytes]) -> list[TokenRow]: ...

    def tokens_of_profiles(self, profile_ids: Iterable[bytes]) -> list[TokenRow]: ...

    def save_tokens(self, rows: Sequence[TokenRow]) -> None: ...

    def set_owners(self, owners: Mapping[bytes, bytes]) -> None: ...

    def replace_refused(self, identifier_sets: Iterable[bytes], rows: Sequence[tuple[bytes, bytes, str]]) -> None: ...

    def lock_profiles(self, revision: int, profile_ids: Iterable[bytes]) -> dict[bytes, ProfileRow]:
        """Lock rows in ascending order; ids without a row are left out."""

    def try_profiles(self, revision: int, profile_ids: Iterable[bytes]) -> tuple[dict[bytes, ProfileRow], set[bytes]]:
        """As `lock_profiles`, but without waiting; also returns the ids whose rows another worker has locked."""

    def states(self, revision: int, identifier_sets: Iterable[bytes]) -> list[tuple[bytes, bytes]]: ...

    def positions(self, identifier_sets: Iterable[bytes]) -> list[tuple[int, int]]:
        """(partition, offset) of the applied events of identifier sets."""

    def save_profiles(self, revision: int, rows: Sequence[ProfileRow]) -> None: ...

    def delete_profiles(self, revision: int, profile_ids: Iterable[bytes]) -> None:
        """Delete profiles, with their memberships and orders."""

    def laid_off(
        self, revision: int, identifier_sets: Iterable[bytes], after: Mapping[int, int], joined: Iterable[bytes]
    ) -> list[LaidOff]:
        """What was laid off from these identifier sets' states after these ids, and all of it for the `joined` ones."""

    def awaiting_refold(self, revision: int, identifier_sets: Iterable[bytes]) -> set[bytes]:
        """Those identifier sets whose states are still to be folded again, so some entries may not be laid off yet."""

    def order_nodes(
        self, revision: int, profile_id: bytes, nodes: Collection[int], leaves: Collection[int]
    ) -> list[NodeRow]:
        """Those of these nodes that are stored; with `maps` only for the root and `leaves`."""

    def save_order_nodes(self, revision: int, profile_id: bytes, rows: Sequence[NodeRow]) -> None: ...

    def delete_order_nodes(self, revision: int, profile_ids: Iterable[bytes]) -> None: ...

    def ended_versions(self, profile_ids: Iterable[bytes]) -> dict[bytes, int]:
        """The last versions of profiles that once ended."""

    def save_ended(self, versions: Mapping[bytes, int]) -> None: ...

    def change_memberships(
        self,
        revision: int,
        entered: Sequence[tuple[int, bytes, int | None]],
        left: Sequence[tuple[int, bytes]],
    ) -> None:
        """Insert (segment index, profile id, since); delete (segment index, profile id)."""

    def add_changes(self, changes: Sequence[Change]) -> None: ...

    def mark_search(self, profile_ids: Iterable[bytes], acting: Collection[bytes] = ()) -> None:
        """Queue profiles whose names or identifiers changed, or that are gone, for the search indexer.

        `acting`: those that are active now; they go before those of a history being loaded.
        """

    def count_segment_days(self, counts: Mapping[tuple[str, str], tuple[int, int]]) -> None:
        """Add (segment, ISO day) -> (entered, left) to the stored counts."""


class ProjectionStore(Protocol):
    """Opens both kinds of transaction. Each commits when its block ends and rolls back when it raises."""

    def fold(self) -> AbstractContextManager[FoldTx]: ...

    def decide(self) -> AbstractContextManager[DecideTx]: ...

    def number_feed(self) -> int:
        """Number the committed feed batches that have no number yet, in order; returns how many."""

    def close(self) -> None:
        """Close its connection."""
