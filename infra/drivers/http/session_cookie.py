"""The cookie of a session of the pages: its name, its attributes, and which requests were meant with it.

Strict and HttpOnly: no other site's link or script sends or reads it. Secure where the browser came by HTTPS.
"""

import hmac
from collections.abc import Mapping
from hashlib import sha256
from http.cookies import CookieError, SimpleCookie
from typing import Final
from urllib.parse import urlsplit

COOKIE: Final = "touchfold_session"
CSRF_HEADER: Final = "X-CSRF-Token"


def secret_in(header: str) -> str:
    """Of a Cookie header; empty where there is none."""
    try:
        found = SimpleCookie(header).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""


def set_cookie(secret: str, age_s: int, *, secure: bool) -> str:
    """The Set-Cookie header; an age of 0 takes the cookie away."""
    ending = "; Secure" if secure else ""
    return f"{COOKIE}={secret}; Path=/; Max-Age={age_s}; HttpOnly; SameSite=Strict{ending}"


def csrf_token(secret: str) -> str:
    """What a page sends in X-CSRF-Token: bound to its session, and no way back to the session's secret."""
    return sha256(b"touchfold csrf " + secret.encode()).hexdigest()[:32]


def is_ours(origin: str, host: str) -> bool:
    """Whether an Origin header names the host that was asked; `null`, of a page without an origin, names none."""
    return bool(host) and urlsplit(origin).netloc == host


def from_our_pages(headers: Mapping[str, str], secret: str) -> bool:
    """Whether a request with this cookie was meant: it has the session's token, or the browser says it is ours."""
    given = headers.get(CSRF_HEADER.lower())
    if given is not None:
        return hmac.compare_digest(given.encode(), csrf_token(secret).encode())
    return is_ours(headers.get("origin", ""), headers.get("host", ""))
