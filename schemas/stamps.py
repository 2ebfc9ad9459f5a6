"""The order of events: stamps of what they say, and receipts of when they came (design C4, decision 0032). Pure.

A stamp is (occurred_us, order), a receipt (received_us, place). Both end in the event key, so no two events share one.
"""

import struct
from typing import Final

MOST: Final = 2**31 - 1  # of `n`: a column of PostgreSQL holds it; what says more is not from a door of ours
ORDER_BYTES: Final = 28
PLACE_BYTES: Final = 20
LAST_PLACE: Final = MOST.to_bytes(4, "big") + b"\xff" * 16
FIRST_PLACE: Final = bytes(PLACE_BYTES)
_FORM: Final = struct.Struct(">QI16s")
_ORDER: Final = _FORM.pack
_PARTS: Final = _FORM.unpack
_SIGN: Final = 2**63  # times before 1970 come before those after it


def order_of(received_us: int, n: int, key: bytes) -> bytes:
    """28 bytes that compare as (received_us, n, event key): what decides between events of one time."""
    return _ORDER(received_us + _SIGN, n if 0 <= n <= MOST else within(n), key)


def within(n: int) -> int:
    """A place as it is compared: what is beyond what we write counts as the first or the last."""
    return min(max(n, 0), MOST)


def place_of(n: int, key: bytes) -> bytes:
    """20 bytes that compare as (n, event key): what decides between events of one receipt; the end of `order_of`."""
    return order_of(0, n, key)[8:]


def key_of(order: bytes) -> bytes:
    """The event key of an order or a place."""
    return order[-16:]


def parts_of(order: bytes) -> tuple[int, int, bytes]:
    """(received_us, n, event key) of an order."""
    received, n, key = _PARTS(order)
    return received - _SIGN, n, key


def n_of(place: bytes) -> int:
    """Where the event of a place stood in its request, file or inbox fetch."""
    return int.from_bytes(place[:-16], "big")
