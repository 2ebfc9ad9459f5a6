"""Compares each profile with its last committed decision: changes for the feed, segment entries and exits."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from operator import itemgetter
from typing import Any, Final, NamedTuple

from processors.live.resolve import Moves
from projections.days import LocalDays, iso_day
from projections.decide.evaluator import Evaluator
from projections.fold.fold import Fold
from projections.fold.state import (
    CANCELS,
    DIRECT,
    FORM,
    NAME,
    ORDERS,
    REFUNDS,
    STAMP_KEY,
    STAMP_US,
    TRAITS,
    State,
    shown,
)
from schemas.record import uuid_text
from schemas.stamps import key_of
from schemas.store_rows import NO_EVENT, Change, ProfileRow, change_id

NEVER_US: Final = -(2**63)


class Cause(NamedTuple):
    """Why a profile is decided: (occurred_us, event) of the newest event, or another cause."""

    kind: str
    stamp: tuple[int, bytes] = (NEVER_US, NO_EVENT)

    @property
    def event(self) -> bytes | None:
        return None if self.stamp[1] == NO_EVENT else self.stamp[1]


@dataclass
class FeedView:
    """What a revision's definitions publish of a profile."""

    fold: Fold
    evaluator: Evaluator
    time_zone: str

    @cached_property
    def days(self) -> LocalDays:
        """The calendar that entries and exits are counted by."""
        return LocalDays(self.time_zone)

    @cached_property
    def published(self) -> Callable[[State], tuple[Any, ...]]:
        """Reads the slots of published traits from a state; if these are equal, so are the values at one instant."""
        traits = self.fold.layout.traits
        own = {slot for name in self.evaluator.published_names for slot in traits[name].slots}
        return itemgetter(*sorted(own | {ORDERS, REFUNDS, CANCELS}))

    @cached_property
    def slots(self) -> Callable[[State], Sequence[Any]]:
        """Reads the slots with differences for the feed."""
        if not self.evaluator.published_names:
            return itemgetter(slice(TRAITS, TRAITS + 1))
        published = self.published
        return lambda state: (state[TRAITS], *published(state))


