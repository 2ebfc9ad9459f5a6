"""Reads over tables with many rows: what they say is right, and they do not look at rows they do not need."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection

from infra.adapters.postgres.dead_letters import PostgresDeadLetters
from infra.adapters.postgres.embedded import EmbeddedPostgres
from infra.adapters.postgres.hits import FEW, STEPS, search_newest
from infra.adapters.postgres.rebuild import PostgresRebuild
from infra.adapters.postgres.search import PostgresSearch
from processors.live.search_index import SLICE, SearchIndexer
from processors.live.worker import Worker
from processors.rebuild.builder import Builder
from projections.decide.evaluator import Evaluator
from projections.fold.fold import Fold
from schemas.record import to_us
from schemas.search_words import keyed, query_terms, search_key
from schemas.work import Fetched
from tests.api_server import ApiServer, api_server
from tests.conftest import Databases, new_databases
from tests.reading_world import NOW, ReadingWorld, reading_world
from tests.reads_counted import rows_read

Many = tuple[ReadingWorld, ApiServer]
COPIES = 7_000  # of three customers: beyond 20,000 profiles are not counted exactly
MOST = 1_500  # rows of a table that any of these reads may look at: a page of each, not the table

_MULTIPLY = """
create function copied(g integer, id uuid) returns uuid language sql immutable as
    $$ select md5(g::text || id::text)::uuid $$;
insert into profiles_r1 select copied(g, profile_id), version, state, decided_us,
        (extract(epoch from now()) * 1000000)::bigint + 9e14::bigint * (1 + mod(g, 9)), lagging, first_us, last_us - g,
        event_count, segments, lifecycle, risk, points, reasons, summed
    from profiles_r1, generate_series(1, {copies}) g;
insert into states_r1 select copied(g, signature), partition, state from states_r1, generate_series(1, {copies}) g;
insert into memberships_r1 select segment, copied(g, profile_id), since_us
    from memberships_r1, generate_series(1, {copies}) g;
insert into evidence select copied(g, signature), array(select copied(g, t) from unnest(tokens) t), kinds, first_us,
        first_event, copied(g, profile_id) from evidence, generate_series(1, {copies}) g;
insert into tokens select copied(g, token), kind, first_us, first_event, last_us, last_event, hub,
        copied(g, profile_id) from tokens, generate_series(1, {copies}) g;
insert into evidence_tokens select copied(g, token), copied(g, signature)
    from evidence_tokens, generate_series(1, {copies}) g;
insert into register select copied(g, event_key), digest, partition, "offset", copied(g, signature), verdict
    from register, generate_series(1, {copies}) g;
insert into search select copied(g, profile_id), words from search, generate_series(1, {copies}) g;
insert into feed_batches (batch, seq) overriding system value
    select 1000000 + g, (select max(seq) from feed_batches) + g from generate_series(1, {copies}) g;
insert into changes select 1000000 + g, c.idx, copied(g, c.id), c.type, copied(g, c.profile_id), c.version, c.name,
        c.old, c.new, c.at_us, c.cause, c.cause_event, c.cause_definition
    from changes c, generate_series(1, {copies}) g where c.batch = (select min(batch) from changes);
insert into dead_letters select md5(g::text)::uuid, 'door', 'r', 'p', 'why', 'shop', now() - g * interval '1 minute',
        md5('e' || g)::uuid, '{{}}', md5('k')::uuid, ''::bytea,
        case when mod(g, 50) = 0 then 'open' else 'retried' end, 0
    from generate_series(1, {copies}) g;
insert into segment_days
    select segment, day - g, entered, "left", part from segment_days, generate_series(1, 3000) g;
