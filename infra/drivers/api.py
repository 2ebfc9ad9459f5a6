"""`/api/v1`: the reading side over HTTP, for people and systems with a token. Translates only; the rooms answer.

Work runs in small pools of threads, each with a connection of its own; waiting for changes holds no thread.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Annotated, Any, Final, TypeVar
from uuid import UUID

import msgspec
from fastapi import Depends, FastAPI, Header, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, Response, StreamingResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from infra.adapters.postgres_tokens import ROLES, PostgresTokens
from infra.bootstrap import Session
from infra.drivers import api_examples as examples
from infra.log_lines import described
from infra.reading import Reading, reading_of
from query.changes import Page
from schemas.errors import BadRequest, Forbidden, Problem, TooLarge, TouchfoldError, Unauthorized
from schemas.identifiers import KINDS
from schemas.ports import Clock

log = logging.getLogger("touchfold.api")

T = TypeVar("T")
PREFIX: Final = "/api/v1"
THREADS: Final = 6  # of reads: a profile takes about a millisecond, so two cores are busy with two
SQL_THREADS: Final = 2  # SQL runs in processes of its own; a slow one must not keep a profile waiting
MAX_BODY_BYTES: Final = 1_048_576
MAX_WAIT_S: Final = 60.0
SQL_ROWS: Final = 10_000
TOKEN_S: Final = 1.0  # a revoked token is refused after at most so long
KNOWN_TOKENS: Final = 1_000
STREAM_PAGE: Final = 500
STREAM_QUIET_S: Final = 15.0  # a stream says it lives, and its token is looked at again

READ, PERSONAL, SQL = "read", "personal", "sql"
RIGHTS: Final[Mapping[str, frozenset[str]]] = {
    READ: frozenset(ROLES),
    PERSONAL: frozenset(ROLES) - {"analyst"},
    SQL: frozenset({"analyst", "admin"}),
    "erase": frozenset({"admin", "privacy"}),
    "sources": frozenset({"admin"}),
    "tokens": frozenset({"admin"}),
}
RunSql = Callable[[str, int], Mapping[str, Any]]
"""(statement, most rows) -> {"columns", "rows", "truncated"}; raises SqlRefused, SqlLimit."""


@dataclass(frozen=True)
class Caller:
    """Who asks."""

    role: str
    token: str

    def may(self, right: str) -> bool:
        return self.role in RIGHTS[right]


@dataclass
class Api:
    """What the routes call; `close` ends its threads and connections."""

    reading: Reading
    tokens: PostgresTokens
    run_sql: RunSql
    _known: dict[str, tuple[str, float]] = field(default_factory=dict)  # token -> (role, until)
    _reads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(THREADS, "api"))
    _sql: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(SQL_THREADS, "api sql"))

    async def run(self, work: Callable[[], T]) -> T:
        """Do it in a thread. An error of ours is logged here, and told without its inside."""
        return await _in(self._reads, work)

    async def sql(self, statement: str, limit: int) -> Mapping[str, Any]:
        return await _in(self._sql, lambda: self.run_sql(statement, limit))

    async def caller(self, credentials: HTTPAuthorizationCredentials | None, right: str) -> Caller:
        """Raises Unauthorized, Forbidden."""
        if credentials is None:
            raise Unauthorized("send the header Authorization: Bearer TOKEN (`touchfold token create --role ROLE`)")
        token = credentials.credentials
        role = await self._role(token)
        if role is None:
            raise Unauthorized("this token is unknown or was revoked")
        if role not in RIGHTS[right]:
            raise Forbidden(f"the role {role} may not do this: it needs {' or '.join(sorted(RIGHTS[right]))}")
        return Caller(role, token)

    async def _role(self, token: str) -> str | None:
        """The role of a token; a good one is remembered for a second, which spares a look-up in another thread."""
        now = time.monotonic()
        known = self._known.get(token)
        if known is not None and known[1] > now:
            return known[0]
        role = await self.run(lambda: self.tokens.role(token))
        if len(self._known) >= KNOWN_TOKENS:
            self._known.clear()
        if role is not None:
            self._known[token] = (role, now + TOKEN_S)
        return role

    def close(self) -> None:
        self._reads.shutdown()
        self._sql.shutdown()
        self.reading.close()
        self.tokens.close()


async def _in(pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    try:
        return await asyncio.get_running_loop().run_in_executor(pool, work)
    except TouchfoldError:
        raise
    except Exception as err:
        log.error("an error of ours: %s", described(err, err.__traceback__))
        raise TouchfoldError("an error of ours; the log of the HTTP process has it") from err


# --- bodies and parameters ---------------------------------------------------------------------------------------


class Lookup(BaseModel):
    """An identifier in a body, so that no address log has it."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": examples.LOOKUP})
    kind: str = Field(max_length=64)
    value: str | int = Field(description="as the person or system wrote it; it is brought to its normal form")


