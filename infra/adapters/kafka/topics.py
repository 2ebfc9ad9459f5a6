"""Our topics: what they should be, what they are, and what to do about it. Uses kafka-python's admin client.

`plan` and `apply` are for the command; `ensure` runs at every start. Only `apply` creates or changes topics.
"""

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, Literal, NamedTuple, Protocol

from infra.adapters.kafka.access import KafkaAccess
from infra.adapters.kafka.producing import MAX_RECORD_BYTES
from infra.adapters.kafka.trouble import REFUSED, reach
from schemas.errors import Problem, ServiceFailed, StoreUnavailable
from schemas.topics import EVENTS, INBOX, PROFILE_CHANGES, PROFILES, RISK_CHANGES, SEGMENT_CHANGES, TOPICS

ANSWER_MS: Final = 10_000
REACH_S: Final = 5.0
HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
SAFE_REPLICAS: Final = 3
SAFE_INSYNC: Final = 2
MESSAGE_BYTES: Final = MAX_RECORD_BYTES + 200_000  # a batch of one record, with its overhead
_APPLY: Final = "run touchfold topics apply"
Rule = Literal["exactly", "at least", "at most", "when made"]


class Settings(Protocol):
    """What the settings require of topics."""

    @property
    def kafka_partitions(self) -> int: ...
    @property
    def kafka_replication(self) -> int: ...
    @property
    def kafka_insecure(self) -> bool: ...


class Wish(NamedTuple):
    """A topic's setting. `rule`: which other values are as good; `low` and `high` bound "when made"."""

    key: str
    value: str
    rule: Rule
    why: str
    low: int | None = None  # below it (and not -1, which means forever), the value differs
    high: int | None = None

    def is_met(self, has: str) -> bool:
        if self.rule == "exactly":
            return has == self.value
        number = int(has)
        if self.rule == "at least":
            return number >= int(self.value)
        if self.rule == "at most":
            return 0 <= number <= int(self.value)
        endless = number < 0
        if self.high is not None and (endless or number > self.high):
            return False
        return endless or self.low is None or number >= self.low


class Change(NamedTuple):
    """One thing that is not as it should be. `by_hand`: what to do if `apply` cannot fix it."""

    what: str
    has: str
    wants: str
    why: str
    by_hand: str | None = None


class Step(NamedTuple):
    """A topic, and what `apply` would do with it."""

    topic: str
    state: Literal["missing", "differing", "ok"]
    partitions: int  # present number; for a missing topic, the number it would be created with
    replication: int
    changes: tuple[Change, ...]  # for a missing topic: the settings it would be created with

    @property
    def by_hand(self) -> bool:
        """Whether something is left that `apply` cannot do."""
        return any(change.by_hand for change in self.changes)


class Found(NamedTuple):
    """A topic as the brokers report it."""

    topic_id: str
    partitions: int
    replication: int  # of the partition with the fewest replicas
    config: Mapping[str, str]


class Finding(NamedTuple):
    """Something unsafe. `forgiven`: allowed in a deployment that is set to be insecure."""

    topic: str
    reason: str
    fix: str
    forgiven: bool

    @property
    def problem(self) -> Problem:
        return Problem(self.topic, f"{self.reason}: {self.fix}")


_NO_UNCLEAN: Final = Wish(
    *("unclean.leader.election.enable", "false", "exactly"),
    why="a replica that lags must never become leader: it would lose acknowledged records",
)
_SIZE: Final = Wish("max.message.bytes", str(MESSAGE_BYTES), "at least", "the largest record that a door can make")
_AS_SENT: Final = Wish("compression.type", "producer", "exactly", "brokers keep batches as sent: no work for them")
_BROKER_TIME: Final = Wish(
    *("message.timestamp.type", "LogAppendTime", "exactly"),
    why="retention counts by the brokers' clock, whatever a producer says",
)
_NO_SIZE_LIMIT: Final = Wish(
    *("retention.bytes", "-1", "exactly"), why="nothing is removed early because others sent a lot"
)
_DELETE: Final = Wish("cleanup.policy", "delete", "exactly", "every record counts, not the last of a key")


