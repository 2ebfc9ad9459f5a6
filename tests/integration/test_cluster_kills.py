"""Faults of the cluster mode under load, judged by the independent checker: nothing lost, nothing twice.

Three real brokers, two workers and everything else of `touchfold up`; which faults, where and when is drawn by a
seed. `python -m tests.checker.cluster --seed N` runs the same by hand and says what it does.
"""

import os
from pathlib import Path

import pytest

from tests.checker.cluster import Deployment, Report, endure, opened

pytestmark = [
    pytest.mark.kill,
    # kafka-python loads its message schemas by old calls, at import
    pytest.mark.filterwarnings("ignore:(open|read)_text is deprecated:DeprecationWarning"),
]

MINUTES = float(os.environ.get("TOUCHFOLD_CHAOS_MINUTES", "100"))  # of the long form, at most


def whole(here: Deployment, report: Report) -> None:
    """What must hold when the faults are over."""
    assert report.violations == [], f"after {report.kills} kills by {report.done}:\n" + "\n".join(
        here.product.log[-60:]
    )
    assert report.equal, f"a rebuild differs after {report.kills} kills by {report.done}"


@pytest.mark.timeout(900)
def test_twenty_kills_of_a_cluster_lose_nothing_and_count_nothing_twice(tmp_path: Path) -> None:
    with opened(tmp_path, brokers=3, workers=2, seed=1) as here:
        report = endure(here, kills=20, limit_s=600, judged_every=1_000)
        whole(here, report)
        print(f"{report.kills} kills in {len(report.done)} faults")
    assert report.kills >= 20, report.done


@pytest.mark.long
@pytest.mark.timeout(8_000)
@pytest.mark.parametrize("runner", ["faust", "aiokafka"])
def test_a_thousand_kills_of_a_cluster_lose_nothing(tmp_path: Path, runner: str) -> None:
    """Half of them with each runner. TOUCHFOLD_CHAOS_MINUTES: for both; a slow machine needs more."""
    with opened(tmp_path, brokers=3, workers=2, runner=runner, seed=1_000) as here:
        report = endure(here, kills=500, limit_s=MINUTES / 2 * 60, judged_every=125, deep=True)
        whole(here, report)
        print(f"{runner}: {report.kills} kills in {len(report.done)} faults")
    assert report.kills >= 500, f"within {MINUTES / 2:.0f} minutes: {report.done}"
