"""Erased stays erased: who has the folder and its master key, and guesses an address, finds nobody's purchases by it.

The attacker hashes the guess as the product does, and looks in every byte for a place where the hash leads on to a
token, by standing beside it or by any order, time or number that two places share.
"""

import json
import os
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from infra.adapters.ledger.erasures import LedgerFile
from infra.adapters.postgres.database import Uuid
from infra.adapters.postgres.embedded import EmbeddedPostgres
from infra.adapters.postgres.erasure_upgrade import part_hashes_from_tokens
from infra.adapters.postgres.migrate import migrate
from infra.adapters.postgres.search import PostgresSearch
from infra.adapters.vault.suppressed import FEWEST, SuppressedList
from infra.app.erasing_many import Results, erase_list
from infra.app.people_files import Person
from processors.live.compiled import Compiled
from processors.live.search_index import SearchIndexer
from schemas.record import decode
from schemas.search_words import keyed, search_key
from tests.conftest import Databases
from tests.integration.test_erasure import ADA, BOB, PHONE, World

PEOPLE = [
    [("user_id", f"person-{name}"), ("email", f"{name}.smith-{name}@example.com"), ("device_id", f"device-{name}")]
    for name in ("anna", "berta", "clara", "dora", "emma", "frida")
]
DAY = date(2026, 1, 31)  # on which somebody searched
SUPPRESSED = PEOPLE[:4]  # with three identifiers, and the first of them with nine


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, Path, dict[str, Any]]]:
    """A folder with its server in which six people bought and were erased, four of them suppressed; Bob stays."""
    folder = tmp_path_factory.mktemp("attacked")
    server = EmbeddedPostgres(folder)
    try:
        server.start()
        migrate(server.dsn, "main")
        migrate(server.vault_dsn, "vault")
        with closing(World(Databases(server.dsn, server.vault_dsn), folder / "ledger")) as world:
            yield world, folder, live_and_erase(world, folder)
    finally:
        server.stop()


def live_and_erase(world: World, folder: Path) -> dict[str, Any]:
    """What the attacker may guess of each person, and where it led before the erasures."""
    known: dict[str, Any] = {"hashes": {}, "words": {}, "tokens": {}}
    for person in [*PEOPLE, list(BOB)]:
        for _ in range(2):
            world.send(person)
    for number in range(6):
        world.send([PEOPLE[0][0], ("loyalty_card", f"card-{number}")])
    world.settle()
    index(world)
    for person in PEOPLE:
        email = person[1][1]
        known["tokens"][email] = token_of_all(world, person[0])
        known["hashes"][email] = world.vault.hash_of(*person[1])
        known["words"][email] = keyed(search_key(world.vault.hash_key), f"w:{email.split('@')[0].split('-')[1]}")
    known["codes"] = world.vault.daily_codes(["smith"], DAY)
    ((known["word_key"],),) = world.rows("select key_wrapped from word_keys", vault=True)
    world.rows("checkpoint")
    known["before"] = joins(folder, known)
    for person in SUPPRESSED:
        world.eraser.erase(*person[1], suppress=True, force=True)
        world.settle()
    rest = [Person(line, *person[1]) for line, person in enumerate(PEOPLE[len(SUPPRESSED) :], 1)]
    erase_list(world.eraser, rest, [], Results(folder / "receipts.jsonl", len(rest)), lambda *_: None, force=True)
    world.settle()
    return known


def index(world: World) -> None:
    """Make everybody findable."""
    live = world.control.live()
    compiled = Compiled.of(live, "UTC", "USD")
    with closing(PostgresSearch(world.databases.main)) as store:
        indexer = SearchIndexer(store, world.vault, world.vault, world.log)
        while indexer.step(live.revision, compiled.fold, compiled.evaluator, 100):
            pass


def token_of_all(world: World, identifier: tuple[str, str]) -> list[bytes]:
    owner = world.owner(identifier)
    assert owner is not None
    return [row[0] for row in world.rows("select token from tokens where profile_id = %s", Uuid(owner))]


def forms(value: bytes) -> list[bytes]:
    text = value.hex()
    dashed = f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
    return [value, text.encode(), dashed.encode()]


def joins(folder: Path, known: dict[str, Any]) -> set[tuple[str, str]]:
    """(address, file) where a hash of the address stands in a file that holds one of its person's tokens too."""
    found = set()
    for path in folder.rglob("*"):
        if not path.is_file():
            continue
        data = path.read_bytes()
        for email, tokens in known["tokens"].items():
            word = struct.pack("<q", known["words"][email])
            hashed = any(each in data for each in [*forms(known["hashes"][email]), word])
            if hashed and any(each in data for token in tokens for each in forms(token)):
                found.add((email, path.name))
    return found


