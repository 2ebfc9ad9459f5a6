"""Erasing a person: nothing of them stays, nobody else loses anything, and no crash leaves it half done (C12)."""

import json
import os
import signal
import subprocess
import sys
import threading
from base64 import b64encode
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from datetime import UTC, date, datetime, timedelta
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from psycopg2.extensions import make_dsn

from infra.adapters.ledger.erasures import LedgerFile
from infra.adapters.machine.clock import SystemClock
from infra.adapters.phones import Phones
from infra.adapters.postgres.control import PostgresControl
from infra.adapters.postgres.database import Database, Uuid, Uuids, connect
from infra.adapters.postgres.embedded import EmbeddedPostgres
from infra.adapters.postgres.erased_tokens import ErasedTokens
from infra.adapters.postgres.log import PostgresLog
from infra.adapters.postgres.migrate import migrate
from infra.adapters.postgres.rebuild import PostgresRebuild
from infra.adapters.postgres.store import PostgresStore
from infra.adapters.vault.rewrite import rewrite
from infra.adapters.vault.vault import PostgresVault
from infra.app.erasing import eraser
from infra.app.first_start import ensure_first_revision
from processors.erase.dead_letters import mentions
from processors.erase.eraser import Eraser
from processors.live.compiled import Compiled
from processors.live.dead_letters import dead_letter_maker
from processors.live.feeder import LogFeeder
from processors.live.services import Services
from processors.live.worker import Worker
from processors.rebuild.builder import Builder
from processors.rebuild.check import check
from projections.definitions.files import load_pack, parse_documents
from schemas.dead_letters import seal_dead_letter
from schemas.definitions import to_json
from schemas.erasures import Erasure
from schemas.errors import ErasureRefused, RightsMissing
from schemas.failpoints import NAMES
from schemas.identity_rules import DEFAULT_RULES
from schemas.ports import OpenIdentifier
from schemas.record import Identifier, Pending, Record, Sealed, encode, event_key, uuid_text
from tests.conftest import PASSWORD, Databases, as_superuser

KEY = bytes(range(32))
ROOT = Path(__file__).parents[2]
START = datetime(2026, 1, 5, 12, tzinfo=UTC)
ADA: Sequence[tuple[str, str]] = (("user_id", "ada-lovelace"), ("email", "ada.lovelace@example.com"))
PHONE = ("phone", "+12025550123")
BOB: Sequence[tuple[str, str]] = (("user_id", "bob-babbage"), ("email", "bob@example.com"))
SECRET = "12 Analytical Engine Lane"
FAILPOINTS = sorted(name for name in NAMES if name.startswith("erase."))


