"""The change feed replayed, profile by profile, against the tables it describes (I6)."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from tests.checker.check_log import Facts, Violation
from tests.checker.tables import ChangeRow

BASELINE_RISK = "low"  # of a new profile, which needs no change
SWAPS = ("definition", "rebuild")  # causes of changes that a swap of revisions emits


@dataclass
class Replayed:
    """A profile, according to the feed so far."""

    version: int = 0
    lifecycle: str | None = None
    risk: str = BASELINE_RISK
    segments: set[str] = field(default_factory=set)
    left: set[str] = field(default_factory=set)  # segments it is no longer in
    traits: dict[str, Any] = field(default_factory=dict)
    told: set[tuple[Any, ...]] = field(default_factory=set)  # what may occur only once: contents by event
    ended: str | None = None  # "merged" or "erased"; None: it exists

    def end(self, how: str) -> None:
        """Merged away or erased: everything is cleared except the version."""
        self.lifecycle, self.risk, self.ended = None, BASELINE_RISK, how
        for told in (self.segments, self.left, self.traits, self.told):
            told.clear()


def check_feed(facts: Facts) -> Iterator[Violation]:
    """No change is missing, duplicated (under any id) or out of order, and the feed ends in the state of the tables."""
    tables = facts.tables
    unnumbered = sum(seq is None for _, seq in tables.batches)
    if unnumbered:
        yield Violation("I6.unnumbered", f"{unnumbered} batches of changes have no number")
    numbers = Counter(seq for _, seq in tables.batches if seq is not None)
    for number in (number for number, count in numbers.items() if count > 1):
        yield Violation("I6.twice", f"two batches of changes have number {number}")
    for id_, count in Counter(change.id for change in tables.changes).items():
        if count > 1:
            yield Violation("I6.twice", f"change {id_} is in the feed {count} times")
    profiles: dict[str, Replayed] = defaultdict(Replayed)
    moves: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    erased = erased_profiles(facts)
    for change in in_order(tables.changes):
        profile = profiles[change.profile]
        yield from _version(profile, change)
        if change.cause_event is not None and change.cause_event not in facts.chosen:
            yield Violation("I6.cause", f"{_name(change)} was caused by {change.cause_event}, which the log lacks")
        yield from _Step(facts, profile, change, moves, erased).violations()
    yield from _ends(facts, profiles)
    yield from _memberships(facts, profiles)
    yield from _days(facts, moves)


def in_order(changes: list[ChangeRow]) -> list[ChangeRow]:
    """Sorted by position in the feed; rows without a number last."""
    return sorted(changes, key=lambda change: (change.seq is None, change.seq or 0, change.place))


def _name(change: ChangeRow) -> str:
    return f"{change.type} {change.name or ''} of {change.profile} version {change.version}"


def _version(profile: Replayed, change: ChangeRow) -> Iterator[Violation]:
    last = profile.version
    if change.version <= last:
        yield Violation("I6.order", f"{_name(change)} follows version {last}")
    elif change.version > last + 1:
        yield Violation("I6.gap", f"{_name(change)} follows version {last}")
    profile.version = max(last, change.version)
    if profile.ended == "erased":
        yield Violation("E.change", f"{_name(change)} comes after the profile was erased")


@dataclass
class _Step:
    """One change applied to its profile; yields what is inconsistent with earlier changes."""

    facts: Facts
    profile: Replayed
    change: ChangeRow
    moves: dict[str, list[int]]  # segment -> [entered, left]
    erased: AbstractSet[str]

    def violations(self) -> Iterator[Violation]:
        change, profile = self.change, self.profile
        if change.type == "erased":
            profile.end("erased")
            return
        if change.type == "identity" and change.name == "merged_into":
            for name in profile.segments:
                self.moves[name][1] += 1
            profile.end("merged")
            return
        profile.ended = None
        if change.type == "segment":
            yield from self._segment()
        elif change.type == "lifecycle":
            yield from self._value(profile.lifecycle, change.old, change.new)
            profile.lifecycle = change.new
        elif change.type == "risk":
            yield from self._value(profile.risk, change.old, change.new)
            profile.risk = change.new
        elif change.type == "profile":
            yield from self._trait()
        elif change.type == "identity":
            yield from self._once()
        else:
            yield Violation("I6.type", f"{_name(change)} is of no known type")

    def _segment(self) -> Iterator[Violation]:
        change, profile, name = self.change, self.profile, str(self.change.name)
        inside = name in profile.segments
        if (change.old, change.new) not in ((False, True), (True, False)):
            yield Violation("I6.segment", f"{_name(change)} goes from {change.old} to {change.new}")
        elif change.new and inside:
            yield Violation("I6.doubled", f"{_name(change)} enters where it already is")
        elif not change.new and not inside:
            rule = "I6.doubled" if name in profile.left else "I6.missing"
            yield Violation(rule, f"{_name(change)} leaves where it is not")
        if change.new:
            profile.segments.add(name)
            profile.left.discard(name)
        else:
            profile.segments.discard(name)
            profile.left.add(name)
        if change.cause not in SWAPS:
            self.moves[name][0 if change.new else 1] += 1

    def _value(self, current: Any, old: Any, new: Any) -> Iterator[Violation]:
        if new == current:
            yield Violation("I6.doubled", f"{_name(self.change)} says {new} where it is {current}")
        elif old != current:
            yield Violation("I6.missing", f"{_name(self.change)} comes from {old} where it is {current}")
        elif old == new:
            yield Violation("I6.doubled", f"{_name(self.change)} changes nothing")

    def _trait(self) -> Iterator[Violation]:
        """Traits continue from their last value, except computed ones and those published without a value."""
        change, traits, name = self.change, self.profile.traits, str(self.change.name)
        if blanked(change, self.erased):
            return
        if personal(change.new) or personal(change.old):
            yield from self._once()
            traits.pop(name, None)
            return
        computed = name in self.facts.tables.definitions.get("computed_traits", {})
        if change.old == change.new:
            yield Violation("I6.doubled", f"{_name(change)} changes nothing")
        elif computed:
            yield from self._once()
        elif name in traits and change.old != traits[name]:
            rule = "I6.doubled" if change.new == traits[name] else "I6.missing"
            yield Violation(rule, f"{_name(change)} does not go on from the value told before")
        traits[name] = change.new

    def _once(self) -> Iterator[Violation]:
        """An event publishes the same content only once, and a batch has only one change per name."""
        change, told = self.change, self.profile.told
        content = (change.type, change.name, repr(change.new), change.cause_event)
        place = (change.type, change.name, change.seq)
        if (change.cause_event is not None and content in told) or place in told:
            yield Violation("I6.doubled", f"{_name(change)} was told before")
        told |= {content, place}


def erased_profiles(facts: Facts) -> AbstractSet[str]:
    """Profiles of erased people: published values of their traits are blank now."""
    return {change.profile for change in facts.tables.changes if change.type == "erased"} | facts.tables.erased


def blanked(change: ChangeRow, erased: AbstractSet[str]) -> bool:
    """Whether an erasure removed a change's values."""
    return change.type == "profile" and change.old is None and change.new is None and change.profile in erased


