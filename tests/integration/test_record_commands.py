"""`record show|set-aside`, status, doctor, health and a retry, on a data folder whose log holds what cannot be read."""

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from infra.adapters.postgres.dead_letters import PostgresDeadLetters
from infra.adapters.postgres.records import PostgresRecords
from infra.app.bootstrap import session
from infra.app.checks import STANDS_S
from infra.app.databases import database_of
from infra.app.doctor import on_session
from infra.app.drain import drain
from infra.app.late_folding import late_folding
from infra.app.log import log_of
from infra.app.record_places import set_aside
from infra.app.session import Session
from infra.app.vault import vault_of
from infra.cli.main import run
from infra.cli.status import measure
from infra.drivers.http.health import Health
from processors.live.compiled import Compiled
from processors.live.dead_letters import dead_letter_key
from schemas.control import Revision
from schemas.errors import NotFound, SetAsideRefused
from schemas.record import Pending, Reader, encode
from tests.records import key_of_partition, purchase

NEWER = Reader(3, {("touchpoint", 1): lambda old: old, ("touchpoint", 2): lambda old: old})


def put(here: Session, *values: bytes, partition: int = 2) -> None:
    log_of(here).append([Pending(key_of_partition(partition), value) for value in values])


def test_a_partition_that_waits_is_told_everywhere_and_let_by(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def answer(*words: str) -> Any:
        assert run([*words, "--data", str(tmp_path), "--json"]) == 0
        return json.loads(capfd.readouterr().out)

    good, bad = purchase([("user_id", "ada")], "o1", "20.00"), purchase([("user_id", "bob")], "o2", "30.00")
    with session(tmp_path) as here:
        vault_of(here).hold_lease()
        put(here, encode(good), encode(bad).replace(b'"v":1', b'"v":3'), b"garbage", encode(good))
        told: list[str] = []
        (waits,) = drain(here, told.append)
        assert (waits.wait.partition, waits.wait.offset) == (2, 1)
        assert told[-1].startswith("partition 2 waits at offset 1")
        (shown,) = measure(here)["waiting"]
        assert shown["remedy"].endswith("touchfold record set-aside 2 1")
        health = Health(here).look()
        assert (health["status"], health["waiting"]) == ("degraded", [shown])
        (finding,) = [each for each in on_session(here) if each.check == "records"]
        assert not finding.ok
        assert "partition 2 waits at offset 1" in finding.detail
        assert "set-aside 2 1" in finding.fix
        for place, reason in (((2, 0), "already been applied"), ((2, 2), "automatically"), ((2, 3), "can be read")):
            with pytest.raises(SetAsideRefused, match=reason):
                set_aside(here, *place, "test")
        with pytest.raises(NotFound, match="it ends at 4"):
            set_aside(here, 2, 4, "test")
    assert run(["status", "--wait", "--data", str(tmp_path)]) == 1
    assert "waits at offset 1" in capfd.readouterr().out
    found = answer("record", "show", "2", "1")
    assert (found["version"], found["reads"], found["state"], found["code"]) == (3, 2, "waiting", "reader_too_old")
    assert answer("record", "set-aside", "2", "1", "--yes")["offset"] == 1
    assert run(["record", "set-aside", "2", "1", "--yes", "--data", str(tmp_path)]) == 1
    capfd.readouterr()
    with session(tmp_path) as here:
        assert measure(here)["waiting"] == []
        with closing(PostgresDeadLetters(here.dsn)) as letters:
            rules = {letter.id: letter.rule for letter in letters.list()}
        key = dead_letter_key(2, 1)
        assert rules == {key: "record_set_aside", dead_letter_key(2, 2): "record_unreadable"}
        with late_folding(here) as old, late_folding(here, NEWER) as new:
            assert not old.fold(key), "this build cannot read it"
            assert new.fold(key), "a newer one can"
        drain(here)
        assert measure(here)["applied"] == 4


def test_work_complains_of_what_could_be_applied_and_not_of_what_lies_behind_a_wait(tmp_path: Path) -> None:
    good, now = encode(purchase([("user_id", "ada")], "o1", "20.00")), [0.0]
    with session(tmp_path) as here:
        vault_of(here).hold_lease()
        health = Health(here, monotonic=lambda: now[0])

        def complaints_after_a_while() -> dict[str, str]:
            now[0] += 1  # a look is kept for a moment
            health.look()
            now[0] += 2 * STANDS_S
            return {each["check"]: each["detail"] for each in health.look()["problems"]}

        put(here, good.replace(b'"v":1', b'"v":3'), good, good)
        drain(here)
        assert complaints_after_a_while().keys() == {"records"}
        put(here, good, partition=1)  # and no worker works
        found = complaints_after_a_while()
        assert found.keys() == {"records", "work"}
        assert found["work"].startswith("1 records are waiting")


def test_many_letters_are_folded_late_with_one_compiling_also_those_set_aside_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[int] = []
    of = Compiled.of

    def counted(revision: Revision, *more: Any) -> Compiled:
        compiled.append(revision.revision)
        return of(revision, *more)

    monkeypatch.setattr(Compiled, "of", counted)

    def let_by(here: Session, *offsets: int) -> None:
        for offset in offsets:
            drain(here)
            set_aside(here, 2, offset, "test")
        drain(here)
        compiled.clear()

    with session(tmp_path) as here:
        vault_of(here).hold_lease()
        newer = [
            encode(purchase([("user_id", f"u{n}")], f"o{n}", "20.00")).replace(b'"v":1', b'"v":3') for n in range(4)
        ]
        put(here, *newer[:3])
        let_by(here, 0, 1, 2)
        with late_folding(here, NEWER) as late:
            assert [late.fold(dead_letter_key(2, offset)) for offset in range(3)] == [True] * 3
            assert compiled == [1]
            assert late.fold(dead_letter_key(2, 0)), "applied already"
            put(here, newer[3])
            let_by(here, 3)
            assert late.fold(dead_letter_key(2, 3))
        with closing(database_of(here, "test")) as database:
            assert PostgresRecords(database).quarantined() == []
