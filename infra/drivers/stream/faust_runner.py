"""Feeds a worker from Kafka through a Faust app that passes on whole fetched batches. `run` is the only entry point.

No agents, tables, web server or leader; Faust contributes group membership in its own thread and orderly rebalances.
Uses private names of Faust: the version is pinned, and tests/contract/test_runners.py checks the names.
"""

import asyncio
import logging
import tempfile
import threading
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar, Final, TypeVar

import faust
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import ConsumerStoppedError, KafkaError
from faust.app import BootStrategy
from faust.exceptions import ConsumerNotStarted
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from mode import ServiceT

from infra.adapters.kafka.access import KafkaAccess
from infra.drivers.stream.aiokafka_runner import (
    MAX_RECORDS,
    REBUILD_S,
    REQUEST_S,
    SESSION_MS,
    STATIC_SESSION_MS,
    ConsumerCalls,
    answered,
    consumer_settings,
    fetch_failed,
    leave,
    positions,
)
from infra.drivers.stream.flow import BatchFlow
from infra.drivers.stream.life import Subscription, flow_of
from infra.drivers.stream.pace import Pace
from infra.drivers.stream.work_thread import complete
from schemas.errors import ServiceFailed, StoreUnavailable
from schemas.work import PartitionWork

PINNED: Final = "0.15.3"
_STOP_S: Final = 5.0

_log = logging.getLogger("touchfold.runner")
T = TypeVar("T")


class _Thread(driver.AIOKafkaConsumerThread):
    """The thread of aiokafka's consumer: created with our settings, and left within bounded time."""

    shutdown_timeout = _STOP_S + 2  # Faust's own is a minute

    def _create_worker_consumer(self, transport: driver.Transport) -> AIOKafkaConsumer:
        consumer: BatchConsumer = self.consumer  # type: ignore[assignment]  # Faust knows its base alone
        return AIOKafkaConsumer(**consumer.settings, max_poll_records=MAX_RECORDS)

    async def on_thread_stop(self) -> None:
        await super(driver.AIOKafkaConsumerThread, self).on_thread_stop()
        consumer: BatchConsumer = self.consumer  # type: ignore[assignment]
        if self._consumer is not None:
            await leave(self._consumer, consumer.pace.leave_s)


class BatchConsumer(driver.Consumer):
    """Faust's consumer with the flow instead of streams. `_app` sets its attributes."""

    flow: ClassVar[BatchFlow]
    topic: ClassVar[str]
    settings: ClassVar[Mapping[str, Any]]
    pace: ClassVar[Pace]

    def _new_consumer_thread(self) -> _Thread:
        return _Thread(self, loop=self.loop, beacon=self.beacon)

    async def perform_seek(self) -> None:
        """After each assignment, before fetching resumes. The flow claims and seeks at its next step."""
        self.flow.attach(_Calls(self, self.topic))
        self.flow.assign({tp.partition for tp in self.assignment() if tp.topic == self.topic})

    async def wait_empty(self) -> None:
        """At revocation and at the end, after fetching has stopped: wait for the batch in flight."""
        await self.flow.revoke()

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Faust's checks are meant for agents; we have the watchdog."""

    async def _drain_messages(self, fetcher: ServiceT) -> None:
        try:
            while not (self.should_stop or fetcher.should_stop or self.flow.ending):
                await self.flow.step(self._fetch)
        except asyncio.CancelledError:
            if not fetcher.should_stop:  # Faust's fetcher crashes when it is cancelled in a rebalance
                raise
        except ConsumerStoppedError:
            if not self.flow.ending:
                raise
        except Exception as err:
            self.flow.fail(err)

    async def _fetch(self, wait_s: float) -> Mapping[int, Sequence[Any]]:
        try:
            records, _ = await self._wait_next_records(wait_s)
        except asyncio.CancelledError:
            self.flow.rewind()  # the thread may have fetched records that nobody processes
            raise
        except KafkaError as err:
            fetch_failed(self.flow, err)
            return {}
        return {tp.partition: batch for tp, batch in (records or {}).items()}


