"""A record as a fold reads it: decoded to just what the definitions need. No I/O, no clock."""

from datetime import datetime
from typing import Any, Protocol

import msgspec

from projections.fold.layout import Layout
from schemas.record import Identifier, Instant, Sealed
from schemas.sales import LINES


class FoldEvent(Protocol):
    """A decoded record with just what a fold and its caller need. Set `partition` and `offset` before `apply`."""

    v: int
    id: str
    type: str
    name: str | None
    source: str
    ids: list[Identifier]
    route_key: str
    occurred_at: datetime
    received_at: datetime
    known_at: datetime
    digest: str
    n: int
    properties: Any  # a Struct of the needed properties
    traits: dict[str, Any]
    flags: list[str]
    context: Any  # None unless a definition looks into it
    sealed: Sealed | None
    key: bytes  # 16 bytes: the event key
    order: bytes  # `schemas.stamps.order_of` it
    occurred_us: int
    received_us: int
    partition: int
    offset: int


def event_decoder(layout: Layout) -> tuple[msgspec.json.Decoder[Any], type]:
    """A decoder whose `properties` is a Struct of the needed fields, all Any or Raw: a wrong type never raises."""
    fields: list[Any] = []
    for i, name in enumerate(layout.properties()):
        if name in LINES:
            fields.append((f"f{i}", msgspec.Raw, msgspec.field(name=name, default=msgspec.Raw())))
        else:
            fields.append((f"f{i}", Any, msgspec.field(name=name, default=None)))
    props = msgspec.defstruct("Properties", fields, frozen=True, gc=False)
    event = msgspec.defstruct(
        "FoldEvent",
        [
            ("v", int), ("id", str), ("type", str), ("source", str), ("ids", list[Identifier]), ("route_key", str),
            ("occurred_at", Instant), ("received_at", Instant), ("known_at", Instant), ("digest", str),
            ("n", int, 0),
            ("name", str | None, None), ("properties", props, props()),
            ("traits", dict[str, Any], msgspec.field(default_factory=dict)), ("sealed", Sealed | None, None),
            ("flags", list[str], msgspec.field(default_factory=list)),
            ("context", Any, msgspec.field(name="context" if layout.reads_context() else "-context", default=None)),
            ("key", bytes, msgspec.field(name="-key", default=b"")),
            ("order", bytes, msgspec.field(name="-order", default=b"")),
            ("occurred_us", int, msgspec.field(name="-occurred_us", default=0)),
            ("received_us", int, msgspec.field(name="-received_us", default=0)),
            ("partition", int, msgspec.field(name="-partition", default=0)),
            ("offset", int, msgspec.field(name="-offset", default=0)),
        ],
    )  # fmt: skip
    return msgspec.json.Decoder(event), event
