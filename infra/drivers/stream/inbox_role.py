"""The inbox: a consumer of the inbox topic that accepts messages as the door accepts requests, and commits after the
log does.

Events and dead letters are durable before the offset is committed; a message delivered again gets the same ids and
counts once. Any number of these processes share the topic's partitions as one consumer group.
"""

import logging
import threading
import time
from collections.abc import Callable, MutableSequence, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from confluent_kafka import OFFSET_INVALID, Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as Delivered

from infra.adapters.kafka.access import KafkaAccess
from infra.app.log import log_of
from infra.app.vault import vault_of
from ingest.accept.accept import Acceptor
from ingest.accept.calls import Accepted
from ingest.requests.inbox import Message, Opened, Refusal, dead_letter_of, message_of, open_message
from schemas.dead_letters import INTERNAL, DeadLetter, DeadLetterStore
from schemas.errors import Disposition, KeyMissing, StoreUnavailable, TouchfoldError
from schemas.failpoints import failpoint
from schemas.placeholders import Blocked
from schemas.ports import EventLog, Sealer, Vault
from schemas.record import FLAGS, Pending
from schemas.sources import Sources
from schemas.topics import INBOX

if TYPE_CHECKING:
    from infra.app.session import Session

BATCH: Final = 1_000  # messages per append
BATCH_BYTES: Final = 4_000_000  # of their values: as much as the door accepts together
WAIT_S: Final = 0.2  # for the first message of a batch
ASK_S: Final = 5.0  # for the broker's answer about offsets
CLOSE_S: Final = 3.0  # for leaving the group; the library would wait 10 s for an unreachable broker
BACKOFF_S: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
KEY_TRIES: Final = 5  # an erasure explains one missing key, or two in a row; not five
SAID_AGAIN_S: Final = 60.0  # the same broker problem is not logged more often than this
_log = logging.getLogger("touchfold.inbox")
_library_log = logging.getLogger("touchfold.inbox.kafka")
_library_log.addFilter(lambda line: not line.getMessage().startswith("FAIL "))  # 20 a second; `error_cb` has them too

_FLAGS_AT: Final = 6  # where counts of flags begin, see `Counters` of the door
Place = tuple[int, int]  # partition, offset


class Keys(Vault, Sealer, Protocol):
    """What a door needs from the vault."""

    def daily_token(self, day: date) -> bytes: ...


class _Taken(NamedTuple):
    """A message to be stored: the result for each item, or why it is set aside."""

    message: Message
    outcome: Accepted | Refusal