class World:
    """A deployment without its HTTP edge: vault, log, worker, eraser."""

    def __init__(self, databases: Databases, folder: Path) -> None:
        self._close = ExitStack()
        self.databases = databases
        self.folder = folder
        self.main = Database(databases.main)
        self.vault_rows = Database(databases.vault)
        self.erased_tokens = ErasedTokens(databases.main)
        self.vault = PostgresVault(databases.vault, KEY, erased=self.erased_tokens, renew_s=0.05)
        self.vault.hold_lease()
        definitions = parse_documents(load_pack("retail"))
        ensure_first_revision(self.main, to_json(definitions), definitions.content_hash, START)
        self.log = PostgresLog(databases.main)
        self.store = PostgresStore(databases.main)
        self.control = PostgresControl(databases.main)
        self.rebuild = PostgresRebuild(databases.main)
        clock = SystemClock()
        letter = dead_letter_maker(self.vault, lambda: self.vault.daily_token(date(2026, 1, 5)), clock)
        self.services = Services(
            *(self.log, self.store, self.control, self.vault, letter, clock), time_zone="UTC", currency="USD"
        )
        self.feeder = LogFeeder(Worker(self.services, Builder(self.services, self.rebuild)))
        self.eraser: Eraser = self._close.enter_context(
            eraser(databases.main, databases.vault, self.vault, folder, "US", lambda: START + timedelta(days=9))
        )
        self._numbers = count(1)

    def send(self, identifiers: Sequence[tuple[str, str]], revenue: int = 10, minute: int | None = None) -> bytes:
        """An order by these identifiers, as the door writes it; returns its event key. `minute`: else the next."""
        number = next(self._numbers)
        tokens = self.vault.tokens(identifiers)
        ids = sorted(
            zip((kind for kind, _ in identifiers), tokens, strict=True),
            key=lambda pair: (DEFAULT_RULES.rank(pair[0]), pair[1]),
        )
        route = ids[0][1]
        key = event_key(self.vault.hash_key, "shop", f"m{number}")
        at = START + timedelta(minutes=number if minute is None else minute)
        sealed = self.vault.seal(route, json.dumps({"traits": {"street": SECRET}}).encode(), key)
        record = Record(
            v=1,
            id=uuid_text(key),
            message_id=f"m{number}",
            type="purchase.completed",
            source="shop",
            ids=[Identifier(kind, token.hex()) for kind, token in ids],
            route_key=route.hex(),
            occurred_at=at,
            received_at=at,
            known_at=at,
            digest=key.hex(),
            properties={"order_id": f"o{number}", "revenue": str(revenue)},
            sealed=Sealed(route.hex(), ["traits.street"], b64encode(sealed).decode()),
        )
        self.log.append([Pending(route, encode(record))])
        return key

    def settle(self) -> None:
        while self.feeder.step():
            pass

    def rows(self, statement: str, *values: object, vault: bool = False) -> list[tuple[Any, ...]]:
        with (self.vault_rows if vault else self.main).transaction() as cursor:
            cursor.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def owner(self, identifier: tuple[str, str]) -> bytes | None:
        token = self.vault.find(*identifier)
        found = self.rows("select profile_id from tokens where token = %s", Uuid(token)) if token else []
        return found[0][0] if found else None

    def orders_of(self, identifier: tuple[str, str]) -> int | None:
        """How many events the profile of an identifier has."""
        owner = self.owner(identifier)
        found = self.rows("select event_count from profiles_r1 where profile_id = %s", Uuid(owner)) if owner else []
        return int(found[0][0]) if found else None

    def close(self) -> None:
        self._close.close()
        for each in (self.vault, self.erased_tokens, self.log, self.store, self.control, self.main, self.vault_rows):
            each.close()


def is_what_the_log_says(world: World) -> bool:
    """`rebuild --check`: the live revision equals a fold of the whole log."""
    live = world.control.live()
    compiled = Compiled.of(live, "UTC", "USD")
    with world.rebuild.snapshot(live.revision) as snapshot:
        verdict = check(world.services, compiled, snapshot)
    assert verdict.differences == [], verdict.found
    return verdict.equal


@pytest.fixture
def world(databases: Databases, tmp_path: Path) -> Iterator[World]:
    made = World(databases, tmp_path / "ledger")
    yield made
    made.close()


def test_a_person_is_erased_by_any_identifier_and_others_keep_theirs(world: World) -> None:
    world.send(ADA)
    world.send([ADA[1], PHONE])
    world.send(BOB)
    world.settle()
    profile = world.owner(PHONE)
    assert profile is not None
    assert profile == world.owner(ADA[0])
    done = world.eraser.erase("phone", "(202) 555-0123")
    world.settle()
    assert (done.found, done.identifiers, done.events) == (True, 3, 2)
    assert done.receipt is not None
    assert done.receipt["kinds"] == {"email": 1, "phone": 1, "user_id": 1}
    assert all(world.vault.find(*identifier) is None for identifier in (*ADA, PHONE))
    assert world.orders_of(BOB[0]) == 1
    for table in ("profiles_r1", "memberships_r1", "tokens", "evidence"):
        assert world.rows(f"select 1 from {table} where profile_id = %s", Uuid(profile)) == []
    assert world.rows("select count(*) from states_r1") == [(1,)]
    assert world.rows("select count(*) from register where verdict = 0") == [(3,)]  # totals are unchanged
    assert world.rows("select count(*) from evidence where profile_id is null and tokens = '{}'") == [(2,)]
    assert is_what_the_log_says(world)


def test_the_events_of_the_erased_cannot_be_read_again(world: World) -> None:
    world.send(ADA)
    world.settle()
    [stored] = [record for part in range(4) for record in world.log.read(part, 0, 9)]
    record = msgspec.json.decode(stored.value)
    triple = (
        bytes.fromhex(record["route_key"]),
        msgspec.json.decode(f'"{record["sealed"]["data"]}"', type=bytes),
        bytes.fromhex(record["id"].replace("-", "")),
    )
    assert world.vault.open_many([triple]) == [b'{"traits": {"street": "12 Analytical Engine Lane"}}']
    world.eraser.erase(*ADA[0])
    assert world.vault.open_many([triple]) == [None]


