"""How many partitions a topic has: it may gain some while we run. Never fewer, as Kafka cannot remove any."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from schemas.errors import TouchfoldError

LOOK_S: Final = 10.0  # between two checks: with the clients' own checks, all use new partitions within a minute
_log = logging.getLogger("touchfold.kafka")


class PartitionCount:
    """Any thread. `ask` queries the brokers; `grown(count)` prepares for more partitions before anybody is told.

    Both may raise a TouchfoldError: then the count stays as it was until the next check.
    """

    def __init__(
        self,
        known: int | None,
        ask: Callable[[], int],
        grown: Callable[[int], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._known = known
        self._ask = ask
        self._grown = grown
        self._monotonic = monotonic
        self._looked_at = float("-inf") if known is None else monotonic()
        self._looking = threading.Lock()

    def known(self) -> int:
        """Only waits the first time; after that it asks in the background when a check is due."""
        if self._known is None:
            return self.fresh()
        if self._is_due() and self._looking.acquire(blocking=False):
            threading.Thread(target=self._look_beside, name="partitions of the topic", daemon=True).start()
        return self._known

    def fresh(self) -> int:
        """At most LOOK_S old. Raises StoreUnavailable."""
        with self._looking:
            if self._known is None or self._is_due():
                self._look()
            assert self._known is not None, "a check that does not raise sets a count"
            return self._known

    def _is_due(self) -> bool:
        return self._monotonic() - self._looked_at >= LOOK_S

    def _look(self) -> None:
        self._looked_at = self._monotonic()
        count = self._ask()
        if self._known is not None and count > self._known:
            self._grown(count)
            _log.info("the topic has %d partitions now, %d before", count, self._known)
        self._known = max(count, self._known or 0)

    def _look_beside(self) -> None:
        try:
            self._look()
        except TouchfoldError as err:
            _log.info("cannot check whether the topic has gained partitions: %s", err.message)
        finally:
            self._looking.release()
