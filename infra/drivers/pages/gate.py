"""Access control: cookie sessions, the sign-in and welcome pages, security headers, the WebSocket's origin check.

The forms are plain HTML, so that signing in needs no script. Writes are accepted only from our own pages: the cookie is
SameSite=Strict, a POST or WebSocket must name our own origin, and one without an origin must not carry a cookie.
"""

import asyncio
from contextlib import suppress
from html import escape
from typing import Final
from urllib.parse import parse_qs, quote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from infra.adapters.postgres.people import LONGEST
from infra.drivers.http.asgi import answer
from infra.drivers.http.revocation import Watched
from infra.drivers.http.session_cookie import is_ours, secret_in, set_cookie
from infra.drivers.pages.services import Services, Viewer
from infra.drivers.pages.shell import FAREWELL_S, VIEWER
from schemas.errors import StoreUnavailable, TouchfoldError

MAX_FORM: Final = 10_000
_OPEN: Final = ("/_nicegui/", "/assets/", "/favicon.ico")
# NiceGUI writes its element tree as an inline script and Vue compiles templates: docs/decisions/0009-ui.md.
_POLICY: Final = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline';"
    " img-src 'self' data:; font-src 'self' data:; connect-src 'self'; object-src 'none'; base-uri 'self';"
    " form-action 'self'; frame-ancestors 'none'"
)
_SECURITY: Final = [
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=()"),
]
_PAGE: Final = """<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>{title} · Touchfold</title>
<link rel="stylesheet" href="/assets/touchfold.css"></head><body class="tf-auto"><main class="tf-sign">{body}</main>
</body></html>"""
_SIGN_IN: Final = """<form method="post" action="/sign-in"><div class="tf-line"><div class="tf-mark"></div>
<h1>Sign in to Touchfold</h1></div>{error}<input type="hidden" name="next" value="{next}">
<label>Name<input name="name" autocomplete="username" autocapitalize="none" autofocus></label>
<label>Password<input name="password" type="password" autocomplete="current-password"></label>
<details{opened}><summary>Use an API token instead</summary>
<label>Token<input name="token" type="password" autocomplete="off"></label></details>
<button type="submit">Sign in</button>
<p>No account? Ask an admin to create one on the Team page or with <code>touchfold user create</code>.</p></form>"""
_WELCOME: Final = """<form method="post"><div class="tf-line"><div class="tf-mark"></div><h1>Welcome, {name}</h1></div>
{error}<p>Choose a password of at least 10 characters. This link works once.</p>
<input type="hidden" name="username" value="{name}" autocomplete="username">
<label>New password<input name="password" type="password" autocomplete="new-password" autofocus minlength="10"></label>
<label>Once more<input name="again" type="password" autocomplete="new-password" minlength="10"></label>
<button type="submit">Set the password and sign in</button></form>"""
_USED: Final = """<div class="tf-box"><h1>This link has already been used</h1>
<p>Or it is more than 24 hours old. Ask an admin for a new one (<code>touchfold user link NAME</code>), or sign in.</p>
<p><a href="/sign-in">Sign in</a></p></div>"""


_MISSING: Final = """<div class="tf-box"><h1>Page not found</h1><p>The address may be mistyped or out of date.</p>
<p><a href="/">To the overview</a></p></div>"""
_BROKEN: Final = """<div class="tf-box"><h1>This page cannot be shown right now</h1>
<p>The log says why. Events and the API are not affected.</p><p><a href="/">To the overview</a></p></div>"""


def missing_page() -> bytes:
    """The response for a path without a page."""
    return _page("No such page", _MISSING)


def broken_page() -> bytes:
    """The response for an internal error, without details of what went wrong."""
    return _page("Error", _BROKEN)


