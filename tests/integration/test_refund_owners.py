"""A refund, cancel or update follows its order: whoever sends it, in whatever order, through merges and erasures."""

from collections.abc import Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pytest

from infra.adapters.postgres.control import PostgresControl
from infra.adapters.postgres.rebuild import PostgresRebuild
from infra.app.erasing import eraser
from processors.erase.eraser import Erased
from processors.live.compiled import Compiled
from processors.live.figure_keeper import FigureKeeper
from processors.rebuild.check import Verdict, check
from processors.rebuild.definitions import start_rebuild
from projections.fold.state import ORDER_CAP
from projections.orders.orders import order_slots, orders_of, whole
from schemas.control import LAYOUT_VERSION, Layout
from schemas.identifiers import ORDER_KIND
from tests.reading_world import DEPLOYMENT, NOW, ReadingWorld

Ids = Sequence[tuple[str, str]]
CLERK = [("anonymous_id", "back-office")]


def email(name: str) -> list[tuple[str, str]]:
    return [("email", f"{name}@example.com")]


def nobody(source: str, order: str) -> list[tuple[str, str]]:
    """What the door gives an event that names an order and nobody."""
    return [(ORDER_KIND, f"{source}/{order}")]


def bought(world: ReadingWorld, who: Ids, order: str, revenue: str, source: str = "web") -> None:
    world.send(who, type_="purchase.completed", properties={"order_id": order, "revenue": revenue}, source=source)


def refunded(world: ReadingWorld, who: Ids, order: str, revenue: str, source: str = "web") -> None:
    properties = {"order_id": order, "revenue": revenue}
    at = NOW - timedelta(hours=1)
    world.send(who, type_="purchase.refunded", at=at, properties=properties, source=source)


def worth(world: ReadingWorld) -> dict[str, float]:
    """Orders less refunds of each profile, by each of its identifiers."""
    tokens = world.execute("select token, profile_id from tokens where profile_id is not null")
    ((live,),) = world.execute("select revision from revisions where state = 'live'")
    sums = {}
    leaves: dict[bytes, list[bytes]] = {}
    for profile_id, maps in world.execute(f"select profile_id, maps from order_nodes_r{live} where node > 0"):
        leaves.setdefault(profile_id, []).extend([bytes(maps)] if maps is not None else [])
    for profile_id, state in world.execute(f"select profile_id, state from profiles_r{live}"):
        orders, refunds = orders_of(whole(order_slots(bytes(state)), leaves.get(profile_id, ())))
        amounts = [order.revenue or 0 for order in orders] + [-(refund.amount or 0) for refund in refunds]
        sums[profile_id] = sum(amounts) / 10_000
    opened = world.vault.open([token for token, _ in tokens])
    return {opened[token].value.partition("@")[0]: sums[owner] for token, owner in tokens if token in opened}


def erase(world: ReadingWorld, folder: Path, name: str) -> Erased:
    main, vault = world.databases.main, world.databases.vault
    with eraser(main, vault, world.vault, folder, "US", world.clock.now) as found:
        return found.erase("email", f"{name}@example.com")


def unmatched(world: ReadingWorld) -> int:
    ((count,),) = world.execute("select count(*) from order_sets where not matched")
    return int(count)


def checked(world: ReadingWorld) -> Verdict:
    world.settle()
    compiled = Compiled.of(world.services.control.live(), DEPLOYMENT["time_zone"], "USD", world.services.order_cap)
    keeper = FigureKeeper(world.services)
    while keeper.step(compiled) or keeper.compact(compiled):
        pass
    rebuild = PostgresRebuild(world.databases.main)
    with closing(rebuild), rebuild.snapshot(compiled.revision.revision, timeout_s=20) as snapshot:
        return check(world.services, compiled, snapshot)


def rebuilt(world: ReadingWorld) -> None:
    revision = start_rebuild(world.services.control, world.clock.now())
    world.settle()
    assert world.services.control.live().revision == revision


def holds(world: ReadingWorld, expected: dict[str, float]) -> None:
    verdict = checked(world)
    assert {name: sum_ for name, sum_ in worth(world).items() if name in expected} == expected
    assert verdict.differences == []


def test_a_clerks_refund_is_the_buyers_whichever_comes_first(world: ReadingWorld) -> None:
    bought(world, email("ada"), "1", "80")
    refunded(world, CLERK, "1", "80")
    refunded(world, CLERK, "2", "15")
    world.settle()
    bought(world, email("bob"), "2", "20")
    holds(world, {"ada": 0, "bob": 5, "back-office": 0})
    assert unmatched(world) == 0


def test_the_sender_comes_first_then_the_source_then_anybody(world: ReadingWorld) -> None:
    bought(world, email("ada"), "1", "80", "web")
    bought(world, email("bob"), "1", "30", "till")
    refunded(world, email("bob"), "1", "1", "web")  # bob has an order 1
    refunded(world, CLERK, "1", "2", "web")  # ada alone has it there
    refunded(world, CLERK, "1", "4", "till")
    refunded(world, CLERK, "1", "8", "phone")  # two have it somewhere
    refunded(world, CLERK, "404", "16", "web")
    holds(world, {"ada": 78, "bob": 25, "back-office": -24})
    assert unmatched(world) == 2


