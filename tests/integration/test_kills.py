"""kill -9 at every named failpoint and at random, under load; what is left is judged by the independent checker.

One `up` a round; each round ends a role at a failpoint, then another at random, then everything. The load goes on
through all of it: clients repeat a batch under its ids until it is answered.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from subprocess import run

import pytest

from schemas.failpoints import NAMES
from tests.checker.check import DEFINITIONS, check
from tests.checker.check_log import Violation
from tests.checker.client import Client
from tests.checker.ledger import Ledger
from tests.checker.load import Traffic
from tests.checker.product import Product, find_bytes, wait_until
from tests.checker.senders import Senders

pytestmark = [pytest.mark.kill, pytest.mark.timeout(900)]

UNDER_LOAD = {
    "http": (
        *("door.before_append", "door.after_append", "vault.before_commit", "vault.after_commit"),
        *("log.before_reserve", "log.before_commit", "log.after_commit"),
    ),
    "worker": (
        *("fold.before_commit", "fold.after_commit", "decide.before_commit", "decide.after_commit"),
        "feed.after_number",
    ),
}
"""Failpoints that ordinary traffic passes, by role. Those below take the command that reaches them."""
ARCHIVING = ("archive.before_rename", "archive.after_rename", "archive.after_manifest")
SWAPPING = ("swap.before_commit", "swap.after_commit")
ERASING = (
    *("erase.after_fact", "erase.after_tokens", "erase.after_epoch", "erase.after_vault"),
    *("erase.after_projections", "erase.after_ledger", "erase.after_clean"),
)
IMPORTING = ("import.after_append",)
PUBLISHING = ("publish.after_ack",)  # in test_publishing.py
MERGING = (  # test_archive_merging.py
    *("archive.merge_written", "archive.merge_put", "archive.merge_listed", "archive.retired"),
    *("archive.manifest_written", "archive.manifest_renamed"),
)
ELSEWHERE = (  # test_archive_rewriting, test_backup, test_key_rotation, test_erasing_many, test_forms_upgrade
    *("archive.rewrite_listed", "archive.rewrite_put", "archive.rewrite_written"),
    *("backup.archive_copied", "backup.finished", "backup.part_put", "restore.unpacked"),
    *("rotate.begun", "rotate.stepped", "erase_many.after_chunk", "forms.stepped"),
)
READING_THE_INBOX = ("inbox.after_append",)  # in test_inbox
RANDOM_ROLES = ("http", "worker", "archive", "postgres")
REACHED_S = 120.0
ARCHIVE_NOW = """
import sys
from pathlib import Path
from infra.app.bootstrap import session
from infra.drivers.process.archive_role import archiver_of
with session(Path(sys.argv[1])) as here:
    archiver_of(here).flush()
"""


class Shop:
    """A product with its clients and ledger."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.product = Product(folder / "data")
        self.ledger = Ledger(folder / "ledger.jsonl")
        self.kills = 0
        self.keys: dict[str, str] = {}

    def open(self) -> None:
        """First start: definitions and two sources."""
        (self.folder / "checker.yaml").write_text(DEFINITIONS)
        self.product.up()
        self.product.ask("apply", str(self.folder / "checker.yaml"))
        self.keys = {name: self.product.source(name) for name in ("web", "till")}

    def send(self, batches: int, seed: int = 1) -> None:
        """A quiet history: batches of 30 from each source, one after the other."""
        for name, key in self.keys.items():
            client = Client(self.product.port, name, key, self.ledger)
            traffic = Traffic(f"{name}{seed}", seed=seed, now=datetime.now(UTC), customers=150)
            for _ in range(batches):
                assert client.send(traffic.batch(30)).status == 200
            client.close()

    def judge(self, *, whole: bool = True) -> list[Violation]:
        """Settle, then everything the checker knows."""
        self.product.settle()
        shown = self.product.shown()
        with self.product.databases() as (main, vault):
            archive = self.product.data / "archive"
            return check(main, self.ledger, vault=vault, archive=archive, shown=shown, whole=whole)

    def rebuild_is_equal(self) -> bool:
        """`rebuild --check` of the settled product."""
        return bool(self.product.ask("rebuild", "--check")["equal"])


