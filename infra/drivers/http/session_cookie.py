"""The session cookie of the pages: its name, its attributes, and CSRF protection.

Strict and HttpOnly: no other site's link or script can send or read it. Secure if the browser came over HTTPS.
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
    """The session secret in a Cookie header; empty if there is none."""
    try:
        found = SimpleCookie(header).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""


def set_cookie(secret: str, age_s: int, *, secure: bool) -> str:
    """The Set-Cookie header; an age of 0 deletes the cookie."""
    ending = "; Secure" if secure else ""
    return f"{COOKIE}={secret}; Path=/; Max-Age={age_s}; HttpOnly; SameSite=Strict{ending}"


def csrf_token(secret: str) -> str:
    """The value for X-CSRF-Token: bound to the session, but does not reveal its secret."""
    return sha256(b"touchfold csrf " + secret.encode()).hexdigest()[:32]


def is_ours(origin: str, host: str) -> bool:
    """Whether an Origin header names the requested host; `null`, from a page without an origin, does not."""
    return bool(host) and urlsplit(origin).netloc == host


def from_our_pages(headers: Mapping[str, str], secret: str) -> bool:
    """Whether a request with this cookie is intentional: it has the CSRF token, or the browser says it is ours."""
    given = headers.get(CSRF_HEADER.lower())
    if given is not None:
        return hmac.compare_digest(given.encode(), csrf_token(secret).encode())
    return is_ours(headers.get("origin", ""), headers.get("host", ""))
