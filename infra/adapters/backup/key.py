"""The key that seals backups: from the environment, or the file backup.key of the data folder. Never the master key."""

import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Final

from infra.adapters.vault.master_key import key_of, make_key
from schemas.errors import BackupKeyWrong

NAME: Final = "backup.key"
ID_BYTES: Final = 8


def backup_key(folder: Path, configured: str | None) -> bytes:
    """The existing key. `configured`: TOUCHFOLD_BACKUP_KEY. Raises BackupKeyWrong if it is missing or not a key."""
    if configured:
        return _parsed(configured, "TOUCHFOLD_BACKUP_KEY")
    path = folder / NAME
    try:
        return _parsed(path.read_text(encoding="ascii", errors="replace"), NAME)
    except FileNotFoundError as err:
        raise BackupKeyWrong(
            f"there is no backup key: set TOUCHFOLD_BACKUP_KEY (or TOUCHFOLD_BACKUP_KEY_FILE), or put {NAME} into "
            f"{folder}; what it sealed cannot be opened without it"
        ) from err
    except OSError as err:
        raise BackupKeyWrong(f"the backup key {path} cannot be read ({err.strerror})") from err


def backup_key_or_new(folder: Path, configured: str | None, say: Callable[[str], None]) -> bytes:
    """The same; created if there is none, with a prominent notice."""
    if configured or os.path.lexists(folder / NAME):
        return backup_key(folder, configured)
    key = make_key(folder / NAME)
    say(
        f"a backup key was created: {folder / NAME}. Copy it to another place NOW, away from this machine and from the "
        "backups: without it the backups are useless, and with it anybody who has a backup can read it"
    )
    return key


def key_id(key: bytes) -> bytes:
    """Identifies the key without revealing anything about it."""
    return sha256(b"touchfold backup key" + key).digest()[:ID_BYTES]


def _parsed(text: str, where: str) -> bytes:
    key = key_of(text)
    if key is None:
        raise BackupKeyWrong(f"{where} is not a backup key: it must be 64 hex digits, or base64 of 32 bytes")
    return key
