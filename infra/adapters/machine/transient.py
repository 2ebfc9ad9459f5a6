"""A check that may fail briefly: elections, restarts and failovers pass by themselves."""

import time
from collections.abc import Callable
from typing import Final

from schemas.errors import TouchfoldError

GRACE_S: Final = 15.0  # KRaft notices a dead broker after 9 s (broker.session.timeout.ms), then its leaders move


class Steady:
    """`check` raises a TouchfoldError while its target is unavailable. One thread at a time.

    It must succeed once first; after that a failure only counts once it has lasted `grace_s`.
    """

    def __init__(
        self, check: Callable[[], None], grace_s: float = GRACE_S, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._check = check
        self._grace_s = grace_s
        self._monotonic = monotonic
        self._was_good = False
        self._failing_since: float | None = None
        self.error: TouchfoldError | None = None  # from the last look, forgiven or not

    def problem(self) -> str | None:
        """Look now. None: it is fine, or has not been failing for long."""
        try:
            self._check()
        except TouchfoldError as err:
            self.error = err
            return self._failed(err.message)
        self._was_good, self._failing_since, self.error = True, None, None
        return None

    def _failed(self, message: str) -> str | None:
        now = self._monotonic()
        if self._failing_since is None:
            self._failing_since = now
        forgiven = self._was_good and now - self._failing_since < self._grace_s
        return None if forgiven else message
