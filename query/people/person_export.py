"""All data kept about one person, as an archive: JSON for machines, a page for people. Built while it is sent.

A ZIP of index.html, profile.json, events.json, consents.json, decisions.json and views.json. Events are read from the
log twice, for the page and for the JSON, a few hundred at a time; nothing is kept in memory or on disk. Other people's
data is left out (query.people.other_people).
"""

import json
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from io import RawIOBase
from typing import Any, Final, Protocol

from query.answers import iso
from query.people.opened import joined, open_records, open_tokens
from query.people.other_people import OTHERS, Own, own_values, without_others
from query.people.profiles import Profiles
from query.people.timeline import clear_answer, who
from schemas.changes import change_body
from schemas.identifiers import PhoneForm
from schemas.ports import Clock, EventLog, Sealer, Vault
from schemas.reads import ChangeRow, PartOf, Reads
from schemas.record import Record, Stored, decode, to_us, uuid_text
from schemas.stamps import order_of

PAGE: Final = 5_000  # places requested at a time: ordering them reads all of the person's events
SLICE: Final = 200  # records in memory; each is at most 64 KiB
CONSENTS: Final = frozenset({"consent.updated"})
_BYTES: Final = 64_000  # a chunk of the answer, about
Answer = dict[str, Any]
Tell = Callable[[int, int], None]  # (events written, of how many)


class PersonRows(Protocol):
    """What else is kept about the ids that a profile ever had, in order."""

    def changes(self, ids: Sequence[bytes]) -> Iterator[ChangeRow]: ...

    def views(self, ids: Sequence[bytes], parts: Sequence[PartOf] = ()) -> Iterator[dict[str, Any]]:
        """When their profile was looked at, and what was done with it; `parts`: also profiles they were part of."""

    def joined(self, ids: Sequence[bytes]) -> Sequence[PartOf]:
        """Where one of these also belonged to somebody else, and between which times at most."""

    def part_of(self, tokens: Sequence[bytes], profile_id: bytes) -> Sequence[PartOf]:
        """Profiles that joined several and that this one has left; its tokens are these."""


@dataclass(frozen=True)
class PersonExport:
    """Any thread may call."""

    profiles: Profiles
    reads: Reads
    rows: PersonRows
    vault: Vault
    sealer: Sealer
    log: EventLog
    clock: Clock
    phone: PhoneForm

    def find(self, kind: str, value: object) -> bytes:
        """The id of the profile that an identifier belongs to; `profile` takes an id. Raises BadRequest, NotFound,
        Erased.
        """
        return self.profiles.owner(self.profiles.token(kind, value))

    def chunks(self, profile_id: bytes, tell: Tell = lambda _done, _total: None) -> Iterator[bytes]:
        """The archive. Raises NotFound or Erased before its first chunk; if it breaks off, the ZIP directory is missing
        and no program opens it.
        """
        made = _Person.of(self, profile_id)
        return _zipped(made.files(tell))


