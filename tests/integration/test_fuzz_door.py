"""The whole way from bytes to records under random and mutated requests of every route: a real door, log and worker.

What fails alone becomes a dead letter alone; nothing answers 500; every record that is stored can be read and folded.
The seed is printed: TOUCHFOLD_FUZZ_SEED repeats a run.
"""

import asyncio
import json
import os
from base64 import b64encode
from collections.abc import MutableMapping, Sequence
from contextlib import ExitStack, closing
from functools import partial
from random import Random
from typing import Any, NamedTuple

import pytest

from infra.adapters.machine.clock import SystemClock
from infra.adapters.phones import Phones
from infra.adapters.postgres.dead_letters import PostgresDeadLetters
from infra.adapters.postgres.log import PostgresLog
from infra.adapters.postgres.sources import PostgresSources
from infra.drivers.http.door import Door
from infra.drivers.http.door_parts import Limits
from ingest.accept.accept import Acceptor
from ingest.requests.bodies import METRICS, call_of
from schemas.dead_letters import INTERNAL
from schemas.event_columns import event_table
from schemas.identifiers import normalise
from schemas.record import decode
from tests.mutations import Request, corpus, request_of
from tests.reading_world import NOW, ReadingWorld

AT_ONCE = 64
PATIENT = Limits(deadline_s=120)  # a machine that does other things too is no finding
ALLOWED = {200, 400, 401, 403, 404, 413}


class Answer(NamedTuple):
    status: int
    body: Any


async def ask(door: Door, request: Request) -> Answer:
    """One request as the server hands it over."""
    scope: MutableMapping[str, Any] = {
        "type": "http",
        "method": "POST",
        "path": request.path,
        "query_string": b"results=true",
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in request.headers.items()],
    }
    parts: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": request.body, "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        parts.append(message)

    await door(scope, receive, send)
    return Answer(int(parts[0]["status"]), json.loads(parts[1]["body"] or b"{}"))


async def play(door: Door, requests: Sequence[Request]) -> list[Answer]:
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(request: Request) -> Answer:
        async with gate:
            return await ask(door, request)

    return await asyncio.gather(*[one(request) for request in requests])


def fuzz(world: ReadingWorld, count: int, seed: int | None = None) -> None:
    seed = int(os.environ.get("TOUCHFOLD_FUZZ_SEED", seed if seed is not None else Random().randrange(2**32)))
    print(f"seed {seed}, {count} requests")
    random, items = Random(seed), corpus()
    with ExitStack() as opened:
        sources = opened.enter_context(closing(PostgresSources(world.databases.main)))
        letters = opened.enter_context(closing(PostgresDeadLetters(world.databases.main)))
        key = "Basic " + b64encode(f"{sources.create('fuzz', NOW)}:".encode()).decode()
        acceptor = Acceptor(world.vault, world.vault, partial(normalise, phone=Phones("US")), world.vault.daily_token)
        log = opened.enter_context(closing(PostgresLog(world.databases.main)))
        door = opened.enter_context(closing(Door(acceptor, sources, log, letters, SystemClock().now, limits=PATIENT)))
        done = 0
        while done < count:
            requests = [request_of(done + n, random, items, key) for n in range(min(1_000, count - done))]
            answers = asyncio.run(play(door, requests))
            for request, answer in zip(requests, answers, strict=True):
                judge(request, answer)
            done += len(requests)
        counters = door.counters
    stored = [each for p in range(4) for each in world.services.log.read(p, 0, 10_000_000)]
    assert len(stored) == counters.accepted
    for each in stored:
        assert decode(each.value).source == "fuzz"
    event_table(stored, "USD", originals=True)
    world.settle()
    failed = world.execute("select rule, reason, count(*) from dead_letters where stage <> 'door' group by 1, 2")
    assert {rule for rule, _, _ in failed} <= {"id_reused"}, "a record of the door could not be folded"


def judge(request: Request, answer: Answer) -> None:
    seen = (request, answer)
    assert answer.status in ALLOWED, seen
    if answer.status != 200:
        assert answer.body["code"], seen
        assert answer.body["message"], seen
        assert request.sentinel is None or answer.status in (401, 404, 413), seen
        return
    results = answer.body.get("results", [])
    assert INTERNAL not in [result["code"] for result in results], seen
    assert {result["status"] for result in results} <= {"accepted", "dead_letter"}, seen
    if request.sentinel is not None and call_of(request.path) != METRICS:  # metrics are thrown away
        assert "accepted" in [result["status"] for result in results], seen


def test_mutated_requests_of_every_route_lose_nothing_and_break_nothing(world: ReadingWorld) -> None:
    fuzz(world, 5_000, seed=1)  # the same each time; the long form draws its own


@pytest.mark.long
@pytest.mark.timeout(3_600)
def test_two_hundred_thousand_mutated_requests(world: ReadingWorld) -> None:
    fuzz(world, 200_000)
