"""The API on a real port for tests, and a plain client."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import uvicorn

from infra.adapters.postgres.tokens import PostgresTokens
from infra.app.adapters import build
from infra.app.session import Session
from infra.app.settings import load
from infra.drivers.http.api.application import Api, api_of, application
from schemas.reads import Deployment
from schemas.roles import ROLES
from tests.reading_world import DEPLOYMENT, NOW, ReadingWorld


class Answer(NamedTuple):
    status: int
    body: Any
    headers: dict[str, str]


class ApiServer(NamedTuple):
    port: int
    tokens: dict[str, str]  # role -> token
    api: Api

    def ask(
        self,
        method: str,
        path: str,
        role: str | None = "admin",
        body: object = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """A request under /api/v1. `body`: JSON, or raw bytes."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        headers = dict(headers or {})
        if role is not None:
            headers["Authorization"] = f"Bearer {self.tokens[role]}"
        content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        if content is not None:
            headers.setdefault("Content-Type", "application/json")
        try:
            connection.request(method, f"/api/v1{path}", content, headers)
            response = connection.getresponse()
            text = response.read()
            is_json = (response.headers["Content-Type"] or "").startswith("application/json")
            found = {name.lower(): value for name, value in response.headers.items()}
            return Answer(response.status, json.loads(text) if is_json else text.decode(), found)
        finally:
            connection.close()

    def get(self, path: str, role: str | None = "admin") -> Answer:
        return self.ask("GET", path, role)


def session_of(world: ReadingWorld, folder: Path) -> Session:
    """The world as a session of commands and roles; no `up` is running, so it processes records itself."""
    settings = load({}, data=folder)
    adapters = replace(build(settings), clock=world.clock, door_clock=world.clock)
    adapters.folder.make()
    session = Session(
        adapters=adapters,
        settings=settings,
        dsn=world.databases.main,
        vault_dsn=world.databases.vault,
        url=None,
        deployment=Deployment(**DEPLOYMENT),
    )
    session.resources.once("vault", lambda: world.vault)
    return session


@contextmanager
def api_server(world: ReadingWorld, archive: Path) -> Iterator[ApiServer]:
    """Serve the world's reading side, with a token for each role."""
    tokens = PostgresTokens(world.databases.main)
    made = {role: tokens.create(role, NOW)[1] for role in ROLES}
    api = api_of(session_of(world, archive), world.reading)
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        application(api), lifespan="off", ws="none", log_level="critical", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="api server")
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started:
        assert thread.is_alive(), "the server ended before it began"
        assert time.monotonic() < deadline, "the server did not start"
        time.sleep(0.01)
    try:
        yield ApiServer(listener.getsockname()[1], made, api)
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()
        api.close()
