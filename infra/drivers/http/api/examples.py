"""Examples for the API's description. Data only."""

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
            "flags": [],
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
SQL_QUEUE: Final = {
    "running": 2,
    "waiting": 3,
    "yours": [{"id": 7, "statement": "select count(*) from events", "place": 1, "for_s": 0.4}],
}
ACTION: Final[dict[str, Any]] = {"action": "call", "direction": "in", "topic": "delivery", "text": "asked for Friday"}
ACTED: Final = {"event_id": _EVENT_ID}
DETAILS: Final = {
    **PROFILE,
    "version": 9,
    "stage": "Bought before, and not for longer than usual",
    "measures": {"lifetime_revenue": {"unit": "money", "description": "Revenue of all orders, net of refunds"}},
    "trait_details": {
        "city": {"source": "shop", "at": "2026-05-01T10:00:00Z", "corrected": False, "by": None, "type": None}
    },
    "reasons": [{"code": "unresolved_complaint", "points": 2, "description": "A complaint is open"}],
    "explained": [
        {
            "name": "repeat_customers",
            "description": "Two orders or more, ever",
            "sentence": "Customers whose lifetime orders is at least 2.",
            "values": {"lifetime_orders": 3},
        }
    ],
}
TREND: Final = {
    "name": "repeat_customers",
    "items": [{"day": "2026-04-30", "size": 808}, {"day": "2026-05-01", "size": 812}],
}
EXPORT: Final = f"id,name,email,phone,since,lifecycle,risk,last_purchase_at,last_seen_at\r\n{_ID},Ada Lovelace,…\r\n"
ARRIVED: Final = {
    "items": [
        {
            "id": _EVENT_ID,
            "message_id": "m-17",
            "partition": 2,
            "offset": 4711,
            "source": "shop",
            "type": "purchase.completed",
            "name": "Order Completed",
            "received_at": "2026-05-01T10:00:01Z",
            "occurred_at": "2026-05-01T10:00:00Z",
            "result": "applied",
            "violations": [],
            "sealed_names": ["properties.remark"],
            "properties": {"order_id": "o-3", "revenue": "40.50", "currency": "USD"},
            "context": {"channel": "web"},
        }
    ]
}
STATUS: Final[dict[str, object]] = {
    "ready": True,
    "lag": 0,
    "accepted": 104211,
    "applied": 104211,
    "decided": 104211,
    "dead_letters": 3,
    "archived": 100000,
    "archive_files": 84,
    "archive_merges_waiting": 0,
    "archive_rewrites_waiting": 0,
    "waiting": [],
}
OPERATIONS: Final[dict[str, object]] = {
    "accepted": 104211,
    "applied": 104211,
    "waiting": 0,
    "dead_letters": 3,
    "unmatched": 0,
    "erased": 12,
    "watermark_age_s": 0.4,
    "building": None,
    "unindexed": 0,
    "database_bytes": 402653184,
    "revision": 1,
    "due": 310,
    "profiles": 2004,
    "unreadable_amounts": 2,
    "missing_rates": {"JPY": 3},
    "archived": 100000,
    "archive_bytes": 18874368,
    "archive_files": 84,
    "archive_merging": 0,
    "archive_rewriting": 0,
    "archive_trouble": None,
    "disk_free": 0.61,
    "vault_lease": True,
    "partitions_waiting": [],
}
_FIGURE: Final = {"now": 120, "before": 100, "change": 0.2}
OVERVIEW: Final = {
    "days": 30,
    "first": "2026-04-02",
    "last": "2026-05-01",
    "made_at": "2026-05-01T10:00:02Z",
    "as_of": "2026-05-01T10:00:00Z",
    "currency": "USD",
    "customers": 2004,
    "new_customers": _FIGURE,
    "orders": _FIGURE,
    "revenue": {"now": "5210.5000", "before": "4000.0000", "change": 0.302625},
    "average_order": {"now": "43.42", "before": "40.00", "change": 0.0855},
    "repeat_rate": {"now": "0.31", "before": "0.29", "change": 0.069},
    "events": _FIGURE,
    "at_risk_value": "812.0000",
    "at_risk_missing": 0,
    "missing_rates": [{"currency": "JPY", "orders": 3, "refunds": 0, "amount": "12000.0000"}],
    "unreadable_amounts": 2,
    "unknown_customers": 0,
    "by_day": [{"day": "2026-05-01", "orders": 4, "revenue": "170.0000"}],
    "by_family": [{"family": "web", "events": 9120}],
}
LETTER: Final = {
    "id": "0d2c9f0e-6a0e-4f0f-9d34-0a3b8e0c7a55",
    "stage": "door",
    "rule": "too_deep",
    "path": "properties.a",
    "reason": "deeper than 32",
    "source": "web",
    "received_at": "2026-05-01T10:00:01Z",
    "event_id": None,
    "remedy": "fix what the reason names at the sender and send it again from there",
}
LETTER_SHOWN: Final = {**LETTER, "state": "open"}
RECORD: Final = {
    "partition": 2,
    "offset": 17,
    "bytes": 412,
    "version": 2,
    "reads": 1,
    "received_at": "2026-05-01T10:00:01Z",
    "state": "waiting",
    "code": "reader_too_old",
    "reason": "touchpoint v2; this build reads v1",
}
RECORD_PASSED: Final = {name: RECORD[name] for name in ("partition", "offset", "code", "reason")}
RETRIED: Final[dict[str, Any]] = {"accepted": 1, "refused": [], "gone": 0, "remedies": []}
ME: Final = {"name": "ada", "role": "staff", "rights": ["act", "personal", "read"], "csrf_token": "6f0c…"}
SOURCE: Final = {"name": "web", "created_at": "2026-05-01T08:00:00Z", "keys": 1, "settings": {}, "blocked": [
    {"kind": "user_id", "rule": "word", "value": "not set", "events": 412, "last_at": "2026-05-03T09:14:00Z"}
]}  # fmt: skip
CURL: Final = (
    "curl -sS {url}/v1/track -u {key}: -H 'Content-Type: application/json' -d '"
    '{{"userId": "ada-1", "event": "Order Completed", '
    '"properties": {{"order_id": "O-1", "revenue": 42.5, "currency": "USD"}}}}\''
)
KEY: Final = {"name": "web", "write_key": "wk_…", "curl": CURL.format(url="http://127.0.0.1:8700", key="wk_…")}
KEYS_ENDED: Final = {"name": "web", "revoked": 1}
SOURCE_SETTINGS: Final[dict[str, Any]] = {"events_per_s": 100, "burst": 500, "origins": ["https://shop.example"]}
SOURCE_CHANGED: Final = {"name": "web", "settings": SOURCE_SETTINGS}
TOKEN: Final = {"id": "3f9a01bc", "role": "analyst", "created_at": "2026-05-01T08:00:00Z", "revoked_at": None,
                "expires_at": "2026-08-01T08:00:00Z"}  # fmt: skip
