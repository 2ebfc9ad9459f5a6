"""A record that a definition must open, and whose key the vault lost: its partition waits, alone, and all is said.

By the commands, on a data folder: the wait, an erasure beside it, setting the record aside, trying it again.
"""

import json
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import psycopg2
import pytest

from infra.app.accepting import acceptor_of
from infra.app.bootstrap import session
from infra.app.drain import drain
from infra.app.log import log_of
from infra.app.session import Session
from infra.app.vault import vault_of
from infra.cli.main import run
from infra.drivers.http.health import Health
from ingest.accept.calls import SourceRules
from processors.live.dead_letters import dead_letter_key
from schemas.record import Pending, partition_of, uuid_text

DEFINITIONS: Final = """computed_traits:
  right_answers:
    aggregate: count
    events: [quiz]
    where: {property: answer, op: eq, value: "42"}
"""
Answer = Callable[..., Any]


@pytest.fixture
def answer(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Answer:
    """The JSON of a command on the data folder; its exit status must be 0."""

    def asked(*words: str) -> Any:
        capfd.readouterr()
        assert run([*words, "--data", str(tmp_path / "data"), "--json"]) == 0
        return json.loads(capfd.readouterr().out)

    return asked


def accepted(here: Session, user: str) -> Pending:
    """A quiz event of a customer, whose answer is sealed under the customer's key."""
    item = {"type": "track", "event": "quiz", "userId": user, "messageId": user, "properties": {"answer": "42"}}
    (pending,) = acceptor_of(here).accept([item], SourceRules("web"), datetime.now(UTC)).pending
    return pending


def test_what_a_lost_key_stops_is_told_set_aside_and_applied_when_the_key_is_back(
    tmp_path: Path, answer: Answer, capfd: pytest.CaptureFixture[str]
) -> None:
    for loss in ("gone", "altered"):
        _lose_and_mend(tmp_path, answer, capfd, loss)


def _lose_and_mend(tmp_path: Path, answer: Answer, capfd: pytest.CaptureFixture[str], loss: str) -> None:
    (tmp_path / "quiz.yaml").write_text(DEFINITIONS)
    answer("apply", str(tmp_path / "quiz.yaml"))
    with session(tmp_path / "data") as here:
        events = {f"{loss}-{number}": accepted(here, f"{loss}-{number}") for number in range(20)}
        log_of(here).append(list(events.values()))
        ada = f"{loss}-7"
        row = _lose_key(here, events[ada], loss)
    partition = partition_of(events[ada].key, 4)
    with session(tmp_path / "data") as here:  # nothing of the key is remembered
        vault_of(here).hold_lease()
        (waits,) = drain(here)
        code = {"gone": "key_missing", "altered": "seal_broken"}[loss]
        assert (waits.wait.partition, waits.wait.code) == (partition, code)
        (problem,) = Health(here).look()["problems"]
        assert problem["check"] == "records"
    offset = waits.wait.offset
    found = answer("record", "show", str(partition), str(offset))
    assert (found["state"], found["code"]) == ("waiting", code)
    bob = next(user for user, each in events.items() if partition_of(each.key, 4) != partition)
    erased = answer("erase", f"user_id:{bob}", "--yes")
    assert (erased["found"], erased["events"]) == (True, 1)
    assert [(each["partition"], each["offset"]) for each in erased["waiting"]] == [(partition, offset)]
    letter = uuid_text(dead_letter_key(partition, offset))
    answer("record", "set-aside", str(partition), str(offset), "--yes")
    assert run(["status", "--wait", "--data", str(tmp_path / "data")]) == 0
    assert [(each["id"], each["rule"]) for each in answer("dead-letters", "list")] == [(letter, "record_set_aside")]
    outcome = answer("dead-letters", "retry", letter)
    (told,) = outcome.pop("remedies")
    assert outcome == {"accepted": 0, "refused": [letter], "gone": 0}
    assert "restore what the reason names" in told
    with session(tmp_path / "data") as here:
        _put_back(here, row)
    assert answer("dead-letters", "retry", letter) == {"accepted": 1, "refused": [], "gone": 0, "remedies": []}
    assert answer("dead-letters", "list") == []
    assert answer("profile", f"user_id:{ada}")["computed"]["right_answers"] == 1
    assert answer("rebuild", "--check")["equal"] is True
    assert answer("status")["waiting"] == []


def _lose_key(here: Session, pending: Pending, loss: str) -> tuple[Any, ...]:
    """Take the customer's row out of the vault, or alter its key; what it was."""
    with closing(psycopg2.connect(here.vault_dsn)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("select * from identifiers where token = %s::uuid", (pending.key.hex(),))
        (row,) = cursor.fetchall()
        if loss == "gone":
            cursor.execute("delete from identifiers where hash = %s", (row[0],))
        else:
            wrong = bytes([bytes(row[3])[0] ^ 1]) + bytes(row[3])[1:]
            cursor.execute("update identifiers set key_wrapped = %s where hash = %s", (wrong, row[0]))
    return tuple(row)


def _put_back(here: Session, row: tuple[Any, ...]) -> None:
    with closing(psycopg2.connect(here.vault_dsn)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("delete from identifiers where hash = %s", (row[0],))
        cursor.execute("insert into identifiers values (%s, %s, %s, %s, %s, %s)", row)
