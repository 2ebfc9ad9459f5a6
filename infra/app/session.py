"""What one command or role works with: settings, adapters, addresses. Data only; other modules here open things."""

import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from infra.adapters.machine.data_folder import Running
from infra.adapters.machine.disk import Disk
from infra.app.adapters import Adapters
from infra.app.settings import Settings
from schemas.ports import Clock
from schemas.reads import Deployment


class Closes(Protocol):
    def close(self) -> object: ...


Opened = TypeVar("Opened", bound=Closes)


class Resources:
    """Resources opened for a session: closed with it, last first. Any thread."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._once: dict[str, Any] = {}
        self._lock = threading.RLock()

    def keep(self, opened: Opened) -> Opened:
        """Close it with the session."""
        with self._lock:
            self._stack.callback(opened.close)
        return opened

    def once(self, name: str, make: Callable[[], Opened]) -> Opened:
        """The resource of this name, made when first requested."""
        with self._lock:
            if name not in self._once:
                self._once[name] = self.keep(make())
            found: Opened = self._once[name]
            return found

    def close(self) -> None:
        self._stack.close()


@dataclass(frozen=True)
class Session:
    """Made by `bootstrap.session`; `close` closes what was opened for it."""

    settings: Settings
    adapters: Adapters
    dsn: str
    vault_dsn: str
    url: str | None  # where the running `up` answers, "" for a role without HTTP; None when none is running
    deployment: Deployment
    running: Running | None = None  # the `up` or role that was joined
    resources: Resources = field(default_factory=Resources)

    @property
    def joined(self) -> bool:
        """Whether an `up` is running, whose worker folds and decides; else `drain` does it here."""
        return self.url is not None

    @property
    def clock(self) -> Clock:
        """The clock for decisions and readers."""
        return self.adapters.clock

    @property
    def door_clock(self) -> Clock:
        """The clock for receipts."""
        return self.adapters.door_clock

    @property
    def disk(self) -> Disk:
        return self.adapters.disk

    @property
    def data(self) -> Path:
        return self.adapters.folder.path

    @property
    def archive_folder(self) -> Path:
        return self.adapters.folder.archive

    @property
    def ledger_folder(self) -> Path:
        """Erasures, append-only; no restore overwrites it."""
        return self.adapters.folder.ledger

    @property
    def time_zone(self) -> str:
        return self.deployment.time_zone

    @property
    def region(self) -> str:
        return self.deployment.region

    @property
    def currency(self) -> str:
        return self.deployment.currency

    @property
    def unknown_clear(self) -> bool:
        """Whether undeclared numbers, booleans and times stay in clear."""
        return self.settings.unknown == "clear"

    def close(self) -> None:
        self.resources.close()
