"""`Clock` of this machine, shifted for tests."""

import threading
from datetime import UTC, datetime, timedelta


class SystemClock:
    """Aware UTC. If the system sets its clock back, this one stands still until it has caught up. Any thread."""

    def __init__(self, offset_s: float = 0.0) -> None:
        self._offset = timedelta(seconds=offset_s)
        self._lock = threading.Lock()
        self._last = datetime.min.replace(tzinfo=UTC)

    def now(self) -> datetime:
        with self._lock:
            self._last = max(self._last, datetime.now(UTC) + self._offset)
            return self._last
