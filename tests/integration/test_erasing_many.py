"""Many people erased at once: each gets what one alone would get, a receipt too, and no crash loses any of them."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
from psycopg2.extensions import parse_dsn

from infra.adapters.phones import Phones
from infra.adapters.postgres.database import Uuid
from infra.adapters.postgres.embedded import EmbeddedPostgres
from infra.app.erasing_many import Results, Summary, erase_list, read_results, summary_of
from infra.app.people_files import Person, read_people
from schemas.errors import BadRequest, DiskFull, StoreUnavailable
from tests.conftest import Databases, as_superuser
from tests.integration.test_erasure import ADA, BOB, PHONE, ROOT, World, is_what_the_log_says, shop_life

PHONES = Phones("US")


@pytest.fixture
def world(databases: Databases, tmp_path: Path) -> Iterator[World]:
    with closing(World(databases, tmp_path / "ledger")) as made:
        yield made


def erase(world: World, people: Path, results: Path, **more: Any) -> tuple[Summary, dict[int, dict[str, Any]]]:
    named, wrong = read_people(people, PHONES)
    kept = Results(results, len(named) + len(wrong))
    erase_list(world.eraser, named, wrong, kept, lambda *_: None, **more)
    lines = [each for each in read_results(results) if "line" in each]
    assert [each["line"] for each in lines] == sorted({each["line"] for each in lines}), "in the order of the list"
    return summary_of(kept, {}), {each["line"]: each for each in lines}


def written(folder: Path, *lines: str | bytes) -> Path:
    path = folder / "people.csv"
    path.write_bytes(b"\n".join(each if isinstance(each, bytes) else each.encode() for each in lines) + b"\n")
    return path


def test_a_list_gives_each_person_a_receipt_and_each_bad_line_its_reason(world: World, tmp_path: Path) -> None:
    world.send([*ADA, PHONE])
    world.send(BOB)
    world.send([("user_id", "carl, the 3rd")])
    world.send([("user_id", "dora")])
    world.settle()
    people = written(
        tmp_path,
        "kind,value",
        "email,Ada.Lovelace@example.com",
        "no colon",
        'user_id,"carl, the 3rd"',
        "",
        'email,"bob@example.com',
        b"email,\xff@example.com",
        "phone,(202) 555-0123",
        "email:nobody@example.com",
        "email,x,y",
        "email:not an address",
        "user_id:bob-babbage",
    )
    summary, lines = erase(world, people, tmp_path / "receipts.jsonl")
    assert summary == Summary(lines=10, erased=3, same=1, unknown=1, refused=0, malformed=5, note={})
    assert {number for number, each in lines.items() if "malformed" in each} == {3, 6, 7, 10, 11}
    assert "lovelace" not in (tmp_path / "receipts.jsonl").read_text().lower()
    assert (tmp_path / "receipts.jsonl").stat().st_mode & 0o077 == 0
    (pair,) = [(a, b) for a, b in ((2, 8), (8, 2)) if "receipt" in lines[a]]
    assert lines[pair[1]] == {"line": pair[1], "found": True, "same_as": pair[0]}
    receipt = lines[pair[0]]["receipt"]
    assert (receipt["identifiers"], receipt["events"], receipt["kinds"]) == (
        3,
        1,
        {"email": 1, "phone": 1, "user_id": 1},
    )
    assert world.eraser.is_ours(receipt)
    assert len({each["receipt"]["id"] for each in lines.values() if "receipt" in each}) == 3
    assert world.rows("select count(*) from identifiers", vault=True) == [(1,)]
    assert world.rows("select count(*) from tokens") == [(1,)]
    assert world.rows("select step, count(*) from jobs where finished_at is not null group by 1") == [("receipt", 3)]
    assert len((world.folder / "erasures.jsonl").read_text().splitlines()) == 3
    world.settle()
    assert world.rows("select count(*) from changes where type = 'erased'") == [(3,)]
    assert is_what_the_log_says(world)


def test_who_may_be_several_people_is_refused_and_the_others_are_not(world: World, tmp_path: Path) -> None:
    world.send(ADA)
    world.send([BOB[0], ADA[1]])  # a refused link
    world.send([("user_id", "carl")])
    world.settle()
    people = written(tmp_path, "user_id:ada-lovelace", "email:ada.lovelace@example.com", "user_id:carl")
    summary, lines = erase(world, people, tmp_path / "receipts.jsonl")
    assert (summary.erased, summary.refused) == (1, 2)
    assert "refused links" in lines[1]["refused"][0]
    assert lines[1]["refused"] == lines[2]["refused"]
    assert world.owner(ADA[0]) is not None
    summary, _ = erase(world, people, tmp_path / "receipts.jsonl", force=True)  # the same list again
    assert (summary.erased, summary.same, summary.refused) == (2, 1, 0)
    assert world.vault.find(*ADA[1]) is None
    assert world.orders_of(BOB[0]) == 1


def test_what_two_of_the_list_alone_shared_goes_with_them(world: World, tmp_path: Path) -> None:
    """Each plan alone would leave the hub to the other, in the vault for ever."""
    shared = ("email", "info@example.com")
    people = [("user_id", f"clerk-{number}") for number in range(7)]
    for person in people:
        world.send([person, shared])
    world.settle()
    assert world.rows("select count(*) from tokens where hub") == [(1,)]
    summary, _ = erase(world, written(tmp_path, *(f"user_id:{name}" for _, name in people)), tmp_path / "r.jsonl")
    assert summary.erased == 7
    assert world.rows("select count(*) from identifiers", vault=True) == [(0,)]
    world.settle()
    assert is_what_the_log_says(world)


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.long), pytest.param(3, marks=pytest.mark.long)])
def test_after_any_list_the_live_revision_is_what_the_log_says(world: World, tmp_path: Path, seed: int) -> None:
    chance = Random(seed)
    for turn in range(3):
        shop_life(world, chance, 14)
        tokens = [row[0] for row in world.rows("select token from tokens order by token")]
        opened = world.vault.open(chance.sample(tokens, len(tokens) // 2)).values()
        people = written(tmp_path, *(f"{each.kind}:{each.value}" for each in opened))
        erase(world, people, tmp_path / f"{turn}.jsonl", force=True, chunk=3)
        world.settle()
        assert is_what_the_log_says(world)
        gone = world.rows("select token from erased_tokens")
        assert world.vault.open(row[0] for row in gone) == {}
        assert all(world.vault.find(each.kind, each.value) is None for each in opened)


def test_a_list_is_suppressed_with_those_whom_nobody_knows(world: World, tmp_path: Path) -> None:
    world.send(ADA)
    world.settle()
    people = written(tmp_path, "user_id:ada-lovelace", "phone:+12025550123")
    _, lines = erase(world, people, tmp_path / "r.jsonl", suppress=True)
    assert (lines[1]["receipt"]["suppressed"], lines[2]) == (True, {"line": 2, "found": False})
    tokens = world.vault.tokens([*ADA, PHONE])
    assert world.vault.suppressed(tokens) == set(tokens)


def test_the_receipts_of_another_list_are_not_written_over(world: World, tmp_path: Path) -> None:
    erase(world, written(tmp_path, "user_id:ada-lovelace"), tmp_path / "r.jsonl")
    with pytest.raises(BadRequest, match="another file"):
        erase(world, written(tmp_path, "user_id:a", "user_id:b"), tmp_path / "r.jsonl")


def test_a_file_that_is_none_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="cannot be read"):
        read_people(tmp_path / "nothing.csv", PHONES)
    assert read_people(written(tmp_path, "\ufeffidentifier", "email:Ada@Example.com"), PHONES) == (
        [Person(2, "email", "ada@example.com")],
        [],
    )


SCRIPT = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from infra.adapters.phones import Phones
from infra.adapters.postgres.erased_tokens import ErasedTokens
from infra.adapters.vault.vault import PostgresVault
from infra.app.erasing import eraser
from infra.app.erasing_many import Results, erase_list
from infra.app.people_files import read_people
from schemas import failpoints
main, vault_dsn, folder, people, point, hits = sys.argv[1:]
failpoints.arm(point, int(hits))
vault = PostgresVault(vault_dsn, bytes(range(32)), erased=ErasedTokens(main))
named, wrong = read_people(Path(people), Phones("US"))
with eraser(main, vault_dsn, vault, Path(folder), "US", lambda: datetime.now(UTC)) as work:
    results = Results(Path(people + ".receipts"), len(named) + len(wrong))
    erase_list(work, named, wrong, results, lambda *_: None, chunk=4)
"""
KILLS = [
    *(("erase.after_fact", 2), ("erase.after_tokens", 2), ("erase.after_vault", 1), ("erase.after_projections", 2)),
    *(("erase_many.after_chunk", 1), ("erase.after_clean", 1)),
]


