"""How order events change the order map, as generated code (decision 0035). No I/O, no clock."""

from typing import Final

from projections.fold import state as st
from projections.fold.handler import UPDATED, Handler, is_pinned, matches
from projections.fold.layout import Layout
from projections.generated import Source
from schemas.touchpoints import CANCEL_TYPES, REFUND_TYPES

NEGATIVE: Final = {"purchase.completed": "purchase.refunded", "pos.purchase": "pos.return"}
"""What a sale with a negative amount is."""


def order(src: Source, body: Handler, layout: Layout, label: str) -> None:
    """How an order event changes the order map."""
    name, oid = body.name, body.order_id()
    if name in CANCEL_TYPES:
        src.add(1, f"if {oid} is not None: put(s[{st.CANCELS}], [{oid}, us, key])")
        return
    body.amounts()
    if name in REFUND_TYPES:
        _refund(src, body, layout)
    elif name == UPDATED:
        src.add(1, f"if {oid} is None or own is None or own < 0: return")
        src.add(1, _put_order(src, body, layout, "None, None, None"))
    else:
        src.add(1, "if own is not None and own <= 0:")
        src.add(2, f"if own < 0: return {label}_back(e, s, us, key, opened)")
        src.add(2, f"if not lines_of({body.lines()}): return")
        src.add(1, _put_order(src, body, layout, "us, us, key"))
        src.add(0, f"def {label}_back(e, s, us, key, opened):")
        src.add(1, "p = e.properties")
        order(src, Handler(src, layout, NEGATIVE[name], name), layout, label)


def _put_order(src: Source, body: Handler, layout: Layout, completed: str) -> str:
    _bits(src, body, layout)
    extras = "".join(f", {body.kept(of, False)}" for of in layout.extras)
    state = "oid or e.id, 0 if own is None else 1, RANK(e.source, 0), us, key, own, cur, amt, bits, int(bad)"
    return f"put_order(s[{st.ORDERS}], [{state}, {completed}{extras}])"


def _refund(src: Source, body: Handler, layout: Layout) -> None:
    rid = body.refund_id()
    _bits(src, body, layout)
    src.add(
        1, f"if own is None and not bad and lines_of({body.lines()}): bad = True",  # a part, whose price nobody says
        f"rkey = key[-16:] if {rid} is None else refund_key(oid, {rid})",
        f"put(s[{st.REFUNDS}],"
        " [rkey, RANK(e.source, 0), us, key, oid, own, cur, amt, bits, int(stated), int(bad)])",
    )  # fmt: skip


def _bits(src: Source, body: Handler, layout: Layout) -> None:
    """A local with the bits of the streams that the event is in."""
    src.add(1, "bits = 0")
    for bit, stream in enumerate(layout.order_streams):
        if matches(stream, body.name):
            test = body.predicate(stream, is_pinned(layout, stream), of_order=True)
            src.add(1, f"bits |= {1 << bit}" if test is None else f"if {test}: bits |= {1 << bit}")
