"""Rates that several processes keep together."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from infra.adapters.machine.shared_buckets import SETS, WAYS, SharedBuckets

TAKE = """
import sys
from pathlib import Path
from infra.adapters.machine.shared_buckets import SharedBuckets
buckets = SharedBuckets(Path(sys.argv[1]), monotonic=lambda: 100.0)
print(sum(not buckets.take("shop", 1.0, 500.0) for _ in range(400)))
"""


class Hand:
    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def hand() -> Hand:
    return Hand()


@pytest.fixture
def buckets(tmp_path: Path, hand: Hand) -> Iterator[SharedBuckets]:
    with closing(SharedBuckets(tmp_path / "rates", monotonic=hand)) as buckets:
        yield buckets


def test_a_bucket_empties_and_gains_and_says_how_long_to_wait(buckets: SharedBuckets, hand: Hand) -> None:
    assert [buckets.take("shop", 2.0, 4.0) for _ in range(4)] == [0.0] * 4
    assert buckets.take("shop", 2.0, 4.0) == pytest.approx(0.5)
    assert buckets.wait_s("shop", 2.0, 4.0) == pytest.approx(0.5)
    assert buckets.take("other", 2.0, 4.0) == 0.0
    hand.at += 0.5
    assert buckets.wait_s("shop", 2.0, 4.0) == 0.0
    assert buckets.take("shop", 2.0, 4.0) == 0.0
    assert buckets.take("shop", 2.0, 4.0) > 0
    hand.at += 1_000
    assert buckets.take("shop", 2.0, 4.0, 100.0) == 0.0, "more than it holds is given when it is full"
    assert buckets.take("shop", 2.0, 4.0, 100.0) == pytest.approx(2.0)


def test_another_rate_and_a_clock_that_began_anew_start_with_a_full_bucket(buckets: SharedBuckets, hand: Hand) -> None:
    assert buckets.take("shop", 0.01, 100.0, 100.0) == 0.0
    assert buckets.take("shop", 0.01, 100.0) > 0
    assert buckets.take("shop", 1_000.0, 2_000.0) == 0.0
    assert buckets.take("cold", 0.1, 1.0) == 0.0
    hand.at = 1.0
    assert buckets.take("cold", 0.1, 1.0) == 0.0


def test_processes_and_threads_take_from_one_bucket(tmp_path: Path) -> None:
    path = tmp_path / "meters" / "rates"
    command = [sys.executable, "-c", TAKE, str(path)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    taken = sum(int(process.communicate(timeout=60)[0]) for process in processes)
    assert taken == 500
    with closing(SharedBuckets(path, monotonic=lambda: 110.0)) as buckets, ThreadPoolExecutor(4) as pool:
        waits = list(pool.map(lambda _: buckets.take("shop", 1.0, 500.0), range(40)))
    assert waits.count(0.0) == 10


def test_more_names_than_there_are_places_take_no_more_room(buckets: SharedBuckets, tmp_path: Path) -> None:
    for _ in range(50):
        buckets.take("shop", 1.0, 50.0)
    size = (tmp_path / "rates").stat().st_size
    for number in range(2 * SETS * WAYS):
        assert buckets.take(f"stranger {number}", 1.0, 50.0) == 0.0
    assert (tmp_path / "rates").stat().st_size == size
    assert buckets.take("shop", 1.0, 50.0) > 0, "the emptiest bucket is the last to be forgotten"
