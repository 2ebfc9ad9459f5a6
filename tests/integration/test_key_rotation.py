"""A new master key while everything runs: nothing is lost at any point, and the old key opens nothing afterwards."""

import secrets
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from infra.adapters.postgres.database import Database
from infra.adapters.vault import keys as vault_keys
from infra.adapters.vault.erasure import PostgresVaultRows
from infra.adapters.vault.keys import KeyRotation
from infra.adapters.vault.vault import PostgresVault
from schemas.errors import MasterKeyWrong
from schemas.failpoints import NAMES
from tests.conftest import Databases
from tests.integration.running import Up, command, result, until

OLD, NEW, OTHER = bytes(range(32)), bytes(range(32, 64)), bytes(32)
PEOPLE = [("user_id", f"person-{number}") for number in range(7)]
AT = datetime(2026, 11, 30, tzinfo=UTC)
ROOT = Path(__file__).parents[2]


@pytest.fixture
def few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vault_keys, "BATCH", 3)


@pytest.fixture
def door(databases: Databases) -> Iterator[PostgresVault]:
    """A process that has the old key, and goes on."""
    vault = PostgresVault(databases.vault, OLD, renew_s=0.05)
    vault.hold_lease()
    yield vault
    vault.close()


def opens_all(dsn: str, key: bytes) -> bool:
    with closing(PostgresVault(dsn, key)) as vault:
        tokens = [token for each in PEOPLE if (token := vault.find(*each)) is not None]
        return [each.value for each in vault.open(tokens).values()] != [] and len(vault.open(tokens)) == len(PEOPLE)


def test_each_step_leaves_everything_open_to_either_key_and_the_end_to_the_new_one_alone(
    databases: Databases, door: PostgresVault, few_at_a_time: None
) -> None:
    tokens = door.tokens(PEOPLE)
    daily = door.daily_token(date(2026, 11, 30))
    sealed = [door.seal(token, b"plain", b"aad") for token in (*tokens, daily)]
    rotation = KeyRotation(databases.vault, OLD)
    rotation.begin(NEW, AT)
    steps = 0
    while rotation.step() is not None:
        steps += 1
        assert opens_all(databases.vault, OLD)
        assert opens_all(databases.vault, NEW)
        with pytest.raises(MasterKeyWrong):
            _ = PostgresVault(databases.vault, OTHER).hash_key
        rotation = KeyRotation(databases.vault, OLD if steps % 2 else NEW)  # by whoever comes, with either key
    assert steps > 4
    rotation.close()
    with pytest.raises(MasterKeyWrong, match="key rotate"):
        _ = PostgresVault(databases.vault, OLD).hash_key
    assert opens_all(databases.vault, NEW)
    for vault in (door, PostgresVault(databases.vault, NEW)):  # the one that ran, and a new one
        found = vault.open_many([(key, data, b"aad") for key, data in zip((*tokens, daily), sealed, strict=True)])
        assert found == [b"plain"] * (len(PEOPLE) + 1)
    assert door.tokens([*PEOPLE, ("user_id", "late")])[:-1] == tokens
    assert opens_all(databases.vault, NEW)


def test_who_adds_people_meanwhile_loses_none(databases: Databases, door: PostgresVault, few_at_a_time: None) -> None:
    door.tokens(PEOPLE)
    rotation = KeyRotation(databases.vault, OLD)
    rotation.begin(NEW, AT)
    more = [("email", f"{number}@example.com") for number in range(9)]
    for each in more:  # one between two steps, until there are no more steps
        door.tokens([each])
        door.daily_token(date(2026, 11, len(each[1])))
        rotation.step()
    while rotation.step() is not None:
        pass
    rotation.close()
    with closing(PostgresVault(databases.vault, NEW)) as after:
        assert len(after.open([after.find(*each) or b"" for each in (*PEOPLE, *more)])) == len(PEOPLE) + len(more)
        after.open_many(
            [(after.daily_token(date(2026, 11, 13)), after.seal(door.daily_token(date(2026, 11, 13)), b"x", b""), b"")]
        )