def test_no_file_has_a_hash_of_the_address_and_a_token_of_the_log(
    attacked: tuple[World, Path, dict[str, Any]],
) -> None:
    world, folder, known = attacked
    assert {email for email, _ in known["before"]} == set(known["hashes"]), "the search does find them"
    logged = [decode(each.value) for part in range(4) for each in world.log.read(part, 0, 99)]
    still = {each.token for record in logged for each in record.ids}
    assert all(token.hex() in still for tokens in known["tokens"].values() for token in tokens), "purchases are there"
    assert joins(folder, known) == set()


def test_no_guess_can_be_tried_against_the_words_that_were_searched_for(
    attacked: tuple[World, Path, dict[str, Any]],
) -> None:
    """They are in the audit log, and the view of the profile that was found may be the entry after them."""
    world, folder, known = attacked
    assert known["codes"].keys() == {DAY}
    assert known["codes"] not in ({}, world.vault.daily_codes(["smith"]), world.vault.daily_codes(["smith"], DAY))
    key = bytes(known["word_key"])
    assert [path for path in folder.rglob("*") if path.is_file() and key in path.read_bytes()] == []


def test_nobody_who_is_not_suppressed_has_a_hash_anywhere(attacked: tuple[World, Path, dict[str, Any]]) -> None:
    _, folder, known = attacked
    for person in PEOPLE:
        hashed = known["hashes"][person[1][1]]
        places = [
            path for path in folder.rglob("*") if path.is_file() and any(f in path.read_bytes() for f in forms(hashed))
        ]
        assert bool(places) == (person in SUPPRESSED), places


def test_the_list_of_the_suppressed_says_neither_when_nor_with_whom_nor_how_many(
    attacked: tuple[World, Path, dict[str, Any]],
) -> None:
    world, folder, _ = attacked
    columns = world.rows(
        "select column_name from information_schema.columns where table_name = 'suppressed' order by 1", vault=True
    )
    assert columns == [("hash",), ("mark",)]
    rows = world.rows("select encode(hash, 'hex'), xmin::text from suppressed order by ctid", vault=True)
    assert [row[0] for row in rows] == sorted(row[0] for row in rows), "the place in the table tells nothing"
    assert len({row[1] for row in rows}) == 1, "nor does the transaction"
    marks = Counter(row[0] for row in world.rows("select mark from suppressed", vault=True))
    assert sorted(marks.values()) == [FEWEST, FEWEST, FEWEST, 2 * FEWEST], "nor the number of identifiers"
    listed = LedgerFile.of(folder / "ledger").suppressed()
    assert list(listed) == sorted(listed)
    assert listed == SuppressedList(world.databases.vault).read()


def test_what_is_kept_with_the_tokens_is_the_day_alone(attacked: tuple[World, Path, dict[str, Any]]) -> None:
    world, folder, _ = attacked
    jobs = world.rows("select payload, created_at, finished_at from jobs")
    assert len(jobs) == len(PEOPLE)
    for payload, created_at, finished_at in jobs:
        assert payload.keys() == {"id", "on", "tokens", "profiles"}
        assert created_at == finished_at == datetime(2026, 1, 14, tzinfo=UTC)
    assert world.rows("select distinct at from facts") == [(datetime(2026, 1, 14, tzinfo=UTC),)]
    assert world.rows("select distinct erased_on from erased_tokens") == [(datetime(2026, 1, 14, tzinfo=UTC).date(),)]
    lines = (folder / "ledger" / "erasures.jsonl").read_text().splitlines()
    assert all(json.loads(line).keys() == {"id", "on", "tokens", "profiles"} for line in lines)


def test_a_receipt_leads_to_no_line_of_the_ledger(world_of_two: World) -> None:
    world = world_of_two
    receipt = world.eraser.erase(*ADA[0], suppress=True).receipt
    assert receipt is not None
    kept = (world.folder / "erasures.jsonl").read_text() + str(world.rows("select * from jobs, facts"))
    for name in ("id", "sha256"):
        assert str(receipt[name]).replace("-", "") not in kept.replace("-", "")
    assert len(str(receipt["erased_on"])) == len("2026-01-14"), "a day, not a moment"


@pytest.fixture
def world_of_two(databases: Databases, tmp_path: Path) -> Iterator[World]:
    made = World(databases, tmp_path / "ledger")
    made.send([*ADA, PHONE])
    made.send(BOB)
    made.settle()
    yield made
    made.close()


# --- ledgers and jobs of earlier builds ------------------------------------------------------------------------------


def as_before(world: World, tokens: Sequence[bytes], hashes: Sequence[bytes], *, suppress: bool) -> dict[str, Any]:
    """A payload of a job as earlier builds wrote it; with "sha256" their ledger line."""
    return {
        "id": os.urandom(16).hex(),
        "at": "2025-03-04T05:06:07.000008Z",
        "tokens": [each.hex() for each in tokens],
        "hashes": [each.hex() for each in hashes],
        "profiles": [tokens[0].hex()],
        "kinds": {"email": 1},
        "events": 3,
        "suppress": suppress,
    }


