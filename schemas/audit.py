"""The audit log's chain: each entry's hash covers the one before it, under a key; and its end as the ledger notes it.

Pure. Who has the database and not the vault's key can neither write an entry nor take one out unseen.
"""

import hmac
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import blake2b, sha256
from typing import Any, Final, NamedTuple

FIRST: Final = bytes(32)  # what stands before the first entry
HEAD: Final = "audit_head"


class Entry(NamedTuple):
    """What an entry says. `detail`: as `detail_text` writes it."""

    at: datetime
    who: str
    role: str
    action: str
    profile_id: bytes | None
    detail: str

    def content(self) -> bytes:
        """The bytes that are hashed."""
        profile = b"" if self.profile_id is None else self.profile_id
        parts = [self.at.isoformat(), self.who, self.role, self.action, profile.hex(), self.detail]
        return json.dumps(parts).encode()


class Head(NamedTuple):
    """The end of the chain at a moment. `hash`: 32 bytes of the entry `seq`."""

    seq: int
    hash: bytes
    at: datetime


def audit_key(hash_key: bytes) -> bytes:
    """The key of the chain, of the vault's key: the master key wraps that one, so a new master key changes nothing."""
    return blake2b(hash_key, digest_size=32, person=b"tf-audit-key").digest()


def keyed_hash(key: bytes, last: bytes, entry: Entry) -> bytes:
    """The hash of an entry that comes after one with the hash `last`."""
    return hmac.digest(key, last + entry.content(), "sha256")


def plain_hash(last: bytes, entry: Entry) -> bytes:
    """As entries were hashed before the chain had a key. Counts only before the first one with a keyed hash."""
    return sha256(last + entry.content()).digest()


def head_code(key: bytes, head: Head) -> bytes:
    """What proves that we wrote a head: 32 bytes."""
    return hmac.digest(key, f"{HEAD} {head.seq} {head.hash.hex()} {head.at.isoformat()}".encode(), "sha256")


def detail_text(detail: Mapping[str, Any]) -> str:
    """An entry's detail as it is stored and hashed."""
    return json.dumps(detail, sort_keys=True, separators=(",", ":"))


def storable(value: object) -> object:
    """A value that jsonb gives back as it was: no NUL, no half of a surrogate pair, no fraction."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, list | tuple | set | frozenset):
        return [storable(each) for each in value]
    return str(value).encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def compared(heads: Sequence[Head], hashes: Mapping[int, bytes]) -> list[str]:
    """What the ledger's heads say against the chain, in words. `hashes`: of the entries with the heads' numbers."""
    problems = []
    for head in sorted(heads):
        found = hashes.get(head.seq)
        if found is None:
            problems.append(f"entry {head.seq} is missing: the ledger knows it since {head.at.isoformat()}")
        elif found != head.hash:
            problems.append(f"entry {head.seq} is not the one that the ledger knows since {head.at.isoformat()}")
    return problems[-1:]  # the newest says it all: each covers what was before
