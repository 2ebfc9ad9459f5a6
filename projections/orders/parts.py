"""How an event with an order id is divided: what concerns its sender, and what concerns the order (decision 0037).

Pure. Keys and identifier sets are 16 raw bytes.
"""

from enum import IntEnum
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

from schemas.touchpoints import FOLLOWING_TYPES, HOLDING_TYPES


class Part(IntEnum):
    """What of an event a state gets. OWN and ORDER together are the whole."""

    WHOLE = 0
    OWN = 1  # its count, first and last; traits over any event
    ORDER = 2  # what it does to an order; traits that name its type


class Order(NamedTuple):
    """The order of an event. `order_set`: of an event that follows its order; None for a completion, which holds it."""

    key: bytes  # of the order id, whatever the source
    source: int  # hash of the source's name, 63 bits
    order_set: bytes | None


def named_order(type_: str, source: str, order_id: str, identifier_set: bytes) -> Order | None:
    """The order that an event names; None if its type has none."""
    if type_ in HOLDING_TYPES:
        return Order(order_key(order_id), source_key(source), None)
    if type_ not in FOLLOWING_TYPES:
        return None
    key, number = order_key(order_id), source_key(source)
    return Order(key, number, order_set_of(identifier_set, number, key))


def order_key(order_id: str) -> bytes:
    """An order id as evidence keeps it."""
    return blake2b(order_id.encode(), digest_size=16, person=b"tf-order").digest()


@lru_cache(maxsize=10_000)
def source_key(source: str) -> int:
    """A source as evidence of orders keeps it."""
    return int.from_bytes(blake2b(source.encode(), digest_size=8, person=b"tf-source").digest(), "big") >> 1


def order_set_of(identifier_set: bytes, source: int, key: bytes) -> bytes:
    """The order set of what an identifier set sent about an order of a source: a name without tokens."""
    content = identifier_set + source.to_bytes(8, "big") + key
    return blake2b(content, digest_size=16, person=b"tf-order-set").digest()