@contextmanager
def shop(folder: Path) -> Iterator[Shop]:
    """Open for as long as the block lasts."""
    here = Shop(folder)
    try:
        here.open()
        yield here
    finally:
        here.product.stop()
        here.ledger.close()


@pytest.fixture
def a_shop(tmp_path: Path) -> Iterator[Shop]:
    with shop(tmp_path) as here:
        yield here


def test_every_failpoint_has_its_place_in_these_tests() -> None:
    placed = [*UNDER_LOAD["http"], *UNDER_LOAD["worker"], *ARCHIVING, *SWAPPING, *ERASING, *IMPORTING, *PUBLISHING]
    placed += [*READING_THE_INBOX, *MERGING, *ELSEWHERE]
    assert sorted(placed) == sorted(NAMES)


# ---------------------------------------------------------------- under load


def killed_round(here: Shop, random: Random, role: str, name: str) -> None:
    """One `up`: a kill at a failpoint, one of a random role, one of everything or of the supervisor alone."""
    product = here.product
    product.start(f"{role}@{name}:{random.randrange(1, 6)}")
    before = len(product.log)

    def reached() -> bool:
        return any(f"the {role} process ended (SIGKILL)" in line for line in product.log[before:])

    assert wait_until(reached, REACHED_S), f"{name} was not reached:\n" + "\n".join(product.log[-30:])
    here.kills += 1
    product.await_ready()
    time.sleep(random.uniform(0, 0.4))  # a random moment, not a wait for something
    here.kills += product.kill(random.choice(RANDOM_ROLES))
    time.sleep(random.uniform(0, 0.4))
    here.kills += product.kill(random.choice(("all", "up")))


def kill_under_load(here: Shop, seed: int, rounds: int, judged_every: int) -> None:
    """Rounds over all failpoints of the load, judged in between and at the end."""
    random = Random(seed)
    points = [(role, name) for role, names in UNDER_LOAD.items() for name in names]
    wanted: list[tuple[str, str]] = []
    while len(wanted) < rounds:
        random.shuffle(points)
        wanted += points
    senders = Senders(here.product.port, here.keys, here.ledger, seed=seed, now=datetime.now(UTC))
    try:
        here.product.kill("all")
        senders.go()
        for number, (role, name) in enumerate(wanted[:rounds], start=1):
            killed_round(here, random, role, name)
            if number % judged_every == 0 or number == rounds:
                here.product.up()
                senders.pause()
                assert here.judge() == []
                assert not senders.gave_up
                if number < rounds:
                    senders.go()
                    here.product.kill("all")
        assert here.rebuild_is_equal()
    finally:
        senders.close()


def test_kills_under_load_lose_nothing_and_count_nothing_twice(a_shop: Shop) -> None:
    kill_under_load(a_shop, seed=1, rounds=12, judged_every=6)
    assert a_shop.kills >= 25


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2, 8))
def test_two_hundred_kills_under_load_lose_nothing(a_shop: Shop, seed: int) -> None:
    """Six folders of 12 rounds with 3 kills each: 216 kills."""
    kill_under_load(a_shop, seed=seed, rounds=12, judged_every=6)
    assert a_shop.kills >= 34


# ---------------------------------------------------------------- what commands reach


def test_an_archiver_killed_between_any_two_steps_leaves_the_log_whole(a_shop: Shop) -> None:
    product = a_shop.product
    for number, name in enumerate(ARCHIVING):
        a_shop.send(6, seed=number)
        product.settle()
        product.stop()
        killed = archive_now(product, f"cli@{name}:{number + 1}")
        assert killed == -9
        assert archive_now(product, None) == 0
        product.up()
        assert a_shop.judge() == []
    archived = product.ask("status")
    assert archived["archived"] == archived["accepted"]