@pytest.mark.kill
@pytest.mark.parametrize(("point", "hits"), KILLS)
def test_a_list_that_was_killed_goes_on_and_every_person_has_one_receipt(
    world: World, tmp_path: Path, point: str, hits: int
) -> None:
    names = [f"person-{number}" for number in range(10)]
    for name in names:
        world.send([("user_id", name), ("email", f"{name}@example.com")])
    world.send(BOB)
    world.settle()
    people = written(tmp_path, *(f"user_id:{name}" for name in names), "broken line")
    command = [sys.executable, "-c", SCRIPT, world.databases.main, world.databases.vault, str(world.folder)]
    killed = subprocess.run([*command, str(people), point, str(hits)], cwd=ROOT, check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    world.settle()
    summary, lines = erase(world, people, Path(f"{people}.receipts"), chunk=4)
    assert (summary.erased, summary.malformed, summary.unknown) == (10, 1, 0)
    assert all(lines[number]["receipt"]["identifiers"] == 2 for number in range(1, 11))
    world.settle()
    assert world.rows("select count(*) from changes where type = 'erased'") == [(10,)]
    assert world.rows("select count(*), count(distinct token) from erased_tokens") == [(20, 20)]
    assert world.rows("select count(*) from identifiers", vault=True) == [(2,)]
    assert world.orders_of(BOB[0]) == 1
    assert is_what_the_log_says(world)


DISK_IS_FULL = """
create function no_room() returns trigger language plpgsql as
$$ begin raise exception using errcode = '53100', message = 'No space left on device'; end $$;
create trigger no_room before insert on jobs execute function no_room();
"""


@contextmanager
def trouble(server: EmbeddedPostgres, world: World, what: str) -> Iterator[None]:
    """The first step of whoever comes next fails while this lasts."""
    if what == "disk":
        world.rows(DISK_IS_FULL)
        yield
        world.rows("drop function no_room cascade")
        return
    name = parse_dsn(getattr(world.databases, what))["dbname"]
    as_superuser(server, f"alter database {name} allow_connections false")
    as_superuser(server, f"select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'")
    yield
    as_superuser(server, f"alter database {name} allow_connections true")


@pytest.mark.parametrize("what", ["main", "vault", "disk"])
@pytest.mark.parametrize("suppress", [False, True])
def test_whose_first_step_fails_is_not_counted_and_the_same_list_goes_on(
    world: World, server: EmbeddedPostgres, tmp_path: Path, what: str, suppress: bool
) -> None:
    names = [f"person-{number}" for number in range(4)]
    for name in names:
        world.send([("user_id", name), ("email", f"{name}@example.com")])
    world.send(BOB)
    world.settle()
    people = written(tmp_path, *(f"user_id:{name}" for name in names))
    named, _ = read_people(people, PHONES)
    with ExitStack() as lasting:

        def after_the_first(_what: str, done: int, _total: int) -> None:
            if done == 1:
                lasting.enter_context(trouble(server, world, what))

        results = Results(tmp_path / "r.jsonl", len(named))
        with pytest.raises(StoreUnavailable) as caught:
            erase_list(world.eraser, named, [], results, after_the_first, suppress=suppress, chunk=1)
    assert isinstance(caught.value, DiskFull) == (what == "disk")
    kept = Results(tmp_path / "r.jsonl", len(named))
    assert not kept.done
    assert summary_of(kept, {}).erased == 0, "who has no receipt is not counted"
    assert sum(world.owner(("user_id", name)) is not None for name in names) == 3
    assert world.rows("select count(*) from jobs") == [(1,)]
    assert is_what_the_log_says(world)
    summary, lines = erase(world, people, tmp_path / "r.jsonl", suppress=suppress, chunk=1)
    assert (summary.erased, summary.unknown, summary.refused) == (4, 0, 0)
    assert all(lines[number]["receipt"]["identifiers"] == 2 for number in range(1, 5))
    assert world.rows("select count(*), count(finished_at) from jobs") == [(4, 4)]
    assert world.orders_of(BOB[0]) == 1
    world.settle()
    assert is_what_the_log_says(world)


def test_nothing_joins_the_list_to_the_ledger(world: World, tmp_path: Path) -> None:
    """Neither the order of the list nor a number in the receipts: the order is that of random tokens."""
    names = [f"person-{number:02}" for number in range(40)]
    for name in names:
        world.send([("user_id", name)])
    world.settle()
    token_of = {name: world.vault.find("user_id", name) for name in names}
    _, lines = erase(world, written(tmp_path, *(f"user_id:{name}" for name in names)), tmp_path / "r.jsonl")
    kept = [each.token_bytes()[0] for each in world.eraser.ledger.read()]
    assert sorted(kept) == kept, "the order of the ledger is that of the tokens"
    assert kept != [token_of[name] for name in names]
    facts = [row[0] for row in world.rows("select payload ->> 'job' from facts order by seq")]
    assert not {each["receipt"]["id"].replace("-", "") for each in lines.values()} & set(facts)
    for token in token_of.values():
        assert token is not None
        assert world.rows("select 1 from erased_tokens where token = %s", Uuid(token)) == [(1,)]
        assert token.hex() not in json.dumps(lines)
