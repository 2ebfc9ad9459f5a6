"""`touchfold user` and `touchfold audit` beside a running `up`."""

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.running import Up, command, result


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    up = Up(tmp_path / "data", UI="false")
    yield up
    up.stop()


def test_people_are_made_and_changed_and_what_was_done_is_told_and_proved(up: Up) -> None:
    url, data = up.wait_ready(), ("--data", str(up.data))
    made = result("user", "create", "Ada", "--role", "staff", *data)
    assert (made["name"], made["role"]) == ("ada", "staff")
    assert made["link"].startswith(f"{url}/welcome/")
    assert result("user", "link", "ada", *data)["link"] != made["link"]
    assert command("user", "role", "ada", "--role", "marketer", *data).returncode == 0
    (listed,) = result("user", "list", *data)
    assert (listed["name"], listed["role"], listed["state"], listed["seen_at"]) == ("ada", "marketer", "invited", None)
    assert command("user", "disable", "ada", *data).returncode == 0
    assert result("user", "list", *data)[0]["state"] == "disabled"
    nobody = command("user", "link", "bob", *data)
    assert (nobody.returncode, nobody.stdout) == (1, "")
    assert "touchfold user list" in nobody.stderr
    bad = command("user", "create", "a b", "--role", "staff", *data)
    assert bad.returncode == 2

    token = result("token", "create", "--role", "analyst", *data)["token"]
    request = urllib.request.Request(f"{url}/api/v1/sql", b'{"sql": "select 1 as a"}')
    request.add_header("Authorization", f"Bearer {token}")
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert json.load(answer)["rows"] == [[1]]
    assert up.stop() == 0  # what is queued is written
    entries = result("audit", *data)
    assert ("analyst", "sql.run") in {(each["role"], each["action"]) for each in entries}
    assert {"person.invited", "person.linked", "person.role_set", "person.disabled"} <= {
        each["action"] for each in entries if each["who"] == "command"
    }
    assert result("audit", "--verify", *data) == {"whole": True, "problems": []}
