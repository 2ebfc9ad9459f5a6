"""What an erasure is about, and the ports it works through (design C12). Tokens and hashes, never values.

No place holds both of one person: whoever has the folder and its key could guess an address, hash it, and read on
from the hash to the token that the log still carries (decision 0027).
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager
from datetime import date
from typing import Final, NamedTuple, Protocol

import msgspec

from schemas.figures import Counted, FigureTx

STEPS: Final = ("fact", "tokens", "epoch", "letters", "vault", "projections", "ledger", "receipt")
"""In this order; a job's `step` is the last one that is done. Each may be done twice."""


class Erasure(msgspec.Struct, frozen=True, kw_only=True):
    """One erasure, as its job, its fact and its ledger line hold it. Ids and tokens in hexadecimal.

    The side of the tokens: no hash, and neither the time, the counts nor the id of the receipt, which somebody may
    keep beside a name.
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
    """A token as it stands; `profile_id` is None until it was decided."""

    token: bytes
    kind: str
    is_shared: bool
    profile_id: bytes | None


class Seen(NamedTuple):
    """A signature's evidence: what was seen together, when first, and whose it is."""

    identifier_set: bytes
    tokens: tuple[tuple[str, bytes], ...]  # (kind, token)
    first_us: int
    first_event: bytes
    profile_id: bytes | None


class SealedDeadLetter(NamedTuple):
    """A dead letter under a daily key. The additional data of its seal is its id."""

    id: bytes
    key: bytes
    data: bytes


class Receipt(NamedTuple):
    """What a surviving token's row must say of its receipts."""

    token: bytes
    first: tuple[int, bytes]
    last: tuple[int, bytes]


class Remains(NamedTuple):
    """Where the storage below us may still hold what was deleted, sealed under the master key, and until when."""

    where: str  # vault_table, wal, replicas, wal_archive, backups
    until: str


class ErasureReads(Protocol):
    """What an erasure looks at, in one transaction."""

    def owners(self, tokens: Iterable[bytes]) -> list[TokenOwner]: ...

    def members(self, profile_ids: Iterable[bytes]) -> list[TokenOwner]: ...

    def evidence_of(self, tokens: Iterable[bytes]) -> list[Seen]:
        """All evidence that holds one of the tokens."""

    def nobodys(self, routes: Iterable[bytes]) -> set[bytes]:
        """The signatures that an erasure took from their owner and whose events are sealed under one of these."""

    def events_of(self, identifier_sets: Iterable[bytes]) -> dict[bytes, int]:
        """How many applied events each has; one without any is left out."""

    def refused(self, tokens: Iterable[bytes], identifier_sets: Iterable[bytes]) -> list[tuple[bytes, bytes]]:
        """(signature, token) of the refused links of these signatures, or to these tokens."""


class ErasureWrites(ErasureReads, FigureTx, Protocol):
    """What it deletes, in one transaction that no FOLD, DECIDE or other erasure overlaps where it matters."""

    def time_zone(self) -> str:
        """The deployment's."""

    def counted(self, profile_ids: Collection[bytes]) -> dict[int, list[Counted]]:
        """By revision, those of the profiles that the overview's figures count."""

    def delete_states(self, identifier_sets: Collection[bytes]) -> None:
        """In every revision."""

    def delete_profiles(self, profile_ids: Collection[bytes]) -> list[tuple[bytes, int]]:
        """With memberships, in every revision; returns (profile id, next version) of those ever published."""

    def empty_evidence(self, identifier_sets: Collection[bytes], routes: Mapping[bytes, bytes]) -> None:
        """The row stays, so that its events stay joinable: no tokens, no owner. Their orders count as nobody's.

        `routes`: of those whose events can still be read, the token they are sealed under, for `nobodys`.
        """

    def strip_evidence(self, rows: Sequence[Seen]) -> None:
        """Store tokens and owner of these."""

    def delete_tokens(self, tokens: Collection[bytes]) -> None:
        """With what links them, and dead letters that name them."""

    def delete_token_rows(self, tokens: Collection[bytes]) -> None:
        """Of tokens that no evidence holds any more."""

    def clear_shared(self, tokens: Collection[bytes]) -> None:
        """They are hubs no more; whose they are then is for DECIDE."""

    def set_receipts(self, rows: Sequence[Receipt]) -> None: ...

    def mark_identity(self, identifier_sets: Collection[bytes]) -> None: ...

    def add_erased_changes(self, profiles: Sequence[tuple[bytes, int]], at_us: int) -> None: ...

    def not_past(self, job_ids: Sequence[str], step: str) -> set[str]:
        """Of these jobs those that have not done more than this step; nobody else advances them meanwhile."""

    def advance(self, job_ids: Sequence[str], step: str) -> None: ...


class ErasureStore(Protocol):
    """The main database's part. Every method commits what it did before it returns."""

    def check_rights(self) -> None:
        """Raises RightsMissing where the account may not do one of the steps."""

    def reading(self) -> AbstractContextManager[ErasureReads]: ...

    def begin(self, make: Callable[[ErasureReads], Sequence[Erasure]]) -> Sequence[Erasure]:
        """Plan and record jobs and facts, while no FOLD and no identity decision is under way."""

    def add_jobs(self, erasures: Sequence[Erasure]) -> None:
        """Jobs at their first step, where they are not there: erasures that a restore has undone."""

    def open_jobs(self) -> list[Job]: ...

    def name_tokens(self, erasures: Sequence[Erasure]) -> None:
        """Commit `erased_tokens`, alone with respect to FOLD, and the step."""

    def advance(self, job_ids: Sequence[str], step: str, finished_on: date | None = None) -> None: ...

    def dead_letters_without_tokens(self, after: bytes, limit: int) -> list[SealedDeadLetter]: ...

    def delete_dead_letters(self, ids: Sequence[bytes]) -> None: ...

    def writing(self) -> AbstractContextManager[ErasureWrites]: ...

    def number_feed(self) -> None: ...

    def clean(self) -> None:
        """As the vault's: of the deleted rows of the search index."""

    def not_named(self, tokens: Collection[bytes]) -> AbstractSet[bytes]:
        """Those that are not in `erased_tokens`."""


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
        """Add the hashes of each of these people to the list of the suppressed."""

    def unsuppress(self, hashed: bytes) -> bool:
        """Take whoever has this hash from the list, with all of theirs; False where it is not on it."""

    def suppressed(self) -> dict[bytes, bytes]:
        """The whole list: hash -> a random mark that the hashes of one person share."""

    def add_suppressed(self, marks: Mapping[bytes, bytes]) -> None:
        """Put back hashes, with their marks, that a restore has undone."""

    def forget_everywhere(self, deadline_s: float) -> None:
        """A new epoch; returns when every lease was renewed in it or has expired. Raises StoreUnavailable."""

    def destroy(self, tokens: Collection[bytes]) -> None:
        """Delete the rows, so that nobody can read them; returns when no process remembers one."""

    def clean(self) -> None:
        """Of what PostgreSQL keeps of deleted rows remove what can be; `remains` is the rest. Once for many."""

    def remains(self) -> list[Remains]:
        """Where deleted rows may still be after `clean`."""


class Ledger(Protocol):
    """Outside of every database, so that no restore overwrites it: what was erased, and who is suppressed."""

    def append(self, erasures: Sequence[Erasure]) -> None:
        """Durable when it returns; a repeat is left out."""

    def read(self) -> list[Erasure]: ...

    def keep_suppressed(self, marks: Mapping[bytes, bytes]) -> None:
        """Replace the list; durable when it returns."""

    def suppressed(self) -> dict[bytes, bytes]: ...