def test_an_unknown_identifier_is_answered_not_failed(world: World) -> None:
    assert world.eraser.erase("email", "nobody@example.com") == (False, 0, 0, None)
    assert world.eraser.erase("email", "not an address") == (False, 0, 0, None)
    assert world.eraser.erase("profile", "no-uuid") == (False, 0, 0, None)
    assert world.rows("select 1 from jobs") == []


def test_a_profile_id_names_a_person_too(world: World) -> None:
    world.send(ADA)
    world.settle()
    owner = world.owner(ADA[0])
    assert owner is not None
    assert world.eraser.erase("profile", uuid_text(owner)).identifiers == 2
    assert world.vault.find(*ADA[1]) is None


def test_an_identifier_that_was_never_folded_is_erased_alone(world: World) -> None:
    [token] = world.vault.tokens([PHONE])
    done = world.eraser.erase(*PHONE)
    assert (done.found, done.identifiers, done.events) == (True, 1, 0)
    assert world.vault.find(*PHONE) is None
    assert world.rows("select token from erased_tokens") == [(token,)]


def test_who_returns_is_a_new_customer(world: World) -> None:
    world.send(ADA)
    world.settle()
    before = world.owner(ADA[0])
    world.eraser.erase(*ADA[0])
    world.send(ADA)
    world.settle()
    assert world.owner(ADA[0]) not in {None, before}
    assert world.orders_of(ADA[0]) == 1


def test_events_on_their_way_during_the_erasure_bring_nobody_back(world: World) -> None:
    world.send(ADA)
    world.settle()
    world.send(ADA)  # accepted, not folded yet
    world.eraser.erase(*ADA[0])
    world.settle()
    assert world.rows("select count(*) from profiles_r1") == [(0,)]
    assert world.rows("select count(*) from tokens") == [(0,)]
    assert world.rows("select count(*) from states_r1") == [(0,)]


def test_a_suppressed_person_is_refused_until_let_in_again(world: World) -> None:
    world.send([*ADA, PHONE])
    world.settle()
    world.eraser.erase(*ADA[0], suppress=True)
    tokens = world.vault.tokens([ADA[1], PHONE, BOB[0]])
    assert world.vault.suppressed(tokens) == set(tokens[:2])
    assert world.rows("select count(*) from identifiers", vault=True) == [(1,)]
    assert world.eraser.unsuppress(*PHONE)  # and with it all that were suppressed together
    assert world.vault.suppressed(world.vault.tokens([*ADA, PHONE])) == set()
    assert not world.eraser.unsuppress(*PHONE)
    assert world.rows("select 1 from suppressed", vault=True) == []


def test_somebody_unknown_can_be_suppressed(world: World) -> None:
    assert not world.eraser.erase(*PHONE, suppress=True).found
    tokens = world.vault.tokens([PHONE])
    assert world.vault.suppressed(tokens) == set(tokens)


# --- who else is touched -----------------------------------------------------------------------------------------


def test_a_refused_link_needs_force_and_the_other_person_stays(world: World) -> None:
    world.send(ADA)
    world.send([BOB[0], ADA[1]])  # another user_id on Ada's address: the link is refused
    world.settle()
    assert world.owner(BOB[0]) != world.owner(ADA[1]) == world.owner(ADA[0])
    with pytest.raises(ErasureRefused) as caught:
        world.eraser.erase(*ADA[0])
    assert "1 refused links" in caught.value.problems[0].reason
    assert world.rows("select 1 from jobs") == []
    done = world.eraser.erase(*ADA[0], force=True)
    world.settle()
    assert (done.identifiers, done.events) == (2, 1)
    assert world.orders_of(BOB[0]) == 1
    bob = world.vault.find(*BOB[0])
    assert bob is not None
    assert world.rows("select tokens, kinds from evidence where cardinality(tokens) > 0") == [([bob], ["user_id"])]
    assert world.rows("select 1 from refused_links") == []
    assert is_what_the_log_says(world)


