"""Downloads one person's data export, started on their page, and reports its progress.

The pages' own process produces it, so that the page can show progress. It is streamed and stored nowhere.
"""

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING
from uuid import UUID

from fastapi import FastAPI, Request
from fastapi.responses import Response, StreamingResponse

from infra.app.exporting import ACTION, person_export
from infra.drivers.http.api.streams import begun, streamed
from infra.drivers.pages import words
from infra.drivers.pages.person_exports import PersonExports, Progress
from infra.drivers.pages.shell import VIEWER
from query.people.person_export import Tell, name_of_file
from schemas.errors import TouchfoldError
from schemas.record import uuid_text
from schemas.roles import DISCLOSE

if TYPE_CHECKING:
    from infra.drivers.pages.services import Services, Viewer


def address(profile_id: bytes, number: str) -> str:
    """The address from which the browser downloads a started export."""
    return f"/customers/{uuid_text(profile_id)}/export/{number}"


def done_of(exports: PersonExports, number: str) -> tuple[float, str]:
    """(share done, progress in words); 1.0 once it has ended."""
    found = exports.get(number)
    if found is None:
        return 1.0, "This export has expired. Start it again."
    if found.error:
        return 1.0, f"Export failed: {found.error}"
    if found.ended:
        return 1.0, "Done. The file is in your downloads."
    share = found.done / found.total if found.total else 0.0
    return min(share, 0.99), f"{words.count(found.done // 2)} of {words.count(found.total // 2)} events"


def mount(app: FastAPI, services: "Services") -> None:
    """Add the route."""

    @app.get("/customers/{profile_id}/export/{number}")
    async def download(request: Request, profile_id: UUID, number: str) -> Response:
        viewer, found = request.scope[VIEWER], services.exports.get(number)
        if found is None or found.viewer != viewer.name or not viewer.may(DISCLOSE):
            return Response("Start the export on the customer's page.", 404, media_type="text/plain")
        try:
            owner = await services.run(lambda: services.reading.profiles.owner(profile_id.bytes))
            await services.note(viewer, ACTION, owner)
            chunks = await services.run(lambda: begun(_told(services, owner, found)))
        except TouchfoldError as err:
            found.error = err.message
            return Response(err.message, 409, media_type="text/plain")
        disposition = f'attachment; filename="{name_of_file(owner)}"'
        headers = {"Cache-Control": "no-store", "Content-Disposition": disposition}
        return StreamingResponse(_watched(services, viewer, chunks, found), 200, headers, "application/zip")


def _told(services: "Services", owner: bytes, progress: Progress) -> Iterator[bytes]:
    def tell(done: int, total: int) -> None:
        progress.done, progress.total = done, total

    teller: Tell = tell
    with person_export(services.session, services.reading) as export:
        yield from export.chunks(owner, teller)


async def _watched(
    services: "Services", viewer: "Viewer", chunks: Iterator[bytes], progress: Progress
) -> AsyncIterator[bytes]:
    """The chunks; the outcome is shown on the page."""
    try:
        async for chunk in streamed(chunks, services.run, lambda: services.watch_session(viewer)):
            yield chunk
        progress.ended = True
    except TouchfoldError as err:
        progress.error = err.message
        raise
    finally:
        if not progress.ended and not progress.error:
            progress.error = "it was interrupted"
