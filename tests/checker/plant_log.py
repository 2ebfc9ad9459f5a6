"""Violations in a Kafka log and in the change topics, planted into a copy of what was read."""

import json
from collections.abc import Callable, Mapping
from random import Random

from tests.checker.check_topics import STATES
from tests.checker.ledger import Ledger
from tests.checker.sources import LogRead, Message, Position

LogPlant = Callable[[LogRead, Random, Ledger], None]
TopicPlant = Callable[[dict[str, list[Message]], Random], None]


def _somewhere(log: LogRead, random: Random, counted: bool = True) -> Position:
    """A position whose record has no other copy, so that its loss shows in the fold; any, unless `counted`."""
    ids = [json.loads(value)["id"] for value in log.records.values()]
    lone = [place for place, value in sorted(log.records.items()) if ids.count(json.loads(value)["id"]) == 1]
    return random.choice(lone if counted else sorted(log.records))


def lost_record(log: LogRead, random: Random, ledger: Ledger) -> None:
    """A record is gone; since gaps are allowed, only the acknowledgement reveals it."""
    place = _somewhere(log, random)
    del log.records[place], log.keys[place]


def record_twice(log: LogRead, random: Random, ledger: Ledger) -> None:
    """A producer's retry is in the log twice, and the second copy was not set aside."""
    partition, offset = _somewhere(log, random)
    head = log.heads[partition]
    log.records[partition, head] = log.records[partition, offset]
    log.keys[partition, head] = log.keys[partition, offset]
    log.heads[partition] += 1


def stranger(log: LogRead, random: Random, ledger: Ledger) -> None:
    """A record that nobody sent."""
    place = _somewhere(log, random)
    record = json.loads(log.records[place]) | {"message_id": "stranger"}
    log.records[place] = json.dumps(record).encode()


def aborted_shown(log: LogRead, random: Random, ledger: Ledger) -> None:
    """A record of an aborted transaction is visible."""
    aborted = random.choice([each for each in ledger.direct if each.fate == "aborted"])
    partition = random.choice(sorted(log.heads))
    log.records[partition, log.heads[partition]] = aborted.value
    log.heads[partition] += 1


def committed_lost(log: LogRead, random: Random, ledger: Ledger) -> None:
    """A record of a committed transaction is missing."""
    committed = random.choice([each for each in ledger.direct if each.fate == "committed"]).value
    for place in [place for place, value in log.records.items() if value == committed]:
        del log.records[place], log.keys[place]


def other_key(log: LogRead, random: Random, ledger: Ledger) -> None:
    """A record has a key other than its route key."""
    place = _somewhere(log, random)
    log.keys[place] = random.randbytes(16)


def other_partition(log: LogRead, random: Random, ledger: Ledger) -> None:
    """A customer's records are in two partitions."""
    routes = [json.loads(value)["route_key"] for value in log.records.values()]
    often = [place for place, value in sorted(log.records.items()) if routes.count(json.loads(value)["route_key"]) > 1]
    place = random.choice(often)
    to = random.choice(sorted(log.heads.keys() - {place[0]}))
    log.records[to, log.heads[to]] = log.records.pop(place)
    log.keys[to, log.heads[to]] = log.keys.pop(place)
    log.heads[to] += 1


def unreadable(log: LogRead, random: Random, ledger: Ledger) -> None:
    """Bytes that are no longer a record."""
    place = _somewhere(log, random)
    log.records[place] = log.records[place][: random.randrange(1, len(log.records[place]))]


def not_folded(log: LogRead, random: Random, ledger: Ledger) -> None:
    """The log grew, but the worker did not continue."""
    record_twice(log, random, ledger)
    partition = random.choice(sorted(log.heads))
    log.records[partition, log.heads[partition]] = b"{}"
    log.heads[partition] += 1


LOG_PLANTS: Mapping[str, tuple[LogPlant, frozenset[str]]] = {
    plant.__name__: (plant, frozenset(rules.split()))
    for plant, rules in (
        (lost_record, "I1.missing"),
        (record_twice, "I2.twice"),
        (stranger, "I1.ghost"),
        (aborted_shown, "I1.aborted"),
        (committed_lost, "I1.missing"),
        (other_key, "I1.partition"),
        (other_partition, "I1.partition"),
        (unreadable, "I1.altered"),
        (not_folded, "I2.progress"),
    )
}