def test_a_hub_stays_unless_it_is_the_one_named(world: World) -> None:
    shared = ("email", "info@example.com")
    people = [("user_id", f"clerk-{number}") for number in range(7)]
    for person in people:
        world.send([person, shared])
    world.settle()
    assert world.rows("select count(*) from tokens where hub") == [(1,)]
    done = world.eraser.erase(*people[0])
    world.settle()
    assert (done.identifiers, done.events) == (1, 1)
    assert world.vault.find(*shared) is not None
    assert world.eraser.erase(*shared).identifiers == 1
    world.settle()
    assert world.vault.find(*shared) is None
    assert [world.orders_of(person) for person in people] == [None] + [1] * 6


def test_a_hub_of_just_enough_people_is_none_when_one_of_them_is_erased(world: World) -> None:
    shared = ("email", "info@example.com")
    people = [("user_id", f"clerk-{number}") for number in range(6)]
    for person in people:
        world.send([person, shared])
    world.settle()
    assert world.rows("select count(*) from tokens where hub") == [(1,)]
    world.eraser.erase(*people[3], force=True)
    world.settle()
    assert world.rows("select count(*) from tokens where hub") == [(0,)]
    assert world.owner(shared) == world.owner(people[0])
    assert is_what_the_log_says(world)


def test_events_routed_by_a_hub_that_stays_lose_their_owner_and_go_to_nobody(world: World) -> None:
    shared, visitor = ("email", "info@example.com"), ("anonymous_id", "visitor-1")
    for number in range(7):
        world.send([("user_id", f"clerk-{number}"), shared])
    world.settle()
    world.send([shared, visitor])
    world.send([visitor])
    world.settle()
    assert world.orders_of(visitor) == 2
    before = world.orders_of(shared)
    done = world.eraser.erase(*visitor)
    world.settle()
    assert (done.identifiers, done.events) == (1, 2)
    assert world.orders_of(shared) == before
    assert world.rows("select count(*) from evidence where profile_id is null") == [(2,)]


def test_events_of_nobody_go_with_the_hub_that_routed_them(world: World) -> None:
    """Its visitor was erased before it: their evidence no longer says whose key sealed them."""
    shared, visitor = ("email", "info@example.com"), ("anonymous_id", "visitor-1")
    people = [("user_id", f"clerk-{number}") for number in range(7)]
    for person in people:
        world.send([person, shared])
    world.send([shared, visitor])
    world.settle()
    world.send([shared, visitor], minute=0)  # accepted, not folded yet; its receipt is the earliest
    world.eraser.erase(*visitor)
    world.settle()
    assert world.rows("select count(*) from states_r1") == [(8,)]
    assert is_what_the_log_says(world)
    done = world.eraser.erase(*shared)
    world.settle()
    assert (done.identifiers, done.events) == (1, 0)
    assert world.rows("select count(*) from states_r1") == [(7,)]
    assert [world.orders_of(person) for person in people] == [1] * 7
    assert is_what_the_log_says(world)


def test_an_identifier_seen_with_the_person_alone_goes_even_if_its_link_was_refused(world: World) -> None:
    for number in range(7):  # five addresses a profile
        world.send([ADA[0], ("email", f"ada{number}@example.com")])
    world.settle()
    done = world.eraser.erase(*ADA[0], force=True)
    world.settle()
    assert done.identifiers == 8
    assert world.rows("select count(*) from identifiers", vault=True) == [(0,)]
    assert world.rows("select count(*) from tokens") == [(0,)]


def test_the_first_receipt_of_a_token_that_stays_is_of_what_stays(world: World) -> None:
    shared = ("email", "family@example.com")
    world.send([ADA[0], shared])
    world.send([BOB[0], shared])
    later = world.send([BOB[0], shared, PHONE])
    world.settle()
    assert world.owner(shared) == world.owner(ADA[0])
    world.send([PHONE])
    world.settle()
    world.eraser.erase(*BOB[0], force=True)  # Bob, whose phone nobody else has
    world.settle()
    assert world.vault.find(*PHONE) is None
    assert world.orders_of(ADA[0]) == 1
    token = world.vault.find(*shared)
    assert token is not None
    rows = world.rows(
        "select first_event <> %s, last_event <> %s from tokens where token = %s", *[Uuid(later)] * 2, Uuid(token)
    )
    assert rows == [(True, True)]