class _Person:
    """One export: whom it is about, and as of when."""

    def __init__(self, export: PersonExport, profile_id: bytes, details: Answer, own: Own, at_us: int) -> None:
        self._export, self._id, self._details, self._own, self._at_us = export, profile_id, details, own, at_us

    @classmethod
    def of(cls, export: PersonExport, profile_id: bytes) -> "_Person":
        now = export.clock.now()
        details = export.profiles.details(profile_id, personal=True)
        own = Own.of(open_tokens(export.vault, export.profiles.tokens(profile_id)), export.phone)
        kept = {"exported_at": iso(now), **without_others(details, own)}
        return cls(export, profile_id, kept, own, to_us(now))

    def files(self, tell: Tell) -> Iterator[tuple[str, Iterator[str]]]:
        """Name and content of each file, to be read in this order."""
        total = 2 * int(self._details["event_count"])
        done = 0

        def counted(events: Iterator[Answer]) -> Iterator[Answer]:
            nonlocal done
            for event in events:
                done += 1
                if done % SLICE == 0:
                    tell(min(done, total), total)
                yield event

        yield "index.html", _page(self._details, self._consents, self._changes, self._views, counted(self._events()))
        yield "profile.json", iter([_text(self._details)])
        yield "events.json", _array(counted(self._events()))
        yield "consents.json", _array(self._consents())
        yield "decisions.json", _array(self._changes())
        yield "views.json", _array(self._views())
        tell(total, total)

    def _events(self, types: frozenset[str] | None = None) -> Iterator[Answer]:
        """What the person did, newest first; events that arrive while we read are left out."""
        before = (self._at_us + 1, order_of(0, 0, bytes(16)))
        while True:
            places = self._export.reads.newest(self._id, before, PAGE, types)
            for at in range(0, len(places), SLICE):
                for stored in self._in_order(places[at : at + SLICE]):
                    record = decode(stored.value)
                    key = bytes.fromhex(record.id.replace("-", ""))
                    before = (to_us(record.occurred_at), order_of(to_us(record.received_at), record.n, key))
                    yield self._event(record, stored)
            if len(places) < PAGE:
                return

    def _in_order(self, places: Sequence[tuple[int, int]]) -> Iterable[Stored]:
        found = {(each.partition, each.offset): each for each in self._export.log.fetch(places)}
        return [found[place] for place in places if place in found]

    def _event(self, record: Record, stored: Stored) -> Answer:
        own = self._own
        ((_, sealed),) = open_records(self._export.sealer, [stored])
        answer = clear_answer(record)
        for part in ("properties", "context", "traits"):
            whole = joined(answer[part], own_values(sealed[part], own)) if part in sealed else answer[part]
            answer[part] = without_others(whole, own)
        found = [(each.kind, own.opened.get(bytes.fromhex(each.token))) for each in who(record)]
        answer["identifiers"] = [{"kind": kind, "value": OTHERS if o is None else o.shown} for kind, o in found]
        return answer

    def _consents(self) -> Iterator[Answer]:
        for event in self._events(CONSENTS):
            yield {
                "at": event["occurred_at"],
                "source": event["source"],
                "consent": event["context"].get("consent"),
                "properties": event["properties"],
                "event_id": event["id"],
            }

    def _changes(self) -> Iterator[Answer]:
        """Decisions in order. Decisions about a joined profile may also stem from somebody else's events."""
        ids = [*self._own.opened, self._id]
        joined = self._export.rows.joined(ids)
        for row in self._export.rows.changes(ids):
            shared = any(
                each.profile_id == row.profile_id and each.since_us <= row.at_us <= each.until_us for each in joined
            )
            yield self._of_others(row) if shared and row.type != "identity" else self._own_ids(change_body(row))

    def _own_ids(self, body: Answer) -> Answer:
        """Where profiles were joined or split: without the ids of the other people."""
        if body["type"] != "identity" or not isinstance(body["new"], list):
            return body
        own = {uuid_text(token) for token in (*self._own.opened, self._id)}
        return body | {"new": [each if each in own else OTHERS for each in body["new"]]}

    def _of_others(self, row: ChangeRow) -> Answer:
        """That something was decided, not what."""
        body = change_body(row)
        return body | {"name": OTHERS, "old": OTHERS, "new": OTHERS, "cause": {**body["cause"], "event_id": None}}

    def _views(self) -> Iterator[Answer]:
        tokens = list(self._own.opened)
        parts = self._export.rows.part_of(tokens, self._id)
        return self._export.rows.views([*tokens, self._id], parts)


# --- the archive -----------------------------------------------------------------------------------------------------


