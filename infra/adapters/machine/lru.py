"""A bounded cache of recent look-ups."""

from collections import OrderedDict


class Recent:
    """The `entries` used most recently. One thread at a time."""

    __slots__ = ("_entries", "_most")

    def __init__(self, entries: int) -> None:
        self._most = entries
        self._entries: OrderedDict[bytes, bytes] = OrderedDict()

    def get(self, key: bytes) -> bytes | None:
        value = self._entries.get(key)
        if value is not None:
            self._entries.move_to_end(key)
        return value

    def put(self, key: bytes, value: bytes) -> None:
        self._entries[key] = value
        self._entries.move_to_end(key)
        if len(self._entries) > self._most:
            self._entries.popitem(last=False)

    def clear(self) -> None:
        self._entries.clear()
