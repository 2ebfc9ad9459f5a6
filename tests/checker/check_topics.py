"""The change topics against the feed (I8), read with kafka-python: a subscriber's view.

Delivery is at least once, so repeats are fine. Violations are changes that are missing, altered, under another id, out
of order within a profile, or not in the feed.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from tests.checker.check_feed import blanked, erased_profiles, in_order
from tests.checker.check_log import Facts, Violation
from tests.checker.sources import Message, messages
from tests.checker.tables import ChangeRow

TOPIC_OF: Final[Mapping[str, str]] = {
    "profile": "profile-changes",
    "identity": "profile-changes",
    "lifecycle": "profile-changes",
    "erased": "profile-changes",
    "segment": "segment-changes",
    "risk": "risk-changes",
}
STATES: Final = "profiles"  # compacted: each profile's latest state
TOPICS: Final = (*sorted(set(TOPIC_OF.values())), STATES)


class TopicSource(Protocol):
    """Reads all of one of TOPICS, in order per partition."""

    def read(self, topic: str) -> Sequence[Message]: ...


@dataclass(frozen=True)
class KafkaTopics:
    """A deployment's topics. `options`: more arguments for kafka-python's clients."""

    bootstrap: str
    prefix: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def read(self, topic: str) -> Sequence[Message]:
        return list(messages(self.bootstrap, f"{self.prefix}.{topic}", self.options))


@dataclass(frozen=True)
class TopicsBefore:
    """Topics that were already read; the tests corrupt a copy of them."""

    found: Mapping[str, Sequence[Message]]

    def read(self, topic: str) -> Sequence[Message]:
        return self.found[topic]


def check_topics(facts: Facts, source: TopicSource) -> Iterator[Violation]:
    """Check all four topics once everything is processed and the publisher has caught up."""
    feed = {change.id: change for change in facts.tables.changes}
    erased = erased_profiles(facts)
    for topic in TOPICS:
        if topic != STATES:
            yield from _changes(topic, source.read(topic), feed, erased)
    yield from _states(facts, source.read(STATES))


# ---------------------------------------------------------------- every change


def _changes(
    topic: str, found: Sequence[Message], feed: Mapping[str, ChangeRow], erased: AbstractSet[str]
) -> Iterator[Violation]:
    seen: set[str] = set()
    homes: dict[str, int] = {}
    versions: dict[str, int] = {}
    for message in found:
        where = f"{topic} {message.partition}:{message.offset}"
        try:
            said = json.loads(message.value or b"")
            id_, profile = _hex(said["id"]), _hex(said["profile_id"])
        except (ValueError, KeyError, TypeError, AttributeError):
            yield Violation("I8.unreadable", f"{where} is no change")
            continue
        change = feed.get(id_)
        if change is None or TOPIC_OF[change.type] != topic:
            yield Violation("I8.ghost", f"{where}: change {id_} is not in the feed or not of this topic")
            continue
        if message.key is None or _key(message.key) != change.profile:
            yield Violation("I8.key", f"{where} lies under another key than its profile's")
        if homes.setdefault(profile, message.partition) != message.partition:
            yield Violation("I8.partition", f"{where}: changes of {profile} are in two partitions")
        if blanked(change, erased):  # what was published earlier stays until retention removes it
            said = {**said, "old": None, "new": None}
        yield from _content(where, said, change)
        if id_ not in seen and change.version <= versions.get(profile, 0):
            yield Violation("I8.order", f"{where}: version {change.version} of {profile} comes late")
        versions[profile] = max(versions.get(profile, 0), change.version)
        seen.add(id_)
    for id_, change in feed.items():
        if TOPIC_OF.get(change.type) == topic and id_ not in seen:
            yield Violation("I8.missing", f"{topic} lacks version {change.version} of {change.profile}")


def _content(where: str, said: Mapping[str, Any], change: ChangeRow) -> Iterator[Violation]:
    expected = {
        "type": change.type,
        "version": change.version,
        "name": change.name,
        "old": change.old,
        "new": change.new,
        "cause": (change.cause, change.cause_event),
    }
    cause = said.get("cause") or {}
    event = cause.get("event_id")
    said = {**said, "cause": (cause.get("kind"), event if event is None else _hex(event))}
    if _hex(said["profile_id"]) != change.profile:
        yield Violation("I8.altered", f"{where} is of another profile than its change")
    for name, value in expected.items():
        if said.get(name) != value:
            yield Violation("I8.altered", f"{where}: {name} is {said.get(name)!r}, the feed has {value!r}")


# ---------------------------------------------------------------- the latest states


def _states(facts: Facts, found: Sequence[Message]) -> Iterator[Violation]:
    last: dict[str, Message] = {}
    homes: dict[str, int] = {}
    for message in found:
        if message.key is None:
            yield Violation("I8.key", f"{STATES} {message.partition}:{message.offset} has no key")
            continue
        profile = _key(message.key)
        if homes.setdefault(profile, message.partition) != message.partition:
            yield Violation("I8.partition", f"states of {profile} are in two partitions")
        last[profile] = message
    names = sorted(facts.tables.definitions.get("segments", {}))
    told = {change.profile for change in in_order(facts.tables.changes)}
    for profile, row in facts.tables.profiles.items():
        shown = last.get(profile)
        if shown is None or shown.value is None:
            yield Violation("I8.state", f"{STATES} lacks profile {profile}")
            continue
        mask = facts.tables.segment_masks[profile]
        inside = [name for index, name in enumerate(names) if mask >> index & 1]
        expected = (profile, row.version, row.lifecycle, row.risk, inside)
        if _state(shown.value) != expected:
            yield Violation("I8.state", f"the latest state of {profile} is {_state(shown.value)}, not {expected}")
    for profile in last.keys() - facts.tables.profiles.keys():
        if profile not in told:
            yield Violation("I8.ghost", f"{STATES} has {profile}, which the feed does not know")
        elif last[profile].value is not None:
            yield Violation("I8.tombstone", f"{STATES} still has {profile}, which is no more")


def _state(value: bytes) -> tuple[Any, ...] | None:
    """(profile, version, stage, risk, segments) of a message; None if it is not a state."""
    try:
        said = json.loads(value)
        own = _hex(said["profile_id"]), said["version"], said["lifecycle"], said["risk"]["level"]
        return *own, sorted(said["segments"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _hex(text: str) -> str:
    return text.replace("-", "")


def _key(key: bytes) -> str:
    """A profile id as raw bytes, or as text."""
    return key.hex() if len(key) == 16 else _hex(key.decode("ascii", "replace"))
