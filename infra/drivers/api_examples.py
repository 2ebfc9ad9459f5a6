"""Examples for the API's description, and its plain page of documentation. Data only."""

from collections.abc import Mapping
from html import escape
from typing import Any, Final

_ID: Final = "0b1f6a64-3a0c-4a57-9d3c-2f8f2d6c1e90"
_EVENT_ID: Final = "5d0c1e7a-90a2-4c1b-8a37-6a5c2f1b7d11"
_CURSOR: Final = "ZgAAAAAAAAAHAAAAAA"

LOOKUP: Final[dict[str, Any]] = {"kind": "email", "value": "ada@example.com"}
SQL: Final[dict[str, Any]] = {
    "sql": "select type, count(*) as n from events group by type order by n desc",
    "limit": 100,
}
PROFILE: Final = {
    "id": _ID,
    "identifiers": [{"kind": "user_id", "value": "ada"}, {"kind": "email", "value": "ada@example.com"}],
    "traits": {"city": "London", "name": "Ada"},
    "computed": {"lifetime_orders": 3, "lifetime_revenue": "120.5000", "last_order_at": "2026-05-01T10:00:00Z"},
    "segments": ["repeat_customers"],
    "lifecycle": "at_risk",
    "risk": {"level": "medium", "reasons": [{"code": "unresolved_complaint", "points": 2}]},
    "first_seen_at": "2025-11-02T09:12:00Z",
    "last_seen_at": "2026-05-01T10:00:00Z",
    "event_count": 41,
}
TIMELINE: Final = {
    "items": [
        {
            "id": _EVENT_ID,
            "message_id": "m-17",
            "type": "purchase.completed",
            "name": "Order Completed",
            "source": "shop",
            "occurred_at": "2026-05-01T10:00:00Z",
            "received_at": "2026-05-01T10:00:01Z",
            "identifiers": [{"kind": "user_id", "value": "ada"}],
            "properties": {"order_id": "o-3", "revenue": "40.50", "currency": "USD"},
            "context": {"channel": "web"},
            "traits": {},
            "sealed_names": [],
        }
    ],
    "next": None,
}
SEGMENT: Final = {
    "name": "repeat_customers",
    "description": "Two orders or more, ever",
    "sentence": "Customers whose lifetime orders is at least 2.",
    "size": 812,
    "version": 1,
    "state": "live",
}
SEGMENT_SHOWN: Final = {
    **SEGMENT,
    "when": {"trait": "lifetime_orders", "op": "gte", "value": 2},
    "entered_today": 4,
    "left_today": 0,
    "as_of": "2026-05-01T10:00:02Z",
}
SEARCH: Final = {
    "items": [
        {
            "id": _ID,
            "name": "Ada Lovelace",
            "phone": "+14155552671",
            "email": "ada@example.com",
            "last_purchase_at": "2026-05-01T10:12:00Z",
            "lifecycle": "repeat",
            "risk": "low",
            "last_seen_at": "2026-05-03T08:00:00Z",
        }
    ],
    "next": None,
}
MEMBERS: Final = {"items": [{"id": _ID, "since": "2026-04-30T18:30:00Z"}], "next": None}
CHANGE: Final = {
    "id": "7f1d5e0a-66d4-4c8e-9a0e-0f3d9b6e2c55",
    "type": "segment",
    "profile_id": _ID,
    "version": 7,
    "name": "repeat_customers",
    "old": False,
    "new": True,
    "at": "2026-05-01T10:00:00Z",
    "cursor": _CURSOR,
    "cause": {"kind": "event", "event_id": _EVENT_ID, "definition_version": None},
}
CHANGES: Final = {"items": [CHANGE], "next": _CURSOR}
STREAM: Final = f'id: {_CURSOR}\ndata: {{"id": "…", "type": "segment", …}}\n\n'
SQL_ANSWER: Final = {"columns": ["type", "n"], "rows": [["purchase.completed", 41]], "truncated": False}
EVENT: Final = {"id": _EVENT_ID, "status": "applied", "reason": None, "profile_id": _ID, "duplicates": 0}

ERRORS: Final = (
    (400, "The request is not as documented; `errors` says where and why", "bad_request"),
    (401, "No token, an unknown one, or a revoked one", "unauthorized"),
    (403, "The token's role may not do this", "forbidden"),
    (404, "There is no such thing", "not_found"),
    (410, "It existed and was erased", "erased"),
    (503, "A backend is away; try again after Retry-After seconds", "unavailable"),
)


def error(code: str) -> dict[str, Any]:
    """An error in the one form."""
    return {"success": False, "code": code, "message": "…", "errors": [{"path": "limit", "reason": "…"}]}


def ok(example: object) -> dict[int | str, dict[str, Any]]:
    """The description of a good answer."""
    return {200: {"description": "The answer", "content": {"application/json": {"example": example}}}}


def docs_page(openapi: Mapping[str, Any]) -> str:
    """The addresses as one page without scripts; the whole description is openapi.json."""
    rows = "".join(
        f"<tr><td><code>{method.upper()} {escape(path)}</code><td>{escape(route.get('description', ''))}"
        for path, methods in openapi["paths"].items()
        for method, route in methods.items()
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Touchfold API</title>'
        "<style>body{font:16px system-ui;max-width:60rem;margin:2rem auto;padding:0 1rem}td{padding:.3rem 1rem .3rem 0;"
        "vertical-align:top}</style><h1>Touchfold API</h1><p>Send <code>Authorization: Bearer TOKEN</code> "
        "(<code>touchfold token create --role ROLE</code>). Bodies, parameters and examples: "
        f'<a href="openapi.json">openapi.json</a>.<table>{rows}</table></html>'
    )
