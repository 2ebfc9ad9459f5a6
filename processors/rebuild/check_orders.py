"""Finds the owner of each order set from the log alone, in bounded memory (decision 0037)."""

from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter

from processors.live.applied import Applied
from processors.live.order_evidence import followed, held
from processors.rebuild.check_identity import Owned
from processors.rebuild.external_sort import Scratch, Sorter
from projections.orders.owners import Holder, owner_of

_HOLDER, _SET = b"\0", b"\1"  # kinds of an order's lines
Pair = tuple[bytes, bytes]


class OrderOwners:
    """Collects who has which orders, and what was said about them; `decided` closes both."""

    def __init__(self, scratch: Scratch) -> None:
        self._scratch = scratch
        self._holders = scratch.sorter()  # identifier set -> order key, source
        self._sets = scratch.sorter()  # sender's identifier set -> order key, source, order set

    def add(self, events: Iterable[Applied], kept: Iterable[Applied]) -> None:
        """`events`: with those of erased people, who keep the orders they had; `kept`: without."""
        for key, source, identifier_set in held(events):
            self._holders.add(identifier_set, key + source.to_bytes(8, "big"))
        for row in followed(kept).values():
            self._sets.add(row.sender, row.order_key + row.source.to_bytes(8, "big") + row.order_set)

    def decided(self, owners: Sorter) -> Sorter:
        """(order set, owner or nothing), ascending. `owners`: of identifier sets; one that is missing is erased."""
        lines = self._scratch.sorter()
        for found, kind in ((self._holders, _HOLDER), (self._sets, _SET)):
            owned = Owned(owners)
            for identifier_set, value in _once(found):
                owner = owned.of(identifier_set) or b""
                lines.add(value[:16], kind + value[16:] + owner)
            found.close()
        decided = self._scratch.sorter()
        for _, rows in groupby(_once(lines), key=itemgetter(0)):
            holders: list[Holder] = []
            for _, value in rows:  # holders sort first
                source, rest = int.from_bytes(value[1:9], "big"), value[9:]
                if value[:1] == _HOLDER:
                    holders.append(Holder(source, rest or None))
                else:
                    found_owner = owner_of(rest[16:] or None, source, holders)
                    decided.add(rest[:16], found_owner.profile_id or b"")
        lines.close()
        return decided


def _once(pairs: Iterable[Pair]) -> Iterator[Pair]:
    """Sorted pairs without repeats."""
    last = None
    for pair in pairs:
        if pair != last:
            yield pair
        last = pair
