"""Feeds a worker from Kafka through a plain aiokafka consumer. `run` is the only entry point."""

import asyncio
import logging
import threading
from collections.abc import Collection, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import (
    AuthenticationFailedError,
    ConsumerStoppedError,
    CorruptRecordException,
    GroupAuthorizationFailedError,
    IllegalStateError,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    RecordTooLargeError,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
)

from infra.adapters.kafka.access import KafkaAccess
from infra.drivers.stream.flow import BatchFlow
from infra.drivers.stream.life import Subscription, flow_of
from infra.drivers.stream.work_thread import complete
from schemas.errors import ServiceFailed, StoreUnavailable
from schemas.work import PartitionWork

MAX_RECORDS: Final = 20_000  # a call of `apply`
PARTITION_BYTES: Final = 3 << 20  # 5,000 records of 600 bytes
FETCH_BYTES: Final = 16 << 20
# Brokers answer a connection's requests in order, so a request for end offsets waits behind a fetch for records.
FETCH_WAIT_MS: Final = 250
REQUEST_S: Final = 10.0
SESSION_MS: Final = 10_000  # without a heartbeat; then a worker's partitions are reassigned
STATIC_SESSION_MS: Final = 30_000  # of a named member: a stop takes up to 9 s, a start up to 10 s
_HINT_S: Final = 2.0
REBUILD_S: Final = 1.0

_REFUSED: Final = (
    AuthenticationFailedError,
    GroupAuthorizationFailedError,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
)

_log = logging.getLogger("touchfold.runner")
T = TypeVar("T")


def consumer_settings(access: KafkaAccess, group: str, member: str | None = None) -> dict[str, Any]:
    """Consumer options of both runners. Offsets come only from PostgreSQL: nothing is reset, nothing committed."""
    return access.aiokafka() | {
        "group_instance_id": member,
        "group_id": group,
        "client_id": "touchfold-worker",
        "enable_auto_commit": False,
        "auto_offset_reset": "none",
        "isolation_level": "read_committed",
        "session_timeout_ms": SESSION_MS if member is None else STATIC_SESSION_MS,
        "heartbeat_interval_ms": 2_000,
        "rebalance_timeout_ms": 60_000,
        "max_poll_interval_ms": 300_000,
        "request_timeout_ms": 40_000,
        "metadata_max_age_ms": 10_000,  # longest delay in noticing partitions added to the topic
        "fetch_min_bytes": 1,
        "fetch_max_wait_ms": FETCH_WAIT_MS,
        "fetch_max_bytes": FETCH_BYTES,
        "max_partition_fetch_bytes": PARTITION_BYTES,
        "partition_assignment_strategy": [RoundRobinPartitionAssignor],
    }


class ConsumerCalls:
    """A flow's `Client` on top of a consumer, called in the consumer's own loop."""

    def __init__(self, consumer: AIOKafkaConsumer, topic: str) -> None:
        self._consumer = consumer
        self._topic = topic

    async def seek(self, offsets: Mapping[int, int]) -> None:
        for partition, offset in offsets.items():
            with suppress(IllegalStateError):  # taken away by a rebalance: the next claim tells where to continue
                self._consumer.seek(self._tp(partition), offset)

    async def starts(self, partitions: Collection[int]) -> Mapping[int, int]:
        return await self._ask(self._consumer.beginning_offsets([self._tp(p) for p in partitions]))

    async def ends(self, partitions: Collection[int]) -> Mapping[int, int]:
        return await self._ask(self._consumer.end_offsets([self._tp(p) for p in partitions]))

    async def hint(self, offsets: Mapping[int, int]) -> None:
        assigned = self._consumer.assignment()
        wanted = {tp: offset for p, offset in offsets.items() if (tp := self._tp(p)) in assigned}
        if wanted:
            await answered(self._consumer.commit(wanted), _HINT_S)

    async def rejoin(self) -> None:
        self._consumer._coordinator.request_rejoin()

    def positions(self) -> Mapping[int, int]:
        return positions(self._consumer)

    def pause(self, partitions: Collection[int]) -> None:
        self._consumer.pause(*self._assigned(partitions))

    def resume(self, partitions: Collection[int]) -> None:
        self._consumer.resume(*self._assigned(partitions))

    def _assigned(self, partitions: Collection[int]) -> list[TopicPartition]:
        return [tp for p in partitions if (tp := self._tp(p)) in self._consumer.assignment()]

    def _tp(self, partition: int) -> TopicPartition:
        return TopicPartition(self._topic, partition)

    async def _ask(self, question: Coroutine[Any, Any, Mapping[TopicPartition, int]]) -> dict[int, int]:
        return {tp.partition: offset for tp, offset in (await answered(question, REQUEST_S)).items()}