class _Calls:
    """A flow's `Client` on top of Faust's consumer, called in aiokafka's thread and loop."""

    def __init__(self, consumer: BatchConsumer, topic: str) -> None:
        self._consumer = consumer
        self._topic = topic

    async def seek(self, offsets: Mapping[int, int]) -> None:
        await self._over(lambda calls: calls.seek(offsets))

    async def starts(self, partitions: Collection[int]) -> Mapping[int, int]:
        return await self._over(lambda calls: calls.starts(partitions))

    async def ends(self, partitions: Collection[int]) -> Mapping[int, int]:
        return await self._over(lambda calls: calls.ends(partitions))

    async def hint(self, offsets: Mapping[int, int]) -> None:
        await self._over(lambda calls: calls.hint(offsets))

    async def rejoin(self) -> None:
        await self._over(lambda calls: calls.rejoin())

    def positions(self) -> Mapping[int, int]:
        return positions(self._consumer._thread._ensure_consumer())

    def pause(self, partitions: Collection[int]) -> None:
        self._consumer.pause_partitions({TP(self._topic, partition) for partition in partitions})

    def resume(self, partitions: Collection[int]) -> None:
        self._consumer.resume_partitions({TP(self._topic, partition) for partition in partitions})

    async def _over(self, question: Callable[[ConsumerCalls], Awaitable[T]]) -> T:
        thread = self._consumer._thread

        async def ask() -> T:
            return await question(ConsumerCalls(thread._ensure_consumer(), self._topic))

        asking = ask()
        try:
            future = asyncio.run_coroutine_threadsafe(asking, thread.thread_loop)
        except RuntimeError as err:  # its loop is closed
            asking.close()
            raise StoreUnavailable("Faust's consumer has ended") from err
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), REQUEST_S + 1)
        except (TimeoutError, ConsumerNotStarted) as err:
            raise StoreUnavailable("Faust's consumer does not answer") from err
        except asyncio.CancelledError as err:
            if not future.cancelled():
                raise
            raise StoreUnavailable("Faust's consumer is stopping") from err


class _Boot(BootStrategy):
    enable_kafka_producer = False
    enable_web = False


class _App(faust.App):
    BootStrategy = _Boot


def _app(flow: BatchFlow, reads: Subscription, folder: str) -> faust.App:
    access, topic = reads.access, reads.topic
    app = _App(
        reads.group,
        broker=[f"kafka://{address}" for address in access.bootstrap.split(",")],
        web_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        worker_redirect_stdouts=False,
        stream_wait_empty=True,
        table_standby_replicas=0,
        broker_session_timeout=(SESSION_MS if reads.member is None else STATIC_SESSION_MS) / 1_000,
        broker_heartbeat_interval=2.0,
        broker_rebalance_timeout=60.0,
        datadir=folder,
    )
    settings = consumer_settings(access, reads.group, reads.member)
    members = {"flow": flow, "topic": topic, "settings": settings, "pace": reads.pace}
    consumer = type("Consumer", (BatchConsumer,), members)
    app.transport = type("Transport", (driver.Transport,), {"Consumer": consumer})(app.conf.broker_consumer, app)
    app.topics.add(app.topic(topic, key_serializer="raw", value_serializer="raw"))
    return app


async def _reachable(flow: BatchFlow, access: KafkaAccess) -> None:
    """Wait until the brokers answer: a Faust app that starts without them crashes."""
    while not flow.ending:
        probe = AIOKafkaConsumer(**access.aiokafka())
        try:
            await answered(probe.start(), REQUEST_S)
            return
        except StoreUnavailable as err:
            _log.warning("trying again in %g s: %s", REBUILD_S, err.message)
        finally:
            await leave(probe, 1)
        with suppress(TimeoutError):
            await asyncio.wait_for(flow.ended(), REBUILD_S)


async def _supervise(app: faust.App, flow: BatchFlow) -> None:
    """Runs the app until the flow ends. A crash of the app becomes the flow's failure."""
    starting = asyncio.ensure_future(app.start())
    ending = asyncio.ensure_future(flow.ended())
    crashed = asyncio.ensure_future(app.wait_until_stopped())
    try:
        await asyncio.wait({ending, crashed}, return_when=asyncio.FIRST_COMPLETED)
        if not flow.ending:
            reason = app.crash_reason
            failed = ServiceFailed(f"the Faust app crashed: {type(reason).__name__}")
            failed.__cause__ = reason
            flow.fail(failed)
        await flow.revoke()
        try:
            await asyncio.wait_for(app.stop(), _STOP_S + 3)
        except TimeoutError:
            _log.warning("Faust does not stop: abandoning it")
    finally:
        for task in (starting, ending, crashed):
            task.cancel()
        await asyncio.wait({starting, ending, crashed})
        if not starting.cancelled() and starting.exception() is not None:
            flow.fail(ServiceFailed(f"the Faust app did not start: {type(starting.exception()).__name__}"))


async def _main(work: PartitionWork, reads: Subscription, stop: threading.Event) -> None:
    with tempfile.TemporaryDirectory(prefix="touchfold-faust-") as folder:
        async with flow_of(work, reads, stop) as flow:
            await _reachable(flow, reads.access)
            if not flow.ending:
                await _supervise(_app(flow, reads, folder), flow)


def run(work: PartitionWork, reads: Subscription, stop: threading.Event) -> None:
    """As `aiokafka_runner.run`, through Faust. A crash of the app raises ServiceFailed."""
    complete(_main(work, reads, stop))
