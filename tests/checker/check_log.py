"""What must hold between the ledger, the log and the dedup index, once everything has been processed.

Each check yields violations and changes nothing. Rules are named after the invariants of the fault list: I1 nothing
acknowledged is missing, I2 everything is counted exactly once, I3 what is shown is the fold of the log, I5 the
archive equals the log, I6 the change feed is complete, I7 no request hangs, I8 the change topics equal the feed, E
nothing of an erased person is left.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

from tests.checker import reference
from tests.checker.ledger import ABORTED, COMMITTED, POISON, UNKNOWN, Item, Ledger, Name
from tests.checker.reference import Event
from tests.checker.sources import Position
from tests.checker.tables import APPLIED, CONFLICT, DUPLICATE, ERASED, QUARANTINED, RegisterRow, Tables

TYPES = {
    "identify": "profile.identified",
    "page": "web.page_viewed",
    "Order Completed": "purchase.completed",
    "Order Refunded": "purchase.refunded",
    "Order Cancelled": "purchase.cancelled",
    "Product Viewed": "product.viewed",
}  # the checker's own interpretation of the table of touchpoints; dotted names mean themselves


class Violation(NamedTuple):
    """A broken rule, and where."""

    rule: str
    what: str


@dataclass
class Facts:
    """One snapshot of everything, with the log decoded."""

    tables: Tables
    events: dict[Position, Event]
    unreadable: list[Position]
    chosen: dict[str, Event]
    people: reference.People

    @property
    def applied(self) -> list[Event]:
        """Events that count and still belong to a customer."""
        gone = self.tables.erased
        return [event for event in self.chosen.values() if event.route_key not in gone]

    def by_profile(self) -> dict[str, list[Event]]:
        """The slow fold's grouping: profile id -> its events."""
        grouped: dict[str, list[Event]] = defaultdict(list)
        for event in self.applied:
            if event.signature in self.people.owner:
                grouped[self.people.owner[event.signature]].append(event)
        return grouped

    def totals(self) -> dict[str, reference.Totals]:
        """By profile id."""
        gone = self.tables.erased
        payer = reference.payers(self.chosen.values(), self.people.owner, gone)
        changing: dict[str | None, list[Event]] = defaultdict(list)
        for event in self.chosen.values():
            if event.route_key not in gone:
                changing[payer[event.key]].append(event)
        return {profile: reference.totals(own, changing[profile]) for profile, own in self.by_profile().items()}


def digest(tables: Tables) -> Facts:
    """Decode the log and fold it slowly."""
    events: dict[Position, Event] = {}
    unreadable: list[Position] = []
    for position in sorted(tables.log):
        try:
            events[position] = reference.decode(position, tables.log[position])
        except (ValueError, KeyError, TypeError, AttributeError):
            unreadable.append(position)
    chosen = reference.choose(events.values())
    return Facts(tables, events, unreadable, chosen, reference.people(chosen.values(), tables.erased))


# ---------------------------------------------------------------- I1: nothing acknowledged is missing


def check_ledger(facts: Facts, ledger: Ledger, *, whole: bool = True) -> Iterator[Violation]:
    """Ledger against log. `whole`: nobody else sent anything, so unknown records are violations."""
    in_log: dict[Name, list[Event]] = defaultdict(list)
    for event in facts.events.values():
        in_log[event.raw["source"], str(event.raw.get("message_id"))].append(event)
    outcomes = ledger.outcomes()
    for name, outcome in outcomes.items():
        copies = in_log.get(name, [])
        if outcome.acknowledged and not copies:
            yield Violation("I1.missing", f"{name} was acknowledged and is not in the log")
        if copies and not outcome.possible:
            yield Violation("I1.rejected", f"{name} was refused and is in the log at {copies[0].position}")
        for event in copies:
            reasons = [reason for item in outcome.contents for reason in [_differs(item, event)]]
            if all(reasons):
                yield Violation("I1.altered", f"{name} at {event.position}: {reasons[0]}")
    if whole:
        written = {record.name for record in ledger.direct}
        for name in in_log.keys() - outcomes.keys() - written:
            yield Violation("I1.ghost", f"{name} at {in_log[name][0].position} was never sent")
    yield from _check_direct(facts, ledger)
    yield from _check_tokens(facts, ledger, in_log)
    yield from _check_set_aside(facts, ledger)
    for number, answer in ledger.answers.items():
        if answer.timed_out:
            yield Violation("I7.hang", f"request {number} was not answered in time")


def _check_direct(facts: Facts, ledger: Ledger) -> Iterator[Violation]:
    """Records written directly to the log: committed ones are there once, aborted ones never, poison is set aside."""
    places: dict[bytes, list[Position]] = defaultdict(list)
    for position, value in facts.tables.log.items():
        places[value].append(position)
    poison = 0
    for record in ledger.direct:
        found = places.get(record.value, [])
        if record.fate == ABORTED and found:
            yield Violation("I1.aborted", f"{record.name} was aborted and is in the log at {found[0]}")
        if record.fate in (COMMITTED, POISON) and not found:
            yield Violation("I1.missing", f"{record.name} was committed to the log and is not there")
        if record.fate in (COMMITTED, UNKNOWN) and len(found) > 1:
            yield Violation("I1.twice", f"{record.name} was written once and is in the log {len(found)} times")
        poison += record.fate == POISON
    letters = sum(row.rule == "record_unreadable" for row in facts.tables.dead_letters)
    if letters < poison:
        yield Violation("I2.dead_letter", f"{poison} records are unreadable, {letters} are dead letters")
    known = {record.value for record in ledger.direct}
    for position in facts.unreadable:
        if facts.tables.log[position] not in known:
            yield Violation("I1.altered", f"the record at {position} is unreadable and nobody wrote it so")


