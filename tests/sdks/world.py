"""A running touchfold, what is in its log, the SDKs' senders, and a shop's site for a real Chromium."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing, suppress
from datetime import UTC, datetime
from functools import cache
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, NamedTuple

from infra.adapters.postgres.dead_letters import PostgresDeadLetters
from infra.adapters.postgres.sources import PostgresSources
from infra.app import bootstrap
from infra.app.log import log_of
from infra.app.session import Session
from infra.app.vault import vault_of
from query.people.opened import open_records, open_tokens, tokens_in, with_values
from schemas.clear import joined
from schemas.record import Record, Stored, decode
from tests.integration.running import Up, result

ROOT: Final = Path(__file__).parents[2]
SENDERS: Final = Path(__file__).parent / "senders"
DEADLINE_S: Final = 150.0


def until(condition: Callable[[], bool], what: str) -> None:
    """As `tests.integration.running.until`, with the patience that the back-off of SDKs takes."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"did not come in {DEADLINE_S:.0f} s: {what}"
        time.sleep(0.05)


class Event(NamedTuple):
    """An event as the log has it, opened; `ids` by kind."""

    id: str
    message_id: str | None
    type: str
    name: str | None
    ids: dict[str, list[str]]
    properties: dict[str, Any]
    context: dict[str, Any]
    traits: dict[str, Any]
    occurred_at: datetime
    original_at: datetime | None


@cache
def sdks() -> Path:
    """The folder in which tools/sdks.sh has put the SDKs."""
    done = subprocess.run(["bash", str(ROOT / "tools/sdks.sh")], stdout=subprocess.PIPE, text=True, check=True)
    return Path(done.stdout.strip())


class World:
    """`touchfold up` on a port that stays its own when it is killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self.start()

    def kill(self) -> None:
        """kill -9 everything: the supervisor, its roles, PostgreSQL."""
        self._here.close()
        pids = self.up.all_pids()
        self.up.process.kill()
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, 9)
        self.up.wait_end()

    def start(self) -> None:
        self.up = Up(self.data, "--port", str(self.port))
        self.up.wait_ready()
        self._here = ExitStack()
        self.session = self._here.enter_context(bootstrap.session(self.data))
        self._log = log_of(self.session)

    def stop(self) -> None:
        self._here.close()
        self.up.stop()

    def source(self, name: str) -> str:
        """A new source; its write key."""
        with closing(PostgresSources(self.session.dsn)) as sources:
            return sources.create(name, datetime.now(UTC))

    def events(self, source: str) -> list[Event]:
        """What the log holds of a source, repeats too, in order of its partitions."""
        own = [each for each in self._stored() if decode(each.value).source == source]
        return [_event(*each) for each in _opened(self.session, own)]

    def _stored(self) -> list[Stored]:
        return [each for place in range(self._log.partitions) for each in self._log.read(place, 0, 100_000)]

    def counts(self) -> Counter[str]:
        """How many different events there are of each source."""
        return Counter(source for source, _ in {(each.source, each.id) for each in map(_record, self._stored())})

    def refused(self, source: str) -> list[str]:
        with closing(PostgresDeadLetters(self.session.dsn)) as letters:
            return [f"{each.rule} {each.path}" for each in letters.list(limit=1_000) if each.source == source]

    def wait_for(self, source: str, count: int) -> list[Event]:
        """Until so many different events of a source are in the log."""
        until(lambda: self.counts()[source] >= count, f"{count} events of {source}")
        return self.events(source)

    def counted(self) -> dict[str, int]:
        """How many events of each source count, by SQL, once everything is applied."""
        result("status", "--wait", "--data", str(self.data))
        rows = result("sql", "select source, count(*) as n from events group by source", "--data", str(self.data))
        return {row["source"]: int(row["n"]) for row in rows}


def _record(stored: Stored) -> Record:
    return decode(stored.value)


def _opened(here: Session, stored: list[Stored]) -> list[tuple[Record, dict[str, Any], dict[str, list[str]]]]:
    vault = vault_of(here)
    pairs = open_records(vault, stored)
    tokens = {bytes.fromhex(each.token) for record, _ in pairs for each in record.ids}
    tokens.update(token for _, plain in pairs for token in tokens_in(plain))
    values = open_tokens(vault, tokens)
    found = []
    for record, plain in pairs:
        ids: dict[str, list[str]] = {}
        for each in record.ids:
            ids.setdefault(each.kind, []).append(values[bytes.fromhex(each.token)].value)
        found.append((record, with_values(plain, values), ids))
    return found


def _event(record: Record, plain: Mapping[str, Any], ids: dict[str, list[str]]) -> Event:
    parts = (joined(getattr(record, part), plain.get(part)) for part in ("properties", "context", "traits"))
    properties, context, traits = parts
    return Event(
        *(record.id, record.message_id, record.type, record.name, ids, properties, context, traits),
        *(record.occurred_at, record.original_at),
    )


def sender(name: str, world: World, key: str, **given: str) -> "subprocess.Popen[str]":
    """Start the sender of a file name in `senders/`."""
    file = SENDERS / name
    tool = [sys.executable, str(file)] if file.suffix == ".py" else ["node", str(file)]
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("TOUCHFOLD_", "NODE_"))}
    environment = {**kept, **given, "DOOR": world.url, "KEY": key, "SDKS": str(sdks())}
    environment["PYTHONPATH"] = f"{ROOT}:{sdks() / 'python'}"
    return subprocess.Popen(tool, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process: "subprocess.Popen[str]") -> str:
    """What a sender printed; it must have ended well."""
    out, errors = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, errors
    return out


class Site:
    """A shop's site on an origin of its own: pages, and scripts bundled from npm packages."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        handler = type("Handler", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *given: handler(*given, directory=str(folder)))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def page(self, name: str, head: str) -> str:
        """The address of a page with this head."""
        text = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Shop</title>{head}<body>Shop</body></html>'
        (self.folder / f"{name}.html").write_text(text, encoding="utf-8")
        return f"{self.url}/{name}.html"

    def bundle(self, entry: Path) -> str:
        """The script tag of an entry file, bundled with the npm packages it imports."""
        out = self.folder / f"{entry.stem}.js"
        tool = str(sdks() / "node_modules/.bin/esbuild")
        command = [tool, str(entry), "--bundle", "--format=iife", f"--outfile={out}", "--log-level=error"]
        environment = {**os.environ, "NODE_PATH": str(sdks() / "node_modules")}
        subprocess.run(command, check=True, env=environment)
        return f'<script src="{out.name}"></script>'