def archive_now(product: Product, failpoint: str | None) -> int:
    """Archive all that is applied, in a process of its own; its exit status."""
    armed = {} if failpoint is None else {"TOUCHFOLD_TEST": "1", "TOUCHFOLD_FAILPOINT": failpoint}
    command = [sys.executable, "-c", ARCHIVE_NOW, str(product.data)]
    return run(command, env=product.environ | armed, timeout=120, check=False).returncode


@pytest.mark.parametrize("name", SWAPPING)
def test_a_swap_killed_on_either_side_of_its_commit_ends_whole(a_shop: Shop, name: str) -> None:
    a_shop.send(10)
    product = a_shop.product
    product.settle()
    product.kill("all")
    product.up(f"worker@{name}")
    more = a_shop.folder / "more.yaml"
    more.write_text("segments: {checker_more: {when: {trait: checker_events, op: gte, value: 3}}}\n")
    before = len(product.log)
    product.ask("apply", str(more))
    assert any("the worker process ended (SIGKILL)" in line for line in product.log[before:])
    a_shop.send(4, seed=2)
    assert a_shop.judge() == []
    assert "checker_more" in {segment["name"] for segment in product.ask("segment", "list")}
    assert a_shop.rebuild_is_equal()


def test_an_erasure_killed_between_any_two_steps_is_finished_by_the_next_start(a_shop: Shop) -> None:
    a_shop.send(25)
    product = a_shop.product
    product.settle()
    people = _known_people(a_shop, len(ERASING))
    for name, person in zip(ERASING, people, strict=True):
        done = product.run("erase", f"user_id:{person}", "--yes", "--force", failpoint=f"cli@{name}")
        assert done.status == -9, f"{name}: {done}"
        product.kill("all")
        product.up()
        assert product.run("profile", f"user_id:{person}").status == 1
        assert a_shop.judge() == []
    a_shop.send(10, seed=2)  # some of them come back: as new customers
    assert a_shop.judge() == []
    assert a_shop.rebuild_is_equal()
    product.stop()
    gone = [f"{person}@example.com".encode() for person in people]
    assert find_bytes(product.data, gone) == []


def _known_people(here: Shop, count: int) -> list[str]:
    """Customers who were identified with an address."""
    sent = [item for request in here.ledger.requests for item in request.items]
    named = sorted({item["userId"] for item in sent if item["type"] == "identify"})
    return Random(7).sample(named, count)


def test_an_import_killed_after_an_append_counts_every_line_once(a_shop: Shop) -> None:
    product = a_shop.product
    rows = [f"t{n},c{n % 40},2024-03-{n % 28 + 1:02d},{n % 90}.{n % 100:02d}" for n in range(3_000)]
    (a_shop.folder / "sales.csv").write_text("\n".join(["id,card,date,amount", *rows]))
    (a_shop.folder / "sales.yaml").write_text(MAPPING)
    command = ("import", str(a_shop.folder / "sales.csv"), "--mapping", str(a_shop.folder / "sales.yaml"))
    assert product.run(*command, failpoint="cli@import.after_append").status == -9
    product.kill("all")
    product.up()
    report = product.ask(*command)
    assert (report["events"], report["refused"]) == (len(rows), [])
    again = product.ask(*command)
    assert (again["accepted"], again["duplicates"]) == (0, len(rows))
    assert a_shop.judge(whole=False) == []
    (total,) = product.ask("sql", "select count(*) n, sum(revenue) r from events where source = 'sales'")
    cents = sum(int(row.rsplit(",", 1)[1].replace(".", "")) for row in rows)
    assert (int(total["n"]), round(float(total["r"]) * 100)) == (len(rows), cents)
    assert a_shop.rebuild_is_equal()


MAPPING = """
source: sales
format: csv
type: pos.purchase
id: id
identifiers: {loyalty_card: card}
occurred_at: {column: date, format: "%Y-%m-%d"}
properties: {order_id: id, revenue: {column: amount, money: USD}}
historical: true
"""
