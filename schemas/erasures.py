"""The data of an erasure, and the ports it works through (design C12). Tokens and hashes, never values.

No place holds both the token and the hash of a person: anyone with the folder and its key could guess an address, hash
it, and get from the hash to the token that the log still carries (decision 0027).
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager
from datetime import date
from typing import Final, NamedTuple, Protocol

import msgspec

from schemas.figures import Counted, FigureTx

STEPS: Final = ("fact", "tokens", "epoch", "letters", "vault", "projections", "ledger", "receipt")
"""In this order; a job's `step` is the last one completed. Each step may be repeated."""


class Erasure(msgspec.Struct, frozen=True, kw_only=True):
    """One erasure, as its job, its fact and its ledger line hold it. Ids and tokens in hexadecimal.

    The token side only: no hash, and not the time, the counts or the id of the receipt, because somebody may keep the
    receipt next to a name.
    """

    id: str
    on: date  # UTC
    tokens: list[str]
    profiles: list[str]  # profile ids that end

    def token_bytes(self) -> list[bytes]:
        return [bytes.fromhex(token) for token in self.tokens]


class Job(NamedTuple):
    erasure: Erasure
    step: str


class TokenOwner(NamedTuple):
    """A token's current state; `profile_id` is None until it has been decided."""

    token: bytes
    kind: str
    is_shared: bool
    profile_id: bytes | None


class Seen(NamedTuple):
    """The evidence of an identifier set: what was seen together, when first, and its owner."""

    identifier_set: bytes
    tokens: tuple[tuple[str, bytes], ...]  # (kind, token)
    first_us: int
    first_place: bytes
    profile_id: bytes | None


class SealedDeadLetter(NamedTuple):
    """A dead letter under a daily key. The additional data of its seal is its id."""

    id: bytes
    key: bytes
    data: bytes


class Receipt(NamedTuple):
    """The first and last receipt that a surviving token's row must have."""

    token: bytes
    first: tuple[int, bytes]
    last: tuple[int, bytes]


class Remains(NamedTuple):
    """Where the underlying storage may still hold deleted data, sealed under the master key, and until when."""

    where: str  # vault_table, wal, replicas, wal_archive, backups
    until: str


class ErasureReads(Protocol):
    """What an erasure reads, in one transaction."""

    def owners(self, tokens: Iterable[bytes]) -> list[TokenOwner]: ...

    def members(self, profile_ids: Iterable[bytes]) -> list[TokenOwner]: ...

    def evidence_of(self, tokens: Iterable[bytes]) -> list[Seen]:
        """All evidence that holds one of the tokens."""

    def nobodys(self, routes: Iterable[bytes]) -> set[bytes]:
        """The identifier sets that lost their owner to an erasure, with events sealed under one of these tokens."""

    def events_of(self, identifier_sets: Iterable[bytes]) -> dict[bytes, int]:
        """How many applied events each has; those without any are left out."""

    def order_routes(self, profile_ids: Iterable[bytes]) -> list[tuple[bytes, bytes]]:
        """(profile id, token) of the events about these profiles' orders that name nobody (decision 0037)."""

    def refused(self, tokens: Iterable[bytes], identifier_sets: Iterable[bytes]) -> list[tuple[bytes, bytes]]:
        """(identifier set, token) of the refused links of these identifier sets, or to these tokens."""


class ErasureWrites(ErasureReads, FigureTx, Protocol):
    """What an erasure deletes, in one transaction that excludes FOLD, DECIDE and other erasures where it matters."""

    def time_zone(self) -> str:
        """The deployment's."""

    def counted(self, profile_ids: Collection[bytes]) -> dict[int, list[Counted]]:
        """By revision, the profiles among these that the overview's figures count."""

    def delete_states(self, identifier_sets: Collection[bytes]) -> None:
        """In every revision."""

    def orders_of(self, identifier_sets: Collection[bytes]) -> list[bytes]:
        """The keys of orders with order sets that these hold or said something about."""

    def delete_order_sets(self, senders: Collection[bytes]) -> set[bytes]:
        """Delete what these identifier sets said about orders, in every revision; returns the profiles that had it.

        What named nobody counts as orders without a customer.
        """

    def mark_orders(self, order_keys: Collection[bytes]) -> None: ...

    def mark_profiles(self, profile_ids: Collection[bytes]) -> None:
        """Have these profiles decided again, in every revision."""

    def delete_profiles(self, profile_ids: Collection[bytes]) -> list[tuple[bytes, int]]:
        """Delete profiles and memberships in every revision; returns (profile id, next version) of those published."""

    def empty_evidence(self, identifier_sets: Collection[bytes], routes: Mapping[bytes, bytes]) -> None:
        """Empty identifier sets: the rows stay, without tokens or owner, so that their events can still be joined.

        Their orders count as orders without a customer. `routes`: for those whose events can still be read, the token
        they are sealed under, for `nobodys`.
        """

    def strip_evidence(self, rows: Sequence[Seen]) -> None:
        """Store the tokens and owner of these rows."""

    def delete_tokens(self, tokens: Collection[bytes]) -> None:
        """Delete tokens, with what links them and the dead letters that name them."""

    def delete_token_rows(self, tokens: Collection[bytes]) -> None:
        """Delete the rows of tokens that no evidence holds any more."""

    def clear_shared(self, tokens: Collection[bytes]) -> None:
        """Stop treating these as shared identifiers; DECIDE then finds their owner."""

    def set_receipts(self, rows: Sequence[Receipt]) -> None: ...

    def mark_identity(self, identifier_sets: Collection[bytes]) -> None: ...

    def add_erased_changes(self, profiles: Sequence[tuple[bytes, int]], at_us: int) -> None: ...

    def not_past(self, job_ids: Sequence[str], step: str) -> set[str]:
        """Those of these jobs that are not past this step; locked, so that nobody else advances them."""

    def advance(self, job_ids: Sequence[str], step: str) -> None: ...


