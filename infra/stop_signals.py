"""A stop that signals ask for."""

import _thread
import signal
import threading
from types import FrameType
from typing import Final

ENDING: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def stop_at(*numbers: signal.Signals) -> threading.Event:
    """An event that any of these signals sets. To be called in the main thread.

    A handler runs in the main thread, between two of its instructions: also where that is inside `Event.wait` and
    holds the event's lock. Setting the event there would wait for itself for ever (seen: a SIGTERM that never ended a
    worker). So a thread of its own sets it; the low-level call takes no lock of Python's.
    """
    stop = threading.Event()

    def ask(_number: int, _frame: FrameType | None) -> None:
        _thread.start_new_thread(stop.set, ())

    for number in numbers:
        signal.signal(number, ask)
    return stop
