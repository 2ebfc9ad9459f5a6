"""Customers found as one types, over a real PostgreSQL and vault."""

from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path

import pytest

from infra.adapters.postgres.search import PostgresSearch
from infra.app.erasing import eraser
from processors.live.search_index import SearchIndexer
from processors.rebuild.definitions import apply_files
from schemas.errors import BadRequest
from tests.reading_world import NOW, ReadingWorld


def identify(
    world: ReadingWorld, user: str, *, email: str, phone: str, first: str, last: str, hours_ago: int = 24
) -> None:
    ids = [("user_id", user), ("email", email), ("phone", phone)]
    at = NOW - timedelta(hours=hours_ago)
    world.send(ids, type_="profile.identified", at=at, sealed={"traits": {"first_name": first, "last_name": last}})


def names(world: ReadingWorld, text: str, **more: object) -> list[str | None]:
    found = world.reading.search.find(text, **more)  # type: ignore[arg-type]
    return [item["name"] for item in found["items"]]


@pytest.fixture
def three(world: ReadingWorld) -> ReadingWorld:
    identify(world, "u1", email="ada@example.com", phone="+14155552671", first="Ada", last="Lovelace")
    identify(world, "u2", email="grace@example.org", phone="+14155552672", first="Grace", last="Höpper")
    identify(world, "u3", email="adam@example.com", phone="+14155559999", first="Adam", last="Riese")
    world.purchase([("user_id", "u2")], "o1", "20.00")
    world.purchase([("user_id", "u3")], "o2", "20.00", days_ago=0.5)
    world.settle()
    return world


def test_names_addresses_numbers_and_ids_find_their_customer(three: ReadingWorld) -> None:
    assert names(three, "lovel") == ["Ada Lovelace"]
    assert names(three, "hop") == ["Grace Höpper"]
    assert names(three, "ad") == ["Adam Riese", "Ada Lovelace"], "seen last comes first"
    assert names(three, "ada love") == ["Ada Lovelace"]
    assert names(three, "grace@example.org") == ["Grace Höpper"]
    assert names(three, "2671") == ["Ada Lovelace"]
    assert names(three, "(415) 555-2672") == ["Grace Höpper"]
    assert names(three, "u3") == ["Adam Riese"]
    assert names(three, "nobody") == names(three, "") == names(three, "\u202e!!") == names(three, "x" * 9_000) == []


def test_a_profile_id_and_any_identifier_written_whole_find_it(three: ReadingWorld) -> None:
    three.send([("user_id", "u1"), ("anonymous_id", "9f3c-visitor")])
    three.settle()
    assert names(three, "9f3c-visitor") == ["Ada Lovelace"]
    (item,) = three.reading.search.find("u1")["items"]
    assert names(three, item["id"]) == ["Ada Lovelace"]
    assert (item["email"], item["phone"]) == ("ada@example.com", "+14155552671")


def test_pages_follow_each_other(three: ReadingWorld) -> None:
    first = three.reading.search.find("example", limit=2)
    second = three.reading.search.find("example", limit=2, cursor=first["next"])
    assert [len(first["items"]), len(second["items"]), second["next"]] == [2, 1, None]
    assert len({item["id"] for item in first["items"] + second["items"]}) == 3
    with pytest.raises(BadRequest, match="cursor"):
        three.reading.search.find("example", cursor="x")


def test_a_new_name_replaces_the_old_one_and_a_merge_leaves_one(three: ReadingWorld) -> None:
    identify(three, "u1", email="ada@example.com", phone="+14155552671", first="Ada", last="King", hours_ago=1)
    three.settle()
    assert names(three, "king") == ["Ada King"]
    assert names(three, "lovelace") == []
    three.send([("user_id", "u9")], type_="profile.identified", sealed={"traits": {"name": "Ada Visitor"}})
    three.settle()
    three.send([("loyalty_card", "7001234"), ("email", "ada@example.com")])
    three.settle()
    assert names(three, "1234") == ["Ada King"]
    ((rows,),) = three.execute("select count(*) from search s join tokens t using (profile_id) where t.kind = 'email'")
    assert rows == 3


def test_what_waits_is_indexed_after_a_crash_and_nothing_waits_twice(three: ReadingWorld) -> None:
    three.execute("delete from search")
    three.execute("insert into search_due select profile_id from profiles_r1")
    compiled = three.worker.compiled
    with closing(PostgresSearch(three.databases.main)) as store:
        vault = three.vault
        indexer = SearchIndexer(store, vault, vault, three.services.log)
        while indexer.step(1, compiled.fold, compiled.evaluator, limit=2):
            pass
    assert names(three, "lovelace") == ["Ada Lovelace"]
    assert three.execute("select count(*) from search_due") == [(0,)]


def test_no_word_is_stored_in_the_clear(three: ReadingWorld) -> None:
    ((stored,),) = three.execute("select string_agg(s::text, ' ') from search s")
    assert "ovelace" not in stored
    assert "2671" not in [part[-4:] for part in stored.split(",") if len(part) < 10]


