"""Sorts the events of an import by when they occurred, in bounded memory.

Runs that do not fit into memory go into a nameless temporary file that vanishes with the process, sealed: they hold
personal values. Reading them back takes one block of each run into memory.
"""

import heapq
import marshal
from collections.abc import Callable, Iterator
from operator import itemgetter
from tempfile import TemporaryFile
from typing import IO, Any, Final, NamedTuple

from ingest.files.mapped_rows import Row, Shaped
from schemas.errors import StoreUnavailable
from schemas.record import to_us

RUN_BYTES: Final = 64_000_000
_BLOCK: Final = 256  # events
_OVERHEAD: Final = 200  # bytes of Python's objects around an event

Entry = tuple[int, int, int, bytes]  # microseconds since 1970, file, line, the event
_FIRST_THREE: Final = itemgetter(0, 1, 2)


class Cipher(NamedTuple):
    """`seal(block, number)` and `open(data, number)`, for what is written to disk. `open` may raise."""

    seal: Callable[[bytes, int], bytes]
    open: Callable[[bytes, int], bytes]


class _Block(NamedTuple):
    at: int
    size: int
    number: int


class EventSorter:
    """`add` events in any order, then iterate once: by time, then file and line. One thread; `close` at the end.

    `add` raises StoreUnavailable where the disk of temporary files is full.
    """

    def __init__(self, cipher: Cipher, run_bytes: int = RUN_BYTES) -> None:
        self._cipher = cipher
        self._run_bytes = run_bytes
        self._near: list[Entry] = []
        self._near_bytes = 0
        self._file: IO[bytes] | None = None
        self._runs: list[list[_Block]] = []
        self._blocks = 0
        self.count = 0

    def add(self, event: Shaped) -> None:
        """Only events with an item and a time."""
        assert event.at is not None, "a refused event has no place in the order"
        body = marshal.dumps((event.item, event.natural, event.content))
        self._near.append((to_us(event.at), event.row.file, event.row.line, body))
        self._near_bytes += len(body) + _OVERHEAD
        self.count += 1
        if self._near_bytes > self._run_bytes:
            self._spill()

    def _spill(self) -> None:
        if self._file is None:
            self._file = TemporaryFile()  # noqa: SIM115  # closed by `close`
        self._near.sort(key=_FIRST_THREE)
        self._runs.append([self._write(self._file, at) for at in range(0, len(self._near), _BLOCK)])
        self._near, self._near_bytes = [], 0

    def _write(self, file: IO[bytes], at: int) -> _Block:
        self._blocks += 1
        sealed = self._cipher.seal(marshal.dumps(self._near[at : at + _BLOCK]), self._blocks)
        try:
            place = file.seek(0, 2)
            file.write(sealed)
        except OSError as err:
            raise StoreUnavailable("the folder of temporary files has no room (TMPDIR): nothing was imported") from err
        return _Block(place, len(sealed), self._blocks)

    def __iter__(self) -> Iterator[Shaped]:
        self._near.sort(key=_FIRST_THREE)
        runs: list[Iterator[Entry]] = [self._read(run) for run in self._runs]
        for _, file, line, body in heapq.merge(*runs, self._near, key=_FIRST_THREE) if runs else self._near:
            item, natural, content = marshal.loads(body)
            yield Shaped(Row(file, line, (), b""), item, natural, content, None)

    def _read(self, run: list[_Block]) -> Iterator[Entry]:
        assert self._file is not None, "runs are in the file"
        for block in run:
            self._file.seek(block.at)
            entries: list[Any] = marshal.loads(self._cipher.open(self._file.read(block.size), block.number))
            yield from entries

    def close(self) -> None:
        self._near = []
        if self._file is not None:
            self._file.close()
            self._file = None