def _retention(days: float, why: str, low: int | None, high: int | None = None) -> Wish:
    return Wish("retention.ms", str(int(days * DAY_MS)), "when made", why, low, high)


def _segment(hours: int) -> Wish:
    return Wish("segment.ms", str(hours * HOUR_MS), "when made", "brokers delete whole segments: end them in time")


_CHANGES: Final = (
    _DELETE,
    _retention(6, "subscribers may be offline that long; with a segment's 12 hours it stays under 7 days", HOUR_MS),
    _segment(12),
)
WISHES: Final[Mapping[str, tuple[Wish, ...]]] = {
    EVENTS: (
        _DELETE,
        _retention(30, "the log until the archive has it, plus some weeks; -1 keeps it forever", DAY_MS),
        _NO_SIZE_LIMIT,
        _BROKER_TIME,
        _AS_SENT,
    ),
    INBOX: (
        _DELETE,
        _retention(0.25, "clear text: only as long as a door may be down", None, DAY_MS),
        _segment(1),
        _BROKER_TIME,
    ),
    PROFILE_CHANGES: _CHANGES,
    SEGMENT_CHANGES: _CHANGES,
    RISK_CHANGES: _CHANGES,
    PROFILES: (
        Wish("cleanup.policy", "compact", "exactly", "the latest state of each profile, forever"),
        Wish("max.compaction.lag.ms", str(DAY_MS), "at most", "an erased profile's states go within about two days"),
        Wish("min.cleanable.dirty.ratio", "0.1", "exactly", "reading all of it stays short"),
    ),
}
"""Each topic's own settings, besides those common to all (`_wishes`)."""
GROWING: Final = frozenset({EVENTS, INBOX})
"""Topics that `apply` gives more partitions. In the others a profile would change partitions and lose its order."""


def plan(access: KafkaAccess, settings: Settings) -> list[Step]:
    """A step for each topic. Raises StoreUnavailable, ServiceFailed."""
    with _admin(access) as admin:
        return _plan(admin, access, settings)


def apply(access: KafkaAccess, settings: Settings) -> list[Step]:
    """Create what is missing, change what differs; returns the plan carried out. Any number may run it in parallel."""
    from kafka.errors import TopicAlreadyExistsError  # noqa: PLC0415  # see `_admin`

    with _admin(access) as admin:
        steps = _plan(admin, access, settings)
        missing = {step.topic: _made(step) for step in steps if step.state == "missing"}
        for topic, wanted in missing.items():
            try:
                admin.create_topics({topic: wanted}, timeout_ms=ANSWER_MS)
            except TopicAlreadyExistsError:  # another apply was faster
                continue
        if missing:
            admin.wait_for_topics(list(missing), timeout_ms=ANSWER_MS)
        for step in steps:
            if step.state == "differing":
                _change(admin, step)
    return steps


def check(access: KafkaAccess, *, known_partitions: int = 0, names: Sequence[str] = TOPICS) -> list[Finding]:
    """What is unsafe about our topics. known_partitions: of the events topic, according to the database."""
    with _admin(access) as admin:
        found = _describe(admin, [access.topic(name) for name in names])
    findings: list[Finding] = []
    for name in names:
        findings += _unsafe(name, access.topic(name), found.get(access.topic(name)), known_partitions)
    return findings


def ensure(access: KafkaAccess, settings: Settings, known_partitions: int, say: Callable[[str], None]) -> None:
    """The check at every start. Raises ServiceFailed with every problem and what to do; says what it tolerates.

    TOUCHFOLD_KAFKA_INSECURE tolerates too few replicas, and nothing else: `touchfold topics apply` fixes the rest.
    """
    findings = check(access, known_partitions=known_partitions)
    grave = [each for each in findings if not (each.forgiven and settings.kafka_insecure)]
    if grave:
        fixes = "\n".join(f"  {each.topic}: {each.reason}: {each.fix}" for each in grave)
        hint = "" if settings.kafka_insecure or not all(each.forgiven for each in grave) else _INSECURE
        raise ServiceFailed(f"the topics in Kafka are not safe to run on:\n{fixes}{hint}", [f.problem for f in grave])
    for topic in dict.fromkeys(each.topic for each in findings):
        reasons = ", ".join(each.reason for each in findings if each.topic == topic)
        say(f"insecure, as configured: {topic} has {reasons}")


