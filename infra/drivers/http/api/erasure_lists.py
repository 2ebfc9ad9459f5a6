"""Lists of people to erase over HTTP: posted once, drained beside everything else, asked for as often as one likes.

What is done stands in a file of the data folder, by the place in the list, and names nobody. The list itself is kept
nowhere: after a crash whoever posted it posts it again with its id, and it goes on.
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

MOST: Final = 10_000  # people of a list; a body may have 1 MiB
log = logging.getLogger("touchfold.api")


class Whom(BaseModel):
    """A person, by an identifier in the body, so that no address log has it."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": examples.LOOKUP})
    kind: str = Field(max_length=64, description="of the identifier, or `profile`")
    value: str | int


class Erasures(BaseModel):
    """Whom to erase. `id`: of a list that was begun before, to go on with it."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": examples.ERASURES})
    people: list[Whom] = Field(min_length=1, max_length=MOST)
    force: bool = False
    suppress: bool = False
    id: UUID | None = None


class _Running(threading.Thread):
    """One list at a time in this process; the next waits."""

    _turn = threading.Lock()

    def __init__(self, api: Api, caller: Caller, body: Erasures, results: Results) -> None:
        super().__init__(name="api erasures", daemon=True)
        self._api, self._caller, self._body, self._results = api, caller, body, results
        self.error = ""

    def run(self) -> None:
        from infra.adapters.phones import Phones  # noqa: PLC0415  # phone numbers' tables take 0.1 s to import

        try:
            people, wrong = _sorted_out(self._body.people, Phones(self._api.session.region))
            with self._turn:
                more = {"force": self._body.force, "suppress": self._body.suppress}
                done = erase_many(self._api.session, people, wrong, self._results, lambda *_: None, **more)
            counts = {name: count for name, count in done._asdict().items() if name != "note"}
            detail = {"suppress": self._body.suppress, **counts}
            self._api.audit.note(self._caller.name, self._caller.role, "profiles.erased", None, detail)
        except TouchfoldError as err:
            self.error = err.message
        except Exception as err:
            self.error = "an error of ours; the log of the HTTP process has it"
            log.error("a list of erasures ended", exc_info=err)
        finally:
            self._body.people.clear()  # the thread is remembered for its state, and nobody's name with it


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
    """Add the addresses of this area."""
    eraser = need(api, ERASE)
    running: dict[str, _Running] = {}
    folder = api.session.data / "erasures"

    @app.post(f"{PREFIX}/erasures", tags=["administration"], responses=examples.ok(examples.ERASURES_BEGUN))
    async def erase_people(body: Erasures, caller: Caller = eraser) -> Response:
        """Erase up to 10,000 people. Cannot be undone. Answers at once; `GET erasures/ID` says how far it is.

        A bad entry is told by its place in the list (from 1) and keeps nobody else back. Who may be more than one
        person is left out without `force`. After a crash post the same list with its `id`: it goes on.
        """
        id_ = body.id or uuid4()
        before = running.get(id_.hex)
        if before is not None and before.is_alive():
            raise ErasureRefused("this list is being worked off")
        results = await api.run(lambda: Results(_file(folder, id_), len(body.people)))
        running[id_.hex] = thread = _Running(api, caller, body, results)
        thread.start()
        return answer({"id": str(id_), "people": len(body.people)}, 202)

    @app.get(f"{PREFIX}/erasures/{{list_id}}", tags=["administration"], responses=examples.ok(examples.ERASURES_STATE))
    async def read_erasures(list_id: ListId, _caller: Caller = eraser) -> Response:
        """How far a list is: `running`, `done`, or `stopped`, which goes on when it is posted again with its id."""
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
        """What became of each person, a JSON line each by the place in the list; receipts when the list is done."""
        path = _existing(folder, list_id)
        headers = {"Cache-Control": "no-store"}
        lines = streamed(_lines(path), api.run_slowly, lambda: api.watch(caller))
        return StreamingResponse(lines, 200, headers, "application/x-ndjson")


ListId = Annotated[UUID, InPath(description="of the list", examples=[examples.ERASURES_STATE["id"]])]


def _file(folder: Path, id_: UUID) -> Path:
    return folder / f"{id_.hex}.jsonl"


def _existing(folder: Path, id_: UUID) -> Path:
    path = _file(folder, id_)
    if not path.exists():
        raise NotFound("there is no such list of erasures on this machine")
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
