"""Segments over HTTP: what they mean, who is in them, how their size changed, and their members as a file."""

from typing import Annotated, Literal

from fastapi import FastAPI, Path, Query
from fastapi.responses import Response, StreamingResponse

from infra.drivers.http.api import examples
from infra.drivers.http.api.answers import answer
from infra.drivers.http.api.core import PREFIX, Api, Caller, Cursor, Limit, need
from infra.drivers.http.api.streams import begun, streamed
from schemas.roles import EXPORT, PERSONAL, READ

Name = Annotated[str, Path(max_length=100, examples=["repeat_customers"])]
_MEDIA = {"csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet"}


def mount(app: FastAPI, api: Api) -> None:
    """Add the routes of this area."""
    segments, reader, exporter = api.reading.segments, need(api, READ), need(api, EXPORT)

    @app.get(f"{PREFIX}/segments", tags=["segments"], responses=examples.ok([examples.SEGMENT]))
    async def list_segments(_caller: Caller = reader) -> Response:
        """List every segment with its meaning and size."""
        return answer(await api.run(segments.overview))

    @app.get(f"{PREFIX}/segments/{{name}}", tags=["segments"], responses=examples.ok(examples.SEGMENT_SHOWN))
    async def show_segment(name: Name, _caller: Caller = reader) -> Response:
        """One segment with its condition and today's movement."""
        return answer(await api.run(lambda: segments.show(name)))

    @app.get(f"{PREFIX}/segments/{{name}}/members", tags=["segments"], responses=examples.ok(examples.MEMBERS))
    async def list_members(name: Name, limit: Limit = 100, cursor: Cursor = None, _caller: Caller = reader) -> Response:
        """List the segment's members by id; `since` is null for members since the first load."""
        return answer(await api.run(lambda: segments.members(name, cursor, limit)))

    @app.get(f"{PREFIX}/segments/{{name}}/trend", tags=["segments"], responses=examples.ok(examples.TREND))
    async def show_trend(
        name: Name, days: Annotated[int, Query(ge=1, le=366)] = 30, _caller: Caller = reader
    ) -> Response:
        """The segment's size at the end of each local day, oldest first, from when it was first seen."""

        def read() -> dict[str, object]:
            segments.members(name, None, 1)  # raises NotFound
            trend = segments.trends(days, [name]).get(name, [])
            return {"name": name, "items": [{"day": day, "size": size} for day, size in trend]}

        return answer(await api.run(read))

    @app.get(
        f"{PREFIX}/segments/{{name}}/export",
        tags=["segments"],
        response_class=Response,
        responses={200: {"content": {"text/csv": {"example": examples.EXPORT}}}},
    )
    async def export_segment(
        name: Name,
        format_: Annotated[Literal["csv", "parquet"], Query(alias="format")] = "csv",
        caller: Caller = exporter,
    ) -> Response:
        """Download the segment's members, safe from spreadsheet formulas; with contact data for roles that may see it.

        Streamed as it is read: if reading fails, the connection is closed before the last chunk, and the file is
        incomplete.
        """
        personal = caller.may(PERSONAL)
        chunks = await api.run_slowly(lambda: begun(api.exports.get().chunks(name, format_, personal=personal)))
        await api.note(caller, "segment.exported", segment=name, format=format_)
        headers = {"Cache-Control": "no-store", "Content-Disposition": f'attachment; filename="{name}.{format_}"'}
        return StreamingResponse(
            streamed(chunks, api.run_slowly, lambda: api.watch(caller)), 200, headers, _MEDIA[format_]
        )
