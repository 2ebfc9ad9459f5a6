"""Writes the generated files of docs/ and schemas/: `python tools/docs.py`. `tests/unit/test_docs.py` compares them."""

import inspect
import json
from collections.abc import Iterator
from pathlib import Path

import schemas.errors
from projections.aggregates.base import Aggregate
from projections.aggregates.registry import AGGREGATES
from projections.definitions.json_schema import json_schema
from schemas.definitions import ComputedTrait
from schemas.errors import TouchfoldError
from schemas.touchpoint_fields import EVERY, FIELDS, STAFF, Field
from schemas.touchpoint_names import DIALECT_NAMES, PLAIN_WORDS, SEGMENT_NAMES, TABLE_VERSION
from schemas.touchpoints import CALL_TYPES, STAFF_TYPES, TYPES

DOCS = Path(__file__).parents[1] / "docs"
MEANING = {
    "reject": "the sender's mistake; nothing is stored",
    "dead_letter": "the record is set aside whole; the rest continues",
    "retry": "a backend cannot be reached; send or try again",
    "wait": "the record is good, but cannot be read now; its partition waits at it, all others continue",
    "stop": "our own fault or the operator's to fix; nothing is committed, and the process ends with the reason",
}


def errors_page() -> str:
    """Every error code with its HTTP status and disposition."""
    lines = [
        "# Error codes",
        "",
        "Every error of the door and the API is",
        '`{"success": false, "code", "message", "errors": [{"path", "reason"}]}`.',
        "",
        "| code | status | disposition | when |",
        "|---|---|---|---|",
    ]
    for code, cls in sorted(_errors()):
        lines.append(f"| `{code}` | {cls.status} | {cls.disposition.value} | {_summary(cls)} |")
    lines += ["", *[f"- *{name}*: {meaning}." for name, meaning in MEANING.items()], ""]
    return "\n".join(lines)


def _errors() -> Iterator[tuple[str, type[TouchfoldError]]]:
    seen = set()
    for cls in vars(schemas.errors).values():
        if inspect.isclass(cls) and issubclass(cls, TouchfoldError) and cls is not TouchfoldError:
            if cls.code not in seen:
                yield cls.code, cls
            seen.add(cls.code)


def _summary(cls: type[TouchfoldError]) -> str:
    return (cls.__doc__ or "").strip().split("\n")[0] if "__doc__" in vars(cls) and cls.__doc__ else ""


def touchpoints_page() -> str:
    """Every canonical type with the names that map to it."""
    names: dict[str, list[str]] = {type_: [] for type_ in sorted({*TYPES, *STAFF_TYPES, *CALL_TYPES.values()})}
    for call, type_ in CALL_TYPES.items():
        names[type_].append(f"`{call}` call")
    for name, type_ in SEGMENT_NAMES.items():
        names[type_].append(name)
    exact: dict[str, list[str]] = {type_: [] for type_ in names}
    for name, type_ in DIALECT_NAMES.items():
        exact[type_].append(f"`{name}`")
    for whose, words in PLAIN_WORDS.items():
        for name, type_ in words.items():
            exact[type_].append(f"`{name}` ({whose.capitalize()} alone)")
    for type_ in STAFF_TYPES:
        names[type_].append("*only by staff: on a customer's page or with `POST profiles/{profile_id}/actions`*")
    lines = [
        "# Touchpoints",
        "",
        f"Canonical types, table version {TABLE_VERSION}. A `track` whose name is a type keeps it. The names below map",
        "to it: those of SDKs in upper or lower case, with spaces, `_`, `-` or a capital between words; those of other",
        "systems as they are written. Anything else is `custom`, and so are plain words such as `click`, except where",
        "`context.library.name` says that they are a system's.",
        "",
        "| type | Segment, RudderStack, Jitsu, Klaviyo | Google Analytics, Shopify, Meta, Snowplow, Tracardi, Unomi |",
        "|---|---|---|",
        *[f"| `{type_}` | {', '.join(others)} | {', '.join(exact[type_])} |" for type_, others in names.items()],
        "",
    ]
    return "\n".join(lines)


def fields_page() -> str:
    """docs/touchpoint-fields.md"""
    lines = [
        "# Touchpoint fields",
        "",
        "What the fields of a touchpoint are (`schemas/touchpoint_fields.py`). A field that neither this table nor a",
        'definition names is sealed, whatever its type: [contracts](contracts.md), "What is clear". `products[]` is a',
        "line of an order; a type that ends in `.` or `_` stands for all types that begin with it.",
        "",
        "| of | field | kind | clear | identifier |",
        "|---|---|---|---|---|",
    ]
    for field in FIELDS:
        kind = "money" if field.money else field.kind
        clear = "yes" if field.clear else "no"
        lines.append(f"| {_whose(field)} | `{field.field}` | {kind} | {clear} | {field.identifier or ''} |")
    return "\n".join(lines) + "\n"


def _whose(field: Field) -> str:
    return {EVERY: "every event", STAFF: "what staff write"}.get(field.type, f"`{field.type}`")


def aggregates_page() -> str:
    """docs/aggregates.md"""
    lines = [
        "# Aggregates",
        "",
        "What a computed trait can be (`aggregate`), each a module of `projections/aggregates/`. `of: occurred_at` is",
        "the event's time, `of: revenue` what it amounts to. Over order events it is over orders, each once.",
        "",
        "| aggregate | is | of | `window_days` | values | for example |",
        "|---|---|---|---|---|---|",
    ]
    for name, each in AGGREGATES.items():
        spec = _example(each)
        of = "a property, or `occurred_at`" if each.takes_times else "a property"
        value, windows = of if each.takes_value else "", "yes" if each.windows else ""
        lines.append(f"| `{name}` | {each.meaning} | {value} | {windows} | {each.kind(spec)} | {each.words(spec)} |")
    return "\n".join(lines) + "\n"


def _example(aggregate: Aggregate) -> ComputedTrait:
    """A definition that it admits."""
    days = 30 if aggregate.windows else None
    of = "score" if aggregate.takes_value else None
    events = ComputedTrait(aggregate=aggregate.name, of=of, events=("survey.answered",), window_days=days)
    keys = ComputedTrait(
        aggregate=aggregate.name, key="complaint_id", opens=("complaint.opened",), closes=("complaint.resolved",)
    )
    return next(each for each in (events, keys) if not list(aggregate.check("", each)))


def definitions_schema() -> str:
    """schemas/definitions.schema.json"""
    return json.dumps(json_schema(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


PAGES = {
    "aggregates.md": aggregates_page,
    "errors.md": errors_page,
    "touchpoint-fields.md": fields_page,
    "touchpoints.md": touchpoints_page,
}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (DOCS / name).write_text(page())
    (DOCS.parent / "schemas" / "definitions.schema.json").write_text(definitions_schema())