class Gate:
    """An ASGI application around the pages."""

    def __init__(self, app: ASGIApp, services: Services) -> None:
        self._app = app
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        else:
            await self._http(scope, receive, _guarded(send))

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        viewer = await self._viewer(scope) if _from_us(scope) else None
        if viewer is None:
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return
        scope[VIEWER] = viewer
        with self._services.watch_session(viewer) as watched:
            socket = _Socket(receive, send, watched)
            await self._app(scope, socket.receive, socket.send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, method = scope["path"], scope["method"]
        if path.startswith(_OPEN) and method in {"GET", "HEAD"}:
            await self._app(scope, receive, send)
            return
        if method not in {"GET", "HEAD"} and not _from_us(scope):
            await _answer(send, 403, _page("Refused", "<div class='tf-box'><h1>Not from this page</h1></div>"))
            return
        if path == "/sign-in":
            await self._sign_in(scope, receive, send)
        elif path.startswith("/welcome/"):
            await self._welcome(scope, receive, send)
        elif path == "/sign-out" and method == "POST":
            await self._sign_out(scope, send)
        else:
            await self._page(scope, receive, send)

    async def _page(self, scope: Scope, receive: Receive, send: Send) -> None:
        viewer = await self._viewer(scope)
        if viewer is None:
            if scope["path"].startswith("/_nicegui_ws"):
                await _answer(send, 401, b"")
                return
            target = scope["path"] if scope["path"] != "/" else ""
            await _redirect(send, f"/sign-in?next={quote(target)}" if target else "/sign-in")
            return
        scope[VIEWER] = viewer
        await self._app(scope, receive, send)

    # --- signing in --------------------------------------------------------------------------------------------------

    async def _sign_in(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            wanted = parse_qs(scope["query_string"].decode("latin-1")).get("next", ["/"])[0]
            await _answer(send, 200, _sign_in_page(wanted))
            return
        form = await _form(receive)
        wanted, name, token = form.get("next", "/"), form.get("name", ""), form.get("token", "")
        now = self._services.session.door_clock.now()
        people = self._services.people
        try:
            address = _address(scope)
            if token:
                secret = await self._services.run(lambda: people.sign_in_with_token(token, now, address))
            else:
                password = form.get("password", "")
                secret = await self._services.run_password(lambda: people.sign_in(name, password, now, address))
        except TouchfoldError as err:
            await _answer(send, err.status, _sign_in_page(wanted, err.message), err.retry_after_s)
            return
        if secret is None:
            said = "This token is unknown, revoked or expired." if token else "The name or password is wrong."
            await _answer(send, 401, _sign_in_page(wanted, said, token=bool(token)))
            return
        try:
            await self._note(secret, "signed.in")
        except TouchfoldError as err:
            await _answer(send, err.status, _sign_in_page(wanted, err.message), err.retry_after_s)
            return
        await _redirect(send, _inside(wanted), _cookie(scope, secret))

    async def _note(self, secret: str, action: str) -> None:
        viewer = await self._services.who(secret)
        if viewer is not None:
            await self._services.note(viewer, action)

    async def _welcome(self, scope: Scope, receive: Receive, send: Send) -> None:
        link = scope["path"].removeprefix("/welcome/")
        now = self._services.session.door_clock.now()
        people = self._services.people
        name = await self._services.run(lambda: people.invited(link, now))
        if name is None:
            await _answer(send, 410, _page("Link used", _USED))
            return
        if scope["method"] != "POST":
            await _answer(send, 200, _page("Welcome", _WELCOME.format(name=escape(name), error="")))
            return
        form = await _form(receive)
        password = form.get("password", "")
        try:
            if password != form.get("again", ""):
                raise TouchfoldError("the two passwords do not match")
            secret = await self._services.run_password(lambda: people.accept(link, password, now))
            await self._note(secret, "password.set")
        except TouchfoldError as err:
            page = _page("Welcome", _WELCOME.format(name=escape(name), error=_error(err.message)))
            await _answer(send, err.status if err.status in {429, 503} else 400, page, err.retry_after_s)
            return
        await _redirect(send, "/", _cookie(scope, secret))

    async def _sign_out(self, scope: Scope, send: Send) -> None:
        viewer = await self._viewer(scope)
        if viewer is not None:
            now = self._services.session.door_clock.now()
            await self._services.run(lambda: self._services.people.sign_out(viewer.secret, now))
            with suppress(
                StoreUnavailable
            ):  # the audit entry is still to be written; the session has ended all the same
                await self._services.note(viewer, "signed.out")
        await _redirect(send, "/sign-in", _cookie(scope, ""))

    async def _viewer(self, scope: Scope) -> Viewer | None:
        secret = _secret(scope)
        return await self._services.who(secret) if secret else None


class _Socket:
    """A WebSocket that ends shortly after its session, so that the page can still be told to reload."""

    def __init__(self, receive: Receive, send: Send, watched: Watched[str]) -> None:
        self._receive = receive
        self._send = send
        self._watched = watched
        self._closed = False
        self._next: asyncio.Task[Message] | None = None

    async def receive(self) -> Message:
        if self._next is None:
            self._next = asyncio.ensure_future(self._receive())
        over = asyncio.ensure_future(self._watched.wait())
        try:
            await asyncio.wait({self._next, over}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._next.cancel()
            raise
        finally:
            over.cancel()
        if not self._watched.over:
            message, self._next = self._next.result(), None
            return message
        self._next.cancel()
        await asyncio.sleep(FAREWELL_S)
        if not self._closed:
            self._closed = True
            await self._send({"type": "websocket.close", "code": 1008})
        return {"type": "websocket.disconnect", "code": 1008}

    async def send(self, message: Message) -> None:
        if not self._closed:
            await self._send(message)


def _secret(scope: Scope) -> str:
    return secret_in(dict(scope["headers"]).get(b"cookie", b"").decode("latin-1"))


def _cookie(scope: Scope, secret: str) -> str:
    """The session cookie; without a secret, one that ends the session."""
    secure = dict(scope["headers"]).get(b"x-forwarded-proto") == b"https"
    return set_cookie(secret, int(LONGEST.total_seconds()) if secret else 0, secure=secure)


def _from_us(scope: Scope) -> bool:
    """Browsers name the origin of every POST and WebSocket; a client that names none may not use a cookie."""
    headers = dict(scope["headers"])
    origin, host = headers.get(b"origin", b"").decode("latin-1"), headers.get(b"host", b"").decode("latin-1")
    return is_ours(origin, host) if origin else not _secret(scope)


def _address(scope: Scope) -> str:
    """The client's address as the door saw it (`pages_proxy`); nothing else can reach our socket."""
    headers: dict[bytes, bytes] = dict(scope["headers"])
    return headers.get(b"x-forwarded-for", b"").decode("latin-1")[:100]


def _inside(target: str) -> str:
    """A path of ours, never another site: browsers drop tabs and newlines, and read `/<tab>/host` as `//host`."""
    ours = target.startswith("/") and not target.startswith(("//", "/\\")) and target.isprintable()
    return target if ours else "/"


async def _form(receive: Receive) -> dict[str, str]:
    body = b""
    while len(body) <= MAX_FORM:
        message = await receive()
        if message["type"] == "http.disconnect":
            return {}
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    parsed = parse_qs(body[:MAX_FORM].decode(errors="replace"), keep_blank_values=True)
    return {key: values[0] for key, values in parsed.items()}


def _error(text: str) -> str:
    return f'<div class="tf-error" role="alert">{escape(text)}</div>'


def _sign_in_page(wanted: str, error: str = "", *, token: bool = False) -> bytes:
    body = _SIGN_IN.format(
        error=_error(error) if error else "", next=escape(_inside(wanted)), opened=" open" if token else ""
    )
    return _page("Sign in", body)


def _page(title: str, body: str) -> bytes:
    return _PAGE.format(title=title, body=body).encode()


async def _answer(send: Send, status: int, page: bytes, retry_after_s: int | None = None) -> None:
    again = [] if retry_after_s is None else [(b"retry-after", str(retry_after_s).encode())]
    await answer(send, status, page, b"text/html; charset=utf-8", *again)


async def _redirect(send: Send, target: str, cookie: str = "") -> None:
    headers = [(b"location", target.encode()), (b"content-length", b"0"), (b"cache-control", b"no-store")]
    if cookie:
        headers.append((b"set-cookie", cookie.encode()))
    await send({"type": "http.response.start", "status": 303, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


def _guarded(send: Send) -> Send:
    """Every answer carries the security headers."""

    async def with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *_SECURITY]}
        await send(message)

    return with_headers
