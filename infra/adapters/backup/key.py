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
    """The key there is. `configured`: TOUCHFOLD_BACKUP_KEY. Raises BackupKeyWrong: there is none, or it is no key."""
    if configured:
        return _parsed(configured, "TOUCHFOLD_BACKUP_KEY")
    path = folder / NAME
    try:
        return _parsed(path.read_text(encoding="ascii", errors="replace"), NAME)
    except FileNotFoundError as err:
        raise BackupKeyWrong(
            f"there is no backup key: set TOUCHFOLD_BACKUP_KEY (or TOUCHFOLD_BACKUP_KEY_FILE), or put {NAME} into "
            f"{folder}; what it has sealed cannot be opened without it"
        ) from err
    except OSError as err:
        raise BackupKeyWrong(f"the backup key {path} cannot be read ({err.strerror})") from err


def backup_key_or_new(folder: Path, configured: str | None, say: Callable[[str], None]) -> bytes:
    """The same; made where there is none, and said loudly."""
    if configured or os.path.lexists(folder / NAME):
        return backup_key(folder, configured)
    key = make_key(folder / NAME)
    say(
        f"a backup key was made: {folder / NAME}. Copy it to another place NOW, away from this machine and from the "
        "backups: whoever loses it has no backup, and whoever finds it beside a backup can read that"
    )
    return key


def key_id(key: bytes) -> bytes:
    """By which a key is recognised; tells nothing of it."""
    return sha256(b"touchfold backup key" + key).digest()[:ID_BYTES]


def _parsed(text: str, where: str) -> bytes:
    key = key_of(text)
    if key is None:
        raise BackupKeyWrong(f"{where} is not a backup key: it must be 64 hex digits, or base64 of 32 bytes")
    return key
