"""The demo's client for the product's API: sources and their keys, and processing progress."""

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any, Final

from infra.demo.sender import PATIENCE_S, Stopped
from schemas.errors import ServiceFailed, StoreUnavailable

_LOOK_S: Final = 0.1
_TIMEOUT_S: Final = 30.0


class Client:
    """The API of a running product at `url`, as an admin with `token`. Thread-safe."""

    def __init__(self, url: str, token: str) -> None:
        self._url = f"{url}/api/v1/"
        self._token = token
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({})
        )  # bypass proxies: the server is local

    def sources(self) -> set[str]:
        """The names of the existing sources."""
        return {str(each["name"]) for each in self._ask("sources")}

    def create_source(self, name: str) -> str:
        """Create a source and return its write key."""
        return str(self._ask("sources", {"name": name})["write_key"])

    def rotate_source(self, name: str) -> str:
        """Get a new write key; the old ones stop working."""
        return str(self._ask(f"sources/{name}/rotate", {})["write_key"])

    def status(self) -> dict[str, int]:
        """`accepted`, `applied`, `decided`: records so far."""
        found = self._ask("status")
        return {name: int(found[name]) for name in ("accepted", "applied", "decided")}

    def await_decided(self, stop: threading.Event, tell: Callable[[int], None]) -> None:
        """Return once everything accepted so far is decided; `tell` is called with the number applied.

        Raises Stopped, and StoreUnavailable if there is no progress for a minute.
        """
        wanted = self.status()["accepted"]
        last, since = (-1, -1), time.monotonic()
        while True:
            now = self.status()
            tell(now["applied"])
            if now["decided"] >= wanted:
                return
            place = now["applied"], now["decided"]
            if place != last:
                last, since = place, time.monotonic()
            elif time.monotonic() - since > PATIENCE_S:
                raise StoreUnavailable(
                    f"nothing was applied for {PATIENCE_S:.0f} s: check the worker's log lines of touchfold up"
                )
            if stop.wait(_LOOK_S):
                raise Stopped

    def _ask(self, path: str, body: dict[str, str] | None = None) -> Any:
        heads = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, heads)
        try:
            with self._opener.open(request, timeout=_TIMEOUT_S) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as err:
            text = err.read().decode(errors="replace")
            raise ServiceFailed(f"the API answered {path} with {err.code}: {text[:200]}") from err
        except OSError as err:
            raise StoreUnavailable(f"the API does not answer: {type(err).__name__}") from err
