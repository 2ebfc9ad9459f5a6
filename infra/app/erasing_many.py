"""Erases many people in one run, with a receipt for each, and resumes where a killed run stopped.

Progress is kept in one file: a JSON line for each person, keyed by their line number in the given list. The file names
nobody, and nothing in it links to a token anywhere: with the list you can see what was done, with only the folder you
can find nobody. People are processed in the order of their tokens, which reveals nothing (decision 0027).
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from infra.adapters.ledger.erasures import replace_file
from infra.app.erasing import drain_or_note, eraser
from infra.app.people_files import Person, Wrong
from infra.app.vault import vault_of
from processors.erase.eraser import Begun, Eraser, Taken
from processors.erase.plan import Preview
from schemas.erasures import Job
from schemas.errors import BadRequest, ErasureRefused, Problem
from schemas.failpoints import failpoint

if TYPE_CHECKING:
    from infra.app.session import Session

CHUNK: Final = 500  # people per step: the wait for two vault epochs, 3 s, is shared by all of them
FIND: Final = 1_000  # identifiers looked up in one query
Tell = Callable[[str, int, int], None]  # (current task, amount done, total)
Line = dict[str, Any]


class Summary(NamedTuple):
    """What became of a list. `same`: lines that name the same person as an earlier line."""

    lines: int
    erased: int
    same: int
    unknown: int
    refused: int
    malformed: int
    note: dict[str, Any]


class Results:
    """A run's file: appended to while it works, rewritten in the list's order at the end."""

    def __init__(self, path: Path, size: int) -> None:
        """`size`: lines in the list. Raises BadRequest if the file belongs to another list."""
        self.path = path
        self.lines: dict[int, Line] = {}
        self.done = False
        for each in read_results(path):
            if "list" in each:
                if each["list"] != size:
                    raise BadRequest(
                        f"{path} has the receipts of a list of {each['list']} lines, but this one has {size}: give "
                        "another file for the receipts",
                        [Problem("receipts", "belongs to another list")],
                    )
                self.done = each["done"]
            else:
                self.lines[each["line"]] = each
        self._size = size
        if not path.exists():
            self._append([{"list": size, "done": False}])

    def add(self, lines: Sequence[Line]) -> None:
        """Durable when it returns."""
        self.lines |= {each["line"]: each for each in lines}
        self._append(lines)

    def _append(self, lines: Sequence[Line]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(handle, "ab") as out:
            out.write(b"".join(b"\n" + json.dumps(each).encode() for each in lines))  # a torn line ends before ours
            out.flush()
            os.fsync(out.fileno())

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Raises ErasureRefused if another process is working through the same list."""
        with self.path.open("rb") as held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as err:
                raise ErasureRefused(f"another process is already working through this list: {self.path}") from err
            yield

    def finish(self) -> None:
        """Write everything in order, and mark the list as complete."""
        kept = [{"list": self._size, "done": True}, *(self.lines[number] for number in sorted(self.lines))]
        replace_file(self.path, b"".join(json.dumps(each).encode() + b"\n" for each in kept))
        self.done = True


