"""A stop that signals ask for."""

import _thread
import signal
import threading
from types import FrameType
from typing import Final

ENDING: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def stop_at(*numbers: signal.Signals, stop: threading.Event | None = None) -> threading.Event:
    """An event (`stop`, else a new one) that any of these signals sets. To be called in the main thread.

    A handler runs in the main thread, between two of its instructions: also where that is inside `Event.wait` and
    holds the event's lock. Setting the event there would wait for itself for ever (seen: a SIGTERM that never ended a
    worker). So a thread of its own sets it; the low-level call takes no lock of Python's.
    """
    event = threading.Event() if stop is None else stop

    def ask(_number: int, _frame: FrameType | None) -> None:
        _thread.start_new_thread(event.set, ())

    for number in numbers:
        signal.signal(number, ask)
    return event
