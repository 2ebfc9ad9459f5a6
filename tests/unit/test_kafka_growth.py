"""The number of a topic's partitions, which may grow while we run."""

import threading

import pytest

from infra.adapters.kafka.growth import LOOK_S, PartitionCount
from schemas.errors import StoreUnavailable


class Topic:
    """What brokers would say, and who was made ready for it."""

    def __init__(self, partitions: int) -> None:
        self.partitions = partitions
        self.away = False
        self.now_s = 0.0
        self.asked = threading.Semaphore(0)
        self.ready: list[int] = []

    def ask(self) -> int:
        self.asked.release()
        if self.away:
            raise StoreUnavailable("away")
        return self.partitions

    def count(self, known: int | None) -> PartitionCount:
        return PartitionCount(known, self.ask, self.ready.append, lambda: self.now_s)


def test_who_knows_asks_again_when_it_is_time_to_and_is_made_ready_before_it_says_more() -> None:
    topic = Topic(3)
    count = topic.count(3)
    topic.partitions = 5
    assert (count.known(), count.fresh()) == (3, 3)
    topic.now_s = LOOK_S
    assert count.fresh() == 5
    assert topic.ready == [5]
    topic.partitions = 4  # a broker that has just started may leave some out
    topic.now_s = 2 * LOOK_S
    assert count.fresh() == 5
    assert topic.ready == [5]


def test_who_appends_waits_for_nobody_and_hears_of_more_a_little_later() -> None:
    topic = Topic(5)
    count = topic.count(3)
    topic.now_s = LOOK_S
    assert count.known() in {3, 5}
    assert topic.asked.acquire(timeout=10)
    assert count.fresh() == 5  # waits for the look that is under way
    assert count.known() == 5


def test_who_knows_nothing_asks_at_once_and_an_outage_leaves_what_is_known() -> None:
    topic = Topic(2)
    topic.away = True
    count = topic.count(None)
    with pytest.raises(StoreUnavailable):
        count.known()
    topic.away = False
    assert count.known() == 2
    topic.away = True
    topic.now_s = LOOK_S
    with pytest.raises(StoreUnavailable):
        count.fresh()
    assert count.known() == 2
