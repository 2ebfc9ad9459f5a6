"""What a killed process had answered is in the audit log: 30 views, killed after every five, are 30 entries."""

from collections import Counter
from functools import partial
from pathlib import Path
from uuid import UUID

import httpx
import pytest

from tests.integration.running import Up, result, runs, until

pytestmark = pytest.mark.kill


@pytest.mark.parametrize("victim", ["http", "everything"])
def test_thirty_views_with_a_kill_after_every_five_are_thirty_entries(tmp_path: Path, victim: str) -> None:
    data = tmp_path / "data"
    up = Up(data, UI="false")
    up.wait_ready()
    key = result("source", "create", "web", "--data", str(data))["write_key"]
    token = result("token", "create", "--role", "staff", "--data", str(data))["token"]
    up.send_until_accepted(key, "identify", {"userId": "ada", "traits": {"name": "Ada Lovelace"}, "messageId": "m-1"})
    result("status", "--wait", "--data", str(data))
    headers = {"Authorization": f"Bearer {token}"}
    shown: Counter[str] = Counter()
    for _ in range(6):
        for number in range(5):
            path = "/api/v1/profiles/user_id/ada" if number % 2 else "/api/v1/profiles?search=lovelace"
            answer = httpx.get(up.url + path, headers=headers, timeout=60)
            assert answer.status_code == 200, answer.text
            assert "Ada Lovelace" in answer.text
            shown["profile.viewed" if number % 2 else "customers.searched"] += 1
        if victim == "http":
            up.kill("http")
            until(partial(_answers, up), "an http process")
        else:
            pids = up.all_pids()
            up.process.kill()
            up.wait_end()
            until(lambda pids=pids: not any(runs(pid) for pid in pids), "the end of the children")  # type: ignore[misc]
            up = Up(data, UI="false")
            up.wait_ready()
    assert up.stop() == 0
    entries = [each for each in result("audit", "--limit", "1000", "--data", str(data)) if each["role"] == "staff"]
    assert Counter(each["action"] for each in entries) == shown
    assert shown.total() == 30
    assert {UUID(each["profile_id"]) for each in entries if each["action"] == "profile.viewed"}
    assert result("audit", "--verify", "--data", str(data)) == {"whole": True, "problems": []}


def _answers(up: Up) -> bool:
    try:
        return httpx.get(f"{up.url}/health", timeout=30).status_code == 200
    except httpx.HTTPError:
        return False
