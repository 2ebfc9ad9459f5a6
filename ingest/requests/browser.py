"""What SDKs ask for before they send, and pixels: GET requests to the door. Pure: path and query in, replies out.

Browser SDKs start only with settings of the form they know; an image in an e-mail can only ask for an address.
"""

import binascii
import re
from base64 import b64decode
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl

import msgspec

from ingest.accept.canonical import MAX_DEPTH
from ingest.requests.bodies import CALLS, LONGEST_PATH, plain_path, query_of, write_key_of
from ingest.requests.routes import HttpRequest, Reply, authenticate, cors, error_reply, nothing_here
from schemas.errors import BadRequest, InvalidWriteKey, Problem, SourceOff
from schemas.sources import Sources

SETTINGS: Final = "settings"  # of analytics-next and Segment's mobile SDKs; `value` is the write key
CONFIG: Final = "config"  # of RudderStack's SDKs
PIXEL: Final = "pixel"  # `value` is the call
SCRIPT: Final = "script"  # `value` is the file: analytics.min.js, or a part that it loads
VERSION: Final = "version"
_FORMS: Final = (
    (SETTINGS, re.compile(r"((?:/[^/]+)*?)(?:/v1)*(?:/projects)+/([^/]{1,200})/settings")),
    (CONFIG, re.compile(r"((?:/[^/]+)*?)()/sourceConfig")),
    (PIXEL, re.compile(r"((?:/[^/]+)*?)(?:/v1/pixel|/pixel/v1|/pixel)/([a-z]+)(?:\.gif)?")),
    (SCRIPT, re.compile(r"((?:/[^/]+)*?)/analytics\.js/v1/[^/]{1,200}/(?:platform/)?(analytics(?:\.[a-z]+)?\.js)")),
    (SCRIPT, re.compile(r"((?:/[^/]+)*?)/analytics-next/bundles/([\w.-]{1,200}\.js)")),
    (SCRIPT, re.compile(r"()(?:/api/s|/s)?/((?:p|lib)\.js)")),
    (VERSION, re.compile(r"()()(?:/v1)?/version")),
)
_ENDS: Final = ("/settings", "/sourceConfig", "/version", ".js")
GIF: Final = bytes.fromhex("47494638396101000100800000000000ffffff21f90401000000002c00000000010001000002024401003b")
SETTINGS_LIVE_S: Final = 60  # a browser keeps settings this long; a source that is switched off is known after it
_NOT_KEPT: Final = (b"cache-control", b"no-store")
_KEPT: Final = ((b"cache-control", b"private, max-age=%d" % SETTINGS_LIVE_S), (b"vary", b"Origin"))
_OF_ANY_SITE: Final = ((b"access-control-allow-origin", b"*"), (b"cross-origin-resource-policy", b"cross-origin"))
_JSON: Final = (b"content-type", b"application/json")
_MOST_FIELDS: Final = 500


class Page(NamedTuple):
    """What a GET to the door asks for. `prefix`: the path of a proxy before it, such as `/rudder`."""

    kind: str
    value: str
    prefix: str


def page_of(path: str) -> Page | None:
    """None: nothing that the door answers to a GET."""
    if len(path) > LONGEST_PATH:
        return None
    path = plain_path(path)
    if "/pixel/" not in path and not path.endswith(_ENDS):
        return None
    for kind, form in _FORMS:
        if (found := form.fullmatch(path)) is not None:
            return Page(kind, found[2], found[1])
    return None


# ---------------------------------------------------------------- settings


def open_page(request: HttpRequest, page: Page, sources: Sources) -> Reply:
    """The answer to an SDK that starts: its settings, or why there are none, with the status that it understands.

    Raises StoreUnavailable.
    """
    origin = request.headers.get("origin")
    if page.kind not in (SETTINGS, CONFIG):
        raise nothing_here(request.method)
    query = query_of(request.query)
    try:
        if page.kind == SETTINGS:
            authenticate(page.value, sources)
            return _json(segment_settings(page.value, request.base + page.prefix), origin)
        key = write_key_of(request.headers, None, query)
        return _json(source_config(key or "", enabled=_is_on(key, sources)), origin)
    except InvalidWriteKey as err:
        # Segment's answer to an unknown key is 404. RudderStack's is 400: at another status its mobile SDKs try again
        reply = error_reply(err, origin)
        return Reply(404 if page.kind == SETTINGS else 400, (*reply.headers, _NOT_KEPT), reply.body)


def _is_on(write_key: str | None, sources: Sources) -> bool:
    try:
        authenticate(write_key, sources)
    except SourceOff:
        return False
    return True