def shop_life(world: World, chance: Random, events: int) -> None:
    """Random orders of few people with few addresses, phones and devices: merges, refused links, hubs."""
    for _ in range(events):
        drawn = [
            ("user_id", f"customer-{chance.randrange(9)}") if chance.random() < 0.6 else None,
            ("email", f"mail-{chance.randrange(6)}@example.com") if chance.random() < 0.5 else None,
            ("phone", f"+1202555010{chance.randrange(4)}") if chance.random() < 0.3 else None,
            ("anonymous_id", f"browser-{chance.randrange(8)}"),
        ]
        world.send([each for each in drawn if each is not None])
    world.settle()


@pytest.mark.parametrize("seed", [1, 2, pytest.param(3, marks=pytest.mark.long)])
def test_after_any_erasure_the_live_revision_is_what_the_log_says(world: World, seed: int) -> None:
    chance = Random(seed)
    for _ in range(4 if seed < 3 else 25):
        shop_life(world, chance, 12)
        assert is_what_the_log_says(world)
        everybody = world.rows("select token, kind from tokens order by token")
        token, kind = chance.choice(everybody)
        value = world.vault.open([token])[token].value
        before = world.rows("select count(*) from register where verdict = 0")
        assert world.eraser.erase(kind, value, force=True).found
        world.settle()
        assert world.rows("select count(*) from register where verdict = 0") == before
        assert is_what_the_log_says(world)
        gone = world.rows("select token from erased_tokens")
        assert world.vault.open(row[0] for row in gone) == {}


# --- what is told ------------------------------------------------------------------------------------------------


def test_erased_is_the_last_change_of_a_profile(world: World) -> None:
    world.send(ADA)
    world.settle()
    profile = world.owner(ADA[0])
    assert profile is not None
    world.eraser.erase(*ADA[0])
    world.settle()
    told = world.rows(
        "select c.type, c.cause, c.version, b.seq is not null from changes c join feed_batches b using (batch)"
        " where profile_id = %s order by b.batch, c.idx",
        Uuid(profile),
    )
    assert told[-1][:2] == ("erased", "erasure")
    assert [row[2] for row in told] == list(range(1, len(told) + 1))
    assert all(row[3] for row in told)
    assert [row[0] for row in told].count("erased") == 1


def test_the_ledger_holds_tokens_and_the_day_and_the_receipt_none_of_them(world: World) -> None:
    world.send(ADA)
    world.settle()
    done = world.eraser.erase(*ADA[0])
    assert done.receipt is not None
    text = (world.folder / "erasures.jsonl").read_text()
    [line] = text.splitlines()
    entry = json.loads(line)
    assert entry.keys() == {"id", "on", "tokens", "profiles"}
    assert (entry["on"], len(entry["tokens"])) == ("2026-01-14", 2)
    assert (world.folder / "erasures.jsonl").stat().st_mode & 0o077 == 0
    [(payload,)] = world.rows("select payload from facts where type = 'person.erased'")
    assert payload["tokens"] == entry["tokens"]
    assert done.receipt["erased_on"] == entry["on"]
    assert entry["id"] not in str(done.receipt["id"]).replace("-", "")


def test_a_receipt_is_known_as_ours_until_somebody_changes_it(world: World) -> None:
    world.send(ADA)
    world.settle()
    receipt = world.eraser.erase(*ADA[0]).receipt
    assert receipt is not None
    assert world.eraser.is_ours(json.loads(json.dumps(receipt)))
    assert not world.eraser.is_ours({**receipt, "events": 2})
    assert not world.eraser.is_ours({})


def test_a_ledger_line_torn_by_a_crash_harms_no_other(tmp_path: Path) -> None:
    ledger = LedgerFile(tmp_path / "erasures.jsonl")
    one, two = (Erasure(id=name * 32, on=START.date(), tokens=[], profiles=[]) for name in ("a", "b"))
    assert ledger.read() == []
    ledger.append([one])
    with (tmp_path / "erasures.jsonl").open("a") as out:
        out.write('{"id": "torn')
    ledger.append([two, one])
    ledger.append([one])
    assert ledger.read() == [one, two]


