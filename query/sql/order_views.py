"""The views of orders and their lines, as SQL over the tables that `query.sql.orders` makes and `events`. Pure."""

from typing import Final

# The fold decides which event is the base of an order, and what the order amounts to (projections.orders).
ORDERS: Final = """
create view orders as
select o.order_id, o.profile_id, {source} as source, o.occurred_at, o.revenue, o.refunded, o.currency,
    o.base_revenue, o.base_refunded, o.missing_rate, o.unreadable_amounts, {items} as items, {coupon} as coupon
from _orders o {join}
"""
FROM_EVENT: Final = {
    "source": "e.source",
    "items": "coalesce(json_array_length(e.properties, '$.products'), json_array_length(e.properties, '$.items'), 0)"
    "::bigint",
    "coupon": "e.properties->>'$.coupon'",
    "join": "left join events e on e.id = o.event_id",
}
NOT_ASKED: Final = {"source": "null::varchar", "items": "null::bigint", "coupon": "null::varchar", "join": ""}

# An amount as a plain decimal, else as people write one where it can mean one number (`schemas.amount_text` has the
# whole rule); other text is NULL here.
_MONEY: Final = r"""coalesce(
        try_cast({0} as decimal(18, 4)),
        case
            when regexp_full_match({1}, '-?([0-9]{{1,3}}([,'' ][0-9]{{3}})+|[0-9]+)[.][0-9]{{1,4}}')
                then try_cast(regexp_replace({1}, '[,'' ]', '', 'g') as decimal(18, 4))
            when regexp_full_match({1}, '-?([0-9]{{1,3}}([.'' ][0-9]{{3}})+|[0-9]+),([0-9]{{1,2}}|[0-9]{{4}})')
                then try_cast(replace(regexp_replace({1}, '[.'' ]', '', 'g'), ',', '.') as decimal(18, 4))
            when regexp_full_match({1}, '-?[0-9]+') then try_cast({1} as decimal(18, 4))
        end
    )"""
_WRITTEN: Final = (
    r"trim(regexp_replace(replace(replace(replace({0}, chr(8722), '-'), chr(8239), ' '), chr(160), ' '),"
    r" '[A-Za-z]{{3}}|[€$£¥]', ''))"
)


def _amount(column: str) -> str:
    return _MONEY.format(column, _WRITTEN.format(column))


ORDER_LINES: Final = f"""
create view order_lines as
with found as (
    select o.order_id, case when json_type(e.properties, '$.products') = 'ARRAY' then
        json_extract(e.properties, '$.products[*]') else json_extract(e.properties, '$.items[*]') end as lines
    from _orders o join events e on e.id = o.event_id
    where 'ARRAY' in (json_type(e.properties, '$.products'), json_type(e.properties, '$.items'))
),
lines as (select order_id, unnest(lines) as line_json, generate_subscripts(lines, 1) as line from found),
texts as (
    select *, line_json->>'$.price' as price_text, line_json->>'$.quantity' as quantity_text,
        line_json->>'$.amount' as amount_text
    from lines
),
typed as (
    select *, {_amount("price_text")} as price, coalesce({_amount("quantity_text")}, 1)::decimal(18, 4) as quantity,
        {_amount("amount_text")} as amount
    from texts
)
select order_id, line, coalesce(line_json->>'$.product_id', line_json->>'$.item_id') as product_id,
    line_json->>'$.sku' as sku, coalesce(line_json->>'$.name', line_json->>'$.item_name') as name,
    coalesce(line_json->>'$.category', line_json->>'$.item_category') as category,
    coalesce(line_json->>'$.brand', line_json->>'$.item_brand') as brand, price, quantity,
    coalesce(amount, try_cast(round(price * quantity, 4) as decimal(18, 4))) as amount
from typed
"""