class InboxDoor:
    """Stores messages in the log or as dead letters. Single-threaded.

    `counts`: like the door's; accepted, dead letters, suppressed and flags are counted here.
    """

    def __init__(
        self,
        acceptor: Acceptor,
        keys: Keys,
        sources: Sources,
        log: EventLog,
        letters: DeadLetterStore,
        now: Callable[[], datetime],
        *,
        check_disk: Callable[[], None] = lambda: None,
        counts: MutableSequence[int] | None = None,
    ) -> None:
        self._acceptor = acceptor
        self._keys = keys
        self._sources = sources
        self._log = log
        self._letters = letters
        self._now = now
        self._check_disk = check_disk
        self._counts = [0] * (_FLAGS_AT + len(FLAGS)) if counts is None else counts

    def take(self, messages: Sequence[Message]) -> None:
        """Store all of them durably, in order. Idempotent.

        Raises StoreUnavailable or KeyMissing: the caller repeats the batch. What repeating cannot fix is set aside.
        """
        self._check_disk()
        received_at = self._now()
        opened = numbered([self._open(message, received_at) for message in messages])
        self._store(self._accept(opened), received_at)

    def _open(self, message: Message, received_at: datetime) -> Opened | Refusal:
        try:
            return open_message(message, self._sources, received_at)
        except TouchfoldError:
            raise
        except Exception as err:
            return _ours(message, err)

    def _accept(self, opened: Sequence[Opened | Refusal]) -> list[_Taken]:
        """With one look-up in the vault; if one of them makes it fail, each on its own."""
        ready = [each for each in opened if isinstance(each, Opened)]
        try:
            found = iter(self._acceptor.accept_many([each.call for each in ready]) if ready else [])
        except TouchfoldError:
            raise
        except Exception:
            _log.exception("a batch cannot be accepted: accepting its messages one by one")
            return [_Taken(each.message, self._accept_one(each)) for each in opened]
        return [_Taken(each.message, each if isinstance(each, Refusal) else next(found)) for each in opened]

    def _accept_one(self, each: Opened | Refusal) -> Accepted | Refusal:
        if isinstance(each, Refusal):
            return each
        try:
            return self._acceptor.accept_many([each.call])[0]
        except TouchfoldError:
            raise
        except Exception as err:
            return _ours(each.message, err)

    def _store(self, taken: Sequence[_Taken], received_at: datetime) -> None:
        """In one append; if one of them makes it fail, each on its own, and that one is set aside."""
        try:
            self._append(taken, received_at)
        except TouchfoldError as err:
            if err.disposition is not Disposition.REJECT:
                raise
            self._store_each(taken, received_at, err)
        except Exception as err:
            self._store_each(taken, received_at, err)

    def _store_each(self, taken: Sequence[_Taken], received_at: datetime, err: Exception) -> None:
        if len(taken) > 1:
            for each in taken:
                self._store([each], received_at)
            return
        [each] = taken
        if isinstance(each.outcome, Refusal):
            raise err  # a dead letter that cannot be stored: there is nothing left to try
        self._append([_Taken(each.message, _ours(each.message, err))], received_at)

    def _append(self, taken: Sequence[_Taken], received_at: datetime) -> None:
        pending: list[Pending] = []
        dead: list[DeadLetter] = []
        suppressed: list[bytes] = []
        flagged: list[str] = []
        blocked: list[Blocked] = []
        for each in taken:
            if isinstance(each.outcome, Refusal):
                dead.append(self._letter(each.outcome, received_at))
            else:
                pending += each.outcome.pending
                dead += each.outcome.dead
                suppressed += each.outcome.suppressed
                flagged += each.outcome.flagged
                blocked += each.outcome.blocked
        if dead or suppressed:  # first: if the append fails, the retry finds them there and adds none
            self._letters.insert(dead, suppressed, received_at)
        if pending:
            self._log.append(pending)
        self._letters.count_blocked(blocked, received_at)
        for place, number in enumerate((len(pending), len(dead), len(suppressed)), 1):
            self._counts[place] += number
        for flag in flagged:
            self._counts[_FLAGS_AT + FLAGS.index(flag)] += 1

    def _letter(self, refusal: Refusal, received_at: datetime) -> DeadLetter:
        token = self._keys.daily_token(received_at.date())
        return dead_letter_of(refusal, self._keys, self._keys.hash_key, token, received_at)


def _ours(message: Message, err: Exception) -> Refusal:
    """A message that hits an internal error: set aside, because it must not hold up the ones behind it."""
    _log.error("set aside because of an internal error: %s", message.place, exc_info=err)
    reason = f"internal error ({type(err).__name__}); see the log, and send it again once that is fixed"
    return Refusal(message, "", INTERNAL, "", reason)


