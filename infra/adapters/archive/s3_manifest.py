"""What is known of one partition of an archive in an object store: its entries, and what replaced them. Pure.

Entries and replacements are objects that never change and may go once a replacement stands for them. Of replacements
that overlap the one with the highest number holds, and an entry holds where no replacement covers its start: so a
writer that slept while its place was taken, merged and cleared away changes nothing by putting its object after all.
"""

from bisect import bisect_right
from collections.abc import Iterable

from schemas.archive import ArchiveFile


class Partition:
    """`live`: what holds, ascending. `seq`: the highest number of a replacement that was seen."""

    def __init__(self) -> None:
        self.live: list[ArchiveFile] = []
        self.seq = 0
        self.last_start = -1  # of the entries that were listed, whether they hold or not
        self.superseded: list[ArchiveFile] = []  # replacements that another one stands for
        self._replacing: list[ArchiveFile] = []  # those that hold, ascending
        self._entries: dict[int, ArchiveFile] = {}

    def take(self, entries: Iterable[ArchiveFile]) -> None:
        """Learn of objects, in any order."""
        entries = list(entries)
        replacing = [entry for entry in entries if entry.replaces]
        if replacing:
            self.seq = max(self.seq, *(entry.seq for entry in replacing))
            self._replace([*self._replacing, *replacing])
        for entry in entries:
            if not entry.replaces:
                self.last_start = max(self.last_start, entry.start)
                self._entries[entry.start] = entry
        self._entries = {start: entry for start, entry in self._entries.items() if self.covering(start) is None}
        self.live = sorted([*self._replacing, *self._entries.values()], key=lambda entry: entry.start)

    def covering(self, offset: int) -> ArchiveFile | None:
        """The replacement that holds at an offset."""
        at = bisect_right(self._replacing, offset, key=lambda entry: entry.start) - 1
        return self._replacing[at] if at >= 0 and offset < self._replacing[at].next else None

    def replaced_until(self) -> int:
        """Up to here everything from the first offset on is replaced: no entry below it need be asked for."""
        at = 0
        for entry in self._replacing:
            if entry.start != at:
                break
            at = entry.next
        return at

    def _replace(self, every: list[ArchiveFile]) -> None:
        holding: list[ArchiveFile] = []
        for entry in sorted(every, key=lambda entry: -entry.seq):
            if any(entry.start < other.next and other.start < entry.next for other in holding):
                self.superseded.append(entry)
            else:
                holding.append(entry)
        self._replacing = sorted(holding, key=lambda entry: entry.start)