class Differences:
    """Collects what differs from the last committed decision."""

    def __init__(self, view: FeedView, moves: Moves) -> None:
        self._view = view
        self._evaluator = view.evaluator
        self._moves = moves
        self.searchable: set[bytes] = set()  # profiles whose traits or identifiers changed
        self.changes: list[Change] = []
        self.entered: list[tuple[int, bytes, int | None]] = []
        self.left: list[tuple[int, bytes]] = []
        self._days: dict[tuple[int, int], list[int]] = {}  # (segment index, local day) -> [entered, left]
        self.ended: dict[bytes, int] = {}  # profiles that end: their last version; if one returns, it continues from it

    def note(
        self, old: ProfileRow | None, row: ProfileRow, state: State | None, cause: Cause, at_us: int
    ) -> ProfileRow:
        """Record all changes of one profile; returns the row with its version after them.

        `state`: None when nothing differs in the traits.
        """
        notes = _Notes(row.profile_id, row.version, at_us, cause)
        moves = self._moves
        if row.profile_id in moves.split_off:
            notes.add("identity", "split_off", None, [uuid_text(part) for part in moves.split_off[row.profile_id]])
        if row.profile_id in moves.joined:
            kinds = sorted(moves.joined[row.profile_id])
            notes.add("profile", "identifiers", None, {"personal": True, "kinds": kinds})
            self.searchable.add(row.profile_id)
        if state is not None:
            self._traits(notes, old, state, at_us)
        self._segments(notes, old.segments if old else 0, row, at_us)
        was = old.lifecycle if old else None
        if was != row.lifecycle:
            notes.add("lifecycle", None, was, row.lifecycle)
        was = old.risk if old else "low"  # a new profile starts from the baseline without a change
        if was != row.risk:
            notes.add("risk", None, was, row.risk)
        self.changes += notes.changes
        return row if row.version == notes.version else row._replace(version=notes.version)

    def memberships(self, before: int, row: ProfileRow, at_us: int) -> None:
        """Record only segment entries and exits; a swap compares the rest with what it replaces and sets versions."""
        self.entered += [(index, row.profile_id, at_us) for index in _bits(row.segments & ~before)]
        self.left += [(index, row.profile_id) for index in _bits(before & ~row.segments)]

    def end(self, old: ProfileRow, at_us: int, cause: Cause) -> None:
        """Record the end of a profile that owns nothing any more: merged into another, or erased elsewhere."""
        into = self._moves.ended.get(old.profile_id)
        notes = _Notes(old.profile_id, old.version, at_us, cause if cause.event else Cause("identity"))
        if into is not None:
            notes.add("identity", "merged_into", None, [uuid_text(into)])
        for index in _bits(old.segments):
            self._count(index, at_us, 0, 1)
        self.changes += notes.changes
        self.ended[old.profile_id] = notes.version

    def _traits(self, notes: "_Notes", old: ProfileRow | None, state: State, at_us: int) -> None:
        """Attributes by value, direct traits by the event that set them, computed traits at one clock."""
        evaluator = self._evaluator
        before = self._view.fold.unpack(old.state) if old else self._view.fold.new_state()
        if before[TRAITS] != state[TRAITS]:
            self.searchable.add(notes.profile_id)
            had, has = evaluator.attributes(before), evaluator.attributes(state)
            for name in sorted(had.keys() | has.keys()):
                if had.get(name) != has.get(name):
                    notes.add("profile", name, had.get(name), has.get(name))
            stamps, now = _personal_stamps(before), _personal_stamps(state)
            for name in sorted(stamps.keys() | now.keys()):
                if stamps.get(name) != now.get(name):
                    notes.add("profile", name, None, {"personal": True})
        slots = self._view.published
        if evaluator.published_names and slots(before) != slots(state):
            for name, was, is_ in evaluator.published_changes(before, state, at_us):
                notes.add("profile", name, was, is_)

    def _segments(self, notes: "_Notes", before: int, row: ProfileRow, at_us: int) -> None:
        if row.segments == before:
            return
        names = self._evaluator.segment_names
        for index in _bits(row.segments & ~before):
            self.entered.append((index, row.profile_id, at_us))
            notes.add("segment", names[index], False, True)
            self._count(index, at_us, 1, 0)
        for index in _bits(before & ~row.segments):
            self.left.append((index, row.profile_id))
            notes.add("segment", names[index], True, False)
            self._count(index, at_us, 0, 1)

    def _count(self, index: int, at_us: int, entered: int, left: int) -> None:
        counts = self._days.setdefault((index, self._view.days.day(at_us)), [0, 0])
        counts[0] += entered
        counts[1] += left

    def segment_days(self) -> dict[tuple[str, str], tuple[int, int]]:
        """(segment, ISO day) -> (entered, left)."""
        names = self._evaluator.segment_names
        return {(names[index], iso_day(day)): (entered, left) for (index, day), (entered, left) in self._days.items()}


class _Notes:
    """The changes of one profile: each raises its version by one; ids are hashes of content."""

    def __init__(self, profile_id: bytes, version: int, at_us: int, cause: Cause) -> None:
        self.profile_id = profile_id
        self._at_us = at_us
        self._cause = cause
        self.version = version
        self.changes: list[Change] = []

    def add(self, type_: str, name: str | None, old: Any, new: Any) -> None:
        self.version += 1
        old, new = _plain(old), _plain(new)
        key = change_id(self.profile_id, self.version, type_, name, old, new)
        cause = self._cause
        self.changes.append(
            Change(
                key, type_, self.profile_id, self.version, name, old, new, self._at_us, cause.kind, cause.event, None
            )
        )


def _plain(value: Any) -> Any:
    """A value as the feed's JSON holds it: decimals as strings, times in ISO form."""
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return value


def _personal_stamps(state: State) -> dict[str, tuple[int, bytes]]:
    """The event that set each direct trait."""
    direct = [entry for entry in shown(state[TRAITS]) if entry[FORM] == DIRECT]
    return {entry[NAME]: (entry[STAMP_US], key_of(entry[STAMP_KEY])) for entry in direct}


def _bits(mask: int) -> list[int]:
    return [index for index in range(mask.bit_length()) if mask >> index & 1]