class Statement(BaseModel):
    """One SELECT."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": examples.SQL})
    sql: str = Field(min_length=1, max_length=100_000)
    limit: int = Field(SQL_ROWS, ge=1, le=SQL_ROWS)


Limit = Annotated[int, Query(ge=1, le=1_000)]
Cursor = Annotated[str | None, Query(max_length=100, description="`next` of the page before")]
After = Annotated[str | None, Query(max_length=100, description="a cursor; without one, from the first change")]
Types = Annotated[
    list[str] | None, Query(alias="type", description="only these types of change; repeat it or part by commas")
]
Bearer = Annotated[
    HTTPAuthorizationCredentials | None,
    Depends(HTTPBearer(auto_error=False, description="a token of `touchfold token create --role ROLE`")),
]


def _types(given: list[str] | None) -> list[str]:
    return [each for text in given or () for each in text.split(",") if each]


# --- the application ---------------------------------------------------------------------------------------------


def build_api(session: Session) -> FastAPI:
    """The application on a session; paths begin with /api/v1. Opens connections when first asked."""
    run_sql = sql_runner(session.dsn, session.archive_folder, session.clock)
    return application(Api(reading_of(session), PostgresTokens(session.dsn), run_sql))


def sql_runner(dsn: str, archive_folder: FilePath, clock: Clock) -> RunSql:
    """Runs each statement in a process of its own."""
    from infra.drivers.sql_process import API_DEADLINE_S, API_RESULT_BYTES, run_sql  # noqa: PLC0415  # pyarrow

    def answer(statement: str, limit: int) -> Mapping[str, Any]:
        found = run_sql(
            statement,
            dsn=dsn,
            archive_folder=archive_folder,
            limit=limit,
            now=clock.now(),
            deadline_s=API_DEADLINE_S,
            result_bytes=API_RESULT_BYTES,
        )
        return {"columns": found.names, "rows": list(found.rows()), "truncated": found.truncated}

    return answer


def application(api: Api) -> FastAPI:
    """The application over its services, kept at `app.state.api`."""
    app = FastAPI(
        title="Touchfold",
        version="1",
        description="One profile per customer, segments, changes and SQL. See `docs/contracts.md`.",
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses={
            status: {"description": text, "content": {"application/json": {"example": examples.error(code)}}}
            for status, text, code in examples.ERRORS
        },
    )
    app.state.api = api
    _errors(app)
    _profiles(app, api)
    _segments(app, api)
    _changes(app, api)
    _rest(app, api)
    app.add_middleware(BodyLimit, most=MAX_BODY_BYTES)
    return app


def _need(api: Api, right: str) -> Any:
    """A dependency: the caller, who has this right."""

    async def caller(credentials: Bearer) -> Caller:
        return await api.caller(credentials, right)

    return Depends(caller)


def _profiles(app: FastAPI, api: Api) -> None:
    profiles, timeline = api.reading.profiles, api.reading.timeline
    reader = _need(api, READ)

    @app.post(f"{PREFIX}/profiles/lookup", tags=["profiles"], responses=examples.ok(examples.PROFILE))
    async def look_up(body: Lookup, caller: Caller = reader) -> Response:
        """A profile by an identifier in the body."""
        personal = caller.may(PERSONAL)
        return _json(await api.run(lambda: profiles.by_identifier(body.kind, body.value, personal=personal)))

    @app.get(
        f"{PREFIX}/profiles/{{profile_id:uuid}}/timeline", tags=["profiles"], responses=examples.ok(examples.TIMELINE)
    )
    async def read_timeline(
        profile_id: Annotated[UUID, Path(description="any id the profile was ever known by")],
        limit: Limit = 50,
        cursor: Cursor = None,
        caller: Caller = reader,
    ) -> Response:
        """The profile's events, newest first; sealed values for roles that may see them."""
        personal = caller.may(PERSONAL)

        def read() -> Mapping[str, Any]:
            return timeline.page(profiles.owner(profile_id.bytes), cursor, limit, personal=personal)

        return _json(await api.run(read))

    @app.get(f"{PREFIX}/profiles", tags=["profiles"], responses=examples.ok(examples.SEARCH))
    async def search_profiles(
        search: Annotated[str, Query(max_length=200, description="words of a name, an address, a number or an id")],
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        cursor: Cursor = None,
        caller: Caller = reader,
    ) -> Response:
        """Customers by whole words and prefixes of names and addresses, ends of numbers, or any identifier."""
        find, personal = api.reading.search.find, caller.may(PERSONAL)
        return _json(await api.run(lambda: find(search, limit=limit, cursor=cursor, personal=personal)))

    @app.get(f"{PREFIX}/profiles/{{kind}}/{{value:path}}", tags=["profiles"], responses=examples.ok(examples.PROFILE))
    async def read_profile(
        kind: Annotated[str, Path(max_length=64, examples=["loyalty_card"])],
        value: Annotated[str, Path(max_length=512, examples=["2001"])],
        caller: Caller = reader,
    ) -> Response:
        """A profile by an identifier, or by `profile/ID`."""
        if value == "timeline" and kind not in (*KINDS, "profile"):  # a lookup finds an own kind's "timeline"
            reason = "is no UUID; profile ids are UUIDs"
            raise BadRequest("not a profile id", [Problem("profile_id", reason)])
        personal = caller.may(PERSONAL)
        return _json(await api.run(lambda: profiles.by_identifier(kind, value, personal=personal)))


