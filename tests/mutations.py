"""Requests for every route of the door, randomly broken in bytes, structure or values. Seeded and repeatable."""

import copy
import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple

from ingest.requests.bodies import PATHS

CAPTURES: Final = Path(__file__).parent / "data/segment_captures"
OTHER_PATHS: Final = ("/v1/", "/v1/nothing", "/v1/track/", "/projects/x/settings", "/pixel/v1/track", "/b/../v1/track")
SEEDS: Final[Sequence[dict[str, Any]]] = (
    {"type": "identify", "userId": "u-1", "traits": {"email": "ada@example.com", "name": "Ada", "plan": "pro"}},
    {"type": "identify", "userId": "u-2", "context": {"traits": {"phone": "+14155552671", "address": {"city": "Ulm"}}}},
    {
        "type": "track", "event": "Order Completed", "userId": "u-3",
        "properties": {
            "order_id": "O-1", "revenue": 420.5, "currency": "USD", "coupon": "X",
            "products": [{"product_id": "P", "price": 9.5, "quantity": 2}, {"sku": "S", "amount": "3.10"}],
        },
        "timestamp": "2026-11-22T01:42:09.965Z", "originalTimestamp": "2026-11-22T01:42:09.965Z",
    },
    {"type": "track", "event": "Order Refunded", "userId": "u-3", "properties": {"order_id": "O-1", "total": "5.00"}},
    {"type": "track", "event": "call.received", "userId": "u-4", "properties": {"phone": "(415) 555-2671"}},
    {"type": "page", "anonymousId": "a-1", "name": "Home", "properties": {"path": "/", "url": "https://x.example/?q=1"}},
    {"type": "screen", "anonymousId": "a-1", "name": "Start", "context": {"device": {"id": "d-1"}}},
    {"type": "group", "userId": "u-1", "groupId": "g-1", "traits": {"name": "Acme", "email": "info@acme.example"}},
    {"type": "alias", "userId": "u-1", "previousId": "a-1"},
    {
        "type": "track", "event": "Signed Up", "userId": "u-5", "messageId": "m-x", "sentAt": "2026-11-22T01:42:10Z",
        "context": {"externalIds": [{"type": "crm", "id": "c-1", "collection": "users", "encoding": "none"}]},
    },
)  # fmt: skip
WEIRD_NUMBERS: Final = (
    "0", "-0", "1e308", "-1e308", "1e-320", "0.1e1", "9007199254740993", "18446744073709551616", "1" + "0" * 400,
    "9" * 4400, "-" + "7" * 6000, "1e400", "NaN", "Infinity",
)  # fmt: skip
WEIRD: Final[Sequence[Callable[[Random], Any]]] = (
    lambda _: None,
    lambda _: True,
    lambda _: "",
    lambda _: " ",
    lambda _: [],
    lambda _: {},
    lambda _: "\0",
    lambda _: "a\0b@example.com",
    lambda _: "\ud800",
    lambda _: "😀" * 30,
    lambda _: "\u202eada@example.com",
    lambda _: "ﬀ@ﬀ.example",
    lambda _: "x@" + "ä" * 70 + ".example",
    lambda r: "x" * r.choice((511, 513, 8_192, 8_193)),
    lambda _: {"$token": "00" * 16, "$kind": "email"},
    lambda _: {"$token": {"$token": 1}},
    lambda _: {"": ""},
    lambda _: {"a.b": {"c.d": [{}]}},
    lambda _: [[[[]]], {"a": [None]}],
    lambda r: _nest(r.choice((30, 33, 100)), r),
    lambda r: [r.choice((1, "1", None, {"id": 1}, [1]))] * r.choice((1, 40, 400)),
    lambda r: {f"k{n}": n for n in range(r.choice((10, 1_001)))},
    lambda r: _Number(r.choice(WEIRD_NUMBERS)),
    lambda r: _Number(r.choice(WEIRD_NUMBERS)),
    lambda r: _Number(r.choice(WEIRD_NUMBERS)),
    lambda r: r.choice(
        ("2026-02-30T00:00:00Z", "0001-01-01", "9999-12-31T23:59:59+14:00", "1900-01-01T00:00:00-12:00")
    ),
    lambda r: r.choice(("USD", "usd", "EURO", "🤑", "XXX", "us\0")),
)
KEYS: Final = (
    "type", "userId", "anonymousId", "event", "name", "properties", "traits", "context", "messageId", "timestamp",
    "originalTimestamp", "sentAt", "email", "phone", "loyalty_card", "products", "order_id", "revenue", "currency",
    "externalIds", "device", "campaign", "previousId", "groupId", "channel", "integrations", "batch", "$token", "",
    "\0", "id", "price", "quantity", "step", "category", "library", "writeKey", "total", "__proto__", "page", "os",
)  # fmt: skip


class _Number(NamedTuple):
    """A number written to JSON exactly as spelled."""

    text: str


class Request(NamedTuple):
    """A request to the door. `sentinel`: the message id of a valid item in its batch."""

    path: str
    headers: dict[str, str]
    body: bytes
    sentinel: str | None


def _nest(depth: int, random: Random) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value} if random.random() < 0.5 else [value]
    return value