def read_results(path: Path) -> Iterator[Line]:
    """The lines of a results file; the last line counts if a person has several. A torn one is left out."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as lines:
        for line in lines:
            with contextlib.suppress(ValueError):
                found = json.loads(line)
                if isinstance(found, dict):
                    yield found


def erase_many(
    session: "Session",
    people: Sequence[Person],
    wrong: Sequence[Wrong],
    results: Results,
    tell: Tell,
    *,
    force: bool = False,
    suppress: bool = False,
) -> Summary:
    """Erase everybody in a list; `results` has the receipts when it returns. Raises RightsMissing, StoreUnavailable.

    After a crash the same call resumes: erased people can no longer be found, so their receipts are made from what was
    written down before their erasure began.
    """
    note = drain_or_note(session)
    parts = (session.dsn, session.vault_dsn, vault_of(session), session.ledger_folder, session.region)
    with eraser(*parts, session.door_clock.now) as work:
        erase_list(work, people, wrong, results, tell, force=force, suppress=suppress)
    note |= drain_or_note(session)
    return summary_of(results, note)


def erase_list(
    work: Eraser,
    people: Sequence[Person],
    wrong: Sequence[Wrong],
    results: Results,
    tell: Tell,
    *,
    force: bool = False,
    suppress: bool = False,
    chunk: int = CHUNK,
) -> None:
    """`erase_many` for people with no events waiting to be applied."""
    with results.alone():
        work.check_rights()
        work.resume()
        results.add([{"line": each.line, "malformed": each.reason} for each in wrong])
        _Run(work, results, tell, chunk, force=force, suppress=suppress).run(people)
        results.finish()


class _Run:
    """One pass over a list."""

    def __init__(self, work: Eraser, results: Results, tell: Tell, chunk: int, *, force: bool, suppress: bool) -> None:
        self._work, self._results, self._tell, self._chunk = work, results, tell, chunk
        self._force, self._suppress = force, suppress
        self._jobs: list[Job] = []

    def run(self, people: Sequence[Person]) -> None:
        tokens = self._find(people)
        strangers = [each for each in people if each.line not in tokens]
        self._of_strangers(strangers)
        lines_of: dict[bytes, list[int]] = {}
        for line, token in sorted(tokens.items()):
            lines_of.setdefault(token, []).append(line)
        order = sorted(lines_of)
        done = 0
        while order:
            chunk, order = order[: self._chunk], order[self._chunk :]
            begun = self._work.begin(chunk, force=self._force, suppress=self._suppress, before=self._prepare(lines_of))
            self._work.advance(begun.jobs)
            self._jobs += begun.jobs
            failpoint("erase_many.after_chunk")
            gone = {t for token in begun.previews.keys() - begun.refused.keys() for t in begun.previews[token].tokens}
            order = self._of_others(begun, gone, order, lines_of)
            done += len(chunk)
            self._tell("erasing", done, done + len(order))
        self._tell("overwriting deleted data", 0, 0)
        self._receipts()

    def _find(self, people: Sequence[Person]) -> dict[int, bytes]:
        """The token of each line that has one."""
        by_profile = {each.line: self._work.find("profile", each.value) for each in people if each.kind == "profile"}
        found = {line: token for line, token in by_profile.items() if token is not None}
        others = [each for each in people if each.kind != "profile"]
        for at in range(0, len(others), FIND):
            some = {each.line: self._work.hash_of(each.kind, each.value) for each in others[at : at + FIND]}
            tokens = self._work.vault_rows.find(set(some.values()))
            found |= {line: tokens[hashed] for line, hashed in some.items() if hashed in tokens}
        return found

    def _of_strangers(self, strangers: Sequence[Person]) -> None:
        """Identifiers that belong to nobody, or no longer do and an earlier run prepared the receipt."""
        known = self._results.lines
        new = [each for each in strangers if "identifiers" not in known.get(each.line, {}) and not _same(known, each)]
        if self._suppress and new:
            self._work.suppress_strangers([(each.kind, each.value) for each in new if each.kind != "profile"])
        self._results.add([{"line": each.line, "found": False} for each in new])

    def _prepare(self, lines_of: Mapping[bytes, Sequence[int]]) -> Callable[[Mapping[bytes, Preview]], None]:
        """Write down what the receipts will say before those erasures begin."""

        def prepare(taken: Mapping[bytes, Preview]) -> None:
            lines: list[Line] = []
            for token, each in taken.items():
                said = self._work.taken(each)._asdict()
                lines.append({"line": lines_of[token][0], "found": True, "suppressed": self._suppress, **said})
            self._results.add(lines)

        return prepare

    def _of_others(
        self, begun: Begun, gone: set[bytes], order: Sequence[bytes], lines_of: Mapping[bytes, Sequence[int]]
    ) -> list[bytes]:
        """Record the refused lines and the duplicates; returns the people still to be erased."""
        reasons = {token: [each.reason for each in problems] for token, problems in begun.refused.items()}
        of = {t: token for token, each in begun.previews.items() for t in each.tokens} | begun.same
        lines: list[Line] = []
        for token in (*begun.same, *(t for t in order if t in gone)):
            person = of[token]
            first = lines_of[person][0]
            if person in reasons:
                lines += [{"line": line, "found": True, "refused": reasons[person]} for line in lines_of[token]]
            else:
                lines += [{"line": line, "found": True, "same_as": first} for line in lines_of[token] if line != first]
        rest = [token for token in order if token not in gone]
        self._results.add(lines)
        return rest

    def _receipts(self) -> None:
        remains = self._work.finish(self._jobs)
        made: list[Line] = []
        for line in self._results.lines.values():
            if "identifiers" in line and "receipt" not in line:
                taken = Taken(*(line[name] for name in Taken._fields))
                receipt = self._work.receipt(taken, line["suppressed"], remains)
                said = {name: line[name] for name in ("line", "found", "identifiers", "events")}
                made.append({**said, "receipt": receipt})
        self._results.add(made)


def _same(known: Mapping[int, Line], person: Person) -> bool:
    return "same_as" in known.get(person.line, {})


def summary_of(results: Results, note: dict[str, Any]) -> Summary:
    """Totals of a results file."""
    lines = results.lines.values()
    return Summary(
        lines=len(lines),
        erased=sum("receipt" in each for each in lines),
        same=sum("same_as" in each for each in lines),
        unknown=sum(each.get("found") is False for each in lines),
        refused=sum("refused" in each for each in lines),
        malformed=sum("malformed" in each for each in lines),
        note=note,
    )