def test_cancels_and_updates_follow_their_order_too(world: ReadingWorld) -> None:
    bought(world, email("ada"), "1", "80")
    bought(world, email("bob"), "2", "30")
    at = NOW - timedelta(hours=1)
    world.send(CLERK, type_="purchase.cancelled", at=at, properties={"order_id": "1"})
    world.send(CLERK, type_="purchase.updated", at=at, properties={"order_id": "2", "revenue": "25"})
    holds(world, {"ada": 0, "bob": 25, "back-office": 0})


def test_other_spellings_of_an_order_and_sales_below_zero_follow_it(world: ReadingWorld) -> None:
    bought(world, email("ada"), "1001", "80")
    bought(world, email("bob"), "1002", "0")  # of nothing: nobody has an order 1002
    at = NOW - timedelta(hours=1)
    said: list[tuple[str, dict[str, Any]]] = [
        ("purchase.refunded", {"transaction_id": 1001.0, "value": 1, "refund_id": "r-1"}),
        ("purchase.refunded", {"orderId": " 1001", "value": 2}),
        ("pos.purchase", {"order_id": "1001", "revenue": "-4.00"}),
        ("pos.return", {"order_id": "1002", "revenue": 8}),
    ]
    for type_, properties in said:
        world.send(CLERK, type_=type_, at=at, properties=properties, source="till")
    copy = {"order_id": "1001", "revenue": "1", "refund_id": "r-1"}
    world.send(nobody("web", "1001"), type_="purchase.refunded", at=at, properties=copy)
    holds(world, {"ada": 73, "bob": 0, "back-office": -8})
    assert unmatched(world) == 1


def test_a_refund_that_names_nobody_waits_for_its_order(world: ReadingWorld) -> None:
    refunded(world, nobody("web", "7"), "7", "5")
    world.settle()
    assert world.execute("select count(*) from tokens") == [(0,)]
    assert unmatched(world) == 1
    assert checked(world).differences == []
    bought(world, email("ada"), "7", "20")
    holds(world, {"ada": 15})
    assert unmatched(world) == 0
    ((ada,),) = world.execute("select profile_id from tokens")
    items = world.reading.timeline.page(ada, None, 10, personal=True)["items"]
    assert [(each["type"], len(each["identifiers"])) for each in items] == [
        ("purchase.refunded", 0),
        ("purchase.completed", 1),
    ]
    rebuilt(world)
    holds(world, {"ada": 15})


def test_a_refund_that_no_profile_has_counts_in_the_overview(world: ReadingWorld) -> None:
    refunded(world, nobody("web", "7"), "7", "5")
    assert checked(world).differences == []
    assert len(world.execute("select 1 from nobody")) == 1
    bought(world, email("ada"), "7", "20")
    assert checked(world).differences == []
    assert world.execute("select 1 from nobody") == []


def test_when_two_holders_turn_out_to_be_one_the_refund_is_theirs(world: ReadingWorld) -> None:
    bought(world, email("ada"), "1", "80")
    bought(world, [("loyalty_card", "c1")], "1", "80")
    refunded(world, CLERK, "1", "80")
    world.settle()
    assert worth(world)["back-office"] == -80
    world.send([*email("ada"), ("loyalty_card", "c1")])
    holds(world, {"ada": 0, "c1": 0, "back-office": 0})


def test_when_an_address_turns_out_to_be_shared_the_refund_leaves_with_its_order(world: ReadingWorld) -> None:
    world.send([("user_id", "u0"), *email("till")])
    bought(world, email("till"), "1", "80")
    refunded(world, CLERK, "1", "30")
    world.settle()
    assert worth(world)["u0"] == 50
    for number in range(1, 25):
        world.send([("user_id", f"u{number}"), *email("till")])
    holds(world, {"u0": 0, "till": 50, "back-office": 0})


def test_an_erased_buyers_refund_returns_to_its_sender_and_later_ones_stay(world: ReadingWorld, tmp_path: Path) -> None:
    bought(world, email("ada"), "1", "80")
    refunded(world, CLERK, "1", "30")
    refunded(world, nobody("web", "1"), "1", "5")
    world.settle()
    assert worth(world)["ada"] == 45
    erased = erase(world, tmp_path, "ada")
    assert (erased.found, erased.identifiers, erased.events) == (True, 2, 2)
    refunded(world, nobody("web", "1"), "1", "7")
    refunded(world, email("bob"), "1", "7")
    holds(world, {"back-office": -30, "bob": -7})
    assert unmatched(world) == 3
    rebuilt(world)
    holds(world, {"back-office": -30, "bob": -7})


def test_an_erased_clerks_refund_leaves_the_buyer(world: ReadingWorld, tmp_path: Path) -> None:
    bought(world, email("ada"), "1", "80")
    refunded(world, email("clerk"), "1", "30")
    world.settle()
    erase(world, tmp_path, "clerk")
    holds(world, {"ada": 80})
    rebuilt(world)
    holds(world, {"ada": 80})