def test_a_row_that_came_under_the_old_key_after_the_last_pass_is_met_at_the_end(
    databases: Databases, door: PostgresVault
) -> None:
    door.tokens(PEOPLE[:-1])
    rotation = KeyRotation(databases.vault, OLD)
    late = Database(databases.vault)
    rotation.begin(NEW, AT)
    while (found := rotation.under_way()) is not None and found.done < found.total:
        rotation.step()
    with closing(PostgresVault(databases.vault, OLD)) as stale:  # a transaction of before that commits only now
        _ = stale.hash_key
        token, key = secrets.token_bytes(16), secrets.token_bytes(32)
        with late.transaction() as cursor:
            wrapped = vault_keys.MasterKeys.of(OLD).wrap(key, token)
            cursor.execute("insert into daily_keys values ('2026-11-01', %s::uuid, %s)", (token.hex(), wrapped))
    while rotation.step() is not None:
        pass
    rotation.close()
    late.close()
    with closing(PostgresVault(databases.vault, NEW)) as after:
        assert after.open_many([(token, after.seal(token, b"x", b""), b"")]) == [b"x"]


def test_an_erasure_that_copies_the_table_meanwhile_brings_no_old_key_back(
    databases: Databases, door: PostgresVault, few_at_a_time: None
) -> None:
    tokens = door.tokens([*PEOPLE, ("user_id", "erased")])
    rotation = KeyRotation(databases.vault, OLD)
    rotation.begin(NEW, AT)
    rotation.step()
    with closing(PostgresVaultRows(databases.vault)) as rows:
        rows.destroy([tokens[-1]])
    while rotation.step() is not None:
        pass
    rotation.close()
    assert opens_all(databases.vault, NEW)


def test_every_place_that_the_master_key_wraps_is_known() -> None:
    """Who wraps by it elsewhere must be wrapped anew too: `vault/keys.py` lists the places."""
    users = {
        str(path.relative_to(ROOT / "infra/adapters"))
        for path in (ROOT / "infra").rglob("*.py")
        if ".wrap(" in path.read_text() or "MasterKeys" in path.read_text()
    }
    assert users == {"vault/vault.py", "vault/keys.py"}


def test_a_key_file_is_made_anew_also_after_kills_and_the_old_one_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "data"
    up = Up(data)
    up.wait_ready()
    key = str(result("source", "create", "web", "--data", str(data))["write_key"])
    item = {"type": "identify", "userId": "ada", "messageId": "m1", "traits": {"email": "ada@example.com"}}
    assert up.send(key, "identify", item).status == 200
    result("status", "--wait", "--data", str(data))
    old = (data / "master.key").read_text()
    points = sorted(name for name in NAMES if name.startswith("rotate."))
    assert points
    for point in points:
        killed = command("key", "rotate", "--data", str(data), TEST="1", FAILPOINT=f"cli@{point}")
        assert killed.returncode == -9
        assert result("profile", "user_id:ada", "--data", str(data))["event_count"] == 1
    done = result("key", "rotate", "--data", str(data))
    assert done["resumed"] or done["keys"] >= 2  # `up` may have gone on with it, and this is another one
    new = (data / "master.key").read_text()
    assert new != old
    assert (data / "master.key").stat().st_mode & 0o777 == 0o600
    item["userId"], item["messageId"] = "bob", "m2"
    assert up.send(key, "identify", item | {"traits": {"email": "bob@example.com"}}).status == 200
    until(lambda: up.get("/health").body["status"] == "ok", "health that knows the new key")
    up.stop()
    refused = command("status", "--data", str(data), MASTER_KEY=old.strip())
    assert "key rotate" in refused.stderr
    assert result("profile", "user_id:ada", "--data", str(data))["identifiers"]


def test_a_key_of_the_settings_is_replaced_by_one_of_the_settings(tmp_path: Path) -> None:
    data = str(tmp_path / "data")
    old, new = "0a" * 32, "0b" * 32
    (tmp_path / "old").write_text(old)
    (tmp_path / "new").write_text(new)
    result("source", "create", "web", "--data", data, MASTER_KEY_FILE=str(tmp_path / "old"))
    missing = command("key", "rotate", "--data", data, MASTER_KEY=old)
    assert "TOUCHFOLD_MASTER_KEY_NEXT" in missing.stderr
    done = result(
        *("key", "rotate", "--data", data),
        MASTER_KEY_FILE=str(tmp_path / "old"),
        MASTER_KEY_NEXT_FILE=str(tmp_path / "new"),
    )
    assert done["file"] is None
    assert command("status", "--data", data, MASTER_KEY=old).returncode == 1
    assert command("status", "--data", data, MASTER_KEY=new).returncode == 0
    assert not (tmp_path / "data" / "master.key").exists()
