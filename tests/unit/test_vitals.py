"""Liveness and readiness, with a clock that the test moves."""

import pytest

from infra.adapters.machine.transient import GRACE_S, Steady
from infra.drivers.process.liveness import HANGS_S, RESTARTS, RESTARTS_S, SUPERVISOR, Vitals
from schemas.errors import StoreUnavailable


class Moved:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Moved:
    return Moved()


def test_a_loop_that_stops_turning_is_a_problem_and_none_when_it_turns_again(clock: Moved) -> None:
    vitals = Vitals(clock)
    vitals.started("worker 0")
    clock.now += HANGS_S - 1
    assert vitals.problems() == []
    clock.now += 2
    assert vitals.problems() == [f"worker 0 hangs: its loop has not turned for {HANGS_S + 1:.0f} s"]
    vitals.turned("worker 0")
    assert vitals.problems() == []


def test_the_supervisor_s_own_loop_counts(clock: Moved) -> None:
    vitals = Vitals(clock)
    vitals.turned()
    clock.now += HANGS_S + 1
    assert vitals.problems()[0].startswith(f"{SUPERVISOR} hangs")


def test_an_outage_excuses_a_silence_for_as_long_as_it_lasts_and_no_longer(clock: Moved) -> None:
    vitals = Vitals(clock)
    vitals.started("inbox 0")
    for _ in range(10):
        clock.now += HANGS_S / 2
        vitals.excuse()
        assert vitals.problems() == []
    clock.now += HANGS_S + 1
    assert len(vitals.problems()) == 1


def test_a_process_that_ends_again_and_again_is_a_problem_until_it_stays(clock: Moved) -> None:
    vitals = Vitals(clock)
    for number in range(RESTARTS):
        assert vitals.problems() == [], number
        vitals.started("worker 0")
        clock.now += 35  # a watchdog's period: no supervisor gives up on such ends
        vitals.ended("worker 0")
    vitals.started("worker 0")
    assert vitals.problems() == [f"worker 0 ended {RESTARTS} times in {35 * (RESTARTS - 1)} s"]
    clock.now += RESTARTS_S
    vitals.turned("worker 0")
    assert vitals.problems() == []


def test_ends_that_were_asked_for_or_fall_into_an_outage_do_not_count(clock: Moved) -> None:
    vitals = Vitals(clock)
    for _ in range(2 * RESTARTS):
        vitals.started("publish 0")
        clock.now += 1
        vitals.ended("publish 0", unexpected=False)
        vitals.started("publish 0")
        vitals.excuse()
        vitals.ended("publish 0")
    assert vitals.problems() == []
    clock.now += HANGS_S + 1
    assert vitals.problems() == [], "what does not run cannot hang"


def test_a_failure_counts_when_it_lasts_and_a_first_look_must_succeed(clock: Moved) -> None:
    away = True

    def check() -> None:
        if away:
            raise StoreUnavailable("partition 0 has no leader")

    steady = Steady(check, GRACE_S, clock)
    assert steady.problem() == "partition 0 has no leader"
    away = False
    assert (steady.problem(), steady.error) == (None, None)
    away = True
    assert steady.problem() is None
    assert steady.error is not None
    clock.now += GRACE_S - 1
    assert steady.problem() is None
    clock.now += 2
    assert steady.problem() == "partition 0 has no leader"
    away = False
    assert steady.problem() is None
