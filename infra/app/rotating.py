"""`touchfold key rotate`: creates a new master key and rewraps all keys with it, while everything keeps running.

An interrupted rotation is continued by whichever comes first: the command again, or the archive process of `up`.
"""

import secrets
import time
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, Final, NamedTuple

from infra.adapters.vault.erasure import PostgresVaultRows
from infra.adapters.vault.keys import KeyRotation, Progress
from infra.adapters.vault.master_key import BYTES, NAME, parse, read_key, replace_key
from infra.app.vault import vault_of
from schemas.errors import Problem, SettingsInvalid

if TYPE_CHECKING:
    from infra.app.session import Session
    from infra.app.settings import Settings

Tell = Callable[[str, int, int], None]
LOOK_S: Final = 10.0
NEXT: Final = "TOUCHFOLD_MASTER_KEY_NEXT"


class Rotated(NamedTuple):
    """`keys`: how many were looked at. `resumed`: it had been started before. `file`: where the new key is, or None."""

    keys: int
    resumed: bool
    file: str | None


def present_key(settings: "Settings") -> bytes:
    """The master key as configured now. Raises MasterKeyWrong."""
    if settings.master_key is not None:
        return parse(settings.master_key.get_secret_value(), "TOUCHFOLD_MASTER_KEY")
    return read_key(settings.data)


def rotate(here: "Session", tell: Tell) -> Rotated:
    """A complete rotation; returns when the old key is refused. Killed at any point, either key opens everything.

    Raises SettingsInvalid if the new key must be given and is not, MasterKeyWrong.
    """
    _ = vault_of(here).hash_key  # proves that the present key is right
    with closing(KeyRotation(here.vault_dsn, present_key(here.settings))) as work:
        resumed = work.under_way() is not None
        if resumed:
            work.spread()  # it may have been killed before every process knew
        else:
            work.begin(_new_key(here.settings), here.door_clock.now())
        file = _write_file(here.settings, work.newest())
        total = 0
        while (progress := work.step()) is not None:
            total = progress.total
            tell("keys wrapped by the new master key", progress.done, progress.total)
    _purge(here)
    return Rotated(total // 2, resumed, file)


class LeftRotation:
    """Continues a rotation whose command ended halfway. `turn` does at most one step."""

    def __init__(self, here: "Session") -> None:
        self._here = here
        self._looked_at = time.monotonic()  # a command that has just begun one is still working on it

    def turn(self) -> None:
        if time.monotonic() - self._looked_at > LOOK_S and carry_on(self._here) is None:
            self._looked_at = time.monotonic()


def carry_on(here: "Session") -> Progress | None:
    """One step of an abandoned rotation; None if there is nothing to do."""
    with closing(KeyRotation(here.vault_dsn, present_key(here.settings))) as work:
        if work.under_way() is None:
            return None
        _write_file(here.settings, work.newest())
        progress = work.step()
    if progress is None:
        _purge(here)
    return progress


def _new_key(settings: "Settings") -> bytes:
    if settings.master_key_next is not None:
        new = parse(settings.master_key_next.get_secret_value(), NEXT)
        if new == present_key(settings):
            raise SettingsInvalid(f"{NEXT} is the present master key: give a new one", [Problem(NEXT, "is not new")])
        return new
    if settings.master_key is not None:
        raise SettingsInvalid(
            f"the master key is in a setting, so the new one must be given too: set {NEXT} (or {NEXT}_FILE) to the "
            "output of `openssl rand -hex 32`, and keep it",
            [Problem(NEXT, "is missing")],
        )
    return secrets.token_bytes(BYTES)


def _write_file(settings: "Settings", newest: bytes) -> str | None:
    """If the key is a file, the new one replaces it: from `begin` on it opens everything."""
    if settings.master_key is not None:
        return None
    if read_key(settings.data) != newest:
        replace_key(settings.data / NAME, newest)
    return str(settings.data / NAME)


def _purge(here: "Session") -> None:
    """Every process forgets the old key; rows under it leave the table, its indexes and a data folder's WAL."""
    with closing(PostgresVaultRows(here.vault_dsn)) as rows:
        rows.destroy([])
        rows.clean()