def test_what_a_restore_brings_back_is_erased_again(world: World) -> None:
    world.send(ADA)
    world.settle()
    backup = world.rows("select hash, token, kind, key_wrapped, value_sealed from identifiers", vault=True)
    world.eraser.erase(*ADA[0])
    assert world.eraser.resume() == 0
    for row in backup:
        world.rows("insert into identifiers values (%s, %s, %s, %s, %s)", row[0], Uuid(row[1]), *row[2:], vault=True)
    world.rows("delete from erased_tokens")
    world.rows("delete from jobs")
    assert world.eraser.resume() == 1
    assert world.vault.find(*ADA[0]) is None
    assert world.rows("select count(*) from erased_tokens") == [(2,)]
    assert world.eraser.resume() == 0
    assert len((world.folder / "erasures.jsonl").read_text().splitlines()) == 1


# --- dead letters ------------------------------------------------------------------------------------------------


def letter(world: World, plain: bytes, tokens: tuple[bytes, ...] = ()) -> bytes:
    id_ = os.urandom(16)
    key = tokens[0] if tokens else world.vault.daily_token(date(2026, 1, 5))
    made = seal_dead_letter(
        *(world.vault, id_, "door", "no_identifier", "", "why", "shop", START, None, tokens, key, plain)
    )
    world.rows(
        "insert into dead_letters (id, stage, rule, path, reason, source, received_at, tokens, seal_key, sealed)"
        " values (%s, 'door', 'rule', '', 'why', 'shop', %s, %s, %s, %s)",
        *(Uuid(id_), START, Uuids(tokens), Uuid(key), made.sealed),
    )
    return id_


def test_dead_letters_of_the_person_go_with_and_without_tokens(world: World) -> None:
    world.send([*ADA, PHONE])
    world.send(BOB)
    world.settle()
    ada, bob = world.vault.tokens([ADA[0], BOB[0]])
    kept = {
        letter(world, b'{"item": {"traits": {"email": "bob@example.com"}}}'),
        letter(world, b'{"item": 1}', (bob,)),
        letter(world, b"not json at all"),
    }
    for text in (
        b'{"item": {"traits": {"email": " Ada.Lovelace\\u0040EXAMPLE.com "}}}',
        b'{"item": {"properties": {"note": "please write to ada.lovelace@example.com soon"}}}',
        b'{"item": {"traits": {"phone": "(202) 555-0123"}}}',
        b'{"item": {"ada-lovelace": true}}',
        b'{"bytes": "' + b64encode(b'{broken "ada-lovelace') + b'"}',
        b'{"sent_at": null, "bytes": "' + b64encode(b'{broken "ada-lovelace') + b'", "context": {}}',
        b"broken ada-lovelace",
        b'{"ids": [{"kind": "user_id", "token": "' + ada.hex().encode() + b'"}]}',
    ):
        letter(world, text)
    letter(world, b'{"item": 2}', (ada, bob))
    expired = letter(world, b"nobody reads this")
    world.rows("update dead_letters set sealed = %s where id = %s", b"x" * 40, Uuid(expired))
    world.eraser.erase(*ADA[0])
    assert {row[0] for row in world.rows("select id from dead_letters")} == kept | {expired}


def test_a_short_value_is_no_reason_to_delete_a_letter_that_holds_it_in_a_text() -> None:
    values = [OpenIdentifier(b"t" * 16, "user_id", "42")]
    phones = Phones("US")
    assert mentions(b'{"userId": 42.0}', values, phones)
    assert mentions(b'{"a": [{"b": "42"}]}', values, phones)
    assert not mentions(b'{"note": "42 things", "price": 4242}', values, phones)


# --- crashes and bytes -------------------------------------------------------------------------------------------

SCRIPT = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from infra.adapters.postgres.erased_tokens import ErasedTokens
from infra.adapters.vault.vault import PostgresVault
from infra.adapters.vault.rewrite import rewrite
from infra.app.erasing import eraser
from schemas import failpoints
main, vault_dsn, folder, point = sys.argv[1:]
failpoints.arm(point)
vault = PostgresVault(vault_dsn, bytes(range(32)), erased=ErasedTokens(main))
with eraser(main, vault_dsn, vault, Path(folder), "US", lambda: datetime.now(UTC)) as work:
    work.erase("user_id", "ada-lovelace")