def personal(value: Any) -> bool:
    """Whether a change only says that a value changed, but not to what."""
    return isinstance(value, dict) and value.get("personal") is True


def _ends(facts: Facts, profiles: dict[str, Replayed]) -> Iterator[Violation]:
    """Every profile is in the state its changes lead to, and profiles that are gone have a change that says so."""
    for id_, row in facts.tables.profiles.items():
        told = profiles.get(id_, Replayed())
        if row.version != told.version:
            yield Violation("I6.gap", f"profile {id_} is at version {row.version}, its feed at {told.version}")
        if row.lifecycle != told.lifecycle:
            yield Violation("I6.missing", f"profile {id_} is {row.lifecycle}, its feed says {told.lifecycle}")
        if row.risk != told.risk:
            yield Violation("I6.missing", f"the risk of profile {id_} is {row.risk}, its feed says {told.risk}")
    for id_, told in profiles.items():
        if told.ended is None and id_ not in facts.tables.profiles:
            yield Violation("I6.missing", f"profile {id_} is no more and its feed does not say so")
        elif told.ended is not None and id_ in facts.tables.profiles:
            yield Violation("I6.missing", f"profile {id_} lives and its feed ended: {told.ended}")


def _memberships(facts: Facts, profiles: dict[str, Replayed]) -> Iterator[Violation]:
    tables = facts.tables
    names = sorted(tables.definitions.get("segments", {}))
    members: dict[str, set[str]] = defaultdict(set)
    for index, profile in tables.memberships:
        members[profile].add(names[index])
    for profile in members.keys() | profiles.keys():
        told = {name for name in profiles.get(profile, Replayed()).segments if name in names}
        for name in members.get(profile, set()) ^ told:
            where = "feed" if name in told else "membership"
            yield Violation("I6.segment", f"profile {profile} is in {name} by the {where} alone")
    for profile, mask in tables.segment_masks.items():
        if {names[i] for i in range(mask.bit_length()) if mask >> i & 1} != members.get(profile, set()):
            yield Violation("I6.segment", f"profile {profile}: its row and its memberships differ")


def _days(facts: Facts, moves: dict[str, list[int]]) -> Iterator[Violation]:
    """Daily counts of entries and exits match the feed; those of a swap are not counted."""
    for name in moves.keys() | facts.tables.days.keys():
        told, counted = tuple(moves[name]), facts.tables.days.get(name, (0, 0))
        if told != counted:
            yield Violation("I6.days", f"{name}: {told} entries and exits are told, {counted} are counted")
