"""What a vault row holds: an identifier's normal form and what was first sent, each sealed under the row's own key."""

import secrets
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from infra.adapters.vault.sealing import open_sealed, seal
from schemas.errors import SealBroken
from schemas.ports import OpenIdentifier

Row = tuple[bytes, str, bytes, bytes, bytes | None]  # token, kind, wrapped key, sealed value, sealed form first sent


class Made(NamedTuple):
    """A new row, not yet stored; `key` is not wrapped yet. `sent`: None where it is the value."""

    hashed: bytes
    token: bytes
    kind: str
    key: bytes
    value: bytes
    sent: bytes | None


def value_aad(token: bytes) -> bytes:
    """What binds a sealed value to its row."""
    return token + b"value"


def sent_aad(token: bytes) -> bytes:
    """What binds a sealed form first sent to its row."""
    return token + b"sent"


def made_row(hashed: bytes, kind: str, value: str, sent: str | None) -> Made:
    """A row with a random token and key."""
    drawn = secrets.token_bytes(48)
    token, key = drawn[:16], drawn[16:]
    cipher = AESGCM(key)
    first = None if sent is None or sent == value else seal(cipher, sent.encode(), sent_aad(token))
    return Made(hashed, token, kind, key, seal(cipher, value.encode(), value_aad(token)), first)


def opened_row(row: Row, key: bytes) -> OpenIdentifier:
    """Raises SealBroken."""
    token, kind, _, value, sent = row
    cipher = AESGCM(key)
    try:
        plain = open_sealed(cipher, value, value_aad(token)).decode()
        first = "" if sent is None else open_sealed(cipher, sent, sent_aad(token)).decode()
    except InvalidTag as err:
        raise SealBroken(f"the value of vault row {token.hex()} cannot be opened") from err
    return OpenIdentifier(token, kind, plain, first)
