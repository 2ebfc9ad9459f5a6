"""What an import noticed and took all the same: counted, with the first lines of each. No values: nothing personal."""

from dataclasses import dataclass, field
from typing import Any, Final

SHOWN_LINES: Final = 5
_MOST: Final = 200  # different notes


@dataclass
class Note:
    """`code`: stable; `message`: what it is and what to do; `lines`: the first few, empty if it is about a file."""

    code: str
    message: str
    count: int = 0
    lines: list[int] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return {"code": self.code, "count": self.count, "message": self.message, "lines": self.lines}


class Notes:
    """Notes by code and message. While `paused`, nothing is counted: a file may be read more than once."""

    def __init__(self) -> None:
        self._notes: dict[tuple[str, str], Note] = {}
        self.paused = False

    def add(self, code: str, message: str, line: int | None = None, count: int = 1) -> None:
        if self.paused:
            return
        note = self._notes.get((code, message))
        if note is None:
            if len(self._notes) >= _MOST:
                return
            note = self._notes[code, message] = Note(code, message)
        note.count += count
        if line is not None and len(note.lines) < SHOWN_LINES:
            note.lines.append(line)

    def all(self) -> list[Note]:
        """In the order in which each was first seen."""
        return list(self._notes.values())
