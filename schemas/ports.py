"""The ports: what the rooms ask of stores, keys and clocks. Adapters in `infra/adapters` keep these promises.

Nouns are records, offsets, tokens and bytes; no port knows a projection by name.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol

from schemas.record import Pending, Stored


class Clock(Protocol):
    """Where time comes from; the only way anything but an adapter learns it."""

    def now(self) -> datetime:
        """Aware UTC, never going backwards inside a process."""


class EventLog(Protocol):
    """Append-only, ordered per partition (design C13). The reader keeps its own `next_offset`.

    A record becomes visible only when every lower offset of its partition is visible or will never exist.
    """

    @property
    def partitions(self) -> int:
        """How many partitions; fixed for the life of a log generation."""

    @property
    def generation(self) -> int:
        """Rises when the log was restored or replaced: positions of two generations do not compare."""

    def append(self, batch: Sequence[Pending]) -> list[tuple[int, int]]:
        """Place and store; durable when it returns the (partition, offset) of each, in order.

        A repeat is a second record. Raises StoreUnavailable: none, some or all of the batch is in the log, now or
        (Kafka) within the acknowledgement's deadline. Callers repeat; the dedup index drops the second copy.
        """

    def read(self, partition: int, start: int, limit: int) -> list[Stored]:
        """At most `limit` records with offset >= `start`, ascending; [] at the end."""

    def fetch(self, positions: Iterable[tuple[int, int]]) -> list[Stored]:
        """The records at these (partition, offset), in any order; missing ones are left out."""

    def ends(self) -> list[int]:
        """The offset after the last visible record of each partition."""


class OpenIdentifier(NamedTuple):
    """A vault row, opened."""

    token: bytes
    kind: str
    value: str


class Vault(Protocol):
    """The store that can forget (design C2). Tokens are 16 random bytes; values are normalised."""

    @property
    def hash_key(self) -> bytes:
        """32 bytes, the key of event keys, digests and identifier hashes; the same for every door."""

    def tokens(self, identifiers: Sequence[tuple[str, str]]) -> list[bytes]:
        """The token of each (kind, normalised value), new ones made. Committed and durable when it returns.

        Cached after commit. Raises StoreUnavailable when the vault is away or its lease has run out.
        """

    def find(self, kind: str, value: str) -> bytes | None:
        """The token of an identifier, or None. Makes nothing."""

    def open(self, tokens: Iterable[bytes]) -> dict[bytes, OpenIdentifier]:
        """Kind and clear value of each token; erased or unknown ones are left out."""

    def suppressed(self, tokens: Iterable[bytes]) -> set[bytes]:
        """Which of these are refused at the door."""


class Sealer(Protocol):
    """AES-256-GCM under a token's key. `aad` binds the bytes to their event (its 16-byte key)."""

    def seal(self, token: bytes, plain: bytes, aad: bytes) -> bytes:
        """nonce (12) + ciphertext. The token came from `Vault.tokens`."""

    def open_many(self, sealed: Sequence[tuple[bytes, bytes, bytes]]) -> list[bytes | None]:
        """Open (token, data, aad) triples; None where the key was erased.

        Raises KeyMissing when a key is gone that no erasure explains, SealBroken when bytes do not open.
        """
