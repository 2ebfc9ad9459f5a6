"""Writes the generated pages of docs/: `python tools/docs.py`. `tests/unit/test_docs.py` compares them."""

import inspect
from collections.abc import Iterator
from pathlib import Path

import schemas.errors
from schemas.errors import TouchfoldError
from schemas.touchpoint_fields import EVERY, FIELDS, STAFF, Field
from schemas.touchpoints import CALL_TYPES, SEGMENT_NAMES, STAFF_TYPES, TABLE_VERSION, TYPES

DOCS = Path(__file__).parents[1] / "docs"
MEANING = {
    "reject": "the sender's mistake; nothing is stored",
    "dead_letter": "the record is set aside whole; the rest continues",
    "retry": "a backend cannot be reached; send or try again",
    "wait": "the record is good, but cannot be read now; its partition waits at it, all others continue",
    "stop": "our own fault or the operator's to fix; nothing is committed, and the process ends with the reason",
}


def errors_page() -> str:
    """Every error code with its HTTP status and what becomes of it."""
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
    for type_ in STAFF_TYPES:
        names[type_].append("*only by staff: on a customer's page or with `POST profiles/{profile_id}/actions`*")
    lines = [
        "# Touchpoints",
        "",
        f"Canonical types, table version {TABLE_VERSION}. A `track` whose name is a type keeps it. The names below map",
        "to it, in upper or lower case, with spaces, `_` or `-` between words; anything else is `custom`.",
        "",
        "| type | Segment, RudderStack and Jitsu names |",
        "|---|---|",
        *[f"| `{type_}` | {', '.join(others)} |" for type_, others in names.items()],
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


PAGES = {"errors.md": errors_page, "touchpoint-fields.md": fields_page, "touchpoints.md": touchpoints_page}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (DOCS / name).write_text(page())
