"""What profiles add to the figures: a change is the difference of two whole counts, and windows of buyers add up."""

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from projections.days import LocalDays
from projections.decide.figures import Side, add_change, add_nobody, add_profile, roll_up, spent_of
from projections.fold.state import CANCELS, ORDERS, REFUNDS, State, pack
from projections.orders.entries import put_order
from projections.orders.orders import order_slots, orders_alone, orders_of
from projections.slots.keyed import OVERFLOW, put
from schemas.figures import PERIODS, Cells, Counted, Kind, add

DAYS = LocalDays("Europe/Vienna")
DAY_US = 86_400_000_000


def empty() -> State:
    return [0, None, None, [], [], [], []]


def grow(state: State, random: Random) -> None:
    """One more event of an order, whichever."""
    us, key = random.randrange(0, 800) * DAY_US + random.randrange(DAY_US), random.randbytes(16)
    order = f"o{random.randrange(6)}"
    own = random.choice([None, random.randrange(1, 10**7)])
    currency = random.choice(["USD", "EUR", "JPY"])
    base = None if own is None or currency == "JPY" else own * 2
    kind = random.random()
    if kind < 0.6:
        completed: list[Any] = random.choice([[us, us, key], [us, us, key], [None, None, None]])
        rank, unread = random.randrange(2), int(own is None and random.random() < 0.5)
        put_order(
            state[ORDERS], [order, int(own is not None), rank, us, key, own, currency, base, 1, unread, *completed]
        )
    elif kind < 0.9:
        of = random.choice([order, order, None, "never came"])
        named, unread = random.randrange(2), int(own is None and random.random() < 0.5)
        put(state[REFUNDS], [key, 0, us, key, of, own, currency, base, 1, named, unread])
    else:
        put(state[CANCELS], [order, us, key])


def counted(state: State, random: Random) -> Counted:
    first = random.choice([None, 5 * DAY_US])
    return Counted(b"p" * 16, pack(state), first, random.choice(["low", "high"]), random.choice(["new", "active"]))


def without_zeros(cells: Cells) -> Cells:
    return {key: cell for key, cell in cells.items() if any(cell)}


@pytest.mark.parametrize("seed", range(40))
def test_a_change_is_what_was_counted_after_it_less_what_was_before(seed: int) -> None:
    random = Random(seed)
    state = empty()
    row = counted(state, random)
    kept: Cells = {}
    add_profile(kept, row, DAYS)
    for _ in range(25):
        before = order_slots(row.state)
        for _ in range(random.randrange(3)):
            grow(state, random)
        new = counted(state, random)
        add_change(kept, Side(row, spent_of(before, DAYS)), Side(new, spent_of(state, DAYS)), (before, state))
        row = new
        whole: Cells = {}
        add_profile(whole, row, DAYS)
        assert without_zeros(kept) == without_zeros(whole)
    add_profile(kept, row, DAYS, -1)
    assert without_zeros(kept) == {}


@pytest.mark.parametrize("seed", range(10))
def test_all_cells_of_amounts_together_are_the_sum_of_what_counts(seed: int) -> None:
    random = Random(seed)
    state = empty()
    for _ in range(30):
        grow(state, random)
    orders, refunds = orders_of(state)
    net = sum(o.base_revenue or 0 for o in orders) - sum(r.base_amount or 0 for r in refunds)
    profile, nobody = dict[tuple[int, int, int, str], list[int]](), dict[tuple[int, int, int, str], list[int]]()
    add_profile(profile, counted(state, random), DAYS)
    add_nobody(nobody, pack(orders_alone(state)))
    for cells in (profile, nobody):
        assert sum(cell[1] for key, cell in cells.items() if key[0] == Kind.ORDERS) == net
        assert sum(cell[0] for key, cell in cells.items() if key[0] == Kind.ORDERS) == len(orders)
    assert sum(cell[1] for key, cell in profile.items() if key[0] == Kind.RISK) == net


