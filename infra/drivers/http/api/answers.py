"""The API's response and error format, and the middleware for every request."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from infra.app.log_lines import described
from schemas.errors import BadRequest, Problem, StoreUnavailable, TooLarge, TouchfoldError

log = logging.getLogger("touchfold.api")

MAX_BODY_BYTES: Final = 1_048_576
ENCODER: Final = msgspec.json.Encoder()


def answer(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """JSON that must not be cached."""
    headers = {"Cache-Control": "no-store", **(headers or {})}
    return Response(ENCODER.encode(content), status, headers, "application/json")


def handle_errors(app: FastAPI) -> None:
    """Handle every error in the common format."""

    async def ours(_request: Request, err: Exception) -> Response:
        assert isinstance(err, TouchfoldError), "registered for these"
        return told(err)

    async def invalid(_request: Request, err: Exception) -> Response:
        assert isinstance(err, RequestValidationError), "registered for these"
        problems = [Problem(_path(each["loc"]), str(each["msg"])) for each in err.errors()]
        return told(BadRequest("the request does not match the API documentation", problems))

    async def http(_request: Request, err: Exception) -> Response:
        assert isinstance(err, HTTPException), "registered for these"
        code, message = _HTTP.get(err.status_code, ("bad_request", "the request cannot be read"))
        body = {"success": False, "code": code, "message": message, "errors": []}
        return answer(body, err.status_code, err.headers)

    async def unexpected(_request: Request, err: Exception) -> Response:
        log.error("internal error: %s", described(err, err.__traceback__))
        return told(TouchfoldError(""))

    app.add_exception_handler(TouchfoldError, ours)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, unexpected)


_HTTP: Final = {
    404: ("not_found", "there is nothing at this address: see /api/v1/openapi.json"),
    405: ("method_not_allowed", "this address does not take this method: see /api/v1/openapi.json"),
}


def told(err: TouchfoldError) -> Response:
    """The response for an error."""
    headers: dict[str, str] = {}
    if err.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if err.retry_after_s is not None:
        headers["Retry-After"] = str(err.retry_after_s)
    if err.status == 500:
        if type(err) is not TouchfoldError:  # others are logged already
            log.error("%s: %s", err.code, err.message)
        err = TouchfoldError("internal error; see the log of the HTTP process")
    return answer(err.body(), err.status, headers)


def _path(loc: tuple[int | str, ...]) -> str:
    """`sql` for ("body", "sql"): the name alone says where it was."""
    return ".".join(str(step) for step in loc[1:])


class Stopping:
    """ASGI middleware: answer a request cut off by shutdown with 503 instead of logging an error."""

    def __init__(self, app: ASGIApp, stopping: Callable[[], bool]) -> None:
        self._app = app
        self._stopping = stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def seen(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, seen)
        except asyncio.CancelledError:
            if not self._stopping():
                raise
            if not begun:
                await told(StoreUnavailable("the server is shutting down: try again", retry_after_s=2))(
                    scope, receive, send
                )


class BodyLimit:
    """ASGI middleware: refuse a body over `most` bytes before reading it, or as soon as it turns out longer."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self._most:
            await told(self._refusal())(scope, receive, send)
            return
        await self._app(scope, self._counted(receive), send)

    def _counted(self, receive: Receive) -> Callable[[], Awaitable[Message]]:
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._most:
                raise self._refusal()
            return message

        return counted

    def _refusal(self) -> TooLarge:
        return TooLarge(f"the body is larger than {self._most} bytes")
