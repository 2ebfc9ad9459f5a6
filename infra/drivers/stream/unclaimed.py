"""Rejoins the group when a partition of the topic is assigned to nobody."""

import asyncio
import logging
from collections.abc import Callable

from infra.drivers.stream.client import Client
from schemas.errors import StoreUnavailable

_log = logging.getLogger("touchfold.runner")


async def mind_unclaimed(client: Callable[[], Client | None], is_unclaimed: Callable[[], bool], every_s: float) -> None:
    """Rejoins when a partition is unassigned in two checks in a row. Runs alongside the flow's steps.

    A returning static member is not told that it leads, so it does not notice new partitions of the topic; the
    brokers do, and rebalance when it rejoins (KIP-814, which aiokafka 0.14 lacks).
    """
    before = False
    while True:
        await asyncio.sleep(every_s)
        try:
            asked = client()
            found = asked is not None and await asyncio.to_thread(is_unclaimed)
            if found and before and asked is not None:
                _log.info("a partition is unassigned: rejoining the group")
                await asked.rejoin()
        except StoreUnavailable as err:
            _log.info("cannot tell whether all partitions are assigned: %s", err.message)
            found = False
        before = found and not before
