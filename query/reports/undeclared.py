"""Fields that were sealed because nothing declares them: what they are, and how often they came."""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple

from query.people.opened import open_records
from schemas.clear_rules import clear_rules, declared_of
from schemas.conditions import parse_time
from schemas.errors import ReaderTooOld, RecordUnreadable
from schemas.ports import EventLog, Sealer
from schemas.record import Stored, decode
from schemas.touchpoint_fields import personal_traits

TRAITS: Final = "traits"  # used in place of an event, for traits
MOST: Final = 200
_SAMPLE: Final = 250  # newest records of each partition, opened to see what kinds of values there are
_COUNTS: Final = r"""
with e as (
    select id, case when type = 'custom' then name else type end as event, sealed_names from events
), n as (
    select id, event, unnest(sealed_names) as name from e
), f as (
    select distinct id, case when name like 'traits.%' then 'traits' else event end as event,
        regexp_replace(
            regexp_replace(name, '^properties\.products\.[0-9]+\.', 'products.'), '^(properties|traits)\.', ''
        ) as field
    from n where name like 'properties.%' or name like 'traits.%'
), t as (
    select event, count(*) as events from e group by 1
    union all select 'traits', count(*) from e where event = 'profile.identified'
)
select event, field, count(*) as found, any_value(events) as events from f join t using (event)
group by 1, 2 order by 3 desc, 1, 2 limit 2000
"""


class Undeclared(NamedTuple):
    """A field that came sealed in `filled` of `events` like it. `kind`: of its newest values; "": not seen lately."""

    event: str
    field: str
    kind: str
    filled: int
    events: int

    @property
    def share(self) -> float:
        """The share of events that have it, 0 to 1."""
        return min(1.0, self.filled / self.events) if self.events else 0.0

    def answer(self) -> dict[str, Any]:
        found = {"event": self.event, "field": self.field, "kind": self.kind, "count": self.filled}
        return {**found, "events": self.events, "share": round(self.share, 4)}

    @property
    def line(self) -> str:
        """A line of YAML that declares it not personal."""
        return yaml_line(self.event, self.field, personal=False)


def undeclared(
    run_sql: Callable[[str, int], Mapping[str, Any]], log: EventLog, sealer: Sealer, definitions: Mapping[str, Any]
) -> list[Undeclared]:
    """The most frequent first, at most MOST. Raises what SQL and the vault raise."""
    kinds = _kinds(log, sealer)
    found = [
        Undeclared(str(event), str(field), kinds.get((str(event), str(field)), ""), int(count), int(events))
        for event, field, count, events in run_sql(_COUNTS, 2_000)["rows"]
    ]
    return [each for each in found if _is_open(each, definitions)][:MOST]


def _is_open(each: Undeclared, definitions: Mapping[str, Any]) -> bool:
    """Whether neither the table of fields nor any definition covers it."""
    if each.kind == _IDENTIFIER:
        return False
    if each.event == TRAITS:
        name = each.field.partition(".")[0]
        return each.field not in (definitions.get("traits") or {}) and name not in personal_traits()
    rules = clear_rules(declared_of(definitions), each.event, each.event)
    line = each.field.removeprefix("products.")
    return each.field not in rules.names | rules.sealed and not (line != each.field and line in rules.lines)


def yaml_line(event: str, field: str, *, personal: bool) -> str:
    """JSON, which is valid YAML whatever the names are."""
    said: dict[str, Any] = {field: {"personal": personal}}
    return json.dumps({TRAITS: said} if event == TRAITS else {"properties": {event: said}}, ensure_ascii=False)


_IDENTIFIER: Final = "identifier"


def _kinds(log: EventLog, sealer: Sealer) -> dict[tuple[str, str], str]:
    """By event and field: the kinds of values in the newest records. No value leaves this function."""
    seen: dict[tuple[str, str], set[str]] = {}
    for record, opened in open_records(sealer, _newest(log)):
        event = (record.name or "") if record.type == "custom" else record.type
        for section, of in (("properties", event), (TRAITS, TRAITS)):
            for name, value in (opened.get(section) or {}).items():
                if name == "products" and section == "properties" and isinstance(value, dict):
                    lines = [line for line in value.values() if isinstance(line, dict)]
                    pairs = [(f"products.{key}", each) for line in lines for key, each in line.items()]
                else:
                    pairs = [(name, value)]
                for field, each in pairs:
                    seen.setdefault((of, field), set()).add(_kind(each))
    return {place: " or ".join(sorted(kinds)) for place, kinds in seen.items()}


def _newest(log: EventLog) -> list[Stored]:
    """The newest records of each partition, as far as this build can read them."""
    found: list[Stored] = []
    for partition, end in enumerate(log.ends()):
        for record in log.read(partition, max(0, end - _SAMPLE), _SAMPLE):
            with suppress(RecordUnreadable, ReaderTooOld):
                decode(record.value)
                found.append(record)
    return found


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return _IDENTIFIER if "$token" in value else "object"
    if isinstance(value, str):
        return "time" if parse_time(value) is not None else "text"
    kinds = {bool: "boolean", int: "integer", float: "decimal", list: "list", type(None): "null"}
    return kinds[type(value)]
