"""One call that reads everything and runs every check; used by the kill tests and `make test`."""

from collections.abc import Callable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path

import psycopg2
from psycopg2.extensions import ISOLATION_LEVEL_REPEATABLE_READ
from psycopg2.extensions import connection as Connection

from tests.checker import check_log, check_views, tables
from tests.checker.check_archive import check_archive
from tests.checker.check_feed import check_feed
from tests.checker.check_log import Facts, Violation
from tests.checker.check_topics import TopicSource, check_topics
from tests.checker.check_views import Shown
from tests.checker.ledger import Ledger
from tests.checker.reference import Totals
from tests.checker.sources import Source

SEGMENTS: Mapping[str, Callable[[Totals], bool]] = {
    "checker_two_orders": lambda each: each.orders >= 2,
    "checker_big": lambda each: each.revenue >= 500,
    "checker_ten_events": lambda each: each.events >= 10,
    "checker_quiet_buyers": lambda each: each.orders >= 1 and not each.events >= 10,
}
DEFINITIONS = """
computed_traits:
  checker_orders: {aggregate: count, events: [purchase.completed, pos.purchase]}
  checker_revenue:
    {aggregate: sum, of: revenue, events: [purchase.completed, pos.purchase, purchase.refunded, pos.return]}
  checker_events: {aggregate: count, events: ["*"]}
segments:
  checker_two_orders: {description: Ordered twice, when: {trait: checker_orders, op: gte, value: 2}}
  checker_big: {description: Spent 500, when: {trait: checker_revenue, op: gte, value: 500}}
  checker_ten_events: {description: Ten touchpoints, when: {trait: checker_events, op: gte, value: 10}}
  checker_quiet_buyers:
    description: Ordered, with few touchpoints
    when: {all: [{trait: checker_orders, op: gte, value: 1}, {not: {segment: checker_ten_events}}]}
"""
"""The checker's own definitions, to be applied before the load; SEGMENTS is what they mean."""


def check(
    connection: Connection,
    ledger: Ledger,
    *,
    vault: Connection | None = None,
    archive: Path | None = None,
    shown: Mapping[str, Shown] | None = None,
    segments: Mapping[str, Callable[[Totals], bool]] = SEGMENTS,
    whole: bool = True,
    limit: int = 50,
    source: Source | None = None,
    topics: TopicSource | None = None,
) -> list[Violation]:
    """The first `limit` violations of a product with nothing left to process. Reads inside the caller's transaction.

    `source`: where the log is, by default in the main database. `topics`: the change topics, if there are any.
    """
    facts = check_log.digest(tables.read(connection, source))
    openable = None if vault is None else tables.vault_tokens(vault)
    found = chain(_main_checks(facts, ledger, segments, whole), check_views.check_erased(facts, openable))
    if archive is not None:
        found = chain(found, check_archive(facts, archive))
    if topics is not None:
        found = chain(found, check_topics(facts, topics))
    if shown is not None:
        found = chain(found, check_views.check_shown(facts, shown))
    return list(islice(found, limit))


def _main_checks(
    facts: Facts, ledger: Ledger, segments: Mapping[str, Callable[[Totals], bool]], whole: bool
) -> Iterator[Violation]:
    yield from check_log.check_ledger(facts, ledger, whole=whole)
    yield from check_log.check_register(facts)
    yield from check_views.check_profiles(facts)
    yield from check_views.check_members(facts, segments)
    yield from check_feed(facts)


def connect(dsn: str) -> Connection:
    """A connection whose transactions each see a single snapshot."""
    connection = psycopg2.connect(dsn)
    connection.set_session(isolation_level=ISOLATION_LEVEL_REPEATABLE_READ)
    return connection
