"""A customer's addresses: the current ones, the former, those that many share; and data decided by the earlier rule."""

from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from infra.adapters.postgres.database import Database
from infra.adapters.postgres.identity_rules import read_rules, set_login_limit
from infra.adapters.postgres.migrate import FOLDER
from infra.adapters.postgres.rebuild import PostgresRebuild
from processors.live.compiled import Compiled
from processors.live.feeder import LogFeeder
from processors.live.worker import Worker
from processors.rebuild.builder import Builder
from processors.rebuild.check import check
from schemas.errors import NotFound, SharedIdentifier
from tests.api_server import ApiServer
from tests.reading_world import NOW, ReadingWorld

ADA = ("user_id", "ada")
OFFICE = ("email", "office@firm.example")


def address(number: int) -> tuple[str, str]:
    return "email", f"ada{number}@mail.example"


def of(world: ReadingWorld, who: tuple[str, str]) -> Any:
    return world.reading.profiles.by_identifier(*who)


def as_rebuilt(world: ReadingWorld) -> bool:
    """Whether a rebuild from the log says the same."""
    live, services = world.services.control.live(), world.services
    compiled = Compiled.of(live, services.time_zone, services.currency, services.order_cap)
    rebuild = PostgresRebuild(world.databases.main)
    with closing(rebuild), rebuild.snapshot(live.revision, timeout_s=20) as snapshot:
        return check(services, compiled, snapshot).equal


def seven_addresses(world: ReadingWorld) -> None:
    for number in range(7):
        world.send([ADA, address(number)], at=NOW - timedelta(days=20 - number))
    world.settle()


def test_every_address_finds_its_customer_and_the_newest_five_are_current(world: ReadingWorld) -> None:
    seven_addresses(world)
    assert {of(world, address(number))["id"] for number in range(7)} == {of(world, ADA)["id"]}
    told = of(world, ADA)["identifiers"]
    assert told[0] == {"kind": "user_id", "value": "ada"}
    assert [each["value"] for each in told[1:] if "former" not in each] == [address(n)[1] for n in range(2, 7)]
    assert told[6:] == [{"kind": "email", "value": address(n)[1], "former": True} for n in (0, 1)]
    hidden = world.reading.profiles.by_identifier(*ADA, personal=False)["identifiers"]
    assert [each.get("former", False) for each in hidden] == [*6 * [False], True, True]
    assert {each["value"] for each in hidden} == {None}


def test_of_addresses_sent_in_one_request_the_last_are_current(world: ReadingWorld) -> None:
    for number in (5, 2, 6, 0, 4, 1, 3):
        world.send([ADA, address(number)], at=NOW - timedelta(days=1), n=number)
    world.settle()
    told = of(world, ADA)["identifiers"]
    assert [each["value"] for each in told if "former" in each] == [address(n)[1] for n in (0, 1)]


def test_a_list_shows_the_newest_address_and_search_finds_by_all(world: ReadingWorld) -> None:
    seven_addresses(world)
    for number in range(7):
        (card,) = world.reading.search.find(address(number)[1])["items"]
        assert card["email"] == address(6)[1]


def test_an_address_of_many_answers_with_the_list_of_them(world: ReadingWorld, client: ApiServer) -> None:
    for number in range(6):
        world.send([("user_id", f"u{number}"), OFFICE], at=NOW - timedelta(hours=number))
    world.send([OFFICE], type_="email.opened", at=NOW - timedelta(days=2))
    world.settle()
    found = client.ask("POST", "/profiles/lookup", "staff", {"kind": OFFICE[0], "value": "Office@Firm.example"})
    assert (found.status, found.body["code"], found.body["more"]) == (409, "shared_identifier", False)
    users = [of(world, ("user_id", f"u{number}"))["id"] for number in range(6)]
    assert [each["id"] for each in found.body["items"][:6]] == users
    assert found.body["items"][6]["email"] == OFFICE[1]  # what nobody else was seen with
    assert client.get(f"/profiles/email/{OFFICE[1]}", "staff").body["items"] == found.body["items"]
    assert client.get(f"/profiles/email/{OFFICE[1]}", "analyst").status == 403
    entries = client.get("/audit?limit=2").body["items"]
    assert [(each["action"], each["detail"]["shown"]) for each in entries] == 2 * [("customers.searched", 7)]
    assert {each["id"] for each in world.reading.search.find(OFFICE[1])["items"]} == {
        *users,
        found.body["items"][6]["id"],
    }


