"""`/api/v1`: everything the platform knows and does, over HTTP, for people and systems with a token or a session.

Only translates between HTTP and the other packages. Work runs in small thread pools, one connection per thread;
waiting for changes holds no thread. Areas: profiles, segments, changes, data, admin, erasure_lists.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from fastapi.routing import APIRoute

from infra.drivers.http.api import admin as api_admin
from infra.drivers.http.api import changes as api_changes
from infra.drivers.http.api import data as api_data
from infra.drivers.http.api import docs as api_docs
from infra.drivers.http.api import examples as api_examples
from infra.drivers.http.api import profiles as api_profiles
from infra.drivers.http.api import segments as api_segments
from infra.drivers.http.api.answers import MAX_BODY_BYTES, BodyLimit, Stopping, handle_errors
from infra.drivers.http.api.core import PREFIX, Api, Later, RunSql
from infra.drivers.http.session_cookie import CSRF_HEADER
from schemas.ports import Clock
from schemas.roles import ROLES, may

if TYPE_CHECKING:
    from infra.adapters.archive.store import ParquetArchive
    from infra.adapters.kafka.access import KafkaAccess
    from infra.app.reading import Reading
    from infra.app.retrying import Retrying
    from infra.app.session import Session
    from infra.app.staff_events import Acting
    from infra.drivers.http.health import Health
    from infra.drivers.http.throttle import Throttle
    from query.segments.exports import Exports

__all__ = ["MAX_BODY_BYTES", "Api", "api_of", "application", "build_api", "sql_runner"]

_DESCRIPTION = f"""One profile per customer, segments, changes and SQL. See `docs/contracts.md`.

Send `Authorization: Bearer TOKEN`. The session cookie of the pages also works, with the rights of the signed-in user;
requests other than GET must then come from our own pages (`Origin`) or carry the header `{CSRF_HEADER}` with the
`csrf_token` from `GET me`. Every error has the form
`{{"success": false, "code", "message", "errors": [{{"path", "reason"}}]}}`."""


def build_api(session: "Session", throttle: "Throttle | None" = None) -> FastAPI:
    """The application for a session; paths begin with /api/v1. Connections are opened on first use."""
    from infra.app.reading import reading_of  # noqa: PLC0415

    return application(api_of(session, reading_of(session), throttle))


def api_of(session: "Session", reading: "Reading", throttle: "Throttle | None" = None) -> Api:
    """The services of the application. Their `close` also closes the read side."""
    from infra.adapters.postgres.people import PostgresPeople  # noqa: PLC0415
    from infra.adapters.postgres.sources import PostgresSources  # noqa: PLC0415
    from infra.adapters.postgres.tokens import PostgresTokens  # noqa: PLC0415
    from infra.app.archive import archive_of  # noqa: PLC0415
    from infra.app.auditing import audit_of  # noqa: PLC0415
    from infra.app.operations import operations_of  # noqa: PLC0415
    from query.reports.overview import Reports  # noqa: PLC0415

    archive = archive_of(session)
    run_sql = sql_runner(session.dsn, archive, session.clock, session.adapters.kafka)
    return Api(
        session=session,
        reading=reading,
        run_sql=run_sql,
        tokens=PostgresTokens(session.dsn),
        people=PostgresPeople(session.dsn),
        audit=audit_of(session),
        sources=PostgresSources(session.dsn, unknown=session.unknown_clear),
        operations=operations_of(session, archive),
        reports=Reports(reading.segments.views, session.clock),
        acting=Later(lambda: _acting(session)),
        retrying=Later(lambda: _retrying(session)),
        exports=Later(lambda: _exports(reading)),
        health=Later(lambda: _health(session)),
        throttle=throttle,
    )


def _acting(session: "Session") -> "Acting":
    from infra.app.staff_events import Acting  # noqa: PLC0415

    return Acting(session)


def _retrying(session: "Session") -> "Retrying":
    from infra.app.retrying import Retrying  # noqa: PLC0415

    return Retrying(session)


def _exports(reading: "Reading") -> "Exports":
    from query.segments.exports import Exports  # noqa: PLC0415  # only exports need pyarrow, 60 MB

    return Exports(reading.segments, reading.search)


def _health(session: "Session") -> "Health":
    from infra.drivers.http.health import Health  # noqa: PLC0415

    return Health(session)


def sql_runner(dsn: str, archive: "ParquetArchive", clock: Clock, kafka: "KafkaAccess | None" = None) -> RunSql:
    """Runs each statement in its own process."""
    from infra.drivers.sql.process import API_DEADLINE_S, API_RESULT_BYTES, run_sql  # noqa: PLC0415  # pyarrow

    def answer(statement: str, limit: int) -> Mapping[str, Any]:
        found = run_sql(
            statement,
            dsn=dsn,
            archive=archive,
            kafka=kafka,
            limit=limit,
            now=clock.now(),
            deadline_s=API_DEADLINE_S,
            result_bytes=API_RESULT_BYTES,
        )
        left_out = {"left_out": [each._asdict() for each in found.left_out]} if found.left_out else {}
        warned = {"warnings": list(found.warnings)} if found.warnings else {}
        return {"columns": found.names, "rows": list(found.rows()), "truncated": found.truncated, **left_out, **warned}

    return answer


def _tell_roles(app: FastAPI) -> None:
    """Add the roles that may call each route to its description."""
    for route in app.routes:
        if isinstance(route, APIRoute):
            rights = [getattr(each.call, "right", None) for each in route.dependant.dependencies]
            roles = [role for right in rights if right is not None for role in ROLES if may(role, right)]
            route.openapi_extra = {"x-roles": roles}


def application(api: Api) -> FastAPI:
    """The application with its services, which are kept in `app.state.api`."""
    app = FastAPI(
        title="Touchfold",
        version="1",
        description=_DESCRIPTION,
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses={
            status: {"description": text, "content": {"application/json": {"example": api_examples.error(code)}}}
            for status, text, code in api_examples.ERRORS
        },
    )
    app.state.api = api
    handle_errors(app)
    for area in (api_profiles, api_segments, api_changes, api_data, api_admin):
        area.mount(app, api)
    _tell_roles(app)

    @app.get(f"{PREFIX}/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(api_docs.page(app.openapi()), headers=api_docs.HEADERS)

    app.add_middleware(BodyLimit, most=MAX_BODY_BYTES)
    app.add_middleware(Stopping, stopping=lambda: api.stopping)
    return app
