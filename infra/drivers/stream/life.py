"""The life of a flow, with its watchdog and the tasks that run alongside its steps."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

from infra.adapters.kafka.access import KafkaAccess
from infra.drivers.stream.flow import BatchFlow, Older
from infra.drivers.stream.pace import Pace
from infra.drivers.stream.unclaimed import mind_unclaimed
from infra.drivers.stream.watchdog import Watchdog, broker_ends
from schemas.errors import ServiceFailed
from schemas.ports import Clock
from schemas.work import PartitionWork

_POLL_S: Final = 0.05
_ENDED: Final = AssertionError("a task alongside the flow ended")


class Subscription(NamedTuple):
    """What a worker reads. `older(partition, start, limit)` reads what retention removed from the topic.

    `member`: a name unique in the group that survives restarts (static membership): a process that returns under it
    within the session timeout gets its partitions back without a rebalance. None: every start and stop rebalances.
    `unclaimed` tells whether a partition of the topic has never been claimed.
    """

    access: KafkaAccess
    group: str
    topic: str
    clock: Clock
    older: Older | None = None
    pace: Pace = Pace()
    member: str | None = None
    unclaimed: Callable[[], bool] | None = None


@asynccontextmanager
async def flow_of(work: PartitionWork, reads: Subscription, stop: threading.Event) -> AsyncIterator[BatchFlow]:
    """Run the flow; at the end all partitions are given back. Raises the flow's failure."""
    loop = asyncio.get_running_loop()
    made: list[BatchFlow] = []

    def fire(error: ServiceFailed) -> None:
        loop.call_soon_threadsafe(made[0].fail, error)

    watchdog = Watchdog(broker_ends(reads.access, reads.topic), fire, reads.pace.patience_s, reads.pace.grace_s)
    flow = BatchFlow(work, reads.clock, watchdog, reads.older, reads.pace)
    made.append(flow)
    watchdog.start()
    loops = [_watch(flow, stop), flow.ends.mind(lambda: flow.client, flow.owned), flow.mind_hints()]
    if reads.unclaimed is not None:
        loops.append(mind_unclaimed(lambda: flow.client, reads.unclaimed, reads.pace.unclaimed_s))
    beside = [asyncio.ensure_future(each) for each in loops]
    for task in beside:
        task.add_done_callback(lambda done: None if done.cancelled() else flow.fail(done.exception() or _ENDED))
    try:
        yield flow
    finally:
        for task in beside:
            task.cancel()
        await flow.close()
        watchdog.close()
    if flow.failure is not None:
        raise flow.failure


async def _watch(flow: BatchFlow, stop: threading.Event) -> None:
    while True:
        if stop.is_set():
            flow.stop()
        await asyncio.sleep(_POLL_S)