def test_an_address_that_nobody_has_is_still_unknown(world: ReadingWorld) -> None:
    seven_addresses(world)
    with pytest.raises(NotFound):
        of(world, ("email", "nobody@mail.example"))


def test_a_login_that_serves_twelve_customers_collects_none(world: ReadingWorld) -> None:
    login = ("user_id", "till-3")
    for number in range(12):
        customer = [("email", f"c{number}@mail.example")]
        if number % 3 == 0:
            world.send([*customer, ("anonymous_id", f"a{number}")], at=NOW - timedelta(days=9))
        world.purchase([login, *customer], f"o{number}", "10.00", days_ago=5)
    world.settle()
    found = [of(world, ("email", f"c{number}@mail.example")) for number in range(12)]
    assert len({each["id"] for each in found}) == 12
    assert {each["computed"]["lifetime_orders"] for each in found} == {1}
    with pytest.raises(SharedIdentifier) as several:
        of(world, login)
    assert len(several.value.profile_ids) == 12
    assert as_rebuilt(world)


def with_limit(world: ReadingWorld, limit: int) -> None:
    """The process starts again with another limit, and works until nothing is left."""
    with closing(Database(world.databases.main)) as database:
        assert set_login_limit(database, limit)
        assert not set_login_limit(database, limit)
        services = replace(world.services, rules=read_rules(database))
    upkeep = world.worker.upkeep
    worker = Worker(services, Builder(services, PostgresRebuild(world.databases.main)), upkeep.index, upkeep.figures)
    world.services, world.feeder = services, LogFeeder(worker)
    world.settle()


def test_another_limit_of_logins_is_decided_again_both_ways(world: ReadingWorld) -> None:
    seven_addresses(world)
    with_limit(world, 6)
    assert len({of(world, address(number))["id"] for number in range(7)}) == 7
    assert as_rebuilt(world)
    with_limit(world, 7)
    assert {of(world, address(number))["id"] for number in range(7)} == {of(world, ADA)["id"]}
    assert as_rebuilt(world)


def test_two_user_ids_of_an_alias_are_one_customer(world: ReadingWorld) -> None:
    for name in ("old", "new"):
        world.purchase([("user_id", name), ("email", f"{name}@mail.example")], name, "10.00")
    world.settle()
    world.send([("user_id", "new"), ("user_id", "old")], type_="identity.aliased")
    world.settle()
    assert of(world, ("user_id", "old")) == of(world, ("email", "new@mail.example"))
    assert of(world, ("user_id", "new"))["computed"]["lifetime_orders"] == 2
    assert as_rebuilt(world)


def test_what_the_earlier_rule_decided_is_decided_again_after_an_upgrade(world: ReadingWorld) -> None:
    """The rows are put back to what the build before migration 0017 left: the sixth address apart, the login joined."""
    for number in range(6):
        world.send([ADA, address(number)], at=NOW - timedelta(days=20 - number))
    login = [("user_id", "till-3"), ("email", "c0@mail.example")]
    for number in range(12):
        world.send([login[0], ("email", f"c{number}@mail.example")], at=NOW - timedelta(days=10 + number))
    world.settle()
    (sixth,) = world.vault.tokens([address(5)])
    clerk, customer = world.vault.tokens(login)
    for statement, values in (
        ("update tokens set profile_id = token where token = encode(%s, 'hex')::uuid", (sixth,)),
        (
            "insert into refused_links select signature, token, 'limit:email' from evidence_tokens"
            " where token = encode(%s, 'hex')::uuid",
            (sixth,),
        ),
        (
            "update tokens set hub = false, profile_id = (select profile_id from tokens where token ="
            " encode(%s, 'hex')::uuid) where token = encode(%s, 'hex')::uuid",
            (customer, clerk),
        ),
        ((FOLDER / "0017_main.sql").read_text().replace("%", "%%"), ()),
    ):
        world.execute(statement, values)
    assert of(world, ("user_id", "till-3"))["id"] == of(world, login[1])["id"]
    world.settle()
    assert of(world, address(5))["id"] == of(world, ADA)["id"]
    with pytest.raises(SharedIdentifier):
        of(world, ("user_id", "till-3"))
    assert world.execute("select count(*) from refused_links") == [(0,)]
    assert as_rebuilt(world)
