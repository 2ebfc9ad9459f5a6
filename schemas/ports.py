"""The ports: what the rooms need from stores, keys and clocks. Adapters in `infra/adapters` implement them.

They deal in records, offsets, tokens and bytes; no port knows a projection by name.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple, Protocol

from schemas.record import Pending, Stored


class Clock(Protocol):
    """The source of time; the only one outside the adapters."""

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
        """Rises when the log was restored or replaced; positions of different generations are not comparable."""

    def append(self, batch: Sequence[Pending]) -> list[tuple[int, int]]:
        """Append records; durable on return. Returns the (partition, offset) of each, in order.

        A repeat is a second record. After StoreUnavailable none, some or all of the batch is in the log, now or (Kafka)
        by the acknowledgement's deadline. Callers repeat, and the dedup index drops the second copy.
        """

    def read(self, partition: int, start: int, limit: int) -> list[Stored]:
        """At most `limit` records with offset >= `start`, ascending; fewer if they are large; [] at the end."""

    def fetch(self, positions: Iterable[tuple[int, int]]) -> list[Stored]:
        """The records at these (partition, offset), in any order; missing ones are left out."""

    def ends(self) -> list[int]:
        """The offset after the last visible record of each partition."""


SENT_AS_THEY_ARE: Final[Mapping[tuple[str, str], str]] = {}


class OpenIdentifier(NamedTuple):
    """A vault row, opened."""

    token: bytes
    kind: str
    value: str  # the normal form, which only compares
    sent: str = ""  # as it first came, where that is another form

    @property
    def shown(self) -> str:
        """What people are shown."""
        return self.sent or self.value

    @property
    def forms(self) -> list[tuple[str, str]]:
        """(kind, form) of both, for what is found by either."""
        return [(self.kind, form) for form in dict.fromkeys((self.value, self.shown))]


class Vault(Protocol):
    """The store that can forget (design C2). Tokens are 16 random bytes; values are normalised."""

    @property
    def hash_key(self) -> bytes:
        """32 bytes, the key of event keys, digests and identifier hashes; the same for every door."""

    def tokens(
        self, identifiers: Sequence[tuple[str, str]], sent: Mapping[tuple[str, str], str] = SENT_AS_THEY_ARE
    ) -> list[bytes]:
        """The token of each (kind, normalised value), creating new ones. Committed and durable on return.

        `sent`: what was sent for those whose normal form is another. A new row keeps it, an old one its first.
        Cached after commit. Raises StoreUnavailable if the vault is unreachable or its lease has run out.
        """

    def find(self, kind: str, value: str) -> bytes | None:
        """The token of an identifier, or None. Creates nothing."""

    def open(self, tokens: Iterable[bytes]) -> dict[bytes, OpenIdentifier]:
        """Kind and clear value of each token; erased and unknown tokens are left out."""

    def suppressed(self, tokens: Iterable[bytes]) -> set[bytes]:
        """The identifiers among these that the door refuses."""


class Sealer(Protocol):
    """AES-256-GCM under a token's key. `aad` binds the bytes to their event (its 16-byte key)."""

    def seal(self, token: bytes, plain: bytes, aad: bytes) -> bytes:
        """nonce (12) + ciphertext. The token came from `Vault.tokens`."""

    def open_many(self, sealed: Sequence[tuple[bytes, bytes, bytes]]) -> list[bytes | None]:
        """Open (token, data, aad) triples; None where the key was erased.

        Raises KeyMissing if a key is gone without an erasure, SealBroken if bytes do not open.
        """
