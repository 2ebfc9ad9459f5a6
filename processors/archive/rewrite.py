"""Rewrites archive files whose columns follow outdated declarations of what is clear, one file at a time.

Fields declared clear since then move out of the sealed parts, fields no longer clear leave the columns, and the sealed
parts of erased people are dropped. The records and the digest chain over them stay the same (decision 0025).
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Final

import pyarrow as pa

from schemas.archive import ArchiveFile, MergingStore, Turns
from schemas.clear_rules import Declared
from schemas.clear_view import ClearView, Open, hash_of
from schemas.errors import ArchiveDamaged, KeyMissing, ProgressConflict, ReaderTooOld, SealBroken
from schemas.event_columns import event_table, originals
from schemas.record import CURRENT, Reader

BAD_S: Final = 600.0  # until a file that could not be rewritten is tried again


def waiting(entries: Sequence[ArchiveFile], declared: Declared) -> list[ArchiveFile]:
    """Files whose columns follow other declarations than the current ones."""
    now = hash_of(declared)
    return [entry for entry in entries if entry.clear != now]


@dataclass
class Rewriter:
    """`declared()`: the current declarations. `open_`: see Sealer.open_many. `erased(tokens)`: those of erased people.

    `now`: seconds, monotonic. `alarm` is called once per file that cannot be rewritten. `room(bytes)` raises DiskFull.
    """

    store: MergingStore
    turns: Turns
    declared: Callable[[], Declared]
    open_: Open
    erased: Callable[[Collection[bytes]], set[bytes]]
    currency: str
    now: Callable[[], float]
    alarm: Callable[[str], None]
    room: Callable[[int], None] = lambda _size: None
    stop: Callable[[], bool] = lambda: False
    reader: Reader = CURRENT
    bad: dict[str, float] = field(default_factory=dict, init=False)  # files, and until when to skip them

    def run_once(self) -> int:
        """Rewrite one file; returns how many were due, including this one. 0: there is nothing to do.

        On StoreUnavailable or DiskFull, try again later.
        """
        declared = self.declared()
        left = [entry for entry in waiting(self.store.known(), declared) if not self._is_bad(entry)]
        for entry in left:
            if self.stop():
                break
            if not self.turns.take(entry.partition):
                continue
            try:
                self.store.refresh(entry.partition)
                if entry in self.store.known():
                    self._rewrite(entry, declared)
                return len(left)
            finally:
                self.turns.give(entry.partition)
        return 0

    def _rewrite(self, entry: ArchiveFile, declared: Declared) -> None:
        self.room(entry.bytes)
        view = ClearView(declared, self.open_)
        try:
            self.store.rewrite(entry, view.hash, lambda table: self._remade(table, view), self.turns.check)
        except ProgressConflict:
            return  # another writer has merged or rewritten it
        except (ArchiveDamaged, KeyMissing, SealBroken, ReaderTooOld) as err:  # go on with the other files
            if entry.path not in self.bad:
                self.alarm(f"{entry.path} is not rewritten: {err.message}")
            self.bad[entry.path] = self.now() + BAD_S

    def _remade(self, table: pa.Table, view: ClearView) -> pa.Table:
        """The rows made again without the sealed parts of erased people. Records set aside stay rows of plain bytes."""
        table = self._without_erased(table)
        ids, offsets = table.column("id").to_pylist(), table.column("offset").to_pylist()
        passed = {int(offset or 0) for id_, offset in zip(ids, offsets, strict=True) if id_ is None}
        return event_table(
            originals(table), self.currency, originals=True, reader=self.reader, passed=passed, view=view
        )

    def _without_erased(self, table: pa.Table) -> pa.Table:
        keys, sealed = table.column("route_key").to_pylist(), table.column("sealed").to_pylist()
        held = [
            None if key is None or part is None else bytes.fromhex(key.replace("-", ""))
            for key, part in zip(keys, sealed, strict=True)
        ]
        gone = self.erased({key for key in held if key is not None})
        if not gone:
            return table
        kept = [None if key in gone else part for key, part in zip(held, sealed, strict=True)]
        place = table.schema.get_field_index("sealed")
        return table.set_column(place, table.schema.field(place), pa.array(kept, pa.binary()))

    def _is_bad(self, entry: ArchiveFile) -> bool:
        until = self.bad.get(entry.path)
        return until is not None and self.now() < until