TOKEN_MADE: Final = {"id": "3f9a01bc", "token": "tf_…", "role": "analyst", "expires_at": "2026-08-01T08:00:00Z"}
TOKEN_ENDED: Final = {"id": "3f9a01bc", "revoked": True}
PERSON: Final = {
    "name": "ada",
    "role": "staff",
    "state": "active",
    "created_at": "2026-05-01T08:00:00Z",
    "seen_at": "2026-05-01T10:00:00Z",
}
INVITED: Final = {"name": "ada", "role": "staff", "link": "http://127.0.0.1:8700/welcome/…"}
LINKED: Final = {"name": "ada", "link": "http://127.0.0.1:8700/welcome/…"}
PERSON_ROLE: Final = {"name": "ada", "role": "marketer"}
DISABLED: Final = {"name": "ada", "disabled": True}
AUDIT: Final = {
    "items": [
        {
            "seq": 41,
            "at": "2026-05-01T10:00:00Z",
            "who": "ada",
            "role": "staff",
            "action": "profile.viewed",
            "profile_id": _ID,
            "detail": {},
        }
    ],
    "next": 41,
}
VERIFIED: Final = {"whole": True, "problems": [], "head": {"seq": 41, "hash": "9b1d…"}}
ERASURE: Final[dict[str, Any]] = {"kind": "email", "value": "ada@example.com", "force": False, "suppress": False}
ERASED: Final = {"found": True, "identifiers": 5, "events": 41, "receipt": {"id": _EVENT_ID}, "others": "texts of …"}
_LIST: Final = "0b8f5a7e-3f43-4f0e-9a55-1d2f3c4b5a69"
ERASURES: Final[dict[str, Any]] = {"people": [{"kind": "email", "value": "ada@example.com"}], "suppress": False}
ERASURES_BEGUN: Final = {"id": _LIST, "people": 1}
ERASURES_STATE: Final = {
    **{"id": _LIST, "state": "done", "people": 1, "erased": 1, "same": 0, "unknown": 0, "refused": 0, "malformed": 0}
}
ERASURES_RECEIPT: Final = '{"line": 1, "found": true, "identifiers": 5, "events": 41, "receipt": {…}}'
EVENT: Final = {"id": _EVENT_ID, "status": "applied", "reason": None, "profile_id": _ID, "duplicates": 0}

ERRORS: Final = (
    (400, "The request does not match this documentation; `errors` says where and why", "bad_request"),
    (401, "No token, or it is unknown or revoked, or the session has ended", "unauthorized"),
    (403, "The role may not do this, or a request with a cookie did not come from our pages", "forbidden"),
    (404, "Not found", "not_found"),
    (409, "Refused for now; `errors` says why (erasure only)", "erasure_refused"),
    (410, "It existed and was erased", "erased"),
    (429, "Too many requests from this caller or address; try again after Retry-After seconds", "too_many_requests"),
    (503, "A backend is unavailable; try again after Retry-After seconds", "unavailable"),
)


def error(code: str) -> dict[str, Any]:
    """An error in the common format."""
    return {"success": False, "code": code, "message": "…", "errors": [{"path": "limit", "reason": "…"}]}


def ok(example: object) -> dict[int | str, dict[str, Any]]:
    """The description of a successful response."""
    return {200: {"description": "Success", "content": {"application/json": {"example": example}}}}
