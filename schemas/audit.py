"""The audit log's hash chain: each keyed hash covers the entry before it, and the ledger records the chain's end.

Pure. Anyone who has the database but not the vault's key can neither add an entry nor remove one unnoticed.
"""

import hmac
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import blake2b, sha256
from typing import Any, Final, NamedTuple

FIRST: Final = bytes(32)  # the "previous hash" of the first entry
HEAD: Final = "audit_head"


class Entry(NamedTuple):
    """The content of an entry. `detail`: as `detail_text` writes it."""

    at: datetime
    who: str
    role: str
    action: str
    profile_id: bytes | None
    detail: str

    def content(self) -> bytes:
        """The bytes to hash."""
        profile = b"" if self.profile_id is None else self.profile_id
        parts = [self.at.isoformat(), self.who, self.role, self.action, profile.hex(), self.detail]
        return json.dumps(parts).encode()


class Head(NamedTuple):
    """The end of the chain at one moment. `hash`: the 32-byte hash of the entry `seq`."""

    seq: int
    hash: bytes
    at: datetime


def audit_key(hash_key: bytes) -> bytes:
    """The chain's key, derived from the vault's key, which the master key wraps: a new master key changes nothing."""
    return blake2b(hash_key, digest_size=32, person=b"tf-audit-key").digest()


def keyed_hash(key: bytes, last: bytes, entry: Entry) -> bytes:
    """The hash of an entry that follows one with the hash `last`."""
    return hmac.digest(key, last + entry.content(), "sha256")


def plain_hash(last: bytes, entry: Entry) -> bytes:
    """The unkeyed hash of older entries; valid only before the first entry with a keyed hash."""
    return sha256(last + entry.content()).digest()


def head_code(key: bytes, head: Head) -> bytes:
    """The 32 bytes that prove we wrote a head."""
    return hmac.digest(key, f"{HEAD} {head.seq} {head.hash.hex()} {head.at.isoformat()}".encode(), "sha256")


def detail_text(detail: Mapping[str, Any]) -> str:
    """An entry's detail as it is stored and hashed."""
    return json.dumps(detail, sort_keys=True, separators=(",", ":"))


def storable(value: object) -> object:
    """A value that survives a round trip through jsonb: no NUL, no lone surrogate, no fraction."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, list | tuple | set | frozenset):
        return [storable(each) for each in value]
    return str(value).encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def compared(heads: Sequence[Head], hashes: Mapping[int, bytes]) -> list[str]:
    """Where the chain contradicts the ledger's heads, in words. `hashes`: entry number -> hash, for the heads."""
    problems = []
    for head in sorted(heads):
        found = hashes.get(head.seq)
        if found is None:
            problems.append(f"entry {head.seq} is missing: the ledger recorded it at {head.at.isoformat()}")
        elif found != head.hash:
            problems.append(f"entry {head.seq} is not the one the ledger recorded at {head.at.isoformat()}")
    return problems[-1:]  # the newest is enough: each entry covers all before it