def _differs(item: Item, event: Event) -> str | None:
    """How the clear part of a record differs from what was sent; None if it does not."""
    raw = event.raw
    label = item.get("event", item["type"])
    if raw["type"] != TYPES.get(label, label if "." in label else "custom"):
        return f"type {raw['type']}"
    kept = "timestamp" in item and "sentAt" not in item  # without the sender's clock its time cannot be corrected
    if kept and event.occurred_us != min(reference.microseconds(item["timestamp"]), event.received_us):
        return f"occurred_at {raw['occurred_at']}"
    sealed = set((raw.get("sealed") or {}).get("names", ()))
    for part in ("properties", "traits"):
        sent, clear = item.get(part) or {}, raw.get(part) or {}
        for key in clear.keys() | sent.keys():
            inside = any(each == f"{part}.{key}" or each.startswith(f"{part}.{key}.") for each in sealed)
            if key in clear and key not in sent:
                return f"{part}.{key} was not sent"
            if key not in clear and not inside:
                return f"{part}.{key} is neither clear nor sealed"
            if key in clear and not inside and not same_value(sent[key], clear[key]):
                return f"{part}.{key} is {clear[key]!r}"
    kinds = Counter(kind for kind, _ in expected_identifiers(item))
    if kinds != Counter(kind for kind, _ in event.tokens):
        return f"identifiers of kinds {sorted(kind for kind, _ in event.tokens)}"
    return None


def same_value(sent: Any, kept: Any) -> bool:
    """Equal as JSON; money may be a decimal string."""
    if isinstance(sent, Mapping) and isinstance(kept, Mapping):
        return sent.keys() == kept.keys() and all(same_value(sent[key], kept[key]) for key in sent)
    if isinstance(sent, list) and isinstance(kept, list):
        return len(sent) == len(kept) and all(map(same_value, sent, kept))
    if isinstance(sent, bool) or isinstance(kept, bool):
        return sent is kept
    if isinstance(sent, int | float) and isinstance(kept, int | float | Decimal | str):
        try:
            return Decimal(str(sent)) == Decimal(str(kept))
        except ArithmeticError:
            return False
    return bool(sent == kept)


def expected_identifiers(item: Item) -> set[tuple[str, str]]:
    """The identifiers in an item, of the kinds that the checker's clients send."""
    found = {
        (kind, str(item[key]))
        for key, kind in (("userId", "user_id"), ("anonymousId", "anonymous_id"))
        if item.get(key)
    }
    email = (item.get("traits") or {}).get("email")
    return found | ({("email", email.strip().lower())} if email else set())


def _check_tokens(facts: Facts, ledger: Ledger, in_log: Mapping[Name, list[Event]]) -> Iterator[Violation]:
    """A token belongs to one identifier, and an identifier that is not erased has one token."""
    stands_for: dict[str, tuple[str, str]] = {}
    token_of: dict[tuple[str, str], str] = {}
    for name, outcome in ledger.outcomes().items():
        if len(outcome.contents) != 1:
            continue
        expected = dict(expected_identifiers(outcome.contents[0]))
        for event in in_log.get(name, []):
            for kind, token in event.tokens:
                value = (kind, expected.get(kind, ""))
                if stands_for.setdefault(token, value) != value:
                    yield Violation("I1.token", f"token {token} at {event.position} stands for two identifiers")
                if token not in facts.tables.erased and token_of.setdefault(value, token) != token:
                    yield Violation("I1.token", f"an identifier of {event.position} has two tokens")


def _check_set_aside(facts: Facts, ledger: Ledger) -> Iterator[Violation]:
    """An item reported as a dead letter is one."""
    asked: Counter[str] = Counter()
    for (source, _), outcome in ledger.outcomes().items():
        asked[source] += outcome.set_aside > 0 and not outcome.acknowledged
    kept = Counter(row.source for row in facts.tables.dead_letters if row.rule != "id_reused")
    for source, count in asked.items():
        if kept[source] < count:
            yield Violation("I2.dead_letter", f"{count} items of {source} were set aside, {kept[source]} are kept")


# ---------------------------------------------------------------- I2: exactly once


