"""Dead letters: what could not be taken or folded, set aside whole under a seal, with why and where."""

from datetime import datetime
from hashlib import blake2b
from typing import NamedTuple

from schemas.ports import Sealer


class DeadLetter(NamedTuple):
    """One item or record set aside. `sealed`: AES-256-GCM under `seal_key`, bound to `id`; it opens to JSON.

    The JSON of stage "door" is `{"item", "sent_at", "received_at", "historical", "trusted_clock"}`, or `{"bytes":
    base64}` where it was no JSON. `tokens`: whose data is inside, as far as known; without any, `seal_key` is the
    token of a daily key that lives 30 days.
    """

    id: bytes  # 16; a hash of the content, so that a repeat is one row
    stage: str  # "door", "fold", …
    rule: str
    path: str  # dotted; "" for the whole
    reason: str  # never a person's data
    source: str
    received_at: datetime
    event_id: bytes | None  # the event key where the sender gave a message id
    tokens: tuple[bytes, ...]
    seal_key: bytes
    sealed: bytes


def letter_id(secret: bytes, stage: str, source: str, content: bytes) -> bytes:
    """The 128-bit id of a dead letter: a keyed hash (the vault's key), for contents may be guessable."""
    head = f"{stage}\0{source}\0".encode()
    return blake2b(head + content, digest_size=16, key=secret, person=b"tf-dead-letter").digest()


def seal_letter(
    sealer: Sealer,
    id_: bytes,
    stage: str,
    rule: str,
    path: str,
    reason: str,
    source: str,
    received_at: datetime,
    event_id: bytes | None,
    tokens: tuple[bytes, ...],
    seal_key: bytes,
    plain: bytes,
) -> DeadLetter:
    """A dead letter around `plain`, sealed under `seal_key` (one of `tokens`, or a daily key)."""
    sealed = sealer.seal(seal_key, plain, id_)
    return DeadLetter(id_, stage, rule, path, reason, source, received_at, event_id, tokens, seal_key, sealed)
