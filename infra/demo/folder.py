"""What the demo keeps in DATA/demo: its plan, its loading progress, the truth, and its keys (0600)."""

import json
import os
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any, Final

from infra.demo.history import Plan, Truth
from schemas.errors import NotFound, SettingsInvalid

VERSION: Final = 1  # of the simulator: a different version makes different events from the same plan


class DemoFolder:
    """Each file is complete or absent. Created by the first run."""

    def __init__(self, data: Path) -> None:
        self.path = data / "demo"
        self.truth_file = self.path / "truth.json"
        self.token_file = self.path / "token"
        self._plan_file = self.path / "plan.json"
        self._keys_file = self.path / "keys.json"
        self._sent_file = self.path / "sent.json"

    def plan(self) -> Plan | None:
        """The plan of the first run, which later runs continue."""
        found = self._read(self._plan_file)
        if found is None:
            return None
        version = found.pop("version")
        if version != VERSION and not self.loaded():
            raise SettingsInvalid(
                f"{self.path} was started by another version of the demo and only partly loaded: use a new data folder"
            )
        return Plan(**{**found, "until": date.fromisoformat(found["until"])})

    def write_plan(self, plan: Plan) -> None:
        self._write(self._plan_file, {**plan._asdict(), "until": plan.until.isoformat(), "version": VERSION})

    def sent(self) -> int:
        """How many batches the door has acknowledged, counting from the first without gaps."""
        found = self._read(self._sent_file)
        return 0 if found is None else int(found["batches"])

    def loaded(self) -> bool:
        """Whether the whole history has been acknowledged."""
        found = self._read(self._sent_file)
        return found is not None and bool(found["whole"])

    def write_sent(self, batches: int, *, whole: bool = False) -> None:
        """Not synced to disk: after a power cut some batches are sent again and count as duplicates."""
        self._write(self._sent_file, {"batches": batches, "whole": whole})

    def keys(self) -> dict[str, str]:
        """Write keys by source."""
        return self._read(self._keys_file) or {}

    def write_keys(self, keys: dict[str, str]) -> None:
        self._write(self._keys_file, keys)

    def token(self) -> str | None:
        try:
            return self.token_file.read_text(encoding="utf-8").strip() or None
        except FileNotFoundError:
            return None

    def write_token(self, token: str) -> None:
        self._replace(self.token_file, token + "\n")

    def write_truth(self, plan: Plan, truths: Iterable[Truth], shared: Iterable[tuple[str, str]]) -> None:
        people = [truth._asdict() for truth in truths]
        about = {"seed": plan.seed, "until": plan.until.isoformat(), "customers": plan.customers}
        self._write(self.truth_file, {**about, "shared": list(shared), "people": people})

    def truth(self) -> tuple[list[Truth], list[tuple[str, str]]]:
        """(people, shared identifiers). Raises NotFound if no demo was started."""
        found = self._read(self.truth_file)
        if found is None:
            raise NotFound(f"there is no demo in {self.path.parent}: start touchfold demo first")
        people = [
            Truth(**{**each, "identifiers": [(kind, value) for kind, value in each["identifiers"]]})
            for each in found["people"]
        ]
        return people, [(kind, value) for kind, value in found["shared"]]

    def _read(self, file: Path) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as err:
            raise SettingsInvalid(f"{file} is damaged: use a new data folder for the demo") from err
        return found

    def _write(self, file: Path, content: dict[str, Any]) -> None:
        self._replace(file, json.dumps(content, ensure_ascii=False))

    def _replace(self, file: Path, text: str) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        making = file.with_name(file.name + ".making")
        making.unlink(missing_ok=True)
        handle = os.open(making, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(text)
        making.replace(file)
