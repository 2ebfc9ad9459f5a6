"""Progress of the exports started on pages. Knows nothing about their content."""

import secrets
from dataclasses import dataclass
from typing import Final

KEPT: Final = 100  # exports to keep the progress of


@dataclass
class Progress:
    """Progress of one export. `viewer`: who may download it."""

    viewer: str
    done: int = 0
    total: int = 0
    ended: bool = False
    error: str = ""


class PersonExports:
    """The exports started on pages, by the random number in their address. Used in the loop and by one thread each."""

    def __init__(self) -> None:
        self._known: dict[str, Progress] = {}

    def begin(self, viewer: str) -> str:
        while len(self._known) >= KEPT:
            del self._known[next(iter(self._known))]
        number = secrets.token_hex(16)
        self._known[number] = Progress(viewer)
        return number

    def get(self, number: str) -> Progress | None:
        return self._known.get(number)
