"""Lists of people to erase over HTTP: posted once, processed in the background, with progress on request.

Progress is kept in a file in the data folder, by position in the list, and names nobody. The list itself is not
stored: after a crash the client posts it again with its id, and processing continues.
"""

import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final
from uuid import UUID, uuid4

import msgspec
from fastapi import FastAPI
from fastapi import Path as InPath
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from infra.app.erasing_many import Results, erase_many, read_results, summary_of
from infra.app.people_files import Person, Wrong, named
from infra.drivers.http.api import examples
from infra.drivers.http.api.answers import answer
from infra.drivers.http.api.core import PREFIX, Api, Caller, need
from infra.drivers.http.api.streams import streamed
from schemas.errors import ErasureRefused, NotFound, TouchfoldError
from schemas.roles import ERASE

MOST: Final = 10_000  # people per list; a body may have 1 MiB
log = logging.getLogger("touchfold.api")


class Whom(BaseModel):
    """A person by identifier, in the body so that it is in no access log."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": examples.LOOKUP})
    kind: str = Field(max_length=64, description="the identifier's kind, or `profile`")
    value: str | int


class Erasures(BaseModel):
    """Whom to erase. `id`: of a list that was started earlier, to continue it."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": examples.ERASURES})
    people: list[Whom] = Field(min_length=1, max_length=MOST)
    force: bool = False
    suppress: bool = False
    id: UUID | None = None


class _Running(threading.Thread):
    """Processes one list at a time; the next one waits."""

    _turn = threading.Lock()

    def __init__(self, api: Api, caller: Caller, body: Erasures, results: Results) -> None:
        super().__init__(name="api erasures", daemon=True)
        self._api, self._caller, self._body, self._results = api, caller, body, results
        self.error = ""

    def run(self) -> None:
        from infra.adapters.phones import Phones  # noqa: PLC0415  # phone numbers' tables take 0.1 s to import

        try:
            people, wrong = _sorted_out(self._body.people, Phones(self._api.session.region, looking_up=True))
            with self._turn:
                more = {"force": self._body.force, "suppress": self._body.suppress}
                done = erase_many(self._api.session, people, wrong, self._results, lambda *_: None, **more)
            counts = {name: count for name, count in done._asdict().items() if name != "note"}
            detail = {"suppress": self._body.suppress, **counts}
            self._api.audit.note(self._caller.name, self._caller.role, "profiles.erased", None, detail)
        except TouchfoldError as err:
            self.error = err.message
        except Exception as err:
            self.error = "internal error; see the log of the HTTP process"
            log.error("an erasure list stopped", exc_info=err)
        finally:
            self._body.people.clear()  # the thread is kept for its state; it must not hold anybody's name


def _sorted_out(people: list[Whom], phone: Any) -> tuple[list[Person], list[Wrong]]:
    found: list[Person] = []
    wrong: list[Wrong] = []
    for line, each in enumerate(people, 1):
        try:
            found.append(Person(line, *named(each.kind, str(each.value), phone)))
        except ValueError as err:
            wrong.append(Wrong(line, str(err)))
    return found, wrong


def mount(app: FastAPI, api: Api) -> None:
    """Add the routes of this area."""
    eraser = need(api, ERASE)
    running: dict[str, _Running] = {}
    folder = api.session.data / "erasures"

    @app.post(f"{PREFIX}/erasures", tags=["administration"], responses=examples.ok(examples.ERASURES_BEGUN))
    async def erase_people(body: Erasures, caller: Caller = eraser) -> Response:
        """Erase up to 10,000 people. Cannot be undone. Returns immediately; `GET erasures/ID` shows the progress.

        A bad entry is reported by its position in the list (from 1) and does not hold up the others. An entry that may
        be more than one person is skipped without `force`. After a crash, post the same list with its `id` to continue.
        """
        id_ = body.id or uuid4()
        before = running.get(id_.hex)
        if before is not None and before.is_alive():
            raise ErasureRefused("this list is already being processed")
        results = await api.run(lambda: Results(_file(folder, id_), len(body.people)))
        running[id_.hex] = thread = _Running(api, caller, body, results)
        thread.start()
        return answer({"id": str(id_), "people": len(body.people)}, 202)

    @app.get(f"{PREFIX}/erasures/{{list_id}}", tags=["administration"], responses=examples.ok(examples.ERASURES_STATE))
    async def read_erasures(list_id: ListId, _caller: Caller = eraser) -> Response:
        """Progress of a list: `running`, `done`, or `stopped`; post a stopped list again with its id to continue."""
        path = _existing(folder, list_id)
        summary, size, done = await api.run(lambda: _state(path))
        thread = running.get(list_id.hex)
        state = "running" if thread is not None and thread.is_alive() else "done" if done else "stopped"
        said = summary | {"id": str(list_id), "state": state, "people": size}
        return answer(said | ({"message": thread.error} if thread is not None and thread.error else {}))

    @app.get(
        f"{PREFIX}/erasures/{{list_id}}/receipts",
        tags=["administration"],
        response_class=Response,
        responses={200: {"content": {"application/x-ndjson": {"example": examples.ERASURES_RECEIPT}}}},
    )
    async def read_receipts(list_id: ListId, caller: Caller = eraser) -> Response:
        """The result for each person, one JSON line per position in the list; with receipts once the list is done."""
        path = _existing(folder, list_id)
        headers = {"Cache-Control": "no-store"}
        lines = streamed(_lines(path), api.run_slowly, lambda: api.watch(caller))
        return StreamingResponse(lines, 200, headers, "application/x-ndjson")


ListId = Annotated[UUID, InPath(description="the list's id", examples=[examples.ERASURES_STATE["id"]])]


def _file(folder: Path, id_: UUID) -> Path:
    return folder / f"{id_.hex}.jsonl"


def _existing(folder: Path, id_: UUID) -> Path:
    path = _file(folder, id_)
    if not path.exists():
        raise NotFound("there is no such erasure list on this machine")
    return path


def _state(path: Path) -> tuple[dict[str, Any], int, bool]:
    heads = [each for each in read_results(path) if "list" in each]
    size, done = (int(heads[0]["list"]), bool(heads[0]["done"])) if heads else (0, False)
    summary = summary_of(Results(path, size), {})._asdict()
    return {name: count for name, count in summary.items() if name not in {"note", "lines"}}, size, done


def _lines(path: Path) -> Iterator[bytes]:
    for each in read_results(path):
        if "line" in each:
            yield msgspec.json.encode(each) + b"\n"
