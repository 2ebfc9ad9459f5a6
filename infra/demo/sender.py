"""Sends batches to a door over several connections, as SDKs do: repeated with the same ids until acknowledged."""

import http.client
import json
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from infra.demo.history import Event
from schemas.errors import ServiceFailed, StoreUnavailable

WINDOW: Final = 1_500  # consecutive events that are grouped by source, so that no source gets far ahead
MOST: Final = 400  # events of one batch
CONNECTIONS: Final = 3  # two cores both serve and fold; more connections would only wait
PATIENCE_S: Final = 60.0
_TIMEOUT_S: Final = 30.0


class Batch(NamedTuple):
    """`body`: for POST /v1/batch."""

    source: str
    body: bytes
    events: int


class Stopped(Exception):
    """Stopped before the end."""


def batches(events: Sequence[Event]) -> list[Batch]:
    """The same events give the same batches in the same order, so a second run can continue by number."""
    made = []
    for start in range(0, len(events), WINDOW):
        by_source: dict[str, list[bytes]] = {}
        for event in events[start : start + WINDOW]:
            by_source.setdefault(event.source, []).append(event.body)
        for source in sorted(by_source):
            bodies = by_source[source]
            for first in range(0, len(bodies), MOST):
                part = bodies[first : first + MOST]
                made.append(Batch(source, body_of(part), len(part)))
    return made


def body_of(items: Iterable[bytes]) -> bytes:
    """A request with encoded items; without sentAt, so that the door does not correct their times."""
    return b'{"batch":[' + b",".join(items) + b"]}"


class Sender:
    """Posts to one door. One instance per thread: it holds a connection."""

    def __init__(self, url: str, keys: dict[str, str], stop: threading.Event) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port
        self._heads = {
            source: {
                "Content-Type": "application/json",
                "Authorization": "Basic " + b64encode(f"{key}:".encode()).decode(),
            }
            for source, key in keys.items()
        }
        self._stop = stop
        self._connection: http.client.HTTPConnection | None = None

    def post(self, source: str, body: bytes) -> None:
        """Return once the door has the batch on disk.

        Raises Stopped; StoreUnavailable after a minute without success; ServiceFailed for a refusal, which would
        only be repeated.
        """
        deadline = time.monotonic() + PATIENCE_S
        wait_s = 0.05
        while not self._stop.is_set():
            try:
                status, text = self._once(source, body)
            except (OSError, http.client.HTTPException) as err:
                self.close()
                if time.monotonic() > deadline:
                    raise StoreUnavailable(f"the door does not answer: {type(err).__name__}") from err
            else:
                if status == 200:
                    return
                if status != 429 and status < 500:
                    raise ServiceFailed(f"the door refused a batch of {source} with {status}: {_code(text)}")
                if time.monotonic() > deadline:
                    raise StoreUnavailable(f"the door has answered {status} for a minute: {_code(text)}")
            self._stop.wait(wait_s)
            wait_s = min(2.0, wait_s * 2)
        raise Stopped

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _once(self, source: str, body: bytes) -> tuple[int, bytes]:
        if self._connection is None:
            self._connection = http.client.HTTPConnection(self._host, self._port, timeout=_TIMEOUT_S)
        self._connection.request("POST", "/v1/batch", body, self._heads[source])
        answer = self._connection.getresponse()
        return answer.status, answer.read()


def _code(text: bytes) -> str:
    try:
        return str(json.loads(text)["code"])
    except (ValueError, KeyError, TypeError):
        return "no reason given"


def send_all(
    work: Sequence[Batch],
    start: int,
    make: Callable[[], Sender],
    acknowledged: Callable[[int, int], None],
    connections: int = CONNECTIONS,
) -> None:
    """Send the batches from number `start` on. `acknowledged(batches, events)`: how many so far, without gaps.

    Raises what `Sender.post` raises; the next run resends whatever was not acknowledged.
    """
    loading = _Loading(work, start, acknowledged)
    threads = [threading.Thread(target=loading.run, args=(make(),), daemon=True) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if loading.error is not None:
        raise loading.error


class _Loading:
    """The state shared by the connections of `send_all`."""

    def __init__(self, work: Sequence[Batch], start: int, acknowledged: Callable[[int, int], None]) -> None:
        self._work = work
        self._next = self._mark = start
        self._events = sum(batch.events for batch in work[:start])
        self._done: set[int] = set()
        self._acknowledged = acknowledged
        self._lock = threading.Lock()
        self.error: Exception | None = None

    def run(self, sender: Sender) -> None:
        """Send batch after batch until none is left or one of the threads fails."""
        try:
            while (number := self._take()) is not None:
                sender.post(self._work[number].source, self._work[number].body)
                self._tell(number)
        except Exception as err:
            with self._lock:
                self.error = self.error or err
        finally:
            sender.close()

    def _take(self) -> int | None:
        with self._lock:
            if self.error is not None or self._next >= len(self._work):
                return None
            self._next += 1
            return self._next - 1

    def _tell(self, number: int) -> None:
        with self._lock:
            self._done.add(number)
            before = self._mark
            while self._mark in self._done:
                self._done.remove(self._mark)
                self._events += self._work[self._mark].events
                self._mark += 1
            if self._mark != before:
                self._acknowledged(self._mark, self._events)
