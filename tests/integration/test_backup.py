"""Backups of a folder that is in use, what can be restored from them, and what is in none of them any more."""

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.integration.running import Up, command, result

KEYS = ("master.key", "backup.key")


def put_keys(source: Path, target: Path) -> Path:
    """An empty folder with the keys that a restore needs."""
    target.mkdir()
    for name in KEYS:
        shutil.copy(source / name, target)
    return target


class Shop:
    """A running `up` that customers come to."""

    def __init__(self, data: Path, **settings: str) -> None:
        self.data = data
        self.settings = settings
        self.between = datetime.now(UTC)
        self.up = Up(data, **settings)
        self.up.wait_ready()
        self.key = str(self.run("source", "create", "web")["write_key"])

    def run(self, *arguments: str) -> Any:
        return result(*arguments, "--data", str(self.data), **self.settings)

    def customer(self, name: str) -> None:
        """Somebody new, folded and decided when it returns."""
        item = {
            **{"type": "track", "event": "Order Completed", "userId": name, "messageId": f"m-{name}"},
            **{"context": {"traits": {"email": f"{name}@example.com"}}, "properties": {"orderId": name, "revenue": 5}},
        }
        assert self.up.send(self.key, "track", item).status == 200
        self.run("status", "--wait")


def knows(data: Path, name: str, **settings: str) -> bool:
    """Whether a folder has a customer."""
    done = command("profile", f"user_id:{name}", "--data", str(data), "--json", **settings)
    assert done.returncode == 0 or '"not_found"' in done.stderr, done.stderr
    return done.returncode == 0


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """Ada, a backup, Bob, and WAL sent. `Shop.between` is an instant after Ada and before Bob."""
    folder = tmp_path_factory.mktemp("shop")
    made = Shop(folder / "data")
    made.customer("ada")
    made.run("backup", str(folder / "backups"))
    made.between = datetime.now(UTC)
    made.customer("bob")
    made.run("backup", str(folder / "backups"), "--wal")
    yield made
    made.up.stop()


def test_an_instant_between_two_new_customers_is_restored_with_one_of_them(shop: Shop, tmp_path: Path) -> None:
    backups = str(shop.data.parent / "backups")
    for at, who in ((shop.between.isoformat(), {"ada"}), (None, {"ada", "bob"})):
        data = put_keys(shop.data, tmp_path / ("then" if at else "newest"))
        arguments = ("restore", backups, *(("--at", at) if at else ()))
        told = result(*arguments, "--data", str(data))
        assert told["events"] == len(who)
        assert {name for name in ("ada", "bob") if knows(data, name)} == who
        assert result("rebuild", "--check", "--data", str(data))["equal"]