def corpus() -> list[dict[str, Any]]:
    """Items written by real SDKs and by hand."""
    found = [*SEEDS]
    for path in sorted(CAPTURES.glob("*.jsonl")):
        for line in path.read_text().splitlines()[:12]:
            text = json.loads(line)["body_text"]
            body = json.loads(text) if text else {}
            found += body.get("batch", [body] if "type" in body else [])[:3]
    return found


def request_of(number: int, random: Random, items: Sequence[dict[str, Any]], key: str) -> Request:
    """One request, broken to some degree."""
    path = random.choice([*PATHS, *PATHS, *OTHER_PATHS])
    headers = {"authorization": key, "content-type": random.choice(("application/json", "text/plain", "x/y"))}
    sentinel = None
    chosen = [
        _broken({**copy.deepcopy(random.choice(items)), "messageId": f"{number}-{n}"}, random)
        for n in range(random.randint(1, 4))
    ]
    if PATHS.get(path) == "batch" or random.random() < 0.1:
        sentinel = f"sentinel-{number}"
        sound = {"type": "track", "event": "Sound", "userId": f"s-{number}", "messageId": sentinel}
        chosen.insert(random.randint(0, len(chosen)), sound)
        body: Any = {"batch": chosen} | _envelope(random)
    else:
        body = chosen[0]
    data = encoded(body)
    if random.random() < 0.25:  # then nothing is guaranteed for the items next to the broken bytes
        data, sentinel = _bytes(data, random), None
    if random.random() < 0.1:
        data = gzip.compress(data)
        if random.random() < 0.3:
            data, sentinel = _bytes(data, random), None
        if random.random() < 0.7:
            headers["content-encoding"] = "gzip"
    elif random.random() < 0.02:
        headers["content-encoding"] = random.choice(("gzip", "br", "\xff"))
        sentinel = None
    if random.random() < 0.05:
        headers["sentat"] = random.choice(("now", "", "2026-11-22T01:42:10Z", "1e9"))
    return Request(path, headers, data, sentinel)


def _envelope(random: Random) -> dict[str, Any]:
    if random.random() < 0.7:
        return {}
    name = random.choice(("sentAt", "writeKey", "context", "integrations", "metadata"))
    value = random.choice(WEIRD)(random)
    if name == "context":  # if it is not an object, the whole batch is refused
        shallow = encoded(value).count(b"[") + encoded(value).count(b"{") < 20
        value = {random.choice(KEYS): value} if shallow and not _beyond(value) else {"library": {"name": "x"}}
    if name in ("sentAt", "writeKey", "integrations", "metadata") and _beyond(value):
        value = None
    return {name: value}


def _beyond(value: Any) -> bool:
    """Whether a value exceeds the limits of a body, so that the whole body is unreadable."""
    return len(encoded(value)) > 500 or isinstance(value, _Number) or "\ud800" in str(value)


def _broken(item: dict[str, Any], random: Random) -> Any:
    for _ in range(random.choice((0, 1, 1, 2, 3, 6))):
        places = list(_places(item))
        holder, step = random.choice(places)
        kind = random.random()
        if kind < 0.55:
            holder[step] = random.choice(WEIRD)(random)
        elif kind < 0.7:
            del holder[step]
        elif kind < 0.85 and isinstance(holder, dict):
            holder[random.choice(KEYS)] = holder.pop(step)
        elif isinstance(holder, dict):
            other, place = random.choice(places)
            holder[random.choice(KEYS)] = copy.deepcopy(other[place]) if random.random() < 0.5 else [holder[step]]
        if not item:
            return random.choice((item, None, 7, [], "x"))
    return item


def _places(value: Any) -> list[tuple[Any, Any]]:
    """(container, key or index) of everything inside."""
    found: list[tuple[Any, Any]] = []
    stack = [value]
    while stack and len(found) < 400:
        each = stack.pop()
        inside = each.items() if isinstance(each, dict) else enumerate(each) if isinstance(each, list) else ()
        for step, child in inside:
            found.append((each, step))
            stack.append(child)
    return found


def _bytes(data: bytes, random: Random) -> bytes:
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 5))):
        at = random.randrange(len(changed) + 1)
        end = min(len(changed), at + random.choice((1, 2, 9, 200)))
        kind = random.randrange(5)
        if kind == 0:
            changed[at:end] = b""
        elif kind == 1:
            changed[at:at] = bytes(random.randrange(256) for _ in range(random.choice((1, 3, 30))))
        elif kind == 2:
            changed[at:at] = changed[at:end]
        elif kind == 3 and at < len(changed):
            changed[at] ^= 1 << random.randrange(8)
        else:
            del changed[at:]
    return bytes(changed)


def encoded(value: Any) -> bytes:
    """JSON that may contain our odd numbers and lone surrogates."""
    if isinstance(value, _Number):
        return value.text.encode()
    if isinstance(value, dict):
        return b"{" + b",".join([json.dumps(k).encode() + b":" + encoded(v) for k, v in value.items()]) + b"}"
    if isinstance(value, list):
        return b"[" + b",".join([encoded(each) for each in value]) + b"]"
    return json.dumps(value).encode()
