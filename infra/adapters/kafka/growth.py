"""How many partitions a topic has: it may be given more while we run. Never fewer: Kafka takes none away."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from schemas.errors import TouchfoldError

LOOK_S: Final = 10.0  # between two questions: with the clients' own looks, all use new partitions within a minute
_log = logging.getLogger("touchfold.kafka")


class PartitionCount:
    """Any thread. `ask` the brokers; `grown(count)` makes ready for more of them, before anybody is told.

    Both may raise a TouchfoldError: then the count stays what it was, until the next look.
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
        """Waits for nobody but the first time; asks in the background when it is time to."""
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
            assert self._known is not None, "a look that does not raise leaves a count"
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
            _log.info("whether the topic has more partitions is not known: %s", err.message)
        finally:
            self._looking.release()
