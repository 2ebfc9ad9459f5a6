"""Lists of people as files: one person per line, and what was wrong with each bad line. Only reads the file."""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from schemas.errors import BadRequest, Problem
from schemas.identifiers import PhoneForm, check_kind, examine

HEADERS: Final = (["identifier"], ["kind", "value"])
LONGEST: Final = 10_000  # bytes per line


class Person(NamedTuple):
    """A line that names somebody. `value`: in its normal form; `kind` may be `profile`."""

    line: int
    kind: str
    value: str


class Wrong(NamedTuple):
    """A line that does not name anybody. The reason holds no personal data."""

    line: int
    reason: str


def read_people(path: Path, phone: PhoneForm) -> tuple[list[Person], list[Wrong]]:
    """Lines of a CSV file: `KIND:VALUE`, or kind and value in two columns, with an optional header.

    Empty lines are skipped; a bad line does not affect others, because a cell always ends with its line.
    Raises BadRequest if the file cannot be read.
    """
    try:
        with path.open("rb") as lines:
            return sort_out(enumerate(lines, 1), phone)
    except OSError as err:
        raise BadRequest(f"{path} cannot be read: {err.strerror}", [Problem("file", "cannot be read")]) from err


def sort_out(lines: Iterable[tuple[int, bytes]], phone: PhoneForm) -> tuple[list[Person], list[Wrong]]:
    """The numbered lines that name somebody, and the rest."""
    people: list[Person] = []
    wrong: list[Wrong] = []
    for number, raw in lines:
        try:
            cells = _cells(raw)
            if not cells or (number == 1 and [each.strip().lower() for each in cells] in HEADERS):
                continue
            people.append(Person(number, *_named(cells, phone)))
        except ValueError as err:
            wrong.append(Wrong(number, str(err)))
    return people, wrong


def _cells(raw: bytes) -> list[str]:
    if len(raw) > LONGEST:
        raise ValueError(f"is longer than {LONGEST} bytes")
    try:
        text = raw.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8") from None
    try:
        return next(csv.reader([text], strict=True)) if text else []
    except csv.Error:
        raise ValueError("has an unclosed quotation mark") from None


def _named(cells: list[str], phone: PhoneForm) -> tuple[str, str]:
    if len(cells) == 1:
        kind, colon, value = cells[0].partition(":")
        if not colon:
            raise ValueError("is neither KIND:VALUE, such as email:ada@example.com, nor kind and value in two columns")
    elif len(cells) == 2:
        kind, value = cells
    else:
        raise ValueError(f"has {len(cells)} columns: give KIND:VALUE, or kind and value")
    return named(kind.strip(), value.strip(), phone)


def named(kind: str, value: str, phone: PhoneForm) -> tuple[str, str]:
    """Kind and normal form. Raises ValueError saying what is wrong."""
    if kind == "profile":
        return kind, value
    reason = check_kind(kind)
    if reason:
        raise ValueError(f"the kind {reason}")
    found = examine(kind, value, phone=phone)
    if found.value is None:
        raise ValueError(f"this {kind} has no usable form: {found.reason}")
    return kind, found.value
