"""Ends a worker that stands still while its log grows. A thread of its own: it also sees a stuck loop or call.

What it knows of progress it is told (`mark`); the ends of the log it asks itself, of a client of its own, and only of
partitions that were told nothing for a while. It does not fire for an outage somebody knows of (`excuse`).
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
STUCK: Final = 70  # exit status when the process could not be ended in order (EX_SOFTWARE)
_HELD_GIL: Final = 10  # times the patience: a call that holds the GIL stops this thread too, and C code ends it
_TICKS: Final = 20  # a period of patience is looked at in so many ticks
_ASK_S: Final = 5.0

_log = logging.getLogger("touchfold.watchdog")

Ends = Callable[[Collection[int]], Mapping[int, int]]


class Mark(NamedTuple):
    """How far a partition was (None: assigned, not yet claimed) and when that was news (monotonic seconds)."""

    offset: int | None
    at: float


class Watchdog:
    """`mark`, `drop` and `excuse` from any thread. `fire` is called once, in this object's thread.

    After `fire` the process has `grace_s` to call `close`; else it is ended hard, with status 70.
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
        """All is well, or ends in order."""
        self._closed.set()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(_ASK_S + 1)
        faulthandler.cancel_dump_traceback_later()

    def mark(self, partition: int, offset: int | None) -> None:
        """It came as far as this, or there is nothing more to do."""
        with self._lock:
            self._marks[partition] = Mark(offset, time.monotonic())

    def drop(self, partitions: Collection[int]) -> None:
        """They are ours no more."""
        with self._lock:
            for partition in partitions:
                self._marks.pop(partition, None)

    def excuse(self) -> None:
        """We stand still for a reason that is known and logged: an outage."""
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
                self.excuse()  # the whole process stood still: SIGSTOP, a machine that slept
            elif (reason := self._look(now)) is not None:
                break
            last = time.monotonic()
        _log.critical("%s", reason)
        self._fire(ServiceFailed(reason))
        if not self._closed.wait(self._grace_s):
            _log.critical("the process does not end by itself: ended")
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
            self.excuse()  # the brokers are away
            return None
        for partition, mark in sorted(still.items()):
            with self._lock:
                same = self._marks.get(partition) == mark
            lag = ends.get(partition, 0) - (mark.offset or 0)
            if same and lag > 0 and now - mark.at > self._patience_s:
                place = "not claimed" if mark.offset is None else f"stands at offset {mark.offset}"
                return (
                    f"no progress for {now - mark.at:.0f} s: partition {partition} {place}, lag {lag}. "
                    "The worker ends; the supervisor starts it anew"
                )
        return None


def broker_ends(access: KafkaAccess, topic: str) -> Ends:
    """Last stable offsets, asked through a client made at the first call. Raises StoreUnavailable."""
    # imported only when needed: a worker that moves never asks
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
            made.clear()  # librdkafka 2.16 goes on asking by the leader epoch it once knew (see kafka_reading)
            raise StoreUnavailable(f"Kafka does not tell its ends ({type(err).__name__})") from err
        if min(ends.values(), default=0) < 0:  # an answer of librdkafka that did not come in time
            made.clear()
            raise StoreUnavailable("Kafka does not tell its ends (TimeoutError)")
        return ends

    return ask