class _Sink(RawIOBase):
    """What the archive is written to: keeps what has not been taken. Not seekable, so that sizes follow each file."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        self.size += len(data)
        return len(data)

    def taken(self) -> bytes:
        data = b"".join(self._parts)
        self._parts.clear()
        self.size = 0
        return data


def _zipped(files: Iterator[tuple[str, Iterator[str]]]) -> Iterator[bytes]:
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files:
            with archive.open(name, "w", force_zip64=True) as out:
                for text in content:
                    out.write(text.encode("utf-8", "surrogatepass"))
                    if sink.size >= _BYTES:
                        yield sink.taken()
    yield sink.taken()


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1, default=str)


def _array(items: Iterator[Answer]) -> Iterator[str]:
    yield "["
    for number, item in enumerate(items):
        yield (",\n" if number else "\n") + json.dumps(item, ensure_ascii=False, default=str)
    yield "\n]\n"


# --- the page --------------------------------------------------------------------------------------------------------

_STYLE: Final = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;width:100%}td,th{border-bottom:1px solid #ccc;padding:.3rem .6rem;text-align:left;"
    "vertical-align:top;overflow-wrap:anywhere}pre{white-space:pre-wrap;margin:0;font-size:12px}"
)
Rows = Callable[[], Iterator[Answer]]


def _page(details: Answer, consents: Rows, changes: Rows, views: Rows, events: Iterator[Answer]) -> Iterator[str]:
    """Everything in readable form, a row at a time; no scripts, nothing loaded from elsewhere."""
    yield (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Your data</title>'
        f"<style>{_STYLE}</style></head><body><h1>Your data</h1>"
        f"<p>All the data we keep about you, as of {escape(details['exported_at'])}. The JSON files beside this page"
        f" contain the same data. {escape(OTHERS)} replaces anything that belongs to somebody else.</p>"
    )
    yield from _table(
        "Who you are", ("What", "Value"), [(each["kind"], each["value"]) for each in details["identifiers"]]
    )
    yield from _table("What we know", ("What", "Value"), details["traits"].items())
    yield from _table("What we worked out", ("What", "Value"), details["computed"].items())
    yield from _table(
        "Groups you are in, and why",
        ("Group", "Rule", "Your values"),
        [(each["name"], each["sentence"], each["values"]) for each in details["explained"]],
    )
    risk = details["risk"]["level"]
    yield from _table(
        f"Stage: {details['lifecycle']}. Risk of leaving: {risk}",
        ("Reason", "Points"),
        [(each["description"] or each["code"], each["points"]) for each in details["reasons"]],
    )
    yield from _table(
        "Consents",
        ("When", "From", "What"),
        ((c["at"], c["source"], c["consent"] or c["properties"]) for c in consents()),
    )
    yield from _table(
        "Decisions, in order",
        ("When", "What", "Name", "Before", "After", "Why"),
        ((c["at"], c["type"], c["name"], c["old"], c["new"], c["cause"]["kind"]) for c in changes()),
    )
    yield from _table(
        "When your data was looked at",
        ("When", "What was done", "Role"),
        ((v["at"], v["action"], v["role"]) for v in views()),
    )
    yield from _table("What you did, newest first", ("When", "What", "From", "Details"), map(_event_row, events))
    yield "</body></html>"


def _event_row(event: Answer) -> tuple[object, ...]:
    parts = {name: event[name] for name in ("identifiers", "properties", "traits", "context") if event[name]}
    return event["occurred_at"], event["name"] or event["type"], event["source"], parts


def _table(heading: str, names: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    yield f"<h2>{escape(heading)}</h2><table><tr>{''.join(f'<th>{escape(name)}</th>' for name in names)}</tr>"
    for row in rows:
        yield f"<tr>{''.join(f'<td>{_shown(cell)}</td>' for cell in row)}</tr>\n"
    yield "</table>"


def _shown(value: object) -> str:
    if isinstance(value, Mapping | list | tuple):
        return f"<pre>{escape(_text(value))}</pre>"
    return escape("–" if value is None else str(value))


def name_of_file(profile_id: bytes) -> str:
    """The archive's file name; identifies nobody."""
    return f"person-{uuid_text(profile_id)[:8]}.zip"
