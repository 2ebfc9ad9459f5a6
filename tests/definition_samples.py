"""Definitions that use every aggregate, over the order map and over slots, windowed and lifetime, with `where`."""

from projections.definitions.files import parse_documents
from projections.definitions.merge import merge
from schemas.definitions import Definitions

EVERYTHING = """
traits:
  city: {personal: false}
  age: {personal: false, type: decimal}
  member_since: {personal: false, type: time}
  tags: {personal: false}
  birthday: {personal: true}
sources: {till: {rank: 2}, import: {rank: 1}}
rates:
  - {currency: EUR, date: 2023-10-01, rate: 1.0873}
  - {currency: EUR, date: 2024-03-10, rate: 1.1}
  - {currency: GBP, date: 2024-01-01, rate: 1.27345}
computed_traits:
  orders: {aggregate: count, events: [purchase.completed, pos.purchase]}
  orders_30d: {aggregate: count, events: [purchase.completed, pos.purchase], window_days: 30}
  till_orders: {aggregate: count, events: [pos.purchase]}
  net: {aggregate: sum, of: revenue, events: [purchase.completed, pos.purchase, purchase.refunded, pos.return]}
  net_90d: {aggregate: sum, of: revenue, window_days: 90,
            events: [purchase.completed, pos.purchase, purchase.refunded, pos.return]}
  gross_eur: {aggregate: sum, of: revenue, events: [purchase.completed, pos.purchase],
              where: {property: currency, op: eq, value: EUR}}
  net_eur: {aggregate: sum, of: revenue, events: [purchase.completed, pos.purchase, purchase.refunded, pos.return],
            where: {all: [{property: currency, op: eq, value: EUR}, {not: {property: channel, op: eq, value: 4}}]}}
  big_orders: {aggregate: count, events: [purchase.completed, pos.purchase],
               where: {property: revenue, op: gte, value: 15.5}}
  store_orders: {aggregate: count, events: [purchase.completed, pos.purchase, pos.return], window_days: 7,
                 where: {any: [{property: channel, op: eq, value: store},
                               {property: coupon, op: starts_with, value: SP}]}}
  mean_order: {aggregate: avg, of: revenue, events: [purchase.completed, pos.purchase, pos.return]}
  mean_discount_30d: {aggregate: avg, of: discount, events: [purchase.completed, pos.purchase], window_days: 30}
  sum_discount: {aggregate: sum, of: discount, events: [purchase.completed, pos.purchase]}
  least_order: {aggregate: min, of: revenue, events: [purchase.completed, pos.purchase]}
  most_order_90d: {aggregate: max, of: revenue, events: [purchase.completed, pos.purchase], window_days: 90}
  first_order_at: {aggregate: min, of: occurred_at, events: [purchase.completed, pos.purchase]}
  last_order_at: {aggregate: last, of: occurred_at, events: [purchase.completed, pos.purchase]}
  first_coupon: {aggregate: first, of: coupon, events: [purchase.completed, pos.purchase]}
  last_coupon_90d: {aggregate: last, of: coupon, events: [purchase.completed, pos.purchase], window_days: 90}
  last_amount: {aggregate: last, of: revenue, events: [purchase.completed, pos.purchase]}
  order_days: {aggregate: distinct_days, events: [purchase.completed, pos.purchase]}
  order_days_90d: {aggregate: distinct_days, events: [purchase.completed, pos.purchase], window_days: 90}
  days_since_order: {aggregate: days_since, events: [purchase.completed, pos.purchase]}
  order_gap: {aggregate: gap_days, events: [purchase.completed, pos.purchase]}
  touches: {aggregate: count, events: ["*"]}
  touches_2d: {aggregate: count, events: ["*"], window_days: 2}
  customs: {aggregate: count, events: [custom]}
  quizzes: {aggregate: count, events: [quiz_won]}
  refunds_30d: {aggregate: count, events: [purchase.refunded, pos.return], window_days: 30}
  refunded: {aggregate: sum, of: revenue, events: [purchase.refunded, pos.return]}
  score_sum: {aggregate: sum, of: score, events: [survey.answered, web.page_viewed]}
  score_sum_90d: {aggregate: sum, of: score, events: [survey.answered, web.page_viewed], window_days: 90}
  score_avg_30d: {aggregate: avg, of: score, events: [survey.answered, web.page_viewed], window_days: 30}
  score_avg: {aggregate: avg, of: score, events: [survey.answered, web.page_viewed]}
  score_min: {aggregate: min, of: score, events: [survey.answered, web.page_viewed]}
  score_max_90d: {aggregate: max, of: score, events: [survey.answered, web.page_viewed], window_days: 90}
  score_min_30d: {aggregate: min, of: score, events: [survey.answered, web.page_viewed], window_days: 30}
  score_first: {aggregate: first, of: score, events: [survey.answered, web.page_viewed]}
  score_last_90d: {aggregate: last, of: score, events: [survey.answered, web.page_viewed], window_days: 90}
  score_first_90d: {aggregate: first, of: score, events: [survey.answered, web.page_viewed], window_days: 90}
  seen_days: {aggregate: distinct_days, events: [web.page_viewed, email.opened]}
  seen_days_30d: {aggregate: distinct_days, events: [web.page_viewed, email.opened], window_days: 30}
  days_since_seen: {aggregate: days_since, events: [web.page_viewed, email.opened]}
  store_views: {aggregate: count, events: [web.page_viewed],
                where: {not: {property: channel, op: in, value: [store, 4]}}}
  seen_gap: {aggregate: gap_days, events: [web.page_viewed, email.opened]}
  last_seen_at: {aggregate: max, of: occurred_at, events: [web.page_viewed]}
  first_seen_90d: {aggregate: min, of: occurred_at, events: [web.page_viewed], window_days: 90}
  mixed: {aggregate: count, events: [purchase.completed, web.page_viewed]}
  open_complaints: {aggregate: open_count, key: complaint_id, opens: [complaint.opened, complaint.escalated],
                    closes: [complaint.resolved]}
segments:
  a_vip: {when: {all: [{trait: net_90d, op: gte, value: 20}, {not: {segment: staff}}]}}
  a_shop: {when: {trait: store_orders, op: exists}}
  frequent: {when: {trait: orders_30d, op: between, value: [1, 3]}}
  silent: {when: {trait: days_since_order, op: gt, value: 29.5}}
  exactly_ten: {when: {trait: days_since_order, op: eq, value: 10}}
  few_days: {when: {trait: days_since_seen, op: in, value: [1, 2, 30]}}
  between_days: {when: {trait: days_since_seen, op: between, value: [5, 40.5]}}
  not_recent: {when: {trait: days_since_seen, op: ne, value: 3}}
  mean: {when: {trait: mean_discount_30d, op: lt, value: 12.3456}}
  best: {when: {trait: most_order_90d, op: gte, value: 250.5}}
  coupon: {when: {trait: last_coupon_90d, op: in, value: [SPRING, 12, 2.5]}}
  scored: {when: {any: [{trait: score_last_90d, op: gte, value: 6}, {trait: score_avg_30d, op: lte, value: 3}]}}
  low_score: {when: {trait: score_min_30d, op: lt, value: 3.5}}
  high_score: {when: {trait: score_max_90d, op: gt, value: 9}}
  first_score: {when: {trait: score_first_90d, op: missing}}
  two_days: {when: {trait: touches_2d, op: gte, value: 2}}
  many_days: {when: {trait: seen_days_30d, op: gte, value: 2}}
  order_days: {when: {trait: order_days_90d, op: gte, value: 2}}
  summed: {when: {trait: score_sum_90d, op: gt, value: 9.5}}
  refunded: {when: {trait: refunds_30d, op: gte, value: 1}}
  spring: {when: {trait: first_order_at, op: gte, value: 2024-03-10}}
  on_day: {when: {trait: last_order_at, op: eq, value: 2024-03-10}}
  seen_before: {when: {trait: first_seen_90d, op: lt, value: "2024-03-11T04:00:00Z"}}
  staff: {when: {any: [{trait: city, op: eq, value: Rome}, {trait: tags, op: contains, value: b}]}}
  adults: {when: {trait: age, op: gte, value: 30.25}}
  old_members: {when: {trait: member_since, op: lte, value: 2024-03-10}}
  may: {when: {trait: birthday, op: contains, value: "-05-"}}
  no_city: {when: {trait: city, op: ne, value: Oslo}}
  in_stage: {when: {all: [{lifecycle: back}, {segment: frequent}]}}
lifecycle:
  stages:
    - {name: gone, when: {trait: days_since_order, op: gte, value: 180}}
    - {name: back, when: {trait: order_gap, op: gte, value: 30}}
    - {name: buyer, when: {trait: orders, op: gte, value: 1}}
risk:
  levels: {medium: 2, high: 3}
  rules:
    - {code: complaint, points: 2, when: {trait: open_complaints, op: gte, value: 1}}
    - {code: stage_gone, points: 1, when: {lifecycle: gone}}
    - {code: in_two, points: 1, when: {all: [{segment: frequent}, {segment: two_days}]}}
"""


def everything() -> Definitions:
    """All of the definitions above."""
    return merge(Definitions(), parse_documents([("everything.yaml", EVERYTHING)]))[0]