def erase(world: ReadingWorld, folder: Path, kind: str, value: str) -> None:
    parts = (world.databases.main, world.databases.vault, world.vault, folder, "US", world.clock.now)
    with eraser(*parts) as erase:
        assert erase.erase(kind, value).found


def test_the_erased_are_found_by_nothing_and_leave_no_row(three: ReadingWorld, tmp_path: Path) -> None:
    (item,) = three.reading.search.find("lovelace")["items"]
    erase(three, tmp_path, "email", "ada@example.com")
    texts = ("lovelace", "ada", "ada@example.com", "2671", "+14155552671", "u1", item["id"])
    for _ in range(2):  # at once, and after the worker has done all that waits
        for text in texts:
            assert "Ada Lovelace" not in names(three, text), text
            assert item["id"] not in [each["id"] for each in three.reading.search.find(text)["items"]]
        assert three.execute("select 1 from search where profile_id = %s", (item["id"],)) == []
        three.settle()
    assert names(three, "ad") == ["Adam Riese"]
    assert three.execute("select count(*) from search") == [(2,)]
    assert three.execute("select count(*) from search_due") == [(0,)]


def test_who_was_erased_while_waiting_for_the_index_is_not_indexed(three: ReadingWorld, tmp_path: Path) -> None:
    (item,) = three.reading.search.find("lovelace")["items"]
    erase(three, tmp_path, "user_id", "u1")
    three.execute("insert into search_due values (%s) on conflict do nothing", (item["id"],))
    three.settle()
    assert three.execute("select 1 from search where profile_id = %s", (item["id"],)) == []
    assert three.execute("select count(*) from search_due") == [(0,)]


def test_a_shared_address_that_is_erased_finds_nobody_any_more(three: ReadingWorld, tmp_path: Path) -> None:
    clerks = [("user_id", f"clerk-{number}") for number in range(7)]
    for clerk in clerks:
        three.send([clerk, ("email", "frontdesk@shop.example")])
    three.settle()
    erase(three, tmp_path, "email", "frontdesk@shop.example")
    three.settle()
    for text in ("frontdesk@shop.example", "frontdesk", "front"):
        assert three.reading.search.find(text)["items"] == []
    assert len(three.reading.search.find("clerk")["items"]) == 7


def test_a_merged_profile_leaves_no_row_of_its_own(three: ReadingWorld) -> None:
    three.send([("user_id", "u9")], type_="profile.identified", sealed={"traits": {"name": "Visitor Nine"}})
    three.send([("loyalty_card", "7001234")], type_="profile.identified", sealed={"traits": {"name": "Card Holder"}})
    three.settle()
    was = {each["id"] for text in ("visitor", "holder") for each in three.reading.search.find(text)["items"]}
    assert len(was) == 2
    three.send([("user_id", "u9"), ("loyalty_card", "7001234")])
    three.settle()
    (one,) = three.reading.search.find("u9")["items"]
    assert [each["id"] for each in three.reading.search.find("1234")["items"]] == [one["id"]]
    rows = {str(row[0]) for row in three.execute("select profile_id::text from search")}
    assert rows & was == {one["id"]}
    orphans = "select 1 from search s where not exists (select from profiles_r1 p where p.profile_id = s.profile_id)"
    assert three.execute(orphans) == []


def test_another_revision_finds_the_same_people(three: ReadingWorld) -> None:
    before = {text: names(three, text) for text in ("ad", "hop", "2671", "grace@example.org", "u3")}
    three.reading.search.find("ad")
    changed = "segments: {brand_new: {description: Newly defined, when: {trait: lifetime_orders, op: gte, value: 1}}}"
    apply_files(three.services.control, [("more.yaml", changed)], NOW)
    three.settle()
    assert three.execute("select to_regclass('profiles_r1')") == [(None,)]
    assert {text: names(three, text) for text in before} == before


def test_a_transaction_that_fails_leaves_what_waits_waiting(three: ReadingWorld) -> None:
    three.execute("delete from search")
    three.execute("insert into search_due select profile_id from profiles_r1")
    with closing(PostgresSearch(three.databases.main)) as store:
        with suppress(InterruptedError), store.take(10) as tx:
            tx.put({tx.taken[0]: [1, 2]})
            raise InterruptedError
        assert three.execute("select count(*) from search") == [(0,)]
        assert three.execute("select count(*) from search_due") == [(3,)]
    three.settle()
    assert names(three, "lovelace") == ["Ada Lovelace"]


HOSTILE = (
    *("x" * 10_000, "(((((", "\u202e\u200f", "🦊🦊", "\x00", "'; drop table search --", "%_%", "\ud800", "ﷺ" * 300),
    *("é" + "\u0301" * 5_000, "-" * 36, "+" * 100, "9" * 10_000),
)


def test_hostile_queries_find_nobody_and_break_nothing(three: ReadingWorld) -> None:
    assert {text: names(three, text) for text in HOSTILE} == {text: [] for text in HOSTILE}
    for text in ("ada " * 2_500, "\u202eada\u202c", "ada\ud800x"):
        assert names(three, text) == ["Adam Riese", "Ada Lovelace"], "as `ada` does"
    assert names(three, "' or 1=1 --") == ["Grace Höpper"], "as `or` does: her address ends in .org"