def _segments(app: FastAPI, api: Api) -> None:
    segments = api.reading.segments
    reader = _need(api, READ)

    @app.get(f"{PREFIX}/segments", tags=["segments"], responses=examples.ok([examples.SEGMENT]))
    async def list_segments(_caller: Caller = reader) -> Response:
        """Every segment with its meaning and size."""
        return _json(await api.run(segments.overview))

    @app.get(f"{PREFIX}/segments/{{name}}", tags=["segments"], responses=examples.ok(examples.SEGMENT_SHOWN))
    async def show_segment(name: str, _caller: Caller = reader) -> Response:
        """One segment with its condition and today's movement."""
        return _json(await api.run(lambda: segments.show(name)))

    @app.get(f"{PREFIX}/segments/{{name}}/members", tags=["segments"], responses=examples.ok(examples.MEMBERS))
    async def list_members(name: str, limit: Limit = 100, cursor: Cursor = None, _caller: Caller = reader) -> Response:
        """Who is in it, by id; `since` is null for members since the first load."""
        return _json(await api.run(lambda: segments.members(name, cursor, limit)))


def _changes(app: FastAPI, api: Api) -> None:
    reader = _need(api, READ)

    @app.get(f"{PREFIX}/changes", tags=["changes"], responses=examples.ok(examples.CHANGES))
    async def list_changes(
        after: After = None,
        limit: Limit = 100,
        wait_s: Annotated[float, Query(ge=0, le=MAX_WAIT_S, description="wait so long for a first change")] = 0.0,
        type_: Types = None,
        _caller: Caller = reader,
    ) -> Response:
        """Changes after a cursor, in order; `next` goes on after them."""
        page = await _page_in_time(api, after, limit, _types(type_), wait_s)
        return _json(page.answer())

    @app.get(
        f"{PREFIX}/changes/stream",
        tags=["changes"],
        response_class=EventStream,
        responses={200: {"content": {"text/event-stream": {"example": examples.STREAM}}}},
    )
    async def stream_changes(
        after: After = None,
        type_: Types = None,
        last_event_id: Annotated[str | None, Header(max_length=100)] = None,
        caller: Caller = reader,
    ) -> Response:
        """Changes as server-sent events; `id` is the cursor, so a reconnect goes on where it was."""
        start, types = last_event_id or after, _types(type_)
        first = await api.run(lambda: api.reading.changes.page(start, STREAM_PAGE, types))  # answers a bad cursor
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return EventStream(_stream(api, caller, first, types), headers=headers)


