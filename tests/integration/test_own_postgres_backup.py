"""Your own PostgreSQL, backed up and restored to an instant by the commands of docs/operating.md."""

import os
import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from psycopg2.extensions import make_dsn

from infra.adapters.backup.recovery import own
from infra.adapters.postgres.embedded import EmbeddedPostgres, binaries
from tests.conftest import OWNER, PASSWORD, account_of_the_docs, as_superuser
from tests.integration.running import Up, command, result

PAGE = (Path(__file__).parents[2] / "docs" / "operating.md").read_text()
KEY = "cd" * 32


def commands_of_the_docs(folder: Path) -> list[str]:
    """The two blocks of "By hand", with the places of a test."""
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.partition("By hand, with PostgreSQL's own tools")[2], re.DOTALL)
    found = [re.sub(r"/(?:mnt|srv)/(base|wal|pg)\b", rf"{folder}/\1", each) for each in blocks]
    assert len(found) == 2, "a backup, and a restore"
    return found


def run(text: str, **more: str) -> None:
    env = {"PATH": f"{binaries()}:{os.environ['PATH']}", **more}
    done = subprocess.run(["bash", "-euc", text], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def settings_of(server: EmbeddedPostgres, ledger: Path) -> dict[str, str]:
    dsn = str(make_dsn(server.dsn, dbname=OWNER, user=OWNER, password=PASSWORD))
    return {"DATABASE": dsn, "MASTER_KEY": KEY, "LEDGER": str(ledger), "UI": "off"}


def customer(data: Path, name: str, **settings: str) -> None:
    orders, mapping = data.parent / "orders.csv", data.parent / "mapping.yaml"
    orders.write_text(f"order_id,user,at,amount\n{name},{name},2026-11-01T10:00:00Z,5\n")
    mapping.write_text(
        "source: shop\nformat: csv\ntype: purchase.completed\nid: order_id\nidentifiers: {user_id: user}\n"
        "occurred_at: {column: at, format: iso}\nproperties: {revenue: {column: amount, money: USD}}\n"
    )
    told = result("import", str(orders), "--mapping", str(mapping), "--data", str(data), **settings)
    assert told["accepted"] == 1


@pytest.mark.long
def test_the_commands_of_the_docs_restore_to_an_instant_and_the_erased_stay_erased(tmp_path: Path) -> None:
    backup, restore = commands_of_the_docs(tmp_path)
    archive = f"archive_command = 'cp %p {tmp_path}/wal/%f'\ncluster_name = ''\nfsync = off\n"
    (tmp_path / "wal").mkdir()
    own(tmp_path / "wal")
    tmp_path.chmod(0o755)
    server = EmbeddedPostgres(tmp_path / "server", archive)
    server.start()
    as_superuser(server, *account_of_the_docs(OWNER))
    data, settings = tmp_path / "data", settings_of(server, tmp_path / "ledger")
    for name in ("eve", "ada"):
        customer(data, name, **settings)
    refused = command("backup", str(tmp_path / "x"), "--data", str(data), **settings)
    assert "docs/operating.md" in refused.stderr
    run(backup, SERVER=server.dsn.replace(" dbname=touchfold", ""))
    instant = datetime.now(UTC).isoformat()
    assert result("erase", "user_id:eve", "--yes", "--data", str(data), **settings)["found"]
    customer(data, "bob", **settings)
    as_superuser(server, "select pg_switch_wal()")
    server.stop()

    run(restore, INSTANT=instant)
    place = tmp_path / "restored"
    (place / "postgres").mkdir(parents=True)
    shutil.move(tmp_path / "pg", place / "postgres" / "cluster")
    shutil.copy(tmp_path / "server" / "postgres.secret", place)
    own(place / "postgres")
    again = EmbeddedPostgres(place, "cluster_name = ''\nhot_standby = off\nfsync = off\n")
    again.start()
    try:
        settings = settings_of(again, tmp_path / "ledger")
        new = tmp_path / "data-of-restored"
        up = Up(new, **settings)
        up.wait_ready()
        assert "interrupted erasures" in up.log
        found = [
            command("profile", f"user_id:{name}", "--data", str(new), "--json", **settings).returncode
            for name in ("eve", "ada", "bob")
        ]
        assert found == [1, 0, 1]
        up.stop()
    finally:
        again.stop()
