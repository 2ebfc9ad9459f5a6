"""What definitions name and no event of late has: mostly a misspelling. Warnings, never refusals: it may still come."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Final, NamedTuple

from schemas.conditions import used_properties
from schemas.definitions import ANY_EVENT, ComputedTrait, Definitions
from schemas.errors import Problem, ReaderTooOld, RecordUnreadable
from schemas.hints import did_you_mean
from schemas.paths import CONTEXT, FLAGS, path_of
from schemas.ports import EventLog
from schemas.record import Record, decode
from schemas.touchpoints import CUSTOM, TYPES, meant

SAMPLE: Final = 2_000  # newest records of each partition
_OURS: Final = frozenset({"revenue", "currency", "occurred_at", FLAGS})  # every event has these, whatever it was sent


class Seen(NamedTuple):
    """The names in the newest events. `fields`: by event, of properties; under ANY_EVENT, of all."""

    events: int
    names: set[str]
    fields: Mapping[str, set[str]]
    traits: set[str]


def seen_in(log: EventLog) -> Seen:
    """The names in the newest records. Opens nothing: the names of sealed fields are clear."""
    names: set[str] = set()
    fields: dict[str, set[str]] = {ANY_EVENT: set()}
    traits: set[str] = set()
    count = 0
    for record in _newest(log):
        count += 1
        event = (record.name or CUSTOM) if record.type == CUSTOM else record.type
        names.add(event)
        own = set(_fields(record))
        fields.setdefault(event, set()).update(own)
        fields[ANY_EVENT] |= own
        traits |= record.traits.keys() | _sealed(record, "traits.")
    return Seen(count, names, fields, traits)


def unseen(log: EventLog, patch: Definitions) -> list[Problem]:
    """Warnings about events, properties and traits that a patch names and no newest event has; [] for an empty log."""
    seen = seen_in(log)
    if not seen.events:
        return []
    found: list[Problem] = []
    for name, trait in patch.computed_traits.items():
        found += _of(f"computed_traits.{name}", trait, seen)
    if seen.traits:
        for name in patch.traits:
            if name not in seen.traits and name.partition(".")[0] not in seen.traits:
                found.append(Problem(f"traits.{name}", _reason(f"the trait {name}", seen, name, seen.traits)))
    return found


def _of(path: str, trait: ComputedTrait, seen: Seen) -> Iterator[Problem]:
    given = [name for name in trait.all_events if name not in (ANY_EVENT, CUSTOM)]
    for name in given:
        if name not in seen.names and meant(name) not in seen.names and (meant(name) == name or name not in given):
            known_names = () if meant(name) in TYPES else {*seen.names, *TYPES}  # a touchpoint is no misspelling
            yield Problem(path, _reason(name, seen, name, known_names))
    known = [seen.fields[name] for name in given if name in seen.fields]
    if ANY_EVENT in trait.events or CUSTOM in trait.events:
        known.append(seen.fields[ANY_EVENT])
    if not known:
        return  # of events that did not come, nothing is known
    fields = set().union(*known)
    for prop in sorted({*used_properties(trait.where), *filter(None, (trait.of, trait.key))} - _OURS):
        path_in = path_of(prop)
        root = prop if path_in is None else path_in.root if path_in.section != CONTEXT else f"{CONTEXT}.{path_in.root}"
        if prop not in fields and root not in fields:
            yield Problem(path, _reason(f"{prop} of {', '.join(given) or 'any event'}", seen, prop, fields))


def _reason(what: str, seen: Seen, name: str, known: Iterable[str]) -> str:
    return f"none of the newest {seen.events} events has {what}{did_you_mean(name, known)}"


def _fields(record: Record) -> Iterator[str]:
    yield from record.properties
    yield from _sealed(record, "properties.")
    for name in {*record.context, *_sealed(record, "context.")}:
        yield f"{CONTEXT}.{name}"
    if record.name is not None:
        yield "name"


def _sealed(record: Record, section: str) -> set[str]:
    """The first names of the sealed fields in a section; also whole names, which may hold dots."""
    names = [] if record.sealed is None else record.sealed.names
    own = {name[len(section) :] for name in names if name.startswith(section)}
    return own | {name.partition(".")[0] for name in own}


def _newest(log: EventLog) -> Iterator[Record]:
    for partition, end in enumerate(log.ends()):
        for stored in log.read(partition, max(0, end - SAMPLE), SAMPLE):
            with suppress(RecordUnreadable, ReaderTooOld):
                yield decode(stored.value)
