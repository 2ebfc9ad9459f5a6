"""The messages of our topics: names, models, JSON Schemas. What downstream systems rely on (docs/topics.md).

A consumer ignores fields it does not know; a field is never removed or changed without a new `schema_version`.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec

from schemas.record import Record

SCHEMA_VERSION: Final = 1
PROFILE_CHANGES: Final = "profile-changes"
SEGMENT_CHANGES: Final = "segment-changes"
RISK_CHANGES: Final = "risk-changes"
PROFILES: Final = "profiles"
EVENTS: Final = "events"
INBOX: Final = "inbox"
TOPICS: Final = (EVENTS, INBOX, PROFILE_CHANGES, SEGMENT_CHANGES, RISK_CHANGES, PROFILES)
TOPIC_OF: Final[Mapping[str, str]] = {
    **dict.fromkeys(("profile", "identity", "lifecycle", "erased"), PROFILE_CHANGES),
    "segment": SEGMENT_CHANGES,
    "risk": RISK_CHANGES,
}
"""Where a change of a type goes."""
GRANTABLE: Final = frozenset({PROFILE_CHANGES})
"""Topics whose messages can hold direct personal values, when granted. `profiles` is compacted: it would keep them."""
STATE: Final = "state"  # the type of a message of `profiles`, in its header
# Headers of every message.
CHANGE_ID_HEADER: Final = "id"
TYPE_HEADER: Final = "type"
VERSION_HEADER: Final = "schema_version"

_UUID: Final = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
Uuid = Annotated[str, msgspec.Meta(pattern=_UUID)]
Time = Annotated[datetime, msgspec.Meta(tz=True)]
Version = Annotated[int, msgspec.Meta(ge=1, description="rises by one per profile, over all three topics of changes")]


class Cause(msgspec.Struct, kw_only=True):
    """Why: the newest event by stamp since the last decision, else what else moved it."""

    kind: Literal["event", "timer", "definition", "identity", "erasure", "rebuild"]
    event_id: Uuid | None
    definition_version: str | None


class ProfileChange(msgspec.Struct, kw_only=True):
    """A trait, an identity, a stage; `erased` and the identity change `merged_into` are a profile's last.

    A direct personal value is `{"personal": true}`; `kinds` beside it where identifiers joined. Where the topic is
    granted personal values, `value` or `identifiers` is beside it.
    """

    id: Annotated[Uuid, msgspec.Meta(description="stable: a repeat has the same")]
    type: Literal["profile", "identity", "lifecycle", "erased"]
    profile_id: Uuid
    version: Version
    name: Annotated[str | None, msgspec.Meta(description="of the trait, or merged_into, split_off, identifiers")]
    old: Any
    new: Any
    at: Time
    cause: Cause


class SegmentChange(msgspec.Struct, kw_only=True):
    """A profile entered (false, true) or left (true, false) a segment."""

    id: Annotated[Uuid, msgspec.Meta(description="stable: a repeat has the same")]
    type: Literal["segment"]
    profile_id: Uuid
    version: Version
    name: Annotated[str, msgspec.Meta(description="of the segment")]
    old: bool
    new: bool
    at: Time
    cause: Cause


class RiskChange(msgspec.Struct, kw_only=True):
    """A profile's risk level changed."""

    id: Annotated[Uuid, msgspec.Meta(description="stable: a repeat has the same")]
    type: Literal["risk"]
    profile_id: Uuid
    version: Version
    name: None
    old: str
    new: str
    at: Time
    cause: Cause


class Reason(msgspec.Struct, kw_only=True):
    """A risk rule that holds."""

    code: str
    points: int


class Risk(msgspec.Struct, kw_only=True):
    level: str
    reasons: list[Reason]


class ProfileState(msgspec.Struct, kw_only=True):
    """What a profile is when the message was written; a null value where it was erased or merged into another.

    No identifier and no direct trait. `computed` is as of `at`: what time alone changes comes with the next change.
    """

    profile_id: Uuid
    version: Annotated[int, msgspec.Meta(ge=0, description="of the last change in it: ignore an older one")]
    at: Time
    traits: Annotated[dict[str, Any], msgspec.Meta(description="attributes: traits that are no direct personal values")]
    computed: dict[str, Any]
    segments: list[str]
    lifecycle: str
    risk: Risk


class InboxBody(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A request of the door, as SDKs send it: `batch`, or one call by its own fields. Headers name key and path."""

    batch: list[dict[str, Any]] | msgspec.UnsetType = msgspec.UNSET
    context: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    writeKey: str | msgspec.UnsetType = msgspec.UNSET  # noqa: N815  # the senders' names
    sentAt: str | msgspec.UnsetType = msgspec.UNSET  # noqa: N815


MODELS: Final[Mapping[str, type[msgspec.Struct]]] = {
    EVENTS: Record,
    INBOX: InboxBody,
    PROFILE_CHANGES: ProfileChange,
    SEGMENT_CHANGES: SegmentChange,
    RISK_CHANGES: RiskChange,
    PROFILES: ProfileState,
}
"""What the value of a topic's message is."""
SCHEMAS: Final = Path(__file__).parent / "topics"
"""The folder of the JSON Schemas, one a topic."""


def json_schema(topic: str) -> dict[str, Any]:
    """The JSON Schema (2020-12) of a topic's values."""
    model = MODELS[topic]
    _, components = msgspec.json.schema_components([model], ref_template="#/$defs/{name}")
    top = components.pop(model.__name__)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"touchfold.{topic}",
        **_plain(top),
        **({"$defs": _plain(components)} if components else {}),
    }


def _plain(value: Any) -> Any:
    """Without the class names in titles, with docstrings on one line and with the format of times."""
    if isinstance(value, dict):
        kept = {key: _plain(each) for key, each in value.items() if not (key == "title" and isinstance(each, str))}
        if isinstance(kept.get("description"), str):
            kept["description"] = re.sub(r"\s+", " ", kept["description"]).strip()
        for name, each in kept.items():
            if name.endswith("_at") and isinstance(each, dict):  # every time of a record is one with its zone
                next(iter(each.get("anyOf", [each])))["format"] = "date-time"
        return kept
    return [_plain(each) for each in value] if isinstance(value, list) else value


def topic_names(text: str, prefix: str) -> frozenset[str]:
    """Short names of the topics in a comma-separated setting; full names may stand there too."""
    names = (name.strip().removeprefix(f"{prefix}.") for name in text.split(","))
    return frozenset(name for name in names if name)
