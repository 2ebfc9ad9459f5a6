"""The door's routes: turns a request into items for acceptance, and their outcome into a reply. Owns no socket.

SDKs treat only 200 as success, and error bodies must contain `code` and `message`.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Final, NamedTuple

import msgspec

from ingest.accept.calls import Accepted, Call, SourceRules
from ingest.requests.bodies import METRICS, call_of, is_import, query_of, read_body, time_or_none, write_key_of
from schemas.errors import (
    Forbidden,
    InvalidWriteKey,
    NotFound,
    Problem,
    SourceOff,
    StoreUnavailable,
    TooMany,
    TouchfoldError,
)
from schemas.sources import KEY_PREFIX, Source, Sources

Headers = tuple[tuple[bytes, bytes], ...]

_JSON: Final = (b"content-type", b"application/json")
_SUCCESS: Final = b'{"success":true}'
_ALLOWED: Final = (
    "Authorization, Content-Type, Content-Encoding, X-Retry-Count, AnonymousId, SentAt, X-Write-Key, X-IP-Policy, "
    "Rsa-Retry-Attempt, Rsa-Since-Last-Attempt, Rsa-Since-First-Attempt, Rsa-Retry-Reason, Rsa-Recovered"
)
_ASKED: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")  # a header's name
_MAX_ASKED: Final = 100
_PREFLIGHT: Final[Headers] = (
    (b"access-control-allow-methods", b"GET, POST, HEAD, OPTIONS"),
    (b"access-control-max-age", b"7200"),  # the longest Chromium caches it
    (b"content-length", b"0"),
)
_RETRY_AFTER_S: Final = 1


class HttpRequest(NamedTuple):
    """One complete request. Header names are lower case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    base: str = ""  # our address as the sender sees it, such as https://cdp.shop.example


class Reply(NamedTuple):
    status: int
    headers: Headers
    body: bytes


class Job(NamedTuple):
    """A request with items to accept."""

    call: Call
    source: Source
    with_results: bool
    origin: str | None


def open_request(request: HttpRequest, sources: Sources, received_at: datetime) -> Job | Reply:
    """The items of a request and their source, or the answer if there is nothing to accept.

    Raises a TouchfoldError for `error_reply`: the fault in the request, or StoreUnavailable.
    """
    call = call_of(request.path)
    origin = request.headers.get("origin")
    if call is None or request.method != "POST":
        raise nothing_here(request.method)
    if call == METRICS:
        return success(origin)
    query = query_of(request.query)
    gzip = "gzip" in request.headers.get("content-encoding", "")
    body = read_body(request.body, call, gzip=gzip)
    source = authenticate(write_key_of(request.headers, body, query), sources)
    if origin is not None and source.origins and origin not in source.origins:
        raise Forbidden("this source does not accept requests from this origin", [Problem("Origin", "not listed")])
    sent_at = body.sent_at or time_or_none(request.headers.get("sentat"))
    rules = SourceRules(source.name, sources.declared())
    trusted = source.trusted_clock or is_import(request.path)
    return Job(
        Call(body.items, rules, received_at, sent_at, body.defaults, False, trusted),
        source,
        query.get("results") in ("true", "1"),
        origin,
    )


def nothing_here(method: str) -> NotFound:
    return NotFound(
        "there is nothing at this path: POST to /v1/track, identify, page, screen, group, alias or batch; docs/sdks.md "
        "says what SDKs can GET",
        [Problem("", f"no {method} here")],
    )


def authenticate(write_key: str | None, sources: Sources) -> Source:
    """The source of a write key. Raises InvalidWriteKey, SourceOff, StoreUnavailable."""
    if write_key is None:
        raise InvalidWriteKey(
            "the request has no write key: send it as the user name of Basic authentication, as writeKey in the "
            "body or the query, or in X-Write-Key"
        )
    source = sources.find(write_key) if ":" not in write_key else _of_two_parts(write_key, sources)
    if source is None:
        raise InvalidWriteKey("the write key is unknown or was revoked: see touchfold source list")
    if not source.enabled:
        raise SourceOff("this source is switched off: an admin can switch it on (touchfold source set NAME --enable)")
    return source


def _of_two_parts(write_key: str, sources: Sources) -> Source | None:
    """Jitsu's SDKs insist on `id:secret`: one of the two is the write key."""
    id_, _, secret = write_key.partition(":")
    parts = sorted(filter(None, (id_, secret)), key=lambda part: not part.startswith(KEY_PREFIX))
    return next((source for part in parts if (source := sources.find(part)) is not None), None)


def answer(job: Job, accepted: Accepted) -> Reply:
    """The reply to a request whose items are stored."""
    if not job.with_results:
        return success(job.origin)
    results = [result._asdict() for result in accepted.results]
    return Reply(200, _headers(job.origin), msgspec.json.encode({"success": True, "results": results}))


def success(origin: str | None) -> Reply:
    return Reply(200, _headers(origin), _SUCCESS)


def error_reply(err: TouchfoldError, origin: str | None) -> Reply:
    """The standard error body, with Retry-After if trying again helps."""
    headers = _headers(origin)
    if isinstance(err, StoreUnavailable | TooMany) or err.status == 503:
        wait = str(err.retry_after_s or _RETRY_AFTER_S).encode()
        headers = (*headers, (b"retry-after", wait))
    return Reply(err.status, headers, msgspec.json.encode(err.body()))


def preflight(headers: Mapping[str, str]) -> Reply:
    """The answer to OPTIONS: the same for every path and source, because the write key is not known yet.

    Whatever headers the page asks for are allowed: tracing adds its own to every request of a site, and one that is
    not allowed loses them all. `*` would not do with credentials.
    """
    asked = headers.get("access-control-request-headers", "").split(",")
    known = {name.lower() for name in _ALLOWED.split(", ")}
    more = {name.lower(): name for each in asked[:_MAX_ASKED] if _ASKED.fullmatch(name := each.strip())}
    allowed = ", ".join([_ALLOWED, *[name for lower, name in more.items() if lower not in known]])
    return Reply(
        204,
        (*cors(headers.get("origin")), *_PREFLIGHT, (b"access-control-allow-headers", allowed.encode("latin-1"))),
        b"",
    )


def _headers(origin: str | None) -> Headers:
    return (_JSON, *cors(origin)) if origin else (_JSON,)


def cors(origin: str | None) -> Headers:
    """What lets a page of an origin read the answer; nothing for a sender that is no browser."""
    if not origin:
        return ()
    return (
        (b"access-control-allow-origin", origin.encode("latin-1", "replace")),
        (b"access-control-allow-credentials", b"true"),
        (b"vary", b"Origin"),
    )
