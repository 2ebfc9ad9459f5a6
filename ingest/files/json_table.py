"""JSON: one object a line, or one array of objects."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from ingest.accept.canonical import Refused
from ingest.files.encodings import SAMPLE, encoding_of
from ingest.files.notes import Notes
from ingest.files.parts import Part, unreadable
from ingest.files.tables import Layout, Line

_BOM: Final = b"\xef\xbb\xbf"
_MOST_ARRAY: Final = 500_000_000  # bytes: an array is read as a whole
_DECODE: Final = msgspec.json.Decoder().decode
_ERRORS: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class JsonTable:
    """Nested objects become columns with dotted names; all lines contribute columns."""

    def __init__(self, part: Part, layout: Layout) -> None:
        self.part, self.name, self.size = part, part.name, part.size
        self.notes = Notes()
        sample = part.sample(SAMPLE)
        self._encoding = encoding_of(sample, layout.encoding)
        self._array = self._as_array() if _is_one_value(sample) else None
        names: dict[str, None] = {}
        for _, row, _ in self._objects():
            if row is not None and not row.keys() <= names.keys():
                names.update(dict.fromkeys(row))
        if not names:
            raise unreadable(self.name, "it has no JSON objects: write one per line")
        self.columns = tuple(names)

    def done(self) -> float:
        return self.part.done()

    @property
    def layout(self) -> Layout:
        return Layout()

    def _as_array(self) -> list[Any] | None:
        """The objects of a file that is one array, or one object with an array of them; None if it is not."""
        content = self.part.sample(_MOST_ARRAY + 1)
        if len(content) > _MOST_ARRAY:
            raise unreadable(self.name, "one JSON array of this size cannot be read: write one object per line")
        try:
            found = _DECODE(self._as_utf8(content).removeprefix(_BOM))
        except _ERRORS:
            return None
        if isinstance(found, dict):
            found = max([each for each in found.values() if isinstance(each, list)], key=len, default=[found])
        return found if isinstance(found, list) and any(isinstance(each, dict) for each in found) else None

    def _as_utf8(self, content: bytes) -> bytes:
        name = self._encoding.name
        return content if name.startswith("utf-8") else content.decode(name, "replace").encode()

    def _objects(self) -> Iterator[tuple[int, dict[str, Any] | None, str]]:
        if self._array is not None:
            for number, row in enumerate(self._array, 1):
                yield (number, _flat(row), "") if isinstance(row, dict) else (number, None, "is not a JSON object")
            return
        for number, text in self._lines():
            line = (text.removeprefix(_BOM) if number == 1 else text).strip()
            if not line:
                continue
            try:
                row = _DECODE(line)
            except _ERRORS:
                yield number, None, "is not JSON or not UTF-8"
                continue
            if isinstance(row, dict):
                yield number, _flat(row), ""
            else:
                yield number, None, "is not a JSON object"

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        with self.part.open() as raw:
            if self._encoding.name.startswith("utf-8"):
                yield from enumerate(raw, 1)
                return
            text = self._as_utf8(raw.read()).removeprefix(_BOM)
            yield from enumerate(text.splitlines(), 1)

    def rows(self, wanted: Sequence[str]) -> Iterator[Line]:
        names = list(wanted)
        for number, row, reason in self._objects():
            if row is None:
                yield Line(number, (), Refused("invalid_json", "", reason))
            else:
                yield Line(number, tuple([row.get(name) for name in names]), None)


def _is_one_value(sample: bytes) -> bool:
    """Whether a file is one JSON value over many lines, not one object a line."""
    first, _, rest = sample.removeprefix(_BOM).replace(b"\0", b"").lstrip(b"\xff\xfe \t\r\n").partition(b"\n")
    if first[:1] == b"[":
        return True
    try:
        _DECODE(first)
    except _ERRORS:
        return first[:1] == b"{" and bool(rest)
    return False


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """Nested objects as dotted names; most rows have none and are returned unchanged."""
    if not any(type(each) is dict for each in row.values()):
        return row
    out: dict[str, Any] = {}
    stack: list[tuple[str, Mapping[str, Any]]] = [("", row)]
    while stack:
        prefix, node = stack.pop()
        for name, each in node.items():
            if type(each) is dict:
                stack.append((f"{prefix}{name}.", each))
            else:
                out[f"{prefix}{name}"] = each
    return out
