"""Ends a worker that makes no progress while its log grows. Runs in its own thread, so it notices a stuck loop too.

Progress is reported to it (`mark`). It reads the log's end offsets itself, with its own client, and only for
partitions without recent progress. It does not fire during a known outage (`excuse`).
"""

import faulthandler
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import Final, NamedTuple

from infra.adapters.kafka.access import KafkaAccess
from schemas.errors import ServiceFailed, StoreUnavailable

PATIENCE_S: Final = 30.0
GRACE_S: Final = 5.0
STUCK: Final = 70  # exit status when the process could not be ended cleanly (EX_SOFTWARE)
_HELD_GIL: Final = 10  # times the patience: a call that holds the GIL stops this thread too, so C code ends it
_TICKS: Final = 20  # checks per period of patience
_ASK_S: Final = 5.0

_log = logging.getLogger("touchfold.watchdog")

Ends = Callable[[Collection[int]], Mapping[int, int]]


class Mark(NamedTuple):
    """A partition's offset (None: assigned but not yet claimed) and when it last advanced (monotonic seconds)."""

    offset: int | None
    at: float


class Watchdog:
    """`mark`, `drop` and `excuse` are thread-safe. `fire` is called once, in this object's thread.

    After `fire` the process has `grace_s` to call `close`; otherwise it is killed with status 70.
    """

    def __init__(
        self,
        ends: Ends,
        fire: Callable[[ServiceFailed], None],
        patience_s: float = PATIENCE_S,
        grace_s: float = GRACE_S,
        leave: Callable[[int], None] = os._exit,
    ) -> None:
        self._ends = ends
        self._fire = fire
        self._patience_s = patience_s
        self._grace_s = grace_s
        self._leave = leave
        self._marks: dict[int, Mark] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stop watching: the process is ending cleanly."""
        self._closed.set()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(_ASK_S + 1)
        faulthandler.cancel_dump_traceback_later()

    def mark(self, partition: int, offset: int | None) -> None:
        """The partition advanced to this offset, or has nothing more to do."""
        with self._lock:
            self._marks[partition] = Mark(offset, time.monotonic())

    def drop(self, partitions: Collection[int]) -> None:
        """These partitions are no longer ours."""
        with self._lock:
            for partition in partitions:
                self._marks.pop(partition, None)

    def excuse(self) -> None:
        """There is no progress for a known and logged reason: an outage."""
        now = time.monotonic()
        with self._lock:
            self._marks = {partition: Mark(mark.offset, now) for partition, mark in self._marks.items()}

    def _run(self) -> None:
        tick_s = self._patience_s / _TICKS
        last = time.monotonic()
        while True:
            self._arm()
            if self._closed.wait(tick_s):
                return
            now = time.monotonic()
            if now - last > tick_s + self._patience_s / 4:
                self.excuse()  # the whole process was paused: SIGSTOP, or a sleeping machine
            elif (reason := self._look(now)) is not None:
                break
            last = time.monotonic()
        _log.critical("%s", reason)
        self._fire(ServiceFailed(reason))
        if not self._closed.wait(self._grace_s):
            _log.critical("the process does not exit by itself: killing it")
            faulthandler.dump_traceback(file=sys.__stderr__ or sys.stderr)
            self._leave(STUCK)

    def _arm(self) -> None:
        if sys.__stderr__ is not None:
            faulthandler.dump_traceback_later(self._patience_s * _HELD_GIL, exit=True, file=sys.__stderr__)

    def _look(self, now: float) -> str | None:
        """Why the worker must end, or None."""
        with self._lock:
            still = {p: mark for p, mark in self._marks.items() if now - mark.at > self._patience_s / 3}
        if not still:
            return None
        try:
            ends = self._ends(still)
        except StoreUnavailable:
            self.excuse()  # the brokers are unavailable
            return None
        for partition, mark in sorted(still.items()):
            with self._lock:
                same = self._marks.get(partition) == mark
            lag = ends.get(partition, 0) - (mark.offset or 0)
            if same and lag > 0 and now - mark.at > self._patience_s:
                place = "not claimed" if mark.offset is None else f"stuck at offset {mark.offset}"
                return (
                    f"no progress for {now - mark.at:.0f} s: partition {partition} {place}, lag {lag}. "
                    "The worker exits and the supervisor restarts it"
                )
        return None


def broker_ends(access: KafkaAccess, topic: str) -> Ends:
    """Last stable offsets, read with a client created at the first call. Raises StoreUnavailable."""
    # imported only when needed: a worker that makes progress never asks
    from confluent_kafka import IsolationLevel, KafkaException, TopicPartition  # noqa: PLC0415
    from confluent_kafka.admin import AdminClient  # noqa: PLC0415
    from confluent_kafka.admin._listoffsets import OffsetSpec  # noqa: PLC0415  # its types do not export it higher up

    made: list[AdminClient] = []

    def ask(partitions: Collection[int]) -> Mapping[int, int]:
        if not made:
            made.append(AdminClient(access.confluent() | {"log_level": 0, "socket.timeout.ms": 5_000}))
        wanted = {
            TopicPartition(topic, partition): OffsetSpec.latest()  # type: ignore[no-untyped-call]
            for partition in partitions
        }
        try:
            found = made[0].list_offsets(wanted, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=_ASK_S)
            ends = {each.partition: future.result(_ASK_S).offset for each, future in found.items()}
        except (KafkaException, TimeoutError) as err:
            made.clear()  # librdkafka 2.16 keeps using an outdated leader epoch (see kafka_reading)
            raise StoreUnavailable(f"Kafka does not report its end offsets ({type(err).__name__})") from err
        if min(ends.values(), default=0) < 0:  # librdkafka did not answer in time
            made.clear()
            raise StoreUnavailable("Kafka does not report its end offsets (TimeoutError)")
        return ends

    return ask