# ---------------------------------------------------------------- change topics


def _place(topics: Mapping[str, list[Message]], random: Random) -> tuple[list[Message], int]:
    """A random message from the topics that contain changes."""
    topic = random.choice(sorted(name for name, found in topics.items() if name != STATES and found))
    return topics[topic], random.randrange(len(topics[topic]))


def _with(message: Message, **changed: object) -> Message:
    return message._replace(value=json.dumps(json.loads(message.value or b"{}") | changed).encode())


def unsaid(topics: dict[str, list[Message]], random: Random) -> None:
    """A change was never published."""
    found, at = _place(topics, random)
    found[:] = [each for each in found if each.value != found[at].value]


def said_under_another_id(topics: dict[str, list[Message]], random: Random) -> None:
    """A repeat has a different id, so subscribers take it for another change."""
    found, at = _place(topics, random)
    found.insert(at + 1, _with(found[at], id=f"{random.randrange(2**128):032x}"))


def said_otherwise(topics: dict[str, list[Message]], random: Random) -> None:
    """A change says something different from the feed."""
    found, at = _place(topics, random)
    found[at] = _with(found[at], new="something else")


def said_late(topics: dict[str, list[Message]], random: Random) -> None:
    """A profile's changes are published in the wrong order."""
    firsts: dict[bytes | None, int] = {}
    found, _ = _place(topics, random)
    for at, each in enumerate(found):
        firsts.setdefault(each.value, at)
    places: dict[bytes | None, list[int]] = {}
    for at in firsts.values():
        places.setdefault(found[at].key, []).append(at)
    at, other = sorted(random.sample(random.choice([each for each in places.values() if len(each) > 1]), 2))
    found[at], found[other] = found[other], found[at]


def said_elsewhere(topics: dict[str, list[Message]], random: Random) -> None:
    """A change has a wrong key, so its order is not guaranteed."""
    found, at = _place(topics, random)
    found[at] = found[at]._replace(key=random.randbytes(16))


def gibberish(topics: dict[str, list[Message]], random: Random) -> None:
    """Bytes that are not a change."""
    found, at = _place(topics, random)
    found[at] = found[at]._replace(value=(found[at].value or b"")[:-1])


def _living(topics: Mapping[str, list[Message]], random: Random) -> int:
    """Index of the last state of a random existing profile."""
    last = {each.key: at for at, each in enumerate(topics[STATES])}
    return random.choice(sorted(at for at in last.values() if topics[STATES][at].value is not None))


def stale_state(topics: dict[str, list[Message]], random: Random) -> None:
    """The last published state of a profile is outdated."""
    at = _living(topics, random)
    version = json.loads(topics[STATES][at].value or b"{}")["version"]
    topics[STATES][at] = _with(topics[STATES][at], version=version - 1)


def lost_state(topics: dict[str, list[Message]], random: Random) -> None:
    """An existing profile has no state."""
    key = topics[STATES][_living(topics, random)].key
    topics[STATES] = [each for each in topics[STATES] if each.key != key]


def buried_alive(topics: dict[str, list[Message]], random: Random) -> None:
    """An existing profile has a tombstone."""
    at = _living(topics, random)
    topics[STATES][at] = topics[STATES][at]._replace(value=None)


def never_buried(topics: dict[str, list[Message]], random: Random) -> None:
    """A merged or erased profile has no tombstone."""
    last = {each.key: at for at, each in enumerate(topics[STATES])}
    at = random.choice([at for at in last.values() if topics[STATES][at].value is None])
    topics[STATES][at] = topics[STATES][at]._replace(value=b'{"version": 1}')


TOPIC_PLANTS: Mapping[str, tuple[TopicPlant, frozenset[str]]] = {
    plant.__name__: (plant, frozenset(rules.split()))
    for plant, rules in (
        (unsaid, "I8.missing"),
        (said_under_another_id, "I8.ghost"),
        (said_otherwise, "I8.altered"),
        (said_late, "I8.order"),
        (said_elsewhere, "I8.key"),
        (gibberish, "I8.unreadable"),
        (stale_state, "I8.state"),
        (lost_state, "I8.state"),
        (buried_alive, "I8.state"),
        (never_buried, "I8.tombstone"),
    )
}
