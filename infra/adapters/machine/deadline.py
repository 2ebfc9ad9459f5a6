"""Asks a question with a deadline, for callers that must answer even if a backend is unavailable."""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, Generic, TypeVar

from schemas.errors import TouchfoldError

T = TypeVar("T")
DEADLINE_S: Final = 1.5
_log = logging.getLogger("touchfold.timely")


class Timely(Generic[T]):
    """Any thread. One daemon thread asks at a time; callers that arrive meanwhile share its answer."""

    def __init__(self, ask: Callable[[], T], deadline_s: float = DEADLINE_S) -> None:
        self._ask = ask
        self._deadline_s = deadline_s
        self._lock = threading.Lock()
        self._asked: Future[T] | None = None

    def get(self) -> T | None:
        """None if there is no answer in time or a backend is unavailable: unknown, which is not 0."""
        with self._lock:
            asked = self._asked
            if asked is None or asked.done():
                asked = self._asked = Future()
                threading.Thread(target=self._run, args=(asked,), name="timely", daemon=True).start()
        try:
            return asked.result(self._deadline_s)
        except TimeoutError:
            return None
        except TouchfoldError as err:
            _log.info("not known: %s", err.message)
            return None

    def _run(self, asked: "Future[T]") -> None:
        try:
            asked.set_result(self._ask())
        except BaseException as err:  # the caller waiting for the answer raises it
            asked.set_exception(err)
