"""A folder of a build that knew fewer forms and placeholders: the next start brings it to what is meant now."""

import json
import tarfile
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from infra.adapters.postgres.ambiguous import AmbiguousTokens
from infra.adapters.postgres.database import Database
from infra.adapters.postgres.embedded import EmbeddedPostgres
from tests.integration.running import Up, command, result, until
from tests.integration.test_upgrades import KEY, load_dump

OLD = Path(__file__).parents[1] / "data" / "folder_62c40f2"


@pytest.fixture
def old(server: EmbeddedPostgres, tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """The folder and its settings."""
    data = tmp_path / "data"
    data.mkdir()
    with tarfile.open(OLD / "files.tar.gz") as files:
        files.extractall(data, filter="data")
    settings = {
        "DATABASE": load_dump(server, OLD / "main.sql.gz"),
        "VAULT": load_dump(server, OLD / "vault.sql.gz"),
        "MASTER_KEY": KEY,
    }
    return data, settings


class Stopping:
    """Stops a process at the end of a block."""

    def __init__(self, up: Up) -> None:
        self._up = up
        up.wait_ready()

    def close(self) -> None:
        self._up.stop()


def rows(dsn: str, query: str) -> list[Any]:
    with closing(Database(dsn)) as database, database.reading() as cursor:
        cursor.execute(query)
        return cursor.fetchall()


def test_a_start_that_is_killed_is_done_by_the_next_one(old: tuple[Path, dict[str, str]]) -> None:
    data, settings = old
    killed = command("status", "--data", str(data), **settings, TEST="1", FAILPOINT="forms.stepped")
    assert killed.returncode not in (0, 1)
    assert rows(settings["VAULT"], "select forms from vault_meta") == [(1,)]
    assert len(rows(settings["VAULT"], "select from met_tokens")) == 1
    assert command("status", "--data", str(data), **settings).returncode == 0
    assert rows(settings["VAULT"], "select forms from vault_meta") == [(2,)]
    assert len(rows(settings["VAULT"], "select from met_tokens")) == 1
    unnamed = rows(settings["DATABASE"], "select kind, defined from unnamed_tokens order by kind")
    assert unnamed == [("phone", False), ("user_id", False)]


def test_tokens_that_meet_are_linked_and_what_names_nobody_links_nothing(old: tuple[Path, dict[str, str]]) -> None:
    data, settings = old
    up = Up(data, UI="off", **settings)
    with closing(Stopping(up)):
        assert command("status", "--wait", "--data", str(data), **settings).returncode == 0

        def profile(selector: str) -> Any:
            return result("profile", selector, "--data", str(data), **settings)

        card = profile("loyalty_card:12 34-56")
        assert card["computed"]["lifetime_revenue"] == "25.0000"
        assert profile("loyalty_card:123456")["id"] == card["id"]
        assert profile("user_id:cleo")["id"] != profile("anonymous_id:dan-phone")["id"]
        assert profile("anonymous_id:eve-laptop")["id"] != profile("anonymous_id:finn-laptop")["id"]
        assert profile("anonymous_id:eve-laptop")["event_count"] == 1
        uma = profile("email:uma@BÜCHER.example")
        assert uma["id"] == profile("anonymous_id:uma-laptop")["id"] == profile("user_id:uma")["id"]
        assert result("rebuild", "--check", "--data", str(data), **settings)["equal"] is True
    assert rows(settings["VAULT"], "select from met_tokens") == []
    assert rows(settings["VAULT"], "select count(*) from identifiers where sent_sealed is not null") == [(0,)]


def test_orders_and_amounts_of_an_earlier_build_are_what_they_mean_now(old: tuple[Path, dict[str, str]]) -> None:
    """States are folded again from the log; columns of the archive are made again in the background, and say so."""
    data, settings = old
    at = ("--data", str(data))
    up = Up(data, UI="off", **settings)
    with closing(Stopping(up)):
        assert command("status", "--wait", *at, **settings).returncode == 0
        assert result("rebuild", "--check", *at, **settings)["equal"] is True
        told = {}
        for name in ("gina", "hugo", "iris", "jack", "lea"):
            computed = result("profile", f"user_id:{name}", *at, **settings)["computed"]
            told[name] = (computed["lifetime_orders"], computed["lifetime_revenue"])
        assert told == {
            "gina": (3, "112.0000"),  # 2001 in two forms is one order; two with a placeholder are their own
            "hugo": (1, "0.0000"),  # given back whole, because the refund states no amount
            "iris": (2, "1254.5000"),  # "1,234.50", and GA4's `value`
            "jack": (1, "0.0000"),  # a sale below zero is money given back
            "lea": (1, "40.0000"),
        }
        until(lambda: result("status", *at, **settings)["archive_rewrites_waiting"] == 0, "columns by today's rules")
        found = result("sql", "select order_id, revenue from events where order_id is not null", *at, **settings)
        amounts = sorted((row["order_id"], row["revenue"]) for row in found if row["order_id"] in ("2001", "4001"))
        assert amounts == [("2001", "100.0000"), ("2001", "100.0000"), ("4001", "1234.5000")]


def old_addresses(data: Path, settings: dict[str, str]) -> dict[str, Any]:
    done = command("doctor", "--json", "--data", str(data), **settings)
    found: dict[str, Any] = {each["check"]: each for each in json.loads(done.stdout)}["old addresses"]
    return found


def test_customers_whom_an_earlier_build_may_have_joined_are_told(old: tuple[Path, dict[str, str]]) -> None:
    """fred@straße.example and fred@strasse.example became one address there, and the two laptops one customer."""
    data, settings = old
    at = ("--data", str(data))
    command("status", *at, **settings, TEST="1", FAILPOINT="forms.stepped")  # killed; the next start does it again
    up = Up(data, UI="off", **settings)
    with closing(Stopping(up)):
        assert command("status", "--wait", *at, **settings).returncode == 0
        fred = result("profile", "anonymous_id:fred-laptop", *at, **settings)["id"]
        assert result("profile", "anonymous_id:fritz-laptop", *at, **settings)["id"] == fred
        found = old_addresses(data, settings)
        assert found["ok"], "a remark: nobody can repair it"
        assert found["detail"].startswith("1 customer may be two people")
        assert found["detail"].endswith(f": {fred}"), "user ids keep Ada and Bob apart, with whatever address"
        assert "touchfold profile" in found["fix"]
        key = result("source", "create", "later", *at, **settings)["write_key"]
        for device in ("fred-laptop", "fritz-laptop"):
            up.send_until_accepted(key, "identify", {"anonymousId": device, "userId": "fred", "traits": {}})
        assert command("status", "--wait", *at, **settings).returncode == 0
        found = old_addresses(data, settings)
        assert (found["detail"].startswith("no customer"), found["fix"]) == (True, "")


def test_what_was_first_seen_by_this_build_is_joined_by_its_own_forms(old: tuple[Path, dict[str, str]]) -> None:
    data, settings = old
    assert command("status", "--data", str(data), **settings).returncode == 0
    with closing(AmbiguousTokens(settings["DATABASE"])) as tokens:
        (fred,) = tokens.joined()
        rows(
            settings["DATABASE"],
            "update ambiguous_tokens set until_us = (select min(first_us) from evidence) - 1 returning 1",
        )
        assert tokens.joined() == [], "as if both laptops had come later"
        rows(
            settings["DATABASE"],
            "update ambiguous_tokens set until_us = (select max(first_us) from evidence) returning 1",
        )
        assert tokens.joined() == [fred]
    done = command("erase", f"profile:{UUID(bytes=fred)}", "--yes", "--force", "--data", str(data), **settings)
    assert done.returncode == 0, done.stderr
    assert len(rows(settings["DATABASE"], "select from ambiguous_tokens")) == 1  # Ada's and Bob's