_INSECURE: Final = "\n(TOUCHFOLD_KAFKA_INSECURE=1 allows this if losing a broker may lose events)"


def describe(access: KafkaAccess, topic: str) -> tuple[str, int]:
    """The id of a topic by its full name (a recreated topic has another one), and its number of partitions.

    Raises ServiceFailed if it does not exist.
    """
    with _admin(access) as admin:
        found = _describe(admin, [topic]).get(topic)
    if found is None:
        raise ServiceFailed(f"there is no topic {topic}: {_APPLY}", [Problem(topic, f"is missing: {_APPLY}")])
    return found.topic_id, found.partitions


def retention_s(access: KafkaAccess, topic: str) -> float | None:
    """How long a topic keeps a record, in seconds; None: forever. Raises ServiceFailed if it does not exist."""
    with _admin(access) as admin:
        found = _describe(admin, [topic]).get(topic)
    if found is None:
        raise ServiceFailed(f"there is no topic {topic}: {_APPLY}", [Problem(topic, f"is missing: {_APPLY}")])
    kept_ms = int(found.config["retention.ms"])
    return None if kept_ms < 0 else kept_ms / 1_000


# --- what differs ------------------------------------------------------------------------------------------------


def _wishes(name: str, replication: int) -> tuple[Wish, ...]:
    """Every setting of a topic with this many replicas."""
    insync = SAFE_INSYNC if replication >= SAFE_REPLICAS else 1
    acknowledged = Wish(
        *("min.insync.replicas", str(insync), "at least"),
        why="acknowledged records are on two brokers" if insync > 1 else "more would stop all with one broker down",
    )
    return (acknowledged, _NO_UNCLEAN, _SIZE, *WISHES[name])


def _plan(admin: Any, access: KafkaAccess, settings: Settings) -> list[Step]:
    found = _describe(admin, [access.topic(name) for name in TOPICS])
    return [_step(name, access.topic(name), found.get(access.topic(name)), settings) for name in TOPICS]


def _step(name: str, topic: str, found: Found | None, settings: Settings) -> Step:
    partitions, replication = settings.kafka_partitions, settings.kafka_replication
    if found is None:
        made = tuple(Change(wish.key, "", wish.value, wish.why) for wish in _wishes(name, replication))
        return Step(topic, "missing", partitions, replication, made)
    changes = [
        Change(wish.key, found.config[wish.key], wish.value, wish.why)
        for wish in _wishes(name, found.replication)
        if wish.key in found.config and not wish.is_met(found.config[wish.key])
    ]
    if name in GROWING and found.partitions < partitions:
        why = "TOUCHFOLD_KAFKA_PARTITIONS; all roles that run use them within a minute"
        changes.insert(0, Change("partitions", str(found.partitions), str(partitions), why))
    if found.replication < replication:
        hand = "move its partitions to more brokers with kafka-reassign-partitions.sh"
        changes.append(
            Change("replication", str(found.replication), str(replication), "TOUCHFOLD_KAFKA_REPLICATION", hand)
        )
    return Step(topic, "differing" if changes else "ok", found.partitions, found.replication, tuple(changes))


def _unsafe(name: str, topic: str, found: Found | None, known_partitions: int) -> Iterator[Finding]:
    """What about a topic can lose records or stop us."""
    if found is None:
        yield Finding(topic, "it is missing", _APPLY, False)
        return
    if found.replication < SAFE_REPLICAS:
        fix = f"give it {SAFE_REPLICAS} with kafka-reassign-partitions.sh, then {_APPLY}"
        yield Finding(topic, f"replication factor {found.replication}", fix, True)
    elif (insync := int(found.config["min.insync.replicas"])) < SAFE_INSYNC:
        yield Finding(topic, f"min.insync.replicas {insync}", _APPLY, True)
    if name == EVENTS and found.partitions < known_partitions:
        fix = f"this data has {known_partitions}; it is a different topic: check TOUCHFOLD_KAFKA_BOOTSTRAP and _PREFIX"
        yield Finding(topic, f"{found.partitions} partitions", fix, False)
    for wish in (_NO_UNCLEAN, *WISHES[name]):
        grave = wish.key in {"unclean.leader.election.enable", "cleanup.policy", "retention.ms"}
        grave = grave or (name == EVENTS and wish.key == "retention.bytes")
        has = found.config.get(wish.key)
        if grave and has is not None and not wish.is_met(has):
            yield Finding(topic, f"{wish.key} {has}", _APPLY, False)


