"""Log lines on stderr, one line each with the role's name. Never contains the text of an unexpected exception.

That text may hold a customer's value (`ValueError: 'ada@…'`); the class and code locations do not. The text of our own
errors is safe to log.
"""

import logging
import os
import sys
import traceback
from datetime import UTC, datetime
from types import TracebackType
from typing import Final

from schemas.errors import TouchfoldError

_PLACES: Final = 12  # innermost frames
CHATTY: Final = (
    *("uvicorn", "httpx", "httpcore", "websockets", "nicegui", "engineio", "socketio"),
    *("kafka", "aiokafka", "faust", "mode", "abc", "infra.drivers.stream.faust_runner", "botocore", "boto3"),
)
"""Libraries whose INFO lines are only for their authors (Faust also logs under its subclasses' modules)."""


class OneLine(logging.Formatter):
    """2026-05-04T10:11:12.131Z worker WARNING touchfold.worker: text [TypeError at fold.py:12 apply < …]"""

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        text = f"{at} {self._role} {record.levelname} {record.name}: {record.getMessage()}"
        if record.exc_info and record.exc_info[0] is not None:
            text += f" [{described(record.exc_info[1], record.exc_info[2])}]"
        return " ".join(text.splitlines())


def described(err: BaseException | None, trace: TracebackType | None) -> str:
    """An error's class and code locations, and the class of its cause; texts only for our own errors."""
    cause = None if err is None else err.__cause__
    message = (f": {err.message}" if isinstance(err, TouchfoldError) else "") + (
        f" from {type(cause).__name__}: {cause.message}" if isinstance(cause, TouchfoldError) else ""
    )
    places = [
        f"{os.path.basename(frame.filename)}:{frame.lineno} {frame.name}"
        for frame in reversed(traceback.extract_tb(trace)[-_PLACES:])
    ]
    return f"{type(err).__name__}{message} at {' < '.join(places)}"


def configure(role: str) -> logging.Logger:
    """Send every logger of this process to stderr; returns the role's own."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine(role))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    for chatty in CHATTY:
        logging.getLogger(chatty).setLevel(logging.WARNING)
    logging.captureWarnings(True)
    return logging.getLogger("touchfold")
