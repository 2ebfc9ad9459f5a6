"""Log lines on stderr: one line each, with the role's name. Never the text of an unforeseen exception.

Such a text may hold a customer's value (`ValueError: 'ada@…'`); its class and places in the code do not. The text
of our own errors is written to be read.
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
"""Libraries (Faust logs under the module of its subclasses too) whose INFO is for their authors."""


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
    """Class and places of an error and the class of what it came from; their texts only when they are ours."""
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
