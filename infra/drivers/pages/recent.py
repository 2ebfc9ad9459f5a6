"""The customers a session viewed last: only in memory, gone with the process."""

from collections import OrderedDict
from typing import Final

MOST: Final = 8
SESSIONS: Final = 500


class Recent:
    """The last profiles each session opened, newest first. Used from the pages' one thread."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, list[bytes]] = OrderedDict()

    def add(self, session: str, profile_id: bytes) -> None:
        kept = [each for each in self._seen.pop(session, []) if each != profile_id]
        self._seen[session] = [profile_id, *kept][:MOST]
        while len(self._seen) > SESSIONS:
            self._seen.popitem(last=False)

    def of(self, session: str) -> list[bytes]:
        return list(self._seen.get(session, ()))

    def forget(self, profile_id: bytes) -> None:
        """Remove a person from all sessions, because they were erased."""
        for session, kept in self._seen.items():
            self._seen[session] = [each for each in kept if each != profile_id]


RECENT: Final = Recent()
