"""What sum and avg share over orders: the count and the total of a value, minus refunds. Pure."""

from projections.aggregates.order_loop import OrderTrait


def summed(code: OrderTrait) -> tuple[str, str]:
    """The accumulators for the number of values and their sum."""
    value, what = code.value(numeric=True)
    amount, tag = f"a{what}", f"{code.tag}_{what}"
    count, total = code.start(f"m{tag}", "0"), code.start(f"q{tag}", "0")
    code.each(f"{amount} = {value}", f"if {amount} is not None: {count} += 1; {total} += {amount}")
    if code.money and code.refunds:
        refund = code.amount_of_refund()
        code.each_refund(f"if {refund} is not None: {total} -= {refund}")
    return count, total