def check_register(facts: Facts) -> Iterator[Violation]:
    """Log, dedup index, not_applied, dead letters and progress agree on the fate of every record."""
    tables = facts.tables
    yield from _check_heads(facts)
    rows: dict[str, RegisterRow] = {}
    for row in tables.register:
        if row.key in rows:
            yield Violation("I2.twice", f"event {row.key} is registered twice")
        rows[row.key] = row
    aside: dict[Position, tuple[str | None, int]] = {}
    for partition, offset, key, verdict in tables.not_applied:
        if (partition, offset) in aside:
            yield Violation("I2.twice", f"position {partition}:{offset} is set aside twice")
        aside[partition, offset] = key, verdict
    for key, event in facts.chosen.items():
        yield from _check_chosen(event, rows.get(key), aside)
    for key, row in rows.items():
        if key not in facts.chosen:
            yield Violation("I2.ghost", f"registered event {key} is not in the log")
        elif aside.get((row.partition, row.offset)) is not None:
            yield Violation("I2.twice", f"position {row.partition}:{row.offset} is both registered and set aside")
    yield from _check_aside(facts, rows, aside)


def _check_heads(facts: Facts) -> Iterator[Violation]:
    tables = facts.tables
    by_partition: dict[int, list[int]] = defaultdict(list)
    for partition, offset in sorted(tables.log):
        by_partition[partition].append(offset)
    for partition, head in tables.heads.items():
        offsets = by_partition.pop(partition, [])
        if tables.gapless and offsets != list(range(head)):
            yield Violation("I1.gap", f"partition {partition}: {len(offsets)} records below next_offset {head}")
        # a topic's last record may be followed by transaction markers, which are not folded
        lowest = head if tables.gapless else offsets[-1] + 1 if offsets else 0
        if not lowest <= tables.progress.get(partition, -1) <= head:
            yield Violation(
                "I2.progress", f"partition {partition}: folded to {tables.progress.get(partition)} of {head}"
            )
    for partition in by_partition:
        yield Violation("I1.gap", f"partition {partition} has no head")
    if tables.marks:
        yield Violation("I2.marks", f"{tables.marks} marks are left")
    aside = set(tables.not_applied)
    for position in facts.unreadable:
        if (*position, None, QUARANTINED) not in aside:
            yield Violation("I1.altered", f"the record at {position} is unreadable and not quarantined")
    yield from _check_places(facts)


def _check_places(facts: Facts) -> Iterator[Violation]:
    """All records with the same route key are in one partition; in a topic they have it as their key."""
    home: dict[str, int] = {}
    for position, event in facts.events.items():
        if home.setdefault(event.route_key, position[0]) != position[0]:
            yield Violation("I1.partition", f"the route key of {position} is in partition {home[event.route_key]} too")
        keys = facts.tables.keys
        if position in keys and keys[position] != bytes.fromhex(event.route_key):
            yield Violation("I1.partition", f"the record at {position} lies under another key")


def _check_chosen(
    event: Event, row: RegisterRow | None, aside: Mapping[Position, tuple[str | None, int]]
) -> Iterator[Violation]:
    """The copy that counts is the registered one, with its digest and identifier set."""
    if row is None:
        yield Violation("I2.lost", f"the event at {event.position} has no verdict")
        return
    if (row.partition, row.offset) != event.position:
        yield Violation(
            "I2.copy", f"of {event.key} the copy at {row.partition}:{row.offset} counts, not {event.position}"
        )
    elif row.digest != event.digest or row.signature != event.signature:
        yield Violation("I1.altered", f"the record at {event.position} is not the one that was registered")
    if row.verdict not in (APPLIED, ERASED):
        yield Violation("I2.lost", f"the event at {event.position} has verdict {row.verdict}")


def _check_aside(
    facts: Facts, rows: Mapping[str, RegisterRow], aside: Mapping[Position, tuple[str | None, int]]
) -> Iterator[Violation]:
    """Every other copy is set aside: with the same digest as a duplicate, else as a conflict with a dead letter."""
    digests: dict[str, list[str]] = defaultdict(list)
    touched: dict[str, set[str]] = defaultdict(set)
    for event in facts.events.values():
        digests[event.key].append(event.digest)
        touched[event.key].update(token for _, token in event.tokens)
    letters = Counter(row.event for row in facts.tables.dead_letters if row.rule == "id_reused")
    wanted: Counter[str] = Counter()
    for position, event in facts.events.items():
        if facts.chosen[event.key].position == position:
            if position in aside:
                yield Violation("I2.lost", f"the copy that counts, at {position}, is set aside")
            continue
        key, verdict = aside.get(position, (None, -1))
        others = digests[event.key]
        if key != event.key:
            yield Violation("I2.twice", f"the copy at {position} is not set aside")
        elif len(set(others)) == 1 and verdict != DUPLICATE:
            yield Violation("I2.verdict", f"the duplicate at {position} has verdict {verdict}")
        elif others.count(event.digest) == 1 and verdict != CONFLICT:
            yield Violation("I2.verdict", f"the conflict at {position} has verdict {verdict}")
        if not facts.tables.erased & touched[event.key]:  # an erasure deletes the person's dead letters
            wanted[event.key] += verdict == CONFLICT
    for key, count in wanted.items():
        if count and not letters[key]:
            yield Violation("I2.dead_letter", f"{count} conflicts of {key} have no dead letter")
    for position in aside.keys() - facts.tables.log.keys():
        yield Violation("I2.ghost", f"set aside at {position} is nothing of the log")
