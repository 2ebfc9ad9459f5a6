"""The layout of a folded state: seven base slots, then those the definitions need (`layout`); and its packed form.

It holds only integers, text, bytes, booleans, None and sorted lists, so equal histories give equal bytes. Every merge
is commutative and associative, with the new state as identity (`projections.slots`).
"""

from typing import Any, Final

import msgspec

from projections.slots import keyed

State = list[Any]

EVENT_COUNT, FIRST, LAST, TRAITS, ORDERS, REFUNDS, CANCELS = range(7)
BASE_SLOTS: Final = 7
OVERFLOW: Final = keyed.OVERFLOW  # in place of a map whose entries are kept beside the state
ORDER_CAP: Final = 512  # a state with that many orders is 50 KB: beyond it, reading all of it costs more than a tree

# A stamp is an event's time and its order (`schemas.stamps`: received at, place, event key).
# A trait entry: [name, level, *stamp, form, value, partition, offset]. The greater wins: by stamp,
# and within one event the direct form. A correction (level 1) has its own entry beside the sources' one (its name and
# CORRECTED), so that withdrawing it brings back what they say; `shown` puts it before them.
NAME, LEVEL, STAMP_US, STAMP_KEY, FORM, VALUE, PARTITION, OFFSET = range(8)
UNSET, PLAIN, JSON_TEXT, DIRECT, WITHDRAWN = range(5)
CORRECTED: Final = "\0"

# An order's base: [order id, source rank, *stamp, own amount, currency, base amount, bits,
# extras…]; a refund: [order of its event, order id, …] without rank and stamp key. Amounts are scaled (10^4) or None.
O_ID, O_RANK, O_US, O_KEY, O_OWN, O_CURRENCY, O_BASE, O_BITS, O_EXTRA = range(9)
R_KEY, R_ID, R_US, R_OWN, R_CURRENCY, R_BASE, R_BITS = range(7)


def shown(entries: list[list[Any]]) -> list[list[Any]]:
    """The trait entries in force: a correction that has not been withdrawn replaces what the sources say."""
    corrections = {entry[NAME][:-1]: entry for entry in entries if entry[LEVEL]}
    if not corrections:
        return entries
    found = {entry[NAME]: entry for entry in entries if not entry[LEVEL]}
    for name, entry in corrections.items():
        if entry[FORM] != WITHDRAWN:
            found[name] = [name, *entry[1:]]
    return [found[name] for name in sorted(found)]


# ---------------------------------------------------------------- bytes

_BIG: Final = 1  # extension type of an integer beyond 64 bits, big-endian two's complement
_ENCODER: Final = msgspec.msgpack.Encoder()


def read_big(code: int, data: memoryview) -> int:
    """Decodes integers beyond 64 bits: the decoders' extension hook."""
    if code != _BIG:
        raise ValueError(f"unknown extension {code} in a state")
    return int.from_bytes(data, "big", signed=True)


_DECODER: Final = msgspec.msgpack.Decoder(list[Any], ext_hook=read_big)


def _shield(value: Any) -> Any:
    """Wraps integers beyond 64 bits as extensions; sums of absurd amounts must not stop a fold."""
    if isinstance(value, list):
        return [_shield(item) for item in value]
    if type(value) is int and not -(2**63) <= value < 2**64:
        return msgspec.msgpack.Ext(_BIG, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))
    return value


def pack(state: State) -> bytes:
    """The bytes of a state: equal for equal states."""
    try:
        return _ENCODER.encode(state)
    except OverflowError:
        return _ENCODER.encode(_shield(state))


def unpack(data: bytes) -> State:
    """The state from its `pack`ed bytes, newly made and free to fold into."""
    state: State = _DECODER.decode(data)
    return state
