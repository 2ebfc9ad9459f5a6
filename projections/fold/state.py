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

# An order: [order id, whether it states an amount, source rank, occurred_us, stamp key, own amount, currency, base
# amount, bits, whether an amount was unreadable, occurred_us of the earliest completion, the newest one's stamp (two
# fields), extras…]. The fields from O_STATED to O_KEY rank its states: the greatest gives all fields before O_FIRST_US.
# A refund: [key, source rank, occurred_us, stamp key, order id, own amount, currency, base amount, bits, whether it
# names its currency, whether its amount was unreadable]; a cancel: [order id, occurred_us, stamp key].
# Amounts are scaled (10^4) or None; raw: what counts of them is decided when they are read (`orders.counting`).
(
    O_ID, O_STATED, O_RANK, O_US, O_KEY, O_OWN, O_CURRENCY, O_BASE, O_BITS, O_UNREAD, O_FIRST_US, O_LAST_US, O_LAST_KEY,
    O_EXTRA,
) = range(14)  # fmt: skip
R_KEY, R_RANK, R_US, R_STAMP, R_ID, R_OWN, R_CURRENCY, R_BASE, R_BITS, R_NAMED, R_UNREAD = range(11)


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
    """The state from its `pack`ed bytes, newly made and free to fold into; also the maps of a tree's leaf or a summary.

    What an earlier layout wrote is lifted: it serves until the log has been folded again.
    """
    state: State = _DECODER.decode(data)
    first = state[0]
    if type(first) is list:
        _renew(state, 0)
    elif type(state[1]) is int or type(state[2]) is int:
        state = renewed_summary(state)
    else:
        _renew(state, ORDERS)
    return state


def _renew(lists: list[Any], at: int) -> None:
    """Lift, in place, orders and refunds of layout 3, which had no completions and whose refunds had no rank."""
    orders, refunds = lists[at : at + 2]
    if orders and orders != OVERFLOW:
        if type(orders[0]) is int:
            lists[at] = renewed_summary(orders)
        elif type(orders[0][3]) is bytes:
            lists[at] = [_renewed_order(entry) for entry in orders]
    if refunds and refunds != OVERFLOW and type(refunds[0][1]) is not int:
        lists[at + 1] = [[e[0], 0, e[2], e[0], e[1], *e[3:7], 1, 0] for e in refunds]


def renewed_orders(orders: Any, refunds: Any) -> tuple[Any, Any]:
    """The two order slots of a state, lifted as by `unpack`."""
    lists = [orders, refunds]
    _renew(lists, 0)
    return lists[0], lists[1]


def _renewed_order(entry: list[Any]) -> list[Any]:
    order_id, rank, us, key, own, *rest = entry
    return [order_id, int(own is not None), rank, us, key, own, *rest[:3], 0, us, us, key, *rest[3:]]


def renewed_summary(summary: list[Any]) -> list[Any]:
    """A summary of form 2, which did not count unreadable amounts, as one of form 3."""
    if summary[0] != 2:
        return summary
    at = next(i for i, item in enumerate(summary) if type(item) is list) + 2
    return [3, *summary[1:at], 0, *summary[at:]]