# --- the brokers -------------------------------------------------------------------------------------------------


@contextmanager
def _admin(access: KafkaAccess) -> Iterator[Any]:
    """kafka-python's admin client, with its errors in our words. Imported lazily, because that takes 0.3 s.

    librdkafka first checks that the brokers answer: it says why not, while kafka-python leaves sockets open.
    """
    import warnings  # noqa: PLC0415

    where = f"Kafka at {access.bootstrap}"
    trouble = reach(access.confluent(), REACH_S)
    if trouble is not None:
        text = f"{where} cannot be used: {trouble.text() or 'it does not answer'}"
        raise ServiceFailed(text) if trouble.code in REFUSED else StoreUnavailable(text, retry_after_s=2)
    with warnings.catch_warnings():  # it loads its message schemas by a deprecated call
        warnings.simplefilter("ignore", DeprecationWarning)
        from kafka import KafkaAdminClient, errors  # noqa: PLC0415

    logging.getLogger("kafka").setLevel(logging.CRITICAL)  # four lines per attempt; we raise what is wrong
    config = access.kafka_python() | {"request_timeout_ms": ANSWER_MS, "bootstrap_timeout_ms": ANSWER_MS}
    try:
        admin = KafkaAdminClient(**config, reconnect_backoff_max_ms=1_000)
        try:
            yield admin
        finally:
            admin.close()
    except errors.AuthorizationError as err:
        told = f"{where} does not allow us to do this ({type(err).__name__}): grant our account the rights"
        raise ServiceFailed(told) from err
    except errors.KafkaError as err:
        if isinstance(err, errors.RetriableError | errors.KafkaConnectionError | errors.NodeNotReadyError):
            raise StoreUnavailable(f"{where} does not answer: {_short(err)}", retry_after_s=2) from err
        raise ServiceFailed(f"{where} refuses: {_short(err)}") from err


def _short(err: Exception) -> str:
    """The brokers' own words, from an error that quotes request and response."""
    told = re.search(r"error_message=(['\"])(.*?)\1", str(err))
    return f"{type(err).__name__}: {told[2]}" if told else f"{type(err).__name__}: {err}"


def _describe(admin: Any, topics: Sequence[str]) -> dict[str, Found]:
    """The existing ones of these topics, by name."""
    from kafka.admin import ConfigResource, ConfigResourceType  # noqa: PLC0415  # see `_admin`

    there = {each["name"]: each for each in admin.describe_topics(list(topics)) if each["partitions"]}
    if not there:
        return {}
    wanted = [ConfigResource(ConfigResourceType.TOPIC, topic) for topic in there]
    configs = admin.describe_configs(wanted, config_filter="all")["topic"]
    return {
        topic: Found(
            str(told["topic_id"]),
            len(told["partitions"]),
            min(len(each["replica_nodes"]) for each in told["partitions"]),
            {key: str(entry["value"]) for key, entry in configs[topic].items()},
        )
        for topic, told in there.items()
    }


def _made(step: Step) -> dict[str, Any]:
    return {
        "num_partitions": step.partitions,
        "replication_factor": step.replication,
        "configs": {change.what: change.wants for change in step.changes},
    }


def _change(admin: Any, step: Step) -> None:
    from kafka.admin import ConfigResource, ConfigResourceType  # noqa: PLC0415  # see `_admin`

    config = {}
    for change in step.changes:
        if change.by_hand is not None:
            continue
        if change.what == "partitions":
            admin.create_partitions({step.topic: int(change.wants)}, timeout_ms=ANSWER_MS)
        else:
            config[change.what] = change.wants
    if config:
        told = admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, step.topic, config)])
        answer = told["topic"][step.topic]
        if answer != "OK":
            raise ServiceFailed(f"{step.topic} cannot be changed: {answer}", [Problem(step.topic, answer)])