def _rest(app: FastAPI, api: Api) -> None:
    reader, analyst = _need(api, READ), _need(api, SQL)

    @app.post(f"{PREFIX}/sql", tags=["sql"], responses=examples.ok(examples.SQL_ANSWER))
    async def sql(body: Statement, _caller: Caller = analyst) -> Response:
        """Run one SELECT over the tables of the contract, in a process of its own."""
        return _json(await api.sql(body.sql, body.limit))

    @app.get(f"{PREFIX}/events/{{event_id:path}}", tags=["events"], responses=examples.ok(examples.EVENT))
    async def read_event(event_id: Annotated[str, Path(max_length=512)], _caller: Caller = reader) -> Response:
        """What became of an event, by its id or its message id."""
        return _json(await api.run(lambda: api.reading.events.status(event_id)))

    @app.get(f"{PREFIX}/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(examples.docs_page(app.openapi()))


class EventStream(StreamingResponse):
    """Server-sent events."""

    media_type = "text/event-stream"


# --- waiting for changes -----------------------------------------------------------------------------------------


@asynccontextmanager
async def _rings(api: Api) -> AsyncIterator[asyncio.Event]:
    """An event that is set whenever the feed grows."""
    loop, event = asyncio.get_running_loop(), asyncio.Event()

    def ring() -> None:
        with suppress(RuntimeError):  # the loop has ended: nobody waits
            loop.call_soon_threadsafe(event.set)

    api.reading.bell.subscribe(ring)
    try:
        yield event
    finally:
        api.reading.bell.unsubscribe(ring)


async def _heard(event: asyncio.Event, timeout_s: float) -> bool:
    try:
        await asyncio.wait_for(event.wait(), timeout_s)
    except TimeoutError:
        return False
    return True


async def _page_in_time(api: Api, after: str | None, limit: int, types: list[str], wait_s: float) -> Page:
    """A page at once, or as soon as there is something to say, or the empty one after `wait_s`."""
    deadline = time.monotonic() + wait_s
    async with _rings(api) as event:
        while True:
            event.clear()
            start = after
            page = await api.run(lambda: api.reading.changes.page(start, limit, types))  # noqa: B023  # awaited here
            left = deadline - time.monotonic()
            if page.items or left <= 0:
                return page
            after = page.next
            await _heard(event, left)


async def _stream(api: Api, caller: Caller, page: Page, types: list[str]) -> AsyncIterator[bytes]:
    """Pages as events, without end; ends when the token is revoked."""
    async with _rings(api) as event:
        yield b"retry: 2000\n\n"
        while True:
            for item in page.items:
                yield b"id: %s\ndata: %s\n\n" % (item["cursor"].encode(), _ENCODER.encode(item))
            after = page.next
            if len(page.items) < STREAM_PAGE and not await _heard(event, STREAM_QUIET_S):
                if await api.run(lambda: api.tokens.role(caller.token)) != caller.role:
                    return
                yield b": still here\n\n"
            event.clear()
            page = await api.run(lambda: api.reading.changes.page(after, STREAM_PAGE, types))  # noqa: B023


# --- answers and errors ------------------------------------------------------------------------------------------

_ENCODER: Final = msgspec.json.Encoder()


def _json(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """JSON that no cache keeps."""
    headers = {"Cache-Control": "no-store", **(headers or {})}
    return Response(_ENCODER.encode(content), status, headers, "application/json")


def _errors(app: FastAPI) -> None:
    """Every error in the one form."""

    async def ours(_request: Request, err: Exception) -> Response:
        assert isinstance(err, TouchfoldError), "registered for these"
        return _told(err)

    async def invalid(_request: Request, err: Exception) -> Response:
        assert isinstance(err, RequestValidationError), "registered for these"
        problems = [Problem(_path(each["loc"]), str(each["msg"])) for each in err.errors()]
        return _told(BadRequest("the request is not as documented", problems))

    async def http(_request: Request, err: Exception) -> Response:
        assert isinstance(err, HTTPException), "registered for these"
        code, message = _HTTP.get(err.status_code, ("bad_request", "the request cannot be read"))
        body = {"success": False, "code": code, "message": message, "errors": []}
        return _json(body, err.status_code, err.headers)

    async def unexpected(_request: Request, err: Exception) -> Response:
        log.error("an error of ours: %s", described(err, err.__traceback__))
        return _told(TouchfoldError(""))

    app.add_exception_handler(TouchfoldError, ours)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, unexpected)


_HTTP: Final = {
    404: ("not_found", "there is no such address: /api/v1/openapi.json lists them"),
    405: ("method_not_allowed", "this address has other methods: /api/v1/openapi.json lists them"),
}


def _told(err: TouchfoldError) -> Response:
    headers: dict[str, str] = {}
    if err.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if err.retry_after_s is not None:
        headers["Retry-After"] = str(err.retry_after_s)
    if err.status == 500:
        if type(err) is not TouchfoldError:  # else it is logged already
            log.error("%s: %s", err.code, err.message)
        err = TouchfoldError("an error of ours; the log of the HTTP process has it")
    return _json(err.body(), err.status, headers)


def _path(loc: tuple[int | str, ...]) -> str:
    """`sql` of ("body", "sql"); where it stood is clear from the name."""
    return ".".join(str(step) for step in loc[1:])


class BodyLimit:
    """ASGI middleware: a body over `most` bytes is refused before it is read, or when it turns out longer."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self._most:
            await _told(self._refusal())(scope, receive, send)
            return
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._most:
                raise self._refusal()
            return message

        await self._app(scope, counted, send)

    def _refusal(self) -> TooLarge:
        return TooLarge(f"the body is over {self._most} bytes")
