"""What is known of one partition of an archive in an object store: its entries, and what replaced them. Pure.

Entries and replacements are objects that never change and may be removed once replaced. Of overlapping replacements
the one with the highest number is live; an entry is live if no replacement covers its start. So a writer that slept
while its offsets were taken, merged and cleaned up changes nothing when it finally puts its object.
"""

from bisect import bisect_right
from collections.abc import Iterable

from schemas.archive import ArchiveFile


class Partition:
    """`live`: the live entries, ascending. `seq`: the highest replacement number seen."""

    def __init__(self) -> None:
        self.live: list[ArchiveFile] = []
        self.seq = 0
        self.last_start = -1  # of the listed entries, live or not
        self.superseded: list[ArchiveFile] = []  # replacements that were themselves replaced
        self._replacing: list[ArchiveFile] = []  # live ones, ascending
        self._entries: dict[int, ArchiveFile] = {}

    def take(self, entries: Iterable[ArchiveFile]) -> None:
        """Add objects, in any order."""
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
        """The live replacement that covers an offset."""
        at = bisect_right(self._replacing, offset, key=lambda entry: entry.start) - 1
        return self._replacing[at] if at >= 0 and offset < self._replacing[at].next else None

    def replaced_until(self) -> int:
        """Everything from the first offset up to here is replaced: no entry below it need be fetched."""
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
