"""Intervals and timeouts of a worker on Kafka."""

from typing import NamedTuple


class Pace(NamedTuple):
    """Intervals in seconds, and counts. Tests shorten them."""

    busy_s: float = 0.02  # wait for records when the last idle turn had work
    idle_s: float = 0.075  # when it had none
    idle_every_s: float = 1.0  # under load
    idle_again_s: float = 0.1  # under load, when the last idle turn had work
    hint_s: float = 2.0
    ends_s: float = 0.5
    retry_s: float = 0.1  # doubles
    retry_most_s: float = 2.0
    conflict_s: float = 0.25  # doubles; a fenced worker learns of the rebalance meanwhile
    poison_s: float = 0.5  # doubles
    poison_tries: int = 5
    waiting_s: float = 2.0  # between checks of a record that cannot be read yet: somebody may have set it aside
    patience_s: float = 30.0  # of the watchdog
    outage_s: float = 300.0  # a failure lasting this long no longer counts as an outage but as a fault of this process
    grace_s: float = 5.0
    leave_s: float = 5.0  # for leaving the group
    unclaimed_s: float = 10.0  # between checks whether all partitions are assigned
