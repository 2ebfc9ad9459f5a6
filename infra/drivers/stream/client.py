"""What the flow needs from a Kafka client, implemented for Faust's consumer and for aiokafka's."""

from collections.abc import Collection, Mapping
from typing import Protocol


class Client(Protocol):
    """What a flow needs from the Kafka client. Every call may raise StoreUnavailable."""

    async def seek(self, offsets: Mapping[int, int]) -> None:
        """Fetch from here next; partitions no longer assigned are ignored."""

    async def starts(self, partitions: Collection[int]) -> Mapping[int, int]:
        """The first offset still in the log."""

    async def ends(self, partitions: Collection[int]) -> Mapping[int, int]:
        """The last stable offset."""

    async def hint(self, offsets: Mapping[int, int]) -> None:
        """Commit to the group, only for lag monitoring tools."""

    async def rejoin(self) -> None:
        """Ask the group to rebalance, which it does if we lead it."""

    def positions(self) -> Mapping[int, int]:
        """Where the next fetch starts: after what was delivered and the markers behind it."""

    def pause(self, partitions: Collection[int]) -> None: ...

    def resume(self, partitions: Collection[int]) -> None: ...
