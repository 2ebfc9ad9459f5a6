"""What an erasure is about, and the ports it works through (design C12). Tokens and hashes, never values."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Final, NamedTuple, Protocol

import msgspec

from schemas.figures import Counted, FigureTx

STEPS: Final = ("fact", "tokens", "epoch", "letters", "vault", "projections", "receipt")
"""In this order; a job's `step` is the last one that is done. Each may be done twice."""


class Erasure(msgspec.Struct, frozen=True, kw_only=True):
    """One erasure, as its job, its fact and its ledger line hold it. Ids, tokens and hashes in hexadecimal."""

    id: str
    at: datetime
    tokens: list[str]
    hashes: list[str]  # keyed hashes of the identifiers in the vault, same order not promised
    profiles: list[str]  # profile ids that end
    kinds: dict[str, int]  # identifiers by kind
    events: int
    suppress: bool = False

    def token_bytes(self) -> list[bytes]:
        return [bytes.fromhex(token) for token in self.tokens]

    def hash_bytes(self) -> list[bytes]:
        return [bytes.fromhex(hashed) for hashed in self.hashes]


class Job(NamedTuple):
    erasure: Erasure
    step: str


class TokenOwner(NamedTuple):
    """A token as it stands; `profile_id` is None until it was decided."""

    token: bytes
    kind: str
    hub: bool
    profile_id: bytes | None


class Seen(NamedTuple):
    """A signature's evidence: what was seen together, when first, and whose it is."""

    signature: bytes
    tokens: tuple[tuple[str, bytes], ...]  # (kind, token)
    first_us: int
    first_event: bytes
    profile_id: bytes | None


class SealedLetter(NamedTuple):
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

    def count_events(self, signatures: Iterable[bytes]) -> int: ...

    def count_refused(self, tokens: Iterable[bytes], signatures: Iterable[bytes]) -> int:
        """Refused links of these signatures, or to these tokens."""


class ErasureWrites(ErasureReads, FigureTx, Protocol):
    """What it deletes, in one transaction that no FOLD, DECIDE or other erasure overlaps where it matters."""

    def time_zone(self) -> str:
        """The deployment's."""

    def counted(self, profile_ids: Collection[bytes]) -> dict[int, list[Counted]]:
        """By revision, those of the profiles that the overview's figures count."""

    def delete_states(self, signatures: Collection[bytes]) -> None:
        """In every revision."""

    def delete_profiles(self, profile_ids: Collection[bytes]) -> list[tuple[bytes, int]]:
        """With memberships, in every revision; returns (profile id, next version) of those ever published."""

    def empty_evidence(self, signatures: Collection[bytes], routes: Mapping[bytes, bytes]) -> None:
        """The row stays, so that its events stay joinable: no tokens, no owner. Their orders count as nobody's.

        `routes`: of those whose events can still be read, the token they are sealed under, for `nobodys`.
        """

    def strip_evidence(self, rows: Sequence[Seen]) -> None:
        """Store tokens and owner of these."""

    def delete_tokens(self, tokens: Collection[bytes]) -> None:
        """With what links them, and dead letters that name them."""

    def delete_token_rows(self, tokens: Collection[bytes]) -> None:
        """Of tokens that no evidence holds any more."""

    def clear_hubs(self, tokens: Collection[bytes]) -> None:
        """They are hubs no more; whose they are then is for DECIDE."""

    def set_receipts(self, rows: Sequence[Receipt]) -> None: ...

    def mark_identity(self, signatures: Collection[bytes]) -> None: ...

    def add_erased_changes(self, profiles: Sequence[tuple[bytes, int]], at_us: int) -> None: ...

    def advance(self, job_id: str, step: str) -> None: ...


class ErasureStore(Protocol):
    """The main database's part. Every method commits what it did before it returns."""

    def check_rights(self) -> None:
        """Raises RightsMissing where the account may not do one of the steps."""

    def reading(self) -> AbstractContextManager[ErasureReads]: ...

    def begin(self, make: Callable[[ErasureReads], Erasure]) -> Erasure:
        """Plan and record job and fact, while no FOLD and no identity decision is under way."""

    def add_job(self, erasure: Erasure) -> None:
        """A job at its first step, if it is not there: an erasure that a restore has undone."""

    def open_jobs(self) -> list[Job]: ...

    def name_tokens(self, erasure: Erasure) -> None:
        """Commit `erased_tokens`, alone with respect to FOLD, and the step."""

    def advance(self, job_id: str, step: str, finished_at: datetime | None = None) -> None: ...

    def letters_without_tokens(self, after: bytes, limit: int) -> list[SealedLetter]: ...

    def delete_letters(self, ids: Sequence[bytes]) -> None: ...

    def writing(self) -> AbstractContextManager[ErasureWrites]: ...

    def number_feed(self) -> None: ...

    def not_named(self, tokens: Collection[bytes]) -> AbstractSet[bytes]:
        """Those that are not in `erased_tokens`."""

    def hashes_of_erasures_with(self, hashed: bytes) -> set[bytes]:
        """All hashes of the erasures one of whose hashes this is."""


class ErasureVault(Protocol):
    """The vault's part."""

    def check_rights(self) -> None:
        """As the store's."""

    def hashes(self, tokens: Collection[bytes]) -> list[bytes]: ...

    def present(self, tokens: Collection[bytes]) -> AbstractSet[bytes]: ...

    def suppress(self, hashes: Collection[bytes], at: datetime) -> None: ...

    def unsuppress(self, hashes: Collection[bytes]) -> int: ...

    def forget_everywhere(self, deadline_s: float) -> None:
        """A new epoch; returns when every lease was renewed in it or has expired. Raises StoreUnavailable."""

    def destroy(self, tokens: Collection[bytes]) -> None:
        """Delete the rows, and of what PostgreSQL keeps of them what can be; `remains` is the rest."""

    def remains(self) -> list[Remains]:
        """Where deleted rows may still be after `destroy`."""


class Ledger(Protocol):
    """Outside of every database, so that no restore overwrites it."""

    def append(self, erasure: Erasure, sha256: str) -> None:
        """Durable when it returns; a repeat is left out."""

    def read(self) -> list[Erasure]: ...
