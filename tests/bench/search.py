"""Search alone, without HTTP or a browser: latency of each kind of query, and the cost of indexing a profile.

`python -m tests.bench.search [CUSTOMERS]`; `people` measures it over HTTP while events arrive.
"""

import json
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from itertools import islice
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

from infra.adapters.postgres.embedded import EmbeddedPostgres
from infra.adapters.postgres.migrate import migrate
from infra.adapters.postgres.search import PostgresSearch
from infra.demo.names import FAMILY_NAMES, GIVEN_NAMES
from processors.live.search_index import SLICE, SearchIndexer
from schemas.record import Identifier, Pending, Record, Sealed, encode, event_key, uuid_text
from tests.bench.measure import Table, cpu_now, percentile
from tests.conftest import Databases
from tests.reading_world import NOW, ReadingWorld, reading_world

SECTION: Final = "Search"
BATCH: Final = 1_000


class Size(NamedTuple):
    """Amounts of data and queries."""

    customers: int
    asked: int  # of each kind


QUICK: Final = Size(300, 5)
FULL: Final = Size(100_000, 60)


def measure(table: Table, size: Size) -> None:
    """p50 and p95 of every kind of query; CPU of the indexer and its database per profile."""
    with _world() as (postgres, world):
        people = _people(size.customers)
        _send(world, people)
        with world_without_index(world):
            world.settle()
        _index(table, postgres, world, size.customers)
        world.execute("analyze")
        rng = Random(8)
        world.reading.search.find("warm")
        for what, query in _KINDS.items():
            taken = []
            for _ in range(size.asked):
                text = query(people, rng.randrange(size.customers))
                begun = time.perf_counter()
                world.reading.search.find(text)
                taken.append(time.perf_counter() - begun)
            p50, p95 = (percentile(sorted(taken), share) * 1_000 for share in (0.5, 0.95))
            line = f"{what}, {size.customers:,} customers: p95"
            figure = f"{p95:.1f} ms (p50 {p50:.1f} ms)"
            table.add(SECTION, line, figure, "goal 100 ms", ratio=p95 / 100, target="< 100 ms", met=p95 < 100)


People = list[tuple[str, str]]  # first and last name of customer n

_KINDS: Final[dict[str, Callable[[People, int], str]]] = {
    "2 letters": lambda people, n: people[n][0][:2],
    "2 letters that all share": lambda _people, _n: "ex",
    "3 letters": lambda people, n: people[n][1][:3],
    "5 letters": lambda people, n: people[n][1][:5],
    "first name and 2 letters": lambda people, n: f"{people[n][0]} {people[n][1][:2]}",
    "last 4 digits": lambda _people, n: f"{n:07d}"[-4:],
    "e-mail": lambda _people, n: f"c{n}@example.com",
    "phone": lambda _people, n: f"(415) {n // 10_000:03d}-{n % 10_000:04d}",
    "nobody": lambda _people, n: f"zzqx{n}",
    "hostile": lambda _people, n: "ex " * 60 + "\u202e" * n,
}


@contextmanager
def _world() -> Iterator[tuple[EmbeddedPostgres, ReadingWorld]]:
    with tempfile.TemporaryDirectory(prefix="touchfold-bench-") as folder:
        postgres = EmbeddedPostgres(Path(folder) / "pg")
        postgres.start()
        try:
            migrate(postgres.dsn, "main")
            migrate(postgres.vault_dsn, "vault")
            with reading_world(Databases(postgres.dsn, postgres.vault_dsn)) as world:
                yield postgres, world
        finally:
            postgres.stop(immediate=True)


@contextmanager
def world_without_index(world: ReadingWorld) -> Iterator[None]:
    """Keep the worker from indexing, so that indexing can be measured separately."""
    index, world.worker.upkeep.index = world.worker.upkeep.index, None
    yield
    world.worker.upkeep.index = index


def _people(count: int) -> People:
    rng = Random(7)
    return [(rng.choice(GIVEN_NAMES), rng.choice(FAMILY_NAMES)) for _ in range(count)]


def _send(world: ReadingWorld, people: People) -> None:
    numbers = iter(range(len(people)))
    while batch := list(islice(numbers, BATCH)):
        known = [
            ident
            for n in batch
            for ident in (("user_id", f"customer-{n}"), ("email", f"c{n}@example.com"), ("phone", f"+1415{n:07d}"))
        ]
        tokens = world.vault.tokens(known)
        world.services.log.append(
            [_record(world, n, people[n], tokens[3 * at : 3 * at + 3]) for at, n in enumerate(batch)]
        )


def _record(world: ReadingWorld, n: int, name: tuple[str, str], tokens: list[bytes]) -> Pending:
    key = event_key(world.vault.hash_key, "web", f"who-{n}")
    at = NOW - timedelta(seconds=n * 7919 % 2_000_000)
    data = world.vault.seal(
        tokens[0], json.dumps({"traits": {"first_name": name[0], "last_name": name[1]}}).encode(), key
    )
    record = Record(
        v=1,
        id=uuid_text(key),
        message_id=f"who-{n}",
        type="profile.identified",
        name="profile.identified",
        source="web",
        ids=[Identifier(kind, token.hex()) for kind, token in zip(("user_id", "email", "phone"), tokens, strict=True)],
        route_key=tokens[0].hex(),
        occurred_at=at,
        received_at=at,
        known_at=at,
        digest=key.hex(),
        sealed=Sealed(tokens[0].hex(), ["traits.first_name", "traits.last_name"], b64encode(data).decode()),
        properties={},
        traits={},
    )
    return Pending(tokens[0], encode(record))


def _index(table: Table, postgres: EmbeddedPostgres, world: ReadingWorld, customers: int) -> None:
    compiled = world.worker.compiled
    with closing(PostgresSearch(world.databases.main)) as store:
        indexer = SearchIndexer(store, world.vault, world.vault, world.services.log)
        before, done = cpu_now(postgres.pid), 0
        while step := indexer.step(compiled.revision.revision, compiled.fold, compiled.evaluator, SLICE):
            done += step
        used = cpu_now(postgres.pid) - before
    if done < customers:
        raise RuntimeError(f"{done} of {customers} profiles waited for the index")
    figure = f"{used.total_s / done * 1e6:.0f} µs (Python {used.python_s / done * 1e6:.0f})"
    table.add(SECTION, f"CPU to index a profile, {customers:,} customers", figure, "nothing")


if __name__ == "__main__":
    table = Table(say=lambda line: print(line, file=sys.stderr, flush=True))
    measure(table, FULL._replace(customers=int(sys.argv[1])) if len(sys.argv) > 1 else FULL)
    print(table.markdown("Search"))