def _json(value: object, origin: str | None) -> Reply:
    headers = (_JSON, *_KEPT, *(each for each in cors(origin) if each[0] != b"vary"))
    return Reply(200, headers, msgspec.json.encode(value))


def segment_settings(write_key: str, base: str) -> dict[str, Any]:
    """The smallest settings with which analytics-next and Segment's mobile SDKs start. `base`: our address."""
    protocol, _, host = base.partition("://")
    enabled = {"__default": {"enabled": True, "integrations": {}}}
    return {
        "integrations": {
            "Segment.io": {
                "apiKey": write_key,
                "apiHost": f"{host}/v1",
                "protocol": protocol,
                "unbundledIntegrations": [],
                "addBundledMetadata": True,
                "maybeBundledConfigIds": {},
                "versionSettings": {"version": "4.4.7", "componentTypes": ["browser"]},
            }
        },
        "plan": dict.fromkeys(("track", "identify", "group"), enabled),
        "edgeFunction": {},
        "analyticsNextEnabled": True,
        "middlewareSettings": {},
        "enabledMiddleware": {},
        "metrics": {"sampleRate": 0},
        "legacyVideoPluginsEnabled": False,
        "remotePlugins": [],
    }


def source_config(write_key: str, *, enabled: bool) -> dict[str, Any]:
    """What RudderStack's SDKs for browsers and phones ask for before they start."""
    off = {"enabled": False}
    return {
        "isHosted": True,
        "source": {
            "id": "touchfold",
            "name": "touchfold",
            "writeKey": write_key,
            "enabled": enabled,
            "workspaceId": "touchfold",
            "config": {"statsCollection": {"errors": off, "metrics": off}},
            "metricsConfig": {"statsCollection": {"errors": off, "metrics": off}},
            "connections": [],
            "destinations": [],
            "createdAt": "2026-01-01T00:00:00.000Z",
            "updatedAt": "2026-01-01T00:00:00.000Z",
        },
    }


# ---------------------------------------------------------------- pixels


def pixel_request(request: HttpRequest, page: Page) -> HttpRequest:
    """The POST that a pixel stands for. Raises BadRequest if its data cannot be read, NotFound for an unknown call."""
    call = CALLS.get(page.value)
    if call is None:
        raise nothing_here(request.method)
    fields = _fields(request.query)
    data = fields.pop("data", None)
    if data is not None:
        key = fields.get("writeKey") or fields.get("writekey")
        query = "" if key is None else request.query
        return request._replace(method="POST", path=f"/v1/{call}", query=query, body=_decoded(data))
    item: dict[str, Any] = {}
    for path, text in fields.items():
        _put(item, path.split(".", MAX_DEPTH - 2), text)
    if "writekey" in item:
        item.setdefault("writeKey", item.pop("writekey"))
    return request._replace(method="POST", path=f"/v1/{call}", query="", body=msgspec.json.encode(item))


def _fields(query: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, max_num_fields=_MOST_FIELDS)
    except ValueError as err:
        raise BadRequest("the query of the pixel cannot be read", [Problem("", "has too many fields")]) from err
    found: dict[str, str] = {}
    for name, text in pairs:
        found.setdefault(name, text)
    return found


def _decoded(data: str) -> bytes:
    """Base64 of either alphabet, with or without padding; a `+` may have become a space. Or the JSON itself."""
    text = data.strip()
    if text.startswith("{"):
        return text.encode()
    text = text.replace(" ", "+").replace("+", "-").replace("/", "_").rstrip("=")
    try:
        return b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as err:
        raise BadRequest("the data of the pixel is not base64", [Problem("data", "is not base64")]) from err


def _put(item: dict[str, Any], path: list[str], text: str) -> None:
    """Put a text at `properties.subject`; where a text stands on the way already, the first one counts."""
    for step in path[:-1]:
        inner = item.setdefault(step, {})
        if not isinstance(inner, dict):
            return
        item = inner
    item.setdefault(path[-1], text)


def as_gif(reply: Reply) -> Reply:
    """The image, whatever happened: readers of a mail see no broken picture. A status from 429 on says: not stored."""
    status = reply.status if reply.status >= 429 else 200
    headers = [(b"content-type", b"image/gif"), _NOT_KEPT, *_OF_ANY_SITE]
    if reply.status != 200:
        headers.append((b"touchfold-refused", str(msgspec.json.decode(reply.body)["code"]).encode()))
    headers += [each for each in reply.headers if each[0] == b"retry-after"]
    return Reply(status, tuple(headers), GIF)
