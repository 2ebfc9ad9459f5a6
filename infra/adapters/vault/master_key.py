"""The master key: from the environment, or a file in the data folder created at first start. Never created twice."""

import base64
import binascii
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Final

from infra.adapters.machine.durable_files import sync_folder
from infra.adapters.machine.private_files import make_folder
from schemas.errors import MasterKeyWrong

NAME: Final = "master.key"
BYTES: Final = 32


def master_key(folder: Path, configured: str | None, vault_is_new: Callable[[], bool]) -> bytes:
    """The 32 bytes that unlock the vault. `configured`: TOUCHFOLD_MASTER_KEY, 64 hex digits or base64.

    Without it, the file `master.key` in the data folder; created only if there is none and `vault_is_new()`.
    Raises MasterKeyWrong for an unreadable key, or a lost one (a vault with data, and no key).
    """
    if configured:
        return parse(configured, "TOUCHFOLD_MASTER_KEY")
    path = folder / NAME
    if os.path.lexists(path):
        return read_key(folder)
    if not vault_is_new():
        raise MasterKeyWrong(
            f"the master key is lost: {path} does not exist and TOUCHFOLD_MASTER_KEY is not set, but the vault holds "
            "data that only that key opens. Put the file back from its backup; a new key is never created for old data"
        )
    return make_key(path)


def read_key(folder: Path) -> bytes:
    """The key in the file `master.key`. Raises MasterKeyWrong if it is missing, unreadable or not a key."""
    path = folder / NAME
    try:
        text = path.read_text(encoding="ascii", errors="replace")
    except OSError as err:
        raise MasterKeyWrong(
            f"the master key {NAME} cannot be read ({err.strerror}): put the file back from its backup, readable by "
            "the account that runs touchfold; without it every personal value is lost"
        ) from err
    return parse(text, NAME)


def parse(text: str, where: str) -> bytes:
    """32 bytes from 64 hex digits or base64 (either alphabet). Raises MasterKeyWrong naming `where`."""
    key = key_of(text)
    if key is None:
        raise MasterKeyWrong(f"{where} is not a master key: it must be 64 hex digits, or base64 of 32 bytes")
    return key


def key_of(text: str) -> bytes | None:
    """32 bytes from 64 hex digits or base64; None if it is neither."""
    text = text.strip()
    try:
        key = bytes.fromhex(text) if len(text) == 2 * BYTES else _base64(text)
    except (ValueError, binascii.Error):
        return None
    return key if len(key) == BYTES else None


def replace_key(path: Path, key: bytes) -> None:
    """Replace a key by another: 0600, atomic, durable when it returns."""
    making = path.with_name(f"{path.name}.{os.getpid()}.making")
    making.unlink(missing_ok=True)
    _write(making, key)
    making.rename(path)
    sync_folder(path.parent)


def _base64(text: str) -> bytes:
    text = text.replace("-", "+").replace("_", "/")
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)


def make_key(path: Path) -> bytes:
    """Write a new key, 0600, durable before its name exists; if two processes do so, the first one's key counts."""
    make_folder(path.parent)
    key = secrets.token_bytes(BYTES)
    making = path.with_name(f"{path.name}.{os.getpid()}.making")
    _write(making, key)
    try:
        os.link(making, path)  # unlike rename, fails if it exists
    except FileExistsError:
        key = parse(path.read_text(encoding="ascii"), str(path))
    making.unlink()
    sync_folder(path.parent)
    return key


def _write(path: Path, key: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(handle, key.hex().encode() + b"\n")
        os.fsync(handle)
    finally:
        os.close(handle)