"""


@pytest.mark.kill
@pytest.mark.parametrize("point", FAILPOINTS)
def test_an_erasure_killed_at_any_step_is_finished_by_the_next_start(world: World, point: str) -> None:
    world.send(ADA)
    world.send(BOB)
    world.settle()
    command = [sys.executable, "-c", SCRIPT, world.databases.main, world.databases.vault, str(world.folder), point]
    killed = subprocess.run(command, cwd=ROOT, check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    world.settle()
    assert world.eraser.resume() == 1
    world.settle()
    assert world.vault.find(*ADA[0]) is None
    assert world.vault.find(*ADA[1]) is None
    assert world.orders_of(BOB[0]) == 1
    assert world.rows("select count(*) from profiles_r1") == [(1,)]
    assert world.rows("select count(*) from erased_tokens") == [(2,)]
    assert world.rows("select count(*) from changes where type = 'erased'") == [(1,)]
    assert world.rows("select step, finished_at is not null from jobs") == [("receipt", True)]
    assert len((world.folder / "erasures.jsonl").read_text().splitlines()) == 1
    assert world.eraser.resume() == 0


def found_in(folder: Path, needles: Sequence[bytes]) -> set[bytes]:
    """Those that stand in some file below a folder."""
    found: set[bytes] = set()
    for path in folder.rglob("*"):
        if path.is_file() and path.stat().st_size:
            data = path.read_bytes()
            found.update(needle for needle in needles if needle in data)
    return found


def test_no_file_holds_a_clear_value_ever_nor_the_vault_row_afterwards(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path)
    server.start()
    migrate(server.dsn, "main")
    migrate(server.vault_dsn, "vault")
    world = World(Databases(server.dsn, server.vault_dsn), tmp_path / "ledger")
    unique = f"unmistakable-{os.urandom(6).hex()}"
    person = [("user_id", unique), ("email", f"{unique}@example.com")]
    for number in range(9):  # rows of others before theirs: the page stays, and nothing moves over what was theirs
        world.vault.tokens([("user_id", f"other-{number}")])
    world.send(person)
    letter(world, json.dumps({"item": {"userId": unique}}).encode())
    world.settle()
    rows = world.rows(
        "select key_wrapped, value_sealed from identifiers where token = any(%s)",
        Uuids(world.vault.tokens(person)),
        vault=True,
    )
    parts = [bytes(part) for row in rows for part in row]
    world.rows("analyze", vault=True)
    world.rows("analyze")
    world.rows("checkpoint")
    clear = [unique.encode(), SECRET.encode(), unique.encode("utf-16-le"), unique.encode().hex().encode()]
    assert found_in(tmp_path, [*clear, *parts]) == set(parts)  # the search does find them
    world.eraser.erase(*person[0])
    assert found_in(tmp_path, [*clear, *parts]) == set()
    world.settle()
    world.close()
    server.stop()
    assert found_in(tmp_path, [*clear, *parts]) == set()


# --- a server that others run: the account of docs/cluster.md


def test_a_plain_owner_erases_and_the_receipt_says_what_the_server_still_holds(world: World) -> None:
    assert world.rows("select rolsuper or rolcreatedb from pg_roles where rolname = current_user") == [(False,)]
    world.send(ADA)
    world.settle()
    receipt = world.eraser.erase(*ADA[0]).receipt
    assert receipt is not None
    remains = receipt["remains"]
    assert isinstance(remains, list)
    until = {each["where"]: each["until"] for each in remains}
    assert until.keys() >= {"vault_table", "wal", "backups"}
    for setting in ("max_wal_size", "wal_keep_size", "checkpoint_timeout"):
        value = str(world.rows("select setting from pg_settings where name = %s", setting)[0][0])
        assert value in until["wal"]
    assert world.rows("select count(*) from identifiers", vault=True) == [(0,)]
    assert world.rows("select step, finished_at is not null from jobs") == [("receipt", True)]


def test_an_erasure_that_stopped_when_its_rows_were_gone_is_finished_by_the_next_start(world: World) -> None:
    """As builds before left it: `permission denied for function pg_switch_wal`, after the deletion."""
    world.send(ADA)
    world.send(BOB)
    world.settle()
    world.eraser.erase(*ADA[0])
    world.rows("update jobs set step = 'letters', finished_at = null")
    (world.folder / "erasures.jsonl").unlink()
    assert world.eraser.resume() == 1
    assert world.rows("select step, finished_at is not null from jobs") == [("receipt", True)]
    assert len((world.folder / "erasures.jsonl").read_text().splitlines()) == 1
    assert world.orders_of(BOB[0]) == 1


def refused(main: str, vault_dsn: str, world: World) -> RightsMissing | None:
    """What erasing Ada by these accounts says; None when she was erased."""
    with eraser(main, vault_dsn, world.vault, world.folder, "US", lambda: START) as other:
        try:
            other.erase(*ADA[0])
        except RightsMissing as err:
            return err
    return None


def test_an_account_that_may_not_is_told_the_grants_before_anything_is_deleted(
    world: World, server: EmbeddedPostgres
) -> None:
    """One that works with the tables of another: who made the databases and who runs the roles are two accounts."""
    world.send(ADA)
    world.settle()
    member = f"member_{os.urandom(4).hex()}"
    as_superuser(server, f"create role {member} login password '{PASSWORD}'")
    for vault in (False, True):
        world.rows(f"grant select, insert, update, delete on all tables in schema public to {member}", vault=vault)
        world.rows(f"revoke delete on {'suppressed' if vault else 'search'} from {member}", vault=vault)
    main, vault_dsn = (make_dsn(dsn, user=member, password=PASSWORD) for dsn in world.databases)
    ran: list[str] = []
    while (refusal := refused(main, vault_dsn, world)) is not None:
        assert world.rows("select count(*) from jobs") == [(0,)]
        assert world.vault.find(*ADA[0]) is not None
        assert all(problem.reason in refusal.message for problem in refusal.problems)
        for problem in refusal.problems:
            assert problem.reason not in ran, "what it says was run, and was not enough"
            ran.append(problem.reason)
            world.rows(problem.reason, vault=problem.path.startswith("vault"))
    assert any("DELETE ON search TO" in each for each in ran)
    assert any("MAINTAIN ON identifiers TO" in each for each in ran)
    assert world.vault.find(*ADA[0]) is None


def test_the_vault_is_read_and_written_while_its_table_is_written_anew(world: World) -> None:
    people = [("user_id", f"person-{number}") for number in range(3_000)]
    before = dict(zip(people, world.vault.tokens(people), strict=True))
    added: dict[tuple[str, str], bytes] = {}
    ended = threading.Event()

    def register() -> None:
        with closing(PostgresVault(world.databases.vault, KEY, erased=world.erased_tokens, renew_s=0.05)) as vault:
            vault.hold_lease()
            for number in count():
                if ended.is_set() and number > 50:
                    return
                person = ("user_id", f"late-{number}")
                added[person] = vault.tokens([person])[0]
                assert vault.find(*people[number % len(people)]) == before[people[number % len(people)]]

    with ThreadPoolExecutor(1) as pool:
        registering = pool.submit(register)
        for _ in range(3):
            with closing(connect(world.databases.vault)) as connection:
                rewrite(connection)
        ended.set()
        registering.result(60)
    kept = {bytes(row[0]) for row in world.rows("select token from identifiers", vault=True)}
    assert kept == {*before.values(), *added.values()}
    indexes = "select indexname from pg_indexes where tablename = 'identifiers' order by 1"
    assert world.rows(indexes, vault=True) == [("identifiers_pkey",), ("identifiers_token_key",)]
    statistics = "select count(*) from pg_attribute where attrelid = 'identifiers'::regclass and attstattarget = 0"
    assert world.rows(statistics, vault=True) == [(5,)]


def test_a_reader_that_stays_holds_up_the_erasure_and_nobody_else(world: World) -> None:
    token = world.vault.tokens([ADA[0]])[0]
    with closing(connect(world.databases.vault)) as reader, closing(connect(world.databases.vault)) as connection:
        with reader.cursor() as cursor:
            cursor.execute("select count(*) from identifiers")  # and goes on, as a dump does
        with ThreadPoolExecutor(1) as pool:
            rewriting = pool.submit(rewrite, connection)
            for number in range(40):
                assert world.vault.find(*ADA[0]) == token
                world.vault.tokens([("user_id", f"beside-{number}")])
            assert not rewriting.done()
            reader.rollback()
            rewriting.result(60)
    assert world.rows("select count(*) from identifiers", vault=True) == [(41,)]