def put_job(world: World, payload: dict[str, Any], *, finished: bool) -> None:
    world.rows(
        "insert into jobs values (%s, 'erase', 'receipt', %s, %s, %s)",
        *(payload["id"], json.dumps(payload), payload["at"], payload["at"] if finished else None),
    )


def upgrade(world: World) -> int:
    return part_hashes_from_tokens(world.databases.main, world.databases.vault, world.folder / "erasures.jsonl")


def test_a_ledger_and_jobs_of_an_earlier_build_are_parted_and_lose_nothing(world_of_two: World) -> None:
    world = world_of_two
    gone, open_one, refused = ([os.urandom(16) for _ in range(3)] for _ in range(3))
    hashes = {name: [os.urandom(16) for _ in range(3)] for name in ("gone", "open", "refused")}
    old = [
        as_before(world, gone, hashes["gone"], suppress=False),
        as_before(world, refused, hashes["refused"], suppress=True),
    ]
    begun = as_before(world, open_one, hashes["open"], suppress=True)
    for each in old:
        put_job(world, each, finished=True)
    put_job(world, begun, finished=False)
    world.rows("insert into jobs values (gen_random_uuid(), 'other', 'x', '{\"hashes\": 1}', now())")
    for token in (*gone, *refused):
        world.rows("insert into erased_tokens values (%s, '2025-03-04')", Uuid(token))
    for hashed in hashes["refused"]:  # as the migration of the table leaves them
        world.rows("insert into suppressed values (%s, gen_random_uuid())", hashed, vault=True)
    ledger = world.folder / "erasures.jsonl"
    ledger.parent.mkdir(exist_ok=True)
    head = b'{"audit_head": [7, "abc"]}\n'
    ledger.write_bytes(
        b"".join(json.dumps({**each, "sha256": "x"}).encode() + b"\n" for each in old) + head + b'{"id": "torn'
    )
    assert upgrade(world) == 3
    assert upgrade(world) == 0
    kept = ledger.read_bytes() + repr(world.rows("select * from jobs where kind = 'erase'")).encode()
    assert b"hashes" not in kept
    assert not any(each.hex().encode() in kept for own in hashes.values() for each in own)
    assert [each.tokens for each in LedgerFile(ledger).read()] == [[t.hex() for t in gone], [t.hex() for t in refused]]
    assert str(LedgerFile(ledger).read()[0].on) == "2025-03-04"
    assert head in ledger.read_bytes()
    assert [job.erasure.token_bytes() for job in world.eraser.store.open_jobs()] == [open_one]
    assert world.rows("select payload from jobs where kind = 'other'") == [({"hashes": 1},)]
    listed = LedgerFile(ledger).suppressed()
    assert set(listed) >= {*hashes["open"], *hashes["refused"]}
    assert set(listed).isdisjoint(hashes["gone"])
    for name in ("open", "refused"):
        assert len({listed[each] for each in hashes[name]}) == 1, "together as before"
    assert set(Counter(listed.values()).values()) == {FEWEST}
    assert world.eraser.resume() == 1


def test_a_restored_vault_is_told_again_who_is_suppressed(world_of_two: World) -> None:
    world = world_of_two
    world.eraser.erase(*ADA[0], suppress=True)
    before = world.rows("select * from suppressed order by 1", vault=True)
    world.rows("delete from suppressed", vault=True)
    assert world.eraser.resume() == 0
    assert world.rows("select * from suppressed order by 1", vault=True) == before
    (world.folder / "suppressed.txt").unlink()
    world.eraser.resume()
    assert world.rows("select * from suppressed order by 1", vault=True) == before
    tokens = world.vault.tokens([*ADA, PHONE])
    assert world.vault.suppressed(tokens) == set(tokens)


def test_the_upgrade_that_was_killed_between_its_parts_is_ended_by_the_next_start(
    world_of_two: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = world_of_two
    old = as_before(world, [os.urandom(16)], [os.urandom(16), os.urandom(16)], suppress=True)
    put_job(world, old, finished=True)
    for each in old["hashes"]:
        world.rows("insert into suppressed values (%s, gen_random_uuid())", bytes.fromhex(each), vault=True)
    ledger = world.folder / "erasures.jsonl"
    ledger.parent.mkdir(exist_ok=True)
    ledger.write_text(json.dumps(old) + "\n")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    for name in ("replace_file", "_rewrite_jobs"):
        with monkeypatch.context() as patched:
            patched.setattr(f"infra.adapters.postgres.erasure_upgrade.{name}", killed)
            with pytest.raises(KeyboardInterrupt):
                upgrade(world)
        assert len(world.rows("select mark from suppressed", vault=True)) == FEWEST
    assert upgrade(world) == 1
    assert b"hashes" not in ledger.read_bytes()
    assert len(world.rows("select distinct mark from suppressed", vault=True)) == 1
