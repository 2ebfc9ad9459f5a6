"""Segments: what they mean, who is in them, how they moved today; and which are being built."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from projections.conditions.words import sentence
from projections.definitions.checks import dependencies
from query.answers import iso_us
from query.cursors import END_OF_BATCH, member_cursor, member_place
from query.views import View, Views, parse
from schemas.conditions import used_traits
from schemas.definitions import Definitions, Segment, plain
from schemas.errors import NotFound, Problem
from schemas.hints import did_you_mean
from schemas.ports import Clock
from schemas.reads import MemberRow
from schemas.record import to_us, uuid_text

Answer = dict[str, Any]
LIVE = "live"
_LOOKED_BACK: Final = (50, 400, 3_200)  # change feed batches; each step is tried if the one before found too few
_LOOKED_AT: Final = 20_000  # segment changes read at a time


@dataclass(frozen=True)
class Segments:
    """Reads segments; any thread may call."""

    views: Views
    clock: Clock

    def overview(self) -> list[Answer]:
        """Every segment by name, including those known only to a revision being built."""
        return self.views.read(self._overview)

    def show(self, name: str) -> Answer:
        """One segment, with its condition and today's movement. Raises NotFound."""
        return self.views.read(lambda view: self._show(view, name))

    def listed(self, start: int = 0, limit: int = 50) -> tuple[list[Answer], int]:
        """Some segments by name, each with today's movement and sizes at the end of the last 30 days; and the total.

        Like `show`, without `when`; "trend": sizes, oldest first.
        """

        def read(view: View) -> tuple[list[Answer], int]:
            answers = self._overview(view)
            shown = answers[start : start + limit]
            names = [each["name"] for each in shown]
            moved, as_of = self.views.reads.segment_moves(self._today(), names), self._as_of(view)
            trends = self._trends(view, names, 30)
            for each in shown:
                entered, left = moved.get(each["name"], (0, 0))
                trend = [size for _, size in trends.get(each["name"], [])]
                each |= {"entered_today": entered, "left_today": left, "as_of": as_of, "trend": trend}
            return shown, len(answers)

        return self.views.read(read)

    def trends(self, days: int = 30, names: Sequence[str] | None = None) -> dict[str, list[tuple[str, int]]]:
        """(ISO day, size at its end) of these live segments, or all, counted back from the present size.

        Starts when the segment was first seen. Members found at the first load were never counted as entering, so there
        is no size before the first day anybody moved.
        """
        return self.views.read(lambda view: self._trends(view, names, days))

    def _trends(self, view: View, names: Sequence[str] | None, days: int) -> dict[str, list[tuple[str, int]]]:
        reads, today = self.views.reads, self._today()
        indexes = {name: index for index, name in enumerate(view.evaluator.segment_names)}
        wanted = [name for name in (indexes if names is None else names) if name in indexes]
        since = today - timedelta(days=days - 1)
        moved: dict[str, dict[date, int]] = {}
        for segment, day, entered, left in reads.segment_days(since, wanted):  # one row per segment and day
            moved.setdefault(segment, {})[day] = entered - left
        older = reads.segments_before(since, wanted)
        sizes = reads.segment_sizes(view.revision)
        found = {}
        for name in wanted:
            size, trend, day = sizes.get(indexes[name], 0), [], today
            first = since if name in older else min(moved.get(name, {}), default=today)
            while day >= max(first, since):
                trend.append((day.isoformat(), max(0, size)))
                size -= moved.get(name, {}).get(day, 0)
                day -= timedelta(days=1)
            found[name] = trend[::-1]
        return found

    def _today(self) -> date:
        return self.clock.now().astimezone(ZoneInfo(self.views.deployment.time_zone)).date()

    def members(self, name: str, cursor: str | None, limit: int) -> Answer:
        """A page of members by id: {"items", "next"}; `next` is null on the last page. Raises NotFound."""
        rows = self.views.read(lambda view: self._members(view, name, member_place(cursor), limit + 1))
        page = rows[:limit]
        items = [{"id": uuid_text(row.profile_id), "since": iso_us(row.since_us)} for row in page]
        return {"items": items, "next": member_cursor(page[-1].profile_id) if len(rows) > limit else None}

    def among(self, name: str, profile_ids: Sequence[bytes]) -> dict[str, str | None]:
        """Which of these profiles are members: id -> since (null: since the first load). Raises NotFound."""

        def read(view: View) -> list[MemberRow]:
            if name not in view.definitions.segments:
                return []
            index = view.evaluator.segment_names.index(name)
            return self.views.reads.memberships(view.revision, index, profile_ids)

        return {uuid_text(row.profile_id): iso_us(row.since_us) for row in self.views.read(read)}

    def moves(self, name: str, limit: int = 20) -> list[Answer]:
        """Today's newest entries and exits, newest first: {"id", "at", "entered"}.

        Looks only at the end of the change feed: during a large load the list may be short or empty.
        """
        reads, today = self.views.reads, self._today()
        midnight = datetime.combine(today, datetime.min.time(), ZoneInfo(self.views.deployment.time_zone))
        _, top = reads.changes(2**62, END_OF_BATCH, 1, ())
        found: list[Answer] = []
        for back in _LOOKED_BACK:
            rows, _ = reads.changes(max(0, top - back), END_OF_BATCH, _LOOKED_AT, ("segment",))
            if len(rows) == _LOOKED_AT:
                break  # the newest are beyond the limit: keep what the shorter look found
            found = [
                {"id": uuid_text(row.profile_id), "at": iso_us(row.at_us), "entered": bool(row.new)}
                for row in reversed(rows)
                if row.name == name and row.at_us >= to_us(midnight)
            ][:limit]
            if len(found) == limit or back >= top:
                break
        return found

    def _overview(self, view: View) -> list[Answer]:
        known, states = self._known(view)
        describe = self._describer(view, states)
        return [describe(name, segment) for name, segment in sorted(known.items())]

    def _describer(self, view: View, states: Mapping[str, str]) -> Callable[[str, Segment], Answer]:
        """Builds segments' answers; sizes and versions of all are read once."""
        reads = self.views.reads
        sizes, versions = reads.segment_sizes(view.revision), reads.segment_versions()
        indexes = {segment: index for index, segment in enumerate(view.evaluator.segment_names)}
        return lambda name, segment: {
            "name": name,
            "description": segment.description,
            "sentence": sentence(segment.when),
            "size": sizes.get(indexes.get(name, -1), 0),
            "version": versions.get(name, 1),
            "state": states.get(name, LIVE),
        }

    def _show(self, view: View, name: str) -> Answer:
        known, states = self._known(view)
        if name not in known:
            raise _unknown(name, known)
        entered, left = self.views.reads.segment_moves(self._today(), [name]).get(name, (0, 0))
        return {
            **self._describer(view, states)(name, known[name]),
            "when": plain(known[name].when),
            "entered_today": entered,
            "left_today": left,
            "as_of": self._as_of(view),
        }

    def _as_of(self, view: View) -> str | None:
        as_of_us = self.views.reads.watermark_us(view.revision)
        return iso_us(as_of_us) if as_of_us else None

    def _members(self, view: View, name: str, after: bytes, limit: int) -> list[MemberRow]:
        if name not in view.definitions.segments:
            known, _ = self._known(view)
            if name not in known:
                raise _unknown(name, known)
            return []  # still being built: it has no members yet
        return self.views.reads.members(view.revision, view.evaluator.segment_names.index(name), after, limit)

    def _known(self, view: View) -> tuple[dict[str, Segment], dict[str, str]]:
        """Segments by name, live ones as they are live; and the state of those being built."""
        row = self.views.reads.building()
        if row is None or row.cause != "definition":
            return dict(view.definitions.segments), {}
        building = parse(row)
        state = f"building {row.done * 100:.0f} %"
        changed = {
            name
            for name in building.segments
            if name not in view.definitions.segments or meaning(building, name) != meaning(view.definitions, name)
        }
        return {**building.segments, **view.definitions.segments}, dict.fromkeys(changed, state)


def meaning(defs: Definitions, name: str) -> Any:
    """Everything that decides who is in a segment: its condition and each segment, stage and trait it depends on."""
    graph = dependencies(defs)
    reached: set[str] = set()
    todo = [f"segments.{name}"]
    while todo:
        node = todo.pop()
        if node not in reached:
            reached.add(node)
            todo += graph[node]
    stages = defs.lifecycle.stages if defs.lifecycle and "lifecycle" in reached else ()
    parts = {f"stages.{i}.{stage.name}": stage.when for i, stage in enumerate(stages)}
    parts |= {node: defs.segments[node.removeprefix("segments.")].when for node in reached if node != "lifecycle"}
    traits = used_traits(parts.values())
    found = {node: plain(when) for node, when in parts.items()}
    found |= {f"traits.{each}": plain(defs.traits[each]) for each in traits & defs.traits.keys()}
    found |= {f"computed.{each}": plain(defs.computed_traits[each]) for each in traits & defs.computed_traits.keys()}
    return found


def _unknown(name: str, known: dict[str, Segment]) -> NotFound:
    hint = did_you_mean(name, list(known))
    return NotFound(f"there is no segment with this name{hint}", [Problem("name", f"no such segment{hint}")])