@pytest.mark.parametrize("seed", range(10))
def test_buyers_of_any_window_are_those_who_ordered_in_it(seed: int) -> None:
    random = Random(seed)
    bought: list[list[int]] = []
    cells: Cells = {}
    for _ in range(20):
        state = empty()
        for number in range(random.randrange(5)):
            us = random.randrange(0, 60) * DAY_US + DAY_US // 2
            put(state[ORDERS], [f"o{number}", 0, us, random.randbytes(16), 1, "USD", 1, 1])
        add_profile(cells, counted(state, random), DAYS)
        bought.append([DAYS.day(entry[2]) for entry in state[ORDERS]])
    for _ in range(40):
        first = random.randrange(0, 60)
        last = first + random.randrange(0, 30)

        def total(kind: int, holds: Callable[[Any], bool]) -> int:
            return sum(cell[0] for key, cell in cells.items() if key[0] == kind and holds(key))

        buyers = total(Kind.BUYERS, lambda key: first <= key[1] <= last and key[2] > key[1] - first)  # noqa: B023
        once = total(Kind.FIRSTS, lambda key: first <= key[1] <= last and key[1] + key[2] > last)  # noqa: B023
        inside = [days for days in bought if any(first <= day <= last for day in days)]
        assert buyers == len(inside)
        assert buyers - once == sum(sum(day <= last for day in days) > 1 for days in inside)


@pytest.mark.parametrize("seed", range(6))
def test_the_buyers_of_every_period_are_the_sum_of_what_is_stored_up_to_its_last_day(seed: int) -> None:
    random = Random(seed)
    cells: Cells = {}
    bought: list[list[int]] = []
    for _ in range(15):
        state = empty()
        for number in range(random.randrange(1, 6)):
            put(state[ORDERS], [f"o{number}", 0, random.randrange(900) * DAY_US, random.randbytes(16), 1, "USD", 1, 1])
        add_profile(cells, counted(state, random), DAYS)
        bought.append([DAYS.day(entry[2]) for entry in state[ORDERS]])
    stored = roll_up(cells, DAYS)
    for last in [random.randrange(1_000) for _ in range(40)]:
        for length in PERIODS:
            inside = [days for days in bought if any(last - length < day <= last for day in days)]
            sums = {
                kind: sum(
                    n for (of, day, days, _), (n, _) in stored.items() if of == kind and days == length and day <= last
                )
                for kind in (Kind.PERIOD_BUYERS, Kind.PERIOD_FIRSTS)
            }
            assert sums[Kind.PERIOD_BUYERS] == len(inside)
            again = sum(sum(day <= last for day in days) > 1 for days in inside)
            assert sums[Kind.PERIOD_BUYERS] - sums[Kind.PERIOD_FIRSTS] == again


def test_what_is_stored_by_days_is_what_is_stored_by_quarters_of_an_hour() -> None:
    cells: Cells = {}
    for bucket in range(40):
        add(cells, (Kind.ORDERS, bucket, 0, ""), 1, bucket)
    stored = roll_up(cells, LocalDays("Asia/Kathmandu"))  # 5:30 then, so 22 hours to a day's end
    days = {key[1]: cell for key, cell in stored.items() if key[0] == Kind.DAY + Kind.ORDERS}
    assert days == {0: [40, sum(range(40))]}
    assert stored.items() >= cells.items()


def test_a_customer_whose_orders_are_not_at_hand_is_counted_as_that_and_in_no_amount() -> None:
    state = empty()
    state[ORDERS] = state[REFUNDS] = state[CANCELS] = OVERFLOW
    cells: Cells = {}
    add_profile(cells, Counted(b"p" * 16, pack(state), 0, "low", "new"), DAYS)
    kinds = {key[0] for key in cells}
    assert kinds == {Kind.CUSTOMERS, Kind.STAGE, Kind.RISK, Kind.UNKNOWN}


def test_what_is_added_up_to_nothing_is_nothing() -> None:
    cells: Cells = {}
    add(cells, (Kind.ORDERS, 1, 0, ""), 1, 5)
    add(cells, (Kind.ORDERS, 1, 0, ""), -1, -5)
    assert without_zeros(cells) == {}