class InboxConsumer:
    """Reads the topic batch by batch, passes each to `take`, then commits its offsets. Single-threaded."""

    def __init__(self, access: KafkaAccess, take: Callable[[Sequence[Message]], None]) -> None:
        self._topic = access.topic(INBOX)
        self._take = take
        self._batch: list[Message] = []
        self._next: dict[int, int] = {}  # partition -> the offset after the last message stored
        self._said: dict[str, float] = {}  # what was logged -> when
        conf: dict[str, Any] = {
            **access.confluent(),
            "client.id": "touchfold-inbox",
            "group.id": f"{access.prefix}-inbox",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "earliest",
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": 10_000,
            "heartbeat.interval.ms": 2_000,
            "queued.max.messages.kbytes": 16_384,
            "topic.metadata.refresh.interval.ms": 10_000,  # partitions added to the topic
            "socket.keepalive.enable": True,
            "reconnect.backoff.max.ms": 1_000,
            "log.connection.close": False,
            "log_level": 4,
            "fetch.queue.backoff.ms": 50,  # the default of 1 s is a pause of 1 s after each full queue
            "error_cb": self._trouble,
            "on_commit": self._committed,
        }
        self._consumer = Consumer(conf, logger=_library_log)

    def run(self, stop: threading.Event, ready: Callable[[], None]) -> None:
        """Run until `stop`. Raises errors that a restart may fix, and KeyMissing."""
        self._consumer.subscribe([self._topic], on_revoke=self._revoked, on_lost=self._revoked)
        ready()
        while not stop.is_set():
            if self._next_batch() and self._until_taken(stop):
                failpoint("inbox.after_append")
                self._commit()
            self._batch.clear()

    def close(self) -> None:
        """Leave the group if a broker is reachable; otherwise the group's timeout does it."""
        thread = threading.Thread(target=self._consumer.close, name="inbox close", daemon=True)
        thread.start()
        thread.join(CLOSE_S)

    # ---------------------------------------------------------------- batches

    def _next_batch(self) -> list[Message]:
        """The messages available now, at most BATCH messages and BATCH_BYTES; waits only for the first one."""
        size = 0
        delivered = self._consumer.poll(WAIT_S)
        while delivered is not None:
            error = delivered.error()
            if error is not None:
                self._trouble(error)
            else:
                message = _message(delivered)
                self._batch.append(message)
                size += len(message.value)
            if len(self._batch) >= BATCH or size >= BATCH_BYTES:
                break
            delivered = self._consumer.poll(0)
        self._look_for_gaps()
        return self._batch

    def _until_taken(self, stop: threading.Event) -> bool:
        """Retry the batch until it is stored; False if `stop` came first."""
        tries = missing = 0
        while not stop.is_set():
            try:
                self._take(self._batch)
                return True
            except KeyMissing:  # erased between look-up and sealing: the retry finds it gone
                missing += 1
                if missing >= KEY_TRIES:
                    raise
            except TouchfoldError as err:
                if err.disposition is not Disposition.RETRY:
                    raise
                _log.warning("waiting: %s", err.message)
                stop.wait(BACKOFF_S[min(tries, len(BACKOFF_S) - 1)])
                tries += 1
        return False

    def _commit(self) -> None:
        """Asynchronous: waiting has no benefit, since a failed commit only costs a redelivery."""
        for message in self._batch:
            self._next[message.partition] = message.offset + 1
        places = {message.partition: message.offset + 1 for message in self._batch}
        offsets = [TopicPartition(self._topic, partition, after) for partition, after in places.items()]
        try:
            self._consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException as err:
            self._trouble(err.args[0])

    def _committed(self, error: KafkaError | None, _offsets: list[TopicPartition]) -> None:
        if error is not None:
            self._trouble(error)

    def _revoked(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Messages read but not yet stored are left to the partitions' next owner."""
        gone = {each.partition for each in partitions}
        self._batch[:] = [message for message in self._batch if message.partition not in gone]
        for partition in gone:
            self._next.pop(partition, None)

    # ---------------------------------------------------------------- what goes wrong

    def _look_for_gaps(self) -> None:
        """Log when retention removed unread messages. Other gaps come from transactions."""
        expected: dict[int, int | None] = {}
        lowest: dict[int, int] = {}
        for message in self._batch:
            partition = message.partition
            if partition not in expected:
                expected[partition] = self._expected(partition)
            wanted = expected[partition]
            if wanted is not None and message.offset > wanted:
                if partition not in lowest:
                    lowest[partition] = self._low(partition)
                lost = min(message.offset, lowest[partition]) - wanted
                if lost > 0:
                    place = f"{self._topic} partition {partition}"
                    _log.error("retention removed up to %d messages of %s before they were read", lost, place)
            expected[partition] = message.offset + 1

    def _expected(self, partition: int) -> int | None:
        """The next expected offset; None if unknown."""
        if partition in self._next:
            return self._next[partition]
        try:
            [found] = self._consumer.committed([TopicPartition(self._topic, partition)], timeout=ASK_S)
        except KafkaException as err:
            self._trouble(err.args[0])
            return None
        return None if found.offset == OFFSET_INVALID else int(found.offset)

    def _low(self, partition: int) -> int:
        try:
            found = self._consumer.get_watermark_offsets(TopicPartition(self._topic, partition), timeout=ASK_S)
        except KafkaException as err:
            self._trouble(err.args[0])
            return 0
        return int(found[0]) if found else 0

    def _trouble(self, error: KafkaError) -> None:
        """Log it, at a limited rate; only errors fatal to the client end the process, which is then restarted."""
        if error.fatal():
            raise StoreUnavailable(f"the Kafka client gave up: {error.str()}")
        name, now = error.name(), time.monotonic()
        if now - self._said.get(name, float("-inf")) > SAID_AGAIN_S:
            self._said[name] = now
            missing = error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART
            what = f"there is no topic {self._topic}: run touchfold topics apply" if missing else error.str()
            _log.warning("Kafka: %s", what)


def numbered(opened: Sequence[Opened | Refusal]) -> list[Opened | Refusal]:
    """The same messages, whose items count on through the fetch: they have one time of receipt."""
    found: list[Opened | Refusal] = []
    n = 0
    for each in opened:
        if isinstance(each, Opened):
            found.append(each._replace(call=each.call._replace(first_n=n)))
            n += len(each.call.items)
        else:
            found.append(each)
    return found


def _message(delivered: Delivered) -> Message:
    topic, partition, offset = delivered.topic(), delivered.partition(), delivered.offset()
    assert topic is not None, "a message has a topic"
    assert partition is not None, "a message has a partition"
    assert offset is not None, "a message has an offset"
    kind, timestamp_ms = delivered.timestamp()
    headers = delivered.headers() or []
    pairs = list(headers.items()) if isinstance(headers, dict) else headers  # the type hints know both
    return message_of(topic, partition, offset, timestamp_ms if kind else None, delivered.value(), pairs)


def run(session: "Session", stop: threading.Event, ready: Callable[[], None]) -> None:
    """The role: store incoming messages until `stop`. Waits out outages. Raises SettingsInvalid without Kafka."""
    from infra.adapters.machine.meter import Meter  # noqa: PLC0415
    from infra.adapters.postgres.dead_letters import PostgresDeadLetters  # noqa: PLC0415
    from infra.adapters.postgres.sources import PostgresSources  # noqa: PLC0415
    from infra.app.accepting import acceptor_of  # noqa: PLC0415  # phonenumbers takes 0.1 s to import

    access = session.adapters.kafka
    assert access is not None, "the inbox needs the log in Kafka"
    meter = Meter(session.data / "meters")
    sources, letters = PostgresSources(session.dsn, unknown=session.unknown_clear), PostgresDeadLetters(session.dsn)
    door = InboxDoor(
        acceptor_of(session),
        vault_of(session),
        sources,
        log_of(session),
        letters,
        session.door_clock.now,
        check_disk=session.disk.check,
        counts=meter.door,
    )
    consumer = InboxConsumer(access, door.take)
    try:
        consumer.run(stop, ready)
    finally:
        consumer.close()
        for each in (letters, sources, meter):
            each.close()
