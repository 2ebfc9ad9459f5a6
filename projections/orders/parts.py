"""How an event with an order id is divided: what concerns its sender, and what concerns the order (decision 0037).

Pure. Keys and identifier sets are 16 raw bytes.
"""

from enum import IntEnum
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple


class Part(IntEnum):
    """What of an event a state gets. OWN and ORDER together are the whole."""

    WHOLE = 0
    OWN = 1  # its count, first and last; traits over any event
    ORDER = 2  # what it does to an order; traits that name its type


class Order(NamedTuple):
    """The order of an event. `order_set`: of an event that follows its order; None for a sale, which holds it."""

    key: bytes  # of the order id, whatever the source
    source: int  # hash of the source's name, 63 bits
    order_set: bytes | None


def named_order(source: str, order_id: str, identifier_set: bytes, *, follows: bool) -> Order:
    """The order that an event of a source names. `follows`: belongs to whoever has the order, else makes its own."""
    key, number = order_key(order_id), source_key(source)
    return Order(key, number, order_set_of(identifier_set, number, key) if follows else None)


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