def positions(consumer: AIOKafkaConsumer) -> dict[int, int]:
    """Where the next fetch of each partition starts; thread-safe. aiokafka's own method blocks if there is none."""
    subscription = consumer._subscription.subscription
    assignment = None if subscription is None else subscription.assignment
    if assignment is None or not assignment.active:
        return {}
    found = ((tp.partition, assignment.state_value(tp)._position) for tp in assignment.tps)
    return {partition: position for partition, position in found if position is not None}


async def answered(question: Coroutine[Any, Any, T], timeout_s: float) -> T:
    """The brokers' answer. Raises StoreUnavailable if there is none."""
    try:
        return await asyncio.wait_for(question, timeout_s)
    except (KafkaError, TimeoutError, OSError) as err:
        raise StoreUnavailable(f"Kafka did not answer ({type(err).__name__})") from err


async def leave(consumer: AIOKafkaConsumer, timeout_s: float) -> None:
    """Leave the group and close. With a join pending, aiokafka would wait up to a minute for it: give up earlier."""
    try:
        await asyncio.wait_for(consumer.stop(), timeout_s)
    except TimeoutError:
        _log.warning("left the group without waiting for its answer")
        consumer._closed = False  # its coordinator is closed; the second call closes the rest
        with suppress(TimeoutError, KafkaError):
            await asyncio.wait_for(consumer.stop(), 1)
    except KafkaError as err:
        _log.warning("left the group without waiting for its answer (%s)", type(err).__name__)


def fetch_failed(flow: BatchFlow, err: KafkaError) -> None:
    """What a failed fetch means for the flow. Raises ServiceFailed, or the error itself if the consumer is lost."""
    if isinstance(err, OffsetOutOfRangeError):
        flow.out_of_range({tp.partition for tp in err.args[0]})
    elif isinstance(err, NoOffsetForPartitionError):
        pass  # a fetch from before our seek; we do not use the group's offsets
    elif isinstance(err, RecordTooLargeError):
        raise ServiceFailed(f"a record is larger than a fetch: {err}") from err
    elif isinstance(err, _REFUSED):
        raise ServiceFailed(f"the brokers refuse access: {type(err).__name__}: {err}") from err
    elif isinstance(err, CorruptRecordException):
        _log.error("%s: fetching again", err)
        flow.rewind()  # what it fetched before the bad batch is lost
    else:
        raise err


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """aiokafka swallows a listener's exceptions and sends no heartbeats while it runs, so claiming happens later."""

    def __init__(self, flow: BatchFlow) -> None:
        self._flow = flow

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        try:
            await self._flow.revoke()
        except Exception as err:
            self._flow.fail(err)

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        self._flow.assign({tp.partition for tp in assigned})


async def _life(flow: BatchFlow, reads: Subscription) -> None:
    """One consumer, from its start until the flow ends or the consumer is lost (raises its KafkaError)."""
    consumer = AIOKafkaConsumer(**consumer_settings(reads.access, reads.group, reads.member))

    async def fetch(wait_s: float) -> Mapping[int, Sequence[Any]]:
        try:
            found = await consumer.getmany(timeout_ms=int(wait_s * 1_000), max_records=MAX_RECORDS)
        except KafkaError as err:
            fetch_failed(flow, err)
            return {}
        return {tp.partition: records for tp, records in found.items()}

    try:
        await consumer.start()
        flow.attach(ConsumerCalls(consumer, reads.topic))
        consumer.subscribe([reads.topic], listener=_Listener(flow))
        while not flow.ending:
            await flow.step(fetch)
    finally:
        await flow.revoke()
        await leave(consumer, reads.pace.leave_s)


async def _main(work: PartitionWork, reads: Subscription, stop: threading.Event) -> None:
    async with flow_of(work, reads, stop) as flow:
        while not flow.ending:
            try:
                await _life(flow, reads)
            except ConsumerStoppedError:
                raise
            except KafkaError as err:
                _log.warning("starting a new consumer in %g s: %s", REBUILD_S, type(err).__name__)
                with suppress(TimeoutError):
                    await asyncio.wait_for(flow.ended(), REBUILD_S)


def run(work: PartitionWork, reads: Subscription, stop: threading.Event) -> None:
    """Run until `stop` is set. Raises the STOP errors of `work`, ServiceFailed with a reason, or unforeseen errors.

    Installs no signal handlers; `work` is called in a single separate thread.
    """
    complete(_main(work, reads, stop))