delete from segment_counts;
insert into segment_counts select 1, segment, 0, count(*) from memberships_r1 group by segment;
"""


def fill(world: ReadingWorld, copies: int) -> None:
    """Three customers with orders, and many copies of them."""
    for number in range(3):
        ids = [("user_id", f"u{number}"), ("email", f"someone{number}@example.com")]
        names = {"first_name": "Ada", "last_name": f"Berg{number}"}
        world.send(ids, type_="profile.identified", sealed={"traits": names})
        for order in range(2):
            world.purchase(ids, f"o{number}-{order}", "20.00", days_ago=0.5)
    world.settle()
    world.execute(_MULTIPLY.format(copies=copies))
    world.send([("user_id", "rare")], type_="profile.identified", sealed={"traits": {"last_name": "Zuzanek"}})
    world.settle()
    with closing(connected(world)) as connection, connection.cursor() as cursor:
        cursor.execute("vacuum analyze")


def connected(world: ReadingWorld) -> Connection:
    connection = psycopg2.connect(world.databases.main)
    connection.autocommit = True
    return connection


@pytest.fixture(scope="module")
def many(server: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Many]:
    databases: Databases = new_databases(server)
    with reading_world(databases) as world:
        fill(world, COPIES)
        with api_server(world, tmp_path_factory.mktemp("many")) as client:
            yield world, client


READS = {
    "status": "/status",
    "operations": "/operations",
    "profile": "/profiles/user_id/u1",
    "search": "/profiles?search=zuzanek",
    "search of a frequent word": "/profiles?search=ada",
    "segments": "/segments",
    "a segment": "/segments/repeat_customers",
    "members": "/segments/repeat_customers/members?limit=100",
    "trend": "/segments/repeat_customers/trend?days=30",
    "changes": "/changes?limit=100",
    "dead letters": "/dead-letters?limit=20",
    "events": "/events?limit=20",
    "audit": "/audit",
}


@pytest.mark.parametrize("name", READS)
def test_a_read_looks_at_what_it_answers_and_not_at_the_table(many: Many, name: str) -> None:
    world, client = many

    def read() -> None:
        for _ in range(3):  # sessions were ended before: each store says so once, and connects again
            answer = client.get(READS[name])
            if answer.status != 503:
                break
        assert answer.status == 200, answer.body

    read()  # what is compiled or counted once
    found = rows_read(world.databases.main, read)
    allowed = Counter({"search": 3 * FEW, "profiles_r1": 3 * FEW}) if "frequent" in name else Counter()
    too_many = {table: rows for table, rows in found.items() if rows > max(MOST, allowed[table])}
    assert not too_many, f"{READS[name]} looked at {too_many} rows of tables with {3 * COPIES:,}"


# --- search ------------------------------------------------------------------------------------------------------


def newest(world: ReadingWorld, text: str, limit: int) -> list[bytes]:
    """By a plain sort of all hits."""
    key = search_key(world.vault.hash_key)
    terms = [[keyed(key, term) for term in part] for part in query_terms(text)]
    conditions = " and ".join(["words && %s::bigint[]"] * len(terms))
    rows = world.execute(
        f"select profile_id from search join profiles_r1 using (profile_id) where {conditions}"
        " order by last_us desc nulls last, profile_id::text limit %s",
        (*terms, limit),
    )
    return [row[0] for row in rows]


def test_the_newest_hits_of_a_frequent_word_are_the_newest_of_all(many: Many) -> None:
    world, _ = many
    ((hits,),) = world.execute("select count(*) from search")
    assert hits > FEW, "or the word is not frequent"
    found = world.reading.search.find("ada", limit=20)
    assert [bytes.fromhex(item["id"].replace("-", "")) for item in found["items"]] == newest(world, "ada", 20)
    second = world.reading.search.find("ada", limit=20, cursor=found["next"])
    both = [bytes.fromhex(item["id"].replace("-", "")) for item in found["items"] + second["items"]]
    assert both == newest(world, "ada", 40)


def test_hits_that_were_all_seen_long_ago_come_newest_first_too(many: Many) -> None:
    """Nobody of the customers seen last has the word: a walk along their index does not meet it."""
    world, _ = many
    world.execute(
        "insert into profiles_r1 select md5('x' || g)::uuid, version, state, decided_us, due_us, lagging, first_us,"
        " last_us + 1, event_count, segments, lifecycle, risk, points, reasons, summed"
        " from (select * from profiles_r1 order by last_us desc limit 1) p, generate_series(1, %s) g",
        (STEPS[-1],),
    )
    key = search_key(world.vault.hash_key)
    terms = [[keyed(key, term) for term in part] for part in query_terms("ada")]
    asked: list[str] = []

    def ask(query: str, params: object) -> list[bytes]:
        asked.append(query)
        rows = world.execute(query.format(revision=1), params)  # type: ignore[arg-type]
        return [row[0] for row in rows]

    found = search_newest(ask, terms, 20)
    assert len(asked) == 1 + len(STEPS), "some, the walk in steps, all"
    assert found == newest(world, "ada", 20)


# --- the search index behind a backlog ------------------------------------------------------------------------------


def test_a_customer_who_acts_now_is_findable_before_the_backlog_is_done(world: ReadingWorld) -> None:
    for number in range(6 * SLICE):
        names = {"first_name": "Old", "last_name": f"Timer{number}"}
        world.send([("user_id", f"h{number}")], type_="profile.identified", sealed={"traits": names})
    world.settle_without_index()
    assert world.execute("select count(*), count(*) filter (where acting) from search_due") == [(6 * SLICE, 0)]
    world.send([("user_id", "now")], type_="profile.identified", at=NOW, sealed={"traits": {"last_name": "Neumann"}})
    world.clock.at = NOW + timedelta(seconds=5)
    world.settle_without_index()
    compiled = world.worker.compiled
    with closing(PostgresSearch(world.databases.main)) as store:
        indexer = SearchIndexer(store, world.vault, world.vault, world.services.log)
        assert indexer.step(1, compiled.fold, compiled.evaluator, SLICE) == SLICE
        (found,) = world.reading.search.find("neumann")["items"]
        assert found["name"] == "Neumann"
        ((waiting,),) = world.execute("select count(*) from search_due")
        assert waiting == 5 * SLICE + 1, "the oldest go on beside those who act now"
        while indexer.step(1, compiled.fold, compiled.evaluator, SLICE):
            pass
    assert len(world.reading.search.find("timer", limit=500)["items"]) == 6 * SLICE


def test_a_long_step_gives_the_index_its_share(world: ReadingWorld) -> None:
    for number in range(4 * SLICE):
        names = {"last_name": f"Timer{number}"}
        world.send([("user_id", f"h{number}")], type_="profile.identified", sealed={"traits": names})
    world.settle_without_index()
    compiled = world.worker.compiled
    with closing(PostgresSearch(world.databases.main)) as store:
        indexer = SearchIndexer(store, world.vault, world.vault, world.services.log)
        assert indexer.keep_up(1, compiled.fold, compiled.evaluator, 0.0) == SLICE
        assert indexer.keep_up(1, compiled.fold, compiled.evaluator, 1_000.0) == 3 * SLICE


class Told(SearchIndexer):
    """Says what it was told."""

    worked_s: float = 0.0

    def keep_up(self, revision: int, fold: Fold, evaluator: Evaluator, worked_s: float) -> int:
        self.worked_s = worked_s
        return super().keep_up(revision, fold, evaluator, worked_s)


def test_a_shared_worker_gives_the_index_its_share(world: ReadingWorld) -> None:
    for number in range(2 * SLICE):
        world.send([("user_id", f"h{number}")], type_="profile.identified", sealed={"traits": {"last_name": "Timer"}})
    with closing(PostgresSearch(world.databases.main)) as store, closing(PostgresRebuild(world.databases.main)) as some:
        told = Told(store, world.vault, world.vault, world.services.log)
        worker = Worker(world.services, Builder(world.services, some), told, shared=True)
        batches = []
        for partition, start in worker.claim(range(4)).items():
            records = world.services.log.read(partition, start, 1_000)
            batches += [Fetched(partition, start, records[-1].offset + 1, records, None)] if records else []
        began = time.monotonic()
        worker.apply(batches)
        took_s = time.monotonic() - began
        while worker.decide(to_us(NOW)):
            pass
        assert worker.idle({})
        assert 0 < told.worked_s <= took_s


def test_dead_letters_are_read_page_by_page_and_each_once(many: Many) -> None:
    world, _ = many
    with closing(PostgresDeadLetters(world.databases.main)) as store:
        found = [(letter.received_at, letter.id) for letter in store.each("retried")]
        some = [letter.id for letter in store.each("retried", 1_500)]
    assert len(found) == len(set(found)) == COPIES - COPIES // 50
    assert [at for at, _ in found] == sorted((at for at, _ in found), reverse=True)
    assert some == [id_ for _, id_ in found[:1_500]]
