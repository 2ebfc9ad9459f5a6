"""The checker's HTTP client: one keep-alive connection; every request and response goes to the ledger."""

import contextlib
import json
import time
from base64 import b64encode
from collections.abc import Callable, Sequence
from http.client import HTTPConnection, HTTPException
from typing import Any

from tests.checker.ledger import Answer, Item, Ledger


class Client:
    """Sends batches for one source. One thread at a time."""

    def __init__(
        self,
        port: int,
        source: str,
        write_key: str,
        ledger: Ledger,
        *,
        host: str = "127.0.0.1",
        timeout_s: float = 30,
    ) -> None:
        self.source = source
        self._ledger = ledger
        self._address = (host, port)
        self._timeout_s = timeout_s
        self._headers = {
            "Authorization": "Basic " + b64encode(f"{write_key}:".encode()).decode(),
            "Content-Type": "application/json",
        }
        self._connection: HTTPConnection | None = None

    def send(self, items: Sequence[Item]) -> Answer:
        """Send one request with these items; an outage is an Answer without status, never an exception."""
        number = self._ledger.asked(self.source, items)
        answer = self._exchange("/v1/batch?results=true", json.dumps({"batch": list(items)}).encode())
        self._ledger.answered(number, answer)
        return answer

    def send_until_answered(
        self, items: Sequence[Item], deadline: float, stop: Callable[[], bool] = lambda: False
    ) -> Answer:
        """Repeat the same items until 200 or 4xx, `deadline` (monotonic) or `stop`; returns the last answer."""
        wait_s = 0.02
        while True:
            answer = self.send(items)
            if answer.status is not None and answer.status < 500 and answer.status != 429:
                return answer
            if time.monotonic() > deadline or stop():
                return answer
            time.sleep(wait_s)  # as a retrying client would
            wait_s = min(0.5, wait_s * 2)

    def _exchange(self, path: str, body: bytes) -> Answer:
        try:
            if self._connection is None:
                self._connection = HTTPConnection(*self._address, timeout=self._timeout_s)
            self._connection.request("POST", path, body, self._headers)
            response = self._connection.getresponse()
            return Answer(response.status, _json(response.read()))
        except TimeoutError:
            self.close()
            return Answer(None, timed_out=True)
        except (OSError, HTTPException):
            self.close()
            return Answer(None)

    def close(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.close()
            self._connection = None


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body[:200].decode(errors="replace")


def get_json(port: int, path: str, token: str, *, host: str = "127.0.0.1", timeout_s: float = 30) -> tuple[int, Any]:
    """Status and JSON of one GET with a bearer token."""
    connection = HTTPConnection(host, port, timeout=timeout_s)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
        response = connection.getresponse()
        return response.status, _json(response.read())
    finally:
        connection.close()
