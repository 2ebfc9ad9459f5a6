"""The door's GET requests: what SDKs ask for before they send, the script for browsers, and pixels."""

import json
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import Final

from starlette.types import Scope

from infra.drivers.http.browser_files import BrowserFiles
from infra.drivers.http.our_address import our_address
from ingest.requests.bodies import call_of
from ingest.requests.browser import PIXEL, SCRIPT, VERSION, Page, as_gif, page_of, pixel_request
from ingest.requests.routes import HttpRequest, Reply, cors, error_reply, nothing_here, success
from schemas.errors import TouchfoldError

Submit = Callable[[HttpRequest], Awaitable[Reply]]
_READ: Final = {
    name.encode(): name
    for name in (
        *("authorization", "origin", "x-write-key", "host", "x-forwarded-host", "x-forwarded-proto"),
        *("if-none-match", "accept-encoding"),
    )
}
_API: Final = "/api/v1/"
_DOOR: Final = ("/v1/", "/projects/", "/beacon/", "/pixel/", "/analytics.js/", "/analytics-next/", "/api/s/")
"""Where everything is the door's, so that it says what is wrong with a path that nobody serves."""


def is_of_door(method: str, path: str) -> bool:
    """Whether a path outside `/v1/` is the door's. The API's never are."""
    if path.startswith(_DOOR):
        return True
    if path == "/" or path.startswith(_API):
        return False
    if method in ("POST", "OPTIONS") and call_of(path) is not None:
        return True
    return method in ("GET", "HEAD", "OPTIONS") and page_of(path) is not None


class BrowserEdge:
    """`count` is called with the status of each pixel that is refused before it is submitted."""

    def __init__(self, files: BrowserFiles, count: Callable[[int], None]) -> None:
        self._files = files
        self._count = count
        self._version = json.dumps({"name": "touchfold", "version": version("touchfold")}).encode()

    async def answer(self, scope: Scope, submit: Submit) -> Reply:
        """The reply to a GET or HEAD; `submit` has it opened beside what is posted. Raises TouchfoldError."""
        method: str = scope["method"]
        page = page_of(scope["path"]) if method in ("GET", "HEAD") else None
        if page is None:
            raise nothing_here(method)
        headers = {_READ[name]: value.decode("latin-1") for name, value in scope["headers"] if name in _READ}
        if page.kind == SCRIPT:
            return self._files.answer(page.value, headers)
        if page.kind == VERSION:
            return Reply(200, ((b"content-type", b"application/json"), *cors(headers.get("origin"))), self._version)
        query = scope["query_string"].decode("latin-1")
        request = HttpRequest("GET", scope["path"], query, headers, b"", our_address(scope, headers))
        if page.kind == PIXEL:
            return await self._pixel(request, page, method, submit)
        return await submit(request)

    async def _pixel(self, request: HttpRequest, page: Page, method: str, submit: Submit) -> Reply:
        if method == "HEAD":  # of a link checker: nobody has opened anything
            return as_gif(success(None))
        try:
            return as_gif(await submit(pixel_request(request, page)))
        except TouchfoldError as err:
            self._count(err.status)
            return as_gif(error_reply(err, None))
