"""Whose a refund, cancel or update is: found from who has its order (decision 0037). Pure."""

from collections.abc import Iterable
from typing import NamedTuple


class Holder(NamedTuple):
    """Somebody with a completion of the order. `owner`: their profile; None: they are erased."""

    source: int
    owner: bytes | None


class Owner(NamedTuple):
    """`profile_id`: None for nobody. `matched`: whether somebody has the order; otherwise it stays with its sender."""

    profile_id: bytes | None
    matched: bool


def owner_of(sender: bytes | None, source: int, holders: Iterable[Holder]) -> Owner:
    """The owner of what a sender said about an order in a source. `sender`: their profile; None: they are nobody.

    The sender, if they have the order; else the only one who has it in the same source; else the only one in any. An
    erased holder is one more: where they are, nobody living is the only one.
    """
    holders = list(holders)
    if sender is not None and any(each.owner == sender for each in holders):
        return Owner(sender, True)
    same = {each.owner for each in holders if each.source == source}
    everywhere = {each.owner for each in holders}
    for found in (same, everywhere):
        only = next(iter(found)) if len(found) == 1 else None
        if only is not None:
            return Owner(only, True)
    return Owner(sender, False)
