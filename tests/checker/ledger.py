"""The sender's own ledger: every request and its answer, in memory and as JSON lines.

An event is named by (source, message id). Requests are written before they are sent, answers after they arrive.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import IO, Any, NamedTuple

Item = Mapping[str, Any]
Name = tuple[str, str]  # (source, message id)


COMMITTED, ABORTED, POISON, UNKNOWN = "committed", "aborted", "poison", "unknown"


class Direct(NamedTuple):
    """A record written directly to the log, bypassing the door, and its required fate.

    `fate`: COMMITTED is applied like any other, ABORTED is never visible, POISON is set aside as unreadable, UNKNOWN is
    either of the first two, since the producer did not learn which.
    """

    name: Name | None  # None: the record has no name
    value: bytes
    fate: str


class Request(NamedTuple):
    """A batch as it was sent."""

    source: str
    items: tuple[Item, ...]


class Answer(NamedTuple):
    """`status` None: the connection closed without an answer, or (`timed_out`) none came in time."""

    status: int | None
    body: Any = None
    timed_out: bool = False


@dataclass
class Outcome:
    """What is known about one event: the contents sent under its name, and the answers."""

    contents: list[Item] = field(default_factory=list)
    acknowledged: bool = False  # some attempt got 200, and its result did not set the item aside
    set_aside: int = 0  # results of a 200 that say dead_letter
    suppressed: bool = False
    possible: bool = False  # an attempt may have been stored: 200, 5xx or no answer


class Ledger:
    """Thread-safe. `path` None: in memory only."""

    def __init__(self, path: Path | None = None) -> None:
        self.requests: list[Request] = []
        self.answers: dict[int, Answer] = {}
        self.direct: list[Direct] = []
        self._lock = Lock()
        self._file: IO[str] | None = path.open("a", encoding="utf-8") if path else None

    def asked(self, source: str, items: Iterable[Item]) -> int:
        """Note a request about to be sent; returns its number."""
        request = Request(source, tuple(items))
        with self._lock:
            self.requests.append(request)
            number = len(self.requests) - 1
            self._write({"asked": number, "source": source, "items": request.items})
        return number

    def answered(self, number: int, answer: Answer) -> None:
        """Note how a request ended."""
        with self._lock:
            self.answers[number] = answer
            self._write({"answered": number, **answer._asdict()})

    def produced(self, record: Direct) -> None:
        """Note a record that was written directly to the log."""
        with self._lock:
            self.direct.append(record)
            self._write({"direct": record.name, "value": record.value.hex(), "fate": record.fate})

    def _write(self, line: Mapping[str, Any]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(line, separators=(",", ":")) + "\n")
            self._file.flush()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    @classmethod
    def read(cls, path: Path) -> "Ledger":
        """Read a ledger from its file, without a torn last line."""
        ledger = cls()
        for text in path.read_text(encoding="utf-8").splitlines():
            try:
                line = json.loads(text)
            except ValueError:
                break
            if "asked" in line:
                ledger.requests.append(Request(line["source"], tuple(line["items"])))
            elif "direct" in line:
                source_and_id = line["direct"]
                name = None if source_and_id is None else (source_and_id[0], source_and_id[1])
                ledger.direct.append(Direct(name, bytes.fromhex(line["value"]), line["fate"]))
            else:
                ledger.answers[line["answered"]] = Answer(line["status"], line["body"], line["timed_out"])
        return ledger

    def outcomes(self) -> dict[Name, Outcome]:
        """What is known about every event ever sent."""
        found: dict[Name, Outcome] = {}
        with self._lock:
            requests, answers = list(self.requests), dict(self.answers)
        for number, request in enumerate(requests):
            answer = answers.get(number, Answer(None))
            results = _results(answer, len(request.items))
            for item, result in zip(request.items, results, strict=True):
                outcome = found.setdefault((request.source, str(item["messageId"])), Outcome())
                if item not in outcome.contents:
                    outcome.contents.append(item)
                _note(outcome, answer, result)
        return found


def _results(answer: Answer, count: int) -> list[str]:
    """The status of each item of an answer; "accepted" if the answer does not say."""
    listed = answer.body.get("results") if isinstance(answer.body, dict) else None
    if answer.status != 200 or not isinstance(listed, list) or len(listed) != count:
        return ["accepted"] * count
    return [str(result.get("status")) for result in listed]


def _note(outcome: Outcome, answer: Answer, result: str) -> None:
    if answer.status is None or answer.status >= 500:
        outcome.possible = True
    elif answer.status == 200:
        outcome.possible = True
        if result == "dead_letter":
            outcome.set_aside += 1
        elif result == "suppressed":
            outcome.suppressed = True
        else:
            outcome.acknowledged = True