class ErasureStore(Protocol):
    """The main database's part. Every method commits before it returns."""

    def check_rights(self) -> None:
        """Raise RightsMissing if the account may not do one of the steps."""

    def reading(self) -> AbstractContextManager[ErasureReads]: ...

    def begin(self, make: Callable[[ErasureReads], Sequence[Erasure]]) -> Sequence[Erasure]:
        """A transaction to plan and record jobs and facts, while no FOLD and no identity decision is running."""

    def add_jobs(self, erasures: Sequence[Erasure]) -> None:
        """Add jobs at their first step if they are missing: erasures that a restore has undone."""

    def open_jobs(self) -> list[Job]: ...

    def name_tokens(self, erasures: Sequence[Erasure]) -> None:
        """Commit `erased_tokens` and the step while no FOLD is running."""

    def advance(self, job_ids: Sequence[str], step: str, finished_on: date | None = None) -> None: ...

    def dead_letters_without_tokens(self, after: bytes, limit: int) -> list[SealedDeadLetter]: ...

    def delete_dead_letters(self, ids: Sequence[bytes]) -> None: ...

    def writing(self) -> AbstractContextManager[ErasureWrites]: ...

    def number_feed(self) -> None: ...

    def clean(self) -> None:
        """As the vault's `clean`, for deleted rows of the search index."""

    def not_named(self, tokens: Collection[bytes]) -> AbstractSet[bytes]:
        """The tokens that are not in `erased_tokens`."""


class ErasureVault(Protocol):
    """The vault's part."""

    def check_rights(self) -> None:
        """As the store's."""

    def hashes(self, tokens: Collection[bytes]) -> dict[bytes, bytes]:
        """The keyed hash of each token that has a row."""

    def find(self, hashes: Collection[bytes]) -> dict[bytes, bytes]:
        """The token of each of these hashes that has a row."""

    def present(self, tokens: Collection[bytes]) -> AbstractSet[bytes]: ...

    def suppress(self, people: Iterable[Collection[bytes]]) -> None:
        """Add the hashes of each of these people to the suppression list."""

    def unsuppress(self, hashed: bytes) -> bool:
        """Take the person with this hash off the list, with all their hashes; False if it is not on the list."""

    def suppressed(self) -> dict[bytes, bytes]:
        """The whole list: hash -> a random mark that the hashes of one person share."""

    def add_suppressed(self, marks: Mapping[bytes, bytes]) -> None:
        """Put back hashes, with their marks, that a restore had removed."""

    def forget_everywhere(self, deadline_s: float) -> None:
        """Start a new epoch; returns once every lease was renewed in it or has expired. Raises StoreUnavailable."""

    def destroy(self, tokens: Collection[bytes]) -> None:
        """Delete the rows so that nobody can read them; returns once no process remembers one."""

    def clean(self) -> None:
        """Remove what can be removed of deleted rows in PostgreSQL; `remains` is the rest. Call once for many rows."""

    def remains(self) -> list[Remains]:
        """Where deleted rows may still exist after `clean`."""


class Ledger(Protocol):
    """What was erased and who is suppressed, outside every database so that no restore overwrites it."""

    def append(self, erasures: Sequence[Erasure]) -> None:
        """Append erasures, durable on return; repeats are left out."""

    def read(self) -> list[Erasure]: ...

    def keep_suppressed(self, marks: Mapping[bytes, bytes]) -> None:
        """Replace the list, durable on return."""

    def suppressed(self) -> dict[bytes, bytes]: ...
