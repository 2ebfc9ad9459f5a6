"""How an object of a backup is sealed: AES-256-GCM under its own key, derived from the backup key by HKDF.

    TFB1 · key id (8) · salt (32) · nonce (12) · ciphertext and tag

The object's name is authenticated too, so that objects cannot be swapped.
"""

import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from infra.adapters.backup.key import ID_BYTES, key_id
from schemas.errors import BackupDamaged, BackupKeyWrong

MAGIC: Final = b"TFB1"
_SALT: Final = 32
_NONCE: Final = 12
_HEAD: Final = len(MAGIC) + ID_BYTES + _SALT + _NONCE


def seal_object(key: bytes, name: str, plain: bytes) -> bytes:
    """The bytes to store under `name`."""
    id_, salt, nonce = key_id(key), os.urandom(_SALT), os.urandom(_NONCE)
    return b"".join((MAGIC, id_, salt, nonce, _cipher(key, salt).encrypt(nonce, plain, id_ + name.encode())))


def open_object(key: bytes, name: str, data: bytes) -> bytes:
    """The inverse. Raises BackupKeyWrong for another key, BackupDamaged naming the object for any altered byte."""
    id_, rest = data[len(MAGIC) : len(MAGIC) + ID_BYTES], data[len(MAGIC) + ID_BYTES :]
    salt, nonce, sealed = rest[:_SALT], rest[_SALT : _SALT + _NONCE], rest[_SALT + _NONCE :]
    try:
        if len(data) < _HEAD or not data.startswith(MAGIC):
            raise InvalidTag
        return _cipher(key, salt).decrypt(nonce, sealed, id_ + name.encode())
    except InvalidTag as err:
        if data.startswith(MAGIC) and id_ != key_id(key):
            raise BackupKeyWrong(
                f"{name} was sealed with another backup key ({id_.hex()}; this one is {key_id(key).hex()}), or its "
                "first bytes were altered: give the right key in TOUCHFOLD_BACKUP_KEY"
            ) from err
        raise BackupDamaged(f"{name} is damaged: it cannot be opened") from err


def _cipher(key: bytes, salt: bytes) -> AESGCM:
    return AESGCM(HKDF(SHA256(), 32, salt, b"touchfold backup object").derive(key))
