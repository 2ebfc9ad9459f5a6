"""Ids that name nobody through the whole product: counted, shown, and no longer linking what they linked before."""

import urllib.request
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from infra.adapters.postgres.database import Database
from infra.app.bootstrap import session
from tests.integration.running import Up, command, result


class Shop:
    """A running product with one source."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.up = Up(data, UI="off")
        self.up.wait_ready()
        self.key = self.run("source", "create", "till")["write_key"]
        self.token = self.run("token", "create", "--role", "admin")["token"]
        self._sent = 0

    def run(self, *arguments: str) -> Any:
        return result(*arguments, "--data", str(self.data))

    def identify(self, **item: Any) -> None:
        self._sent += 1
        answer = self.up.send(self.key, "identify", {"messageId": f"m{self._sent}", **item})
        assert answer.status == 200

    def settle(self) -> None:
        assert command("status", "--wait", "--data", str(self.data)).returncode == 0

    def profile(self, selector: str) -> Any:
        return self.run("profile", selector)

    def define(self, text: str) -> None:
        folder = self.data.parent / "definitions"
        folder.mkdir(exist_ok=True)
        (folder / "identifiers.yaml").write_text(text)
        self.run("apply", str(folder))
        self.settle()

    def api(self, path: str) -> Any:
        headers = {"Authorization": f"Bearer {self.token}"}
        return self.up._ask(urllib.request.Request(f"{self.up.url}/api/v1/{path}", headers=headers)).body

    def close(self) -> None:
        self.up.stop()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def test_a_value_blocked_later_parts_whom_it_joined_and_joins_them_again_without_its_definition(data: Path) -> None:
    with closing(Shop(data)) as shop:
        shop.identify(userId="walk-in", traits={"email": "ada@example.com"})
        shop.identify(userId="walk-in", traits={"email": "bob@example.com"})
        shop.settle()
        assert shop.profile("email:ada@example.com")["id"] == shop.profile("email:bob@example.com")["id"]
        shop.define("identifiers: {blocked: [Walk-In]}\n")
        assert shop.profile("email:ada@example.com")["id"] != shop.profile("email:bob@example.com")["id"]
        assert shop.run("rebuild", "--check")["equal"] is True
        shop.identify(userId="WALK-IN", traits={"email": "cleo@example.com"})
        shop.settle()
        assert [each["kind"] for each in shop.profile("email:cleo@example.com")["identifiers"]] == ["email"]
        shop.define("delete: [identifiers.blocked.Walk-In]\n")
        assert shop.profile("email:ada@example.com")["id"] == shop.profile("email:bob@example.com")["id"]
        assert shop.run("rebuild", "--check")["equal"] is True


def test_what_was_blocked_is_counted_by_source_kind_and_rule(data: Path) -> None:
    with closing(Shop(data)) as shop:
        for number in range(3):
            shop.identify(userId="(not set)", anonymousId=f"a{number}", traits={"phone": "555-1234"})
        shop.identify(userId="8.2E+17", anonymousId="a9")
        (source,) = shop.api("sources")
        assert [{**each, "last_at": ""} for each in source["blocked"]] == [
            {"kind": "phone", "rule": "not_a_phone", "value": "", "events": 3, "last_at": ""},
            {"kind": "user_id", "rule": "word", "value": "not set", "events": 3, "last_at": ""},
            {"kind": "user_id", "rule": "spreadsheet", "value": "", "events": 1, "last_at": ""},
        ]
        headers = {"Authorization": f"Bearer {shop.token}"}
        metrics = shop.up._ask(urllib.request.Request(f"{shop.up.url}/metrics", headers=headers)).body.decode()
        assert 'touchfold_blocked_identifiers_total{kind="user_id",rule="word"} 3.0' in metrics


def test_people_are_shown_what_was_first_sent_and_found_by_any_spelling(data: Path) -> None:
    with closing(Shop(data)) as shop:
        traits = {"email": "Eva@Weiß.example", "phone": "(202) 555-0123", "loyalty_card": "6035 1234 5678"}
        shop.identify(userId="eva", traits=traits)
        shop.identify(anonymousId="e1", traits={"email": "eva@xn--wei-7ka.example", "loyalty_card": "603512345678"})
        shop.settle()
        found = shop.profile("phone:+1-202-555-0123")
        assert found["traits"] == traits
        assert {each["kind"]: each["value"] for each in found["identifiers"]} == {
            "user_id": "eva", **traits, "anonymous_id": "e1",
        }  # fmt: skip
        for selector in ("email:EVA@weiß.example", "loyalty_card:6035-1234-5678", "phone:2025550123"):
            assert shop.profile(selector)["id"] == found["id"]
        timeline = shop.api(f"profiles/{found['id']}/timeline")["items"]
        assert [each["traits"]["email"] for each in timeline] == ["Eva@Weiß.example"] * 2
        erased = shop.run("erase", "email:eva@WEIß.example", "--yes")
        assert erased["found"] is True
    with session(data) as here, closing(Database(here.vault_dsn)) as database, database.reading() as cursor:
        cursor.execute("select count(*) from identifiers")
        assert cursor.fetchall() == [(0,)]
