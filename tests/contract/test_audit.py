"""The audit log over a real PostgreSQL: durable when told, one chain under a key, its end in the ledger too."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg2
import pytest

from infra.adapters.ledger.audit_heads import NAME, AuditHeads
from infra.adapters.postgres.audit import PostgresAudit
from infra.adapters.postgres.database import Database
from schemas.audit import FIRST, Entry, plain_hash
from schemas.errors import StoreUnavailable
from tests.conftest import Databases

NOW = datetime(2026, 5, 4, 9, tzinfo=UTC)
KEY = bytes(range(32))


def audit_log(databases: Databases, folder: Path, key: bytes = KEY, *, now: datetime = NOW) -> PostgresAudit:
    return PostgresAudit(databases.main, lambda: now, lambda: key, AuditHeads.of(folder))


def run(databases: Databases, *statements: str) -> None:
    with closing(Database(databases.main)) as database, database.transaction() as cursor:
        for statement in statements:
            cursor.execute(statement)


@pytest.fixture
def audit(databases: Databases, tmp_path: Path) -> Iterator[PostgresAudit]:
    with closing(audit_log(databases, tmp_path)) as audit:
        for number in range(20):
            audit.note("ada", "staff", "profile.viewed", bytes([number]) * 16, {"page": number})
        yield audit


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("update audit_log set who = 'bob' where seq = 7", "entry 7 .* not as it was written"),
        ("update audit_log set detail = '{}' where seq = 7", "entry 7 "),
        ("delete from audit_log where seq = 7", "entries 7 to 7 are missing"),
        ("delete from audit_log where seq > 15", "entries after 15 are missing"),
        ("delete from audit_log", "entries after 0 are missing"),
        ("update audit_log set hash = decode(repeat('00', 32), 'hex') where seq = 20", "entry 20 "),
        (
            "update audit_log set seq = case seq when 5 then 105 when 6 then 106 end where seq in (5, 6);"
            " update audit_log set seq = case seq when 105 then 6 else 5 end where seq > 100",
            "entry 5 ",
        ),
        (
            "insert into audit_log select 21, at, who, role, action, profile_id, detail, hash from audit_log"
            " where seq = 20",
            "entry 21 ",
        ),
        ("delete from meta where key = 'audit_head'", "note of the last entry is missing"),
        (
            "update meta set value = jsonb_set(value, '{hash}', to_jsonb(repeat('0', 64))) where key = 'audit_head'",
            "note of the last entry is not as",
        ),
        ("update audit_log a set profile_id = b.profile_id from audit_log b where a.seq = 3 and b.seq = 4", "entry 3 "),
    ],
)
def test_what_was_removed_or_altered_is_found(
    audit: PostgresAudit, databases: Databases, damage: str, said: str
) -> None:
    assert audit.verify() == []
    assert [row.seq for row in audit.page(limit=3)] == [20, 19, 18]
    assert [row.detail["page"] for row in audit.page(profile_id=bytes([5]) * 16)] == [5]
    with closing(Database(databases.main)) as database, database.transaction() as cursor:
        cursor.execute(damage)
    (problem, *_) = audit.verify()
    assert re.search(said, problem)


def test_notes_of_many_threads_and_processes_make_one_chain(databases: Databases, tmp_path: Path) -> None:
    audits = [audit_log(databases, tmp_path) for _ in range(3)]
    with ThreadPoolExecutor(6) as pool:
        for number in range(600):
            pool.submit(audits[number % 3].note, f"p{number}", "staff", "profile.viewed")
    for audit in audits:
        audit.close()  # writes what is queued
    with closing(audit_log(databases, tmp_path)) as audit:
        assert audit.verify() == []
        assert audit.head()[0] == 600
        assert {row.who for row in audit.page(limit=1_000)} == {f"p{number}" for number in range(600)}


def test_a_detail_that_jsonb_cannot_hold_is_written_all_the_same(databases: Databases, tmp_path: Path) -> None:
    odd = {"text": "a\0b\ud800", "share": 0.1, "ids": ("x", 1), "none": None, "sure": True, "many": 10**30}
    with closing(audit_log(databases, tmp_path)) as audit:
        audit.note("ada", "staff", "odd", None, odd)
        (row,) = audit.page()
        assert row.detail == {
            "text": "a\ufffdb?", "share": "0.1", "ids": ["x", 1], "none": None, "sure": True, "many": 10**30,
        }  # fmt: skip
        assert audit.verify() == []


@pytest.mark.long
def test_of_ten_thousand_entries_each_that_is_removed_altered_or_moved_is_found(
    databases: Databases, tmp_path: Path
) -> None:
    with closing(audit_log(databases, tmp_path)) as audit, closing(Database(databases.main)) as database:
        pages = range(10_000)
        waiting = [audit.begin("ada", "staff", "profile.viewed", each.to_bytes(16), {"page": each}) for each in pages]
        for each in waiting:
            each.result(60)
        assert audit.verify() == []
        damages = (
            "delete from audit_log where seq = {0}",
            "update audit_log set who = who || '.' where seq = {0}",
            "update audit_log set at = at + interval '1 us' where seq = {0}",
            "update audit_log set seq = -seq where seq in ({0}, {1}); update audit_log set seq ="
            " case seq when -{0} then {1} else {0} end where seq < 0",
        )
        found = 0
        for seq in range(1, 10_000, 101):
            for damage in damages:
                with database.transaction() as cursor:
                    cursor.execute("create table kept as select * from audit_log where seq in (%s, %s)", (seq, seq + 1))
                    cursor.execute(damage.format(seq, seq + 1))
                found += bool(audit.verify())
                with database.transaction() as cursor:
                    cursor.execute("delete from audit_log where seq in (%s, %s)", (seq, seq + 1))
                    cursor.execute("insert into audit_log select * from kept; drop table kept")
        assert found == 4 * len(range(1, 10_000, 101))
        assert audit.verify() == []


# --- durable before it is told -----------------------------------------------------------------------------------


def test_a_note_is_there_for_everybody_when_it_returns(databases: Databases, tmp_path: Path) -> None:
    with closing(audit_log(databases, tmp_path)) as audit, closing(psycopg2.connect(databases.main)) as other:
        other.autocommit = True
        for number in range(30):
            audit.note("ada", "staff", "profile.viewed")
            with other.cursor() as cursor:
                cursor.execute("select count(*), max(seq) from audit_log")
                assert cursor.fetchone() == (number + 1, number + 1)


def test_many_who_look_at_once_wait_for_one_transaction(databases: Databases, tmp_path: Path) -> None:
    with closing(audit_log(databases, tmp_path)) as audit, closing(psycopg2.connect(databases.main)) as other:
        with other.cursor() as cursor:  # the writer waits: meanwhile the others line up
            cursor.execute("select pg_advisory_xact_lock(%s)", (0x617564,))
            waiting = [audit.begin(f"p{number}", "staff", "profile.viewed") for number in range(300)]
            assert not any(each.done() for each in waiting)
            other.rollback()
        for each in waiting:
            each.result(30)
        with other.cursor() as cursor:
            cursor.execute("select count(*), count(distinct xmin::text) from audit_log")
            assert cursor.fetchone() in [(300, 1), (300, 2)]  # the first one, perhaps alone, and all who came meanwhile


def test_a_view_is_refused_while_its_entry_cannot_be_written_and_the_log_goes_on_after(
    databases: Databases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.adapters.postgres.audit.WAIT_S", 0.3)
    with closing(audit_log(databases, tmp_path)) as audit:
        audit.note("ada", "staff", "profile.viewed")
        run(databases, "alter table audit_log rename to gone")  # an error that no retry mends
        with pytest.raises(StoreUnavailable, match="audit log cannot be written"):
            audit.note("bob", "staff", "profile.viewed")
        run(databases, "alter table gone rename to audit_log")
        audit.note("cy", "staff", "profile.viewed")
        with closing(psycopg2.connect(databases.main)) as other, other.cursor() as cursor:
            cursor.execute("lock table audit_log in access exclusive mode")  # one that passes
            with pytest.raises(StoreUnavailable):
                audit.note("dan", "staff", "profile.viewed")
        audit.note("eve", "staff", "profile.viewed")
        assert [row.who for row in audit.page()] == ["eve", "dan", "cy", "ada"]
        assert audit.verify() == []


def test_one_that_can_never_be_written_takes_no_other_with_it(databases: Databases, tmp_path: Path) -> None:
    run(databases, "alter table audit_log add check (who <> 'bad')")
    with closing(audit_log(databases, tmp_path)) as audit:
        waiting = [audit.begin(who, "staff", "odd") for who in ("ada", "bad", "bob", "cy")]
        outcomes = [each.exception(30) for each in waiting]
        assert [each is None for each in outcomes] == [True, False, True, True]
        audit.note("dan", "staff", "odd")
        assert {row.who for row in audit.page()} == {"ada", "bob", "cy", "dan"}
        assert audit.verify() == []


def test_connections_that_are_cut_off_again_and_again_lose_no_entry_and_double_none(
    databases: Databases, tmp_path: Path
) -> None:
    with closing(audit_log(databases, tmp_path)) as audit, closing(psycopg2.connect(databases.main)) as other:
        other.autocommit = True
        for number in range(20):
            waiting = audit.begin(f"p{number}", "staff", "profile.viewed")
            with other.cursor() as cursor:
                cursor.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database()"
                    " and usename = current_user and pid <> pg_backend_pid()"
                )
            waiting.result(30)
        assert [row.who for row in audit.page()] == [f"p{number}" for number in reversed(range(20))]
        assert audit.verify() == []


def test_the_commit_waits_for_the_disk_whatever_the_account_is_set_to(databases: Databases, tmp_path: Path) -> None:
    run(
        databases,
        "create function told() returns trigger language plpgsql as $$ begin"
        " new.action := new.action || ' ' || current_setting('synchronous_commit'); return new; end $$",
        "create trigger told before insert on audit_log for each row execute function told()",
        "alter role current_user set synchronous_commit = off",
    )
    with closing(audit_log(databases, tmp_path)) as audit:
        audit.note("ada", "staff", "viewed")
        assert audit.page()[0].action == "viewed on"


# --- under a key, and in the ledger --------------------------------------------------------------------------------


def test_entries_of_an_older_build_stand_before_the_first_one_with_a_key_and_nowhere_else(
    databases: Databases, tmp_path: Path
) -> None:
    last = FIRST
    for seq in (1, 2):
        last = plain_hash(last, Entry(NOW, "ada", "staff", "old", None, "{}"))
        run(
            databases,
            f"insert into audit_log values ({seq}, '{NOW.isoformat()}', 'ada', 'staff', 'old', null, '{{}}',"
            f" '\\x{last.hex()}')",
        )
    run(databases, f'insert into meta values (\'audit_head\', \'{{"seq": 2, "hash": "{last.hex()}"}}\')')
    with closing(audit_log(databases, tmp_path)) as audit:
        assert ["under our key" in each for each in audit.verify()] == [True]
        audit.note("ada", "staff", "new")
        assert audit.verify() == []
        head = bytes.fromhex(audit.head()[1])
        forged = plain_hash(head, Entry(NOW, "eve", "staff", "forged", None, "{}"))
        run(
            databases,
            f"insert into audit_log values (4, '{NOW.isoformat()}', 'eve', 'staff', 'forged', null, '{{}}',"
            f" '\\x{forged.hex()}')",
            f'update meta set value = \'{{"seq": 4, "hash": "{forged.hex()}"}}\' where key = \'audit_head\'',
        )
        (problem,) = audit.verify()
        assert "entry 4" in problem


def test_a_chain_that_was_made_again_without_the_key_is_found(audit: PostgresAudit, databases: Databases) -> None:
    """Who may write to the database, and has no key, leaves an entry out and hashes the rest anew."""
    last = FIRST
    for row in reversed(audit.page()[1:]):
        entry = Entry(row.at, row.who, row.role, row.action, bytes([row.seq - 1]) * 16, f'{{"page":{row.seq - 1}}}')
        last = plain_hash(last, entry)
        run(databases, f"update audit_log set hash = '\\x{last.hex()}' where seq = {row.seq}")
    run(
        databases,
        "delete from audit_log where seq = 20",
        f'update meta set value = \'{{"seq": 19, "hash": "{last.hex()}"}}\' where key = \'audit_head\'',
    )
    problems = audit.verify()
    assert any("under our key" in each for each in problems)
    assert any("entry 20 is missing: the ledger recorded it" in each for each in problems)


def cut(databases: Databases, audit: PostgresAudit, kept: int) -> None:
    """Take the end of the chain away, with the note of it, as who has the database can."""
    with closing(psycopg2.connect(databases.main)) as other, other.cursor() as cursor:
        cursor.execute("delete from audit_log where seq > %s", (kept,))
        cursor.execute("select hash from audit_log where seq = %s", (kept,))
        row = cursor.fetchone()
        assert row is not None
        noted = f'{{"seq": {kept}, "hash": "{bytes(row[0]).hex()}"}}'
        cursor.execute("update meta set value = %s where key = 'audit_head'", (noted,))
        other.commit()
    assert audit.head()[0] == kept


def test_an_end_that_was_cut_off_is_missed_by_the_ledger_and_numbers_are_not_given_twice(
    audit: PostgresAudit, databases: Databases, tmp_path: Path
) -> None:
    cut(databases, audit, 17)
    (problem,) = audit.verify()
    assert problem.startswith("entry 20 is missing: the ledger recorded it at 2026-05-04")
    with closing(audit_log(databases, tmp_path)) as later:  # another process, after a restore perhaps
        later.note("bob", "staff", "profile.viewed")
        assert [(row.seq, row.action) for row in later.page(limit=2)] == [
            (22, "profile.viewed"),
            (21, "audit.set_back"),
        ]
        assert later.page(limit=2)[1].detail == {"missing_from": 18, "missing_to": 20}
        (problem,) = later.verify()
        assert problem == "entries 18 to 20 are missing (the log was set back, by a restore or by hand)"


def test_the_ledger_keeps_an_end_an_hour_and_says_which_line_is_not_ours(databases: Databases, tmp_path: Path) -> None:
    for hour in range(3):
        with closing(audit_log(databases, tmp_path, now=NOW + timedelta(hours=hour))) as audit:
            for _ in range(5):
                audit.note("ada", "staff", "profile.viewed")
    path = tmp_path / NAME
    heads = AuditHeads.of(tmp_path).read(KEY)
    assert ([head.seq for head in heads.heads], heads.wrong) == ([5, 10, 15], [])
    assert AuditHeads.of(tmp_path).read(bytes(32)).heads == []
    lines = path.read_bytes().splitlines(keepends=True)
    with closing(audit_log(databases, tmp_path)) as audit:
        assert audit.verify() == []
        path.write_bytes(lines[0].replace(b'"seq": 5', b'"seq": 4') + b"".join(lines[1:]))
        assert audit.verify() == ["line 1 of the ledger's audit_heads.jsonl was not written by us"]
        path.write_bytes(b"".join(lines) + b'{"kind": "audit')  # torn by a crash
        assert audit.verify() == []
        audit.note("ada", "staff", "profile.viewed")
        assert audit.verify() == []
        path.unlink()
        assert ["the ledger knows nothing" in each for each in audit.verify()] == [True]


def test_a_ledger_that_cannot_be_written_is_told_of_and_holds_nobody_up(
    databases: Databases, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way of the folder")
    with closing(audit_log(databases, tmp_path / "file")) as audit:
        audit.note("ada", "staff", "profile.viewed")
        audit.note("ada", "staff", "profile.viewed")
        assert [row.seq for row in audit.page()] == [2, 1]
    assert sum("cannot write the end" in record.message for record in caplog.records) == 1