class Sent(NamedTuple):
    """A purchase, refund or link of the shuffled histories."""

    kind: str
    who: tuple[str, ...]  # names of addresses; empty: nobody
    order: str = ""
    source: str = "web"
    amount: int = 0


GONE = "dan, erased"
Person = frozenset[str]


def history(random: Random, count: int) -> list[Sent]:
    sent = []
    for number in range(count):
        names = ["ada", "bob", "cyd", "dan"]
        order, source = f"o{random.randrange(4)}", random.choice(["web", "till"])
        kind = random.choice(["bought", "bought", "refunded", "refunded", "refunded", "linked"])
        if kind == "linked":
            pair = tuple(random.sample(names[:3], 2))
            sent.append(Sent(kind, pair if random.random() < 0.3 else pair[:1]))
        elif kind == "bought":
            sent.append(Sent(kind, (random.choice(names),), order, source, 1_000))
        else:
            who = random.choice([(random.choice(names),), ("clerk",), ()])
            sent.append(Sent(kind, who, order, source, 2 ** (number % 8)))
    return sent


def send(world: ReadingWorld, each: Sent) -> None:
    who = [pair for name in each.who for pair in email(name)] or nobody(each.source, each.order)
    if each.kind == "linked":
        world.send(who)
    else:
        (bought if each.kind == "bought" else refunded)(world, who, each.order, str(each.amount), each.source)


def people_of(sent: Sequence[Sent]) -> dict[str, Person]:
    group = {name: frozenset({name}) for each in sent for name in each.who}
    for each in sent:
        for name in each.who[1:]:
            whole = group[each.who[0]] | group[name]
            group.update(dict.fromkeys(whole, whole))
    return group


def whose(sent: Sequence[Sent], refund: Sent) -> Person:
    """Who has a refund, by the words of the rule; empty: nobody."""
    group = people_of(sent)
    sender = group[refund.who[0]] if refund.who else frozenset()
    bought = [each for each in sent if each.kind == "bought" and each.order == refund.order]
    places = [(each.source, group[each.who[0]]) for each in bought]
    here = {owner for source, owner in places if source == refund.source}
    anywhere = {owner for _, owner in places}
    if sender in anywhere:
        return sender
    only = here if len(here) == 1 else anywhere
    if len(only) != 1 or GONE in next(iter(only)):
        return sender
    return next(iter(only))


def after_dan(sent: Sequence[Sent]) -> list[Sent]:
    """What is left of a history once Dan is erased: what he sent, and what nobody sent about his orders, is gone."""
    renamed = [each._replace(who=(GONE,)) if each.who == ("dan",) else each for each in sent]
    lost = [each.kind == "refunded" and not each.who and whose(sent, each) == {"dan"} for each in sent]
    return [each for each, gone in zip(renamed, lost, strict=True) if not gone]


def by_hand(sent: Sequence[Sent]) -> dict[str, float]:
    """What everybody's orders are worth less the refunds that are theirs."""
    group = people_of(sent)
    sums = dict.fromkeys(group, 0.0)
    bought = {(group[each.who[0]], each.order) for each in sent if each.kind == "bought"}
    for owner, _ in bought:
        for name in owner:
            sums[name] += 1_000
    for each in sent:
        if each.kind == "refunded" and each.who != (GONE,):
            for name in whose(sent, each):
                sums[name] -= each.amount
    return {name: total for name, total in sums.items() if name != GONE}


@pytest.mark.parametrize("world", [ORDER_CAP, 2], indirect=True)
@pytest.mark.parametrize("seed", range(3))
def test_in_whatever_order_events_come_everybody_has_what_the_rule_says(
    world: ReadingWorld, tmp_path: Path, seed: int
) -> None:
    random = Random(seed)
    sent = history(random, 60)
    random.shuffle(sent)
    known: list[Sent] = []
    for at in range(0, len(sent), 7):
        for each in sent[at : at + 7]:
            send(world, each)
            known.append(each)
        if at == 35:
            world.settle()
            erase(world, tmp_path, "dan")
            known = after_dan(known)
        elif random.random() < 0.7:
            world.settle()
    holds(world, by_hand(known))
    rebuilt(world)
    holds(world, by_hand(known))


def test_a_folder_of_a_build_that_kept_no_evidence_of_orders_gets_it_by_its_first_rebuild(world: ReadingWorld) -> None:
    bought(world, email("ada"), "1", "80")
    refunded(world, CLERK, "1", "30")
    refunded(world, nobody("web", "1"), "1", "5")
    world.settle()
    world.execute("delete from evidence using order_sets where evidence.signature = order_sets.signature")
    world.execute("delete from order_sets")
    world.execute("delete from order_holders")
    with closing(PostgresControl(world.databases.main)) as control:
        control.note_layout(Layout(LAYOUT_VERSION, control.live().revision + 1))
    rebuilt(world)
    holds(world, {"ada": 45, "back-office": 0})
