"""Stopping on signals."""

import _thread
import signal
import threading
from types import FrameType
from typing import Final

ENDING: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def stop_at(*numbers: signal.Signals, stop: threading.Event | None = None) -> threading.Event:
    """An event (`stop`, else a new one) that any of these signals sets. Call it in the main thread.

    A handler runs in the main thread between two of its instructions, perhaps inside `Event.wait` while that holds the
    event's lock. Setting the event there would deadlock (seen: a SIGTERM that never ended a worker). So a separate
    thread sets it; the low-level call takes no Python lock.
    """
    event = threading.Event() if stop is None else stop

    def ask(_number: int, _frame: FrameType | None) -> None:
        _thread.start_new_thread(event.set, ())

    for number in numbers:
        signal.signal(number, ask)
    return event
