"""SQL over the log, the pure part: which statements are allowed, the tables as views, results as JSON. Opens nothing.

The gate checks the tree that DuckDB's own parser makes of the text (`json_serialize_sql`), node by node against
allowlists. It is one of several barriers: the process that runs the statement can open no file and no socket
(infra.drivers.sql.child).
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from query.sql.functions import ALLOWED, ALLOWED_TABLE
from query.sql.order_views import FROM_EVENT, NOT_ASKED, ORDER_LINES, ORDERS
from schemas.errors import SqlRefused

MAX_TEXT_BYTES: Final = 64 * 1024
MAX_DEPTH: Final = 200  # nested brackets
SERIALISE: Final = "select json_serialize_sql($1::varchar, skip_default := true, skip_empty := true, skip_null := true)"
"""Applied to a statement, gives the tree that `check` reads."""
_EXPLAIN: Final = re.compile(r"\s*explain(\s+analyze)?\s+(?=[^\s(])", re.IGNORECASE)
_ONLY_READS: Final = "only a single SELECT, FROM, WITH, VALUES, DESCRIBE, SUMMARIZE or EXPLAIN can be run here"


class Column(NamedTuple):
    name: str
    type: str
    meaning: str


TABLES: Final[Mapping[str, tuple[Column, ...]]] = {
    "events": (
        Column("id", "VARCHAR", "the event"),
        Column("message_id", "VARCHAR", "the sender's id"),
        Column("type", "VARCHAR", "what happened: purchase.completed, call.received, …; custom for the rest"),
        Column("name", "VARCHAR", "the sender's own name for it"),
        Column("occurred_at", "TIMESTAMP WITH TIME ZONE", "when it happened"),
        Column("received_at", "TIMESTAMP WITH TIME ZONE", "when we received it"),
        Column("source", "VARCHAR", "who sent it"),
        Column("profile_id", "VARCHAR", "the customer it belongs to; NULL if none (any more)"),
        Column("signature", "VARCHAR", "the set of identifiers it carried; NULL when profile_id is"),
        Column("order_id", "VARCHAR", "properties.order_id"),
        Column("revenue", "DECIMAL(18,4)", "revenue, else total, else the sum of its lines"),
        Column("currency", "VARCHAR", "of the revenue; the deployment's if none was given"),
        Column("campaign_id", "VARCHAR", "properties.campaign_id, else context.campaign.id"),
        Column("product_ids", "VARCHAR[]", "from the event and its lines"),
        Column("properties", "JSON", "those that are not personal"),
        Column("context", "JSON", "the parts that are not personal"),
        Column("sealed_names", "VARCHAR[]", "names of the sealed fields"),
        Column("n", "INTEGER", "its place in the request, file or inbox fetch"),
        Column("flags", "VARCHAR[]", "what was remarked when it was accepted: time_unreadable, bot, …"),
    ),
    "profiles": (
        Column("profile_id", "VARCHAR", "the customer"),
        Column("first_seen_at", "TIMESTAMP WITH TIME ZONE", "first event"),
        Column("last_seen_at", "TIMESTAMP WITH TIME ZONE", "last event"),
        Column("event_count", "BIGINT", "number of events"),
        Column("lifecycle", "VARCHAR", "stage"),
        Column("risk", "VARCHAR", "low, medium, high"),
        Column("risk_reasons", "STRUCT(code VARCHAR, points INTEGER)[]", "why"),
        Column("attributes", "JSON", "declared traits that are not personal"),
    ),
    "segments": (
        Column("name", "VARCHAR", "the segment"),
        Column("version", "INTEGER", "of its definition"),
        Column("description", "VARCHAR", "what it is for"),
        Column("size", "BIGINT", "members now"),
    ),
    "memberships": (
        Column("profile_id", "VARCHAR", "the member"),
        Column("segment", "VARCHAR", "name of the segment"),
        Column("version", "INTEGER", "of the segment's definition"),
        Column("since", "TIMESTAMP WITH TIME ZONE", "NULL: since the segment was first computed"),
    ),
    "orders": (
        Column("order_id", "VARCHAR", "the order; the event's id if it has none"),
        Column("profile_id", "VARCHAR", "the customer"),
        Column("source", "VARCHAR", "the source whose amounts count"),
        Column("occurred_at", "TIMESTAMP WITH TIME ZONE", "when it was first completed"),
        Column("revenue", "DECIMAL(18,4)", "before refunds, in its currency; NULL if it is not known"),
        Column("refunded", "DECIMAL(18,4)", "total of its refunds in that currency, at most its revenue"),
        Column("currency", "VARCHAR", "of the event whose amounts count"),
        Column("base_revenue", "DECIMAL(18,4)", "revenue in the deployment's currency; NULL without a rate"),
        Column("base_refunded", "DECIMAL(18,4)", "its refunds in that currency; NULL if none of them has a rate"),
        Column("missing_rate", "BIGINT", "how many of its amounts have no rate"),
        Column("unreadable_amounts", "BIGINT", "how many of them could not be read"),
        Column("items", "BIGINT", "number of lines"),
        Column("coupon", "VARCHAR", "of the event whose amounts count"),
    ),
    "refunds": (
        Column("refund_id", "VARCHAR", "the event"),
        Column("order_id", "VARCHAR", "the order it names, which may never have arrived"),
        Column("profile_id", "VARCHAR", "the customer"),
        Column("occurred_at", "TIMESTAMP WITH TIME ZONE", "when it was refunded"),
        Column("amount", "DECIMAL(18,4)", "at most what was left of its order; NULL if it is not known"),
        Column("currency", "VARCHAR", "of its order; of the refund itself if its order has none or never arrived"),
        Column("base_amount", "DECIMAL(18,4)", "in the deployment's currency; NULL without a rate"),
        Column("of_order", "BOOLEAN", "whether its order is in orders, and so includes this refund"),
        Column("unreadable", "BOOLEAN", "whether its amount could not be read"),
    ),
    "order_lines": (
        Column("order_id", "VARCHAR", "the order"),
        Column("line", "BIGINT", "from 1"),
        Column("product_id", "VARCHAR", ""),
        Column("sku", "VARCHAR", ""),
        Column("name", "VARCHAR", ""),
        Column("category", "VARCHAR", ""),
        Column("brand", "VARCHAR", ""),
        Column("price", "DECIMAL(18,4)", "for one"),
        Column("quantity", "DECIMAL(18,4)", "1 if not given"),
        Column("amount", "DECIMAL(18,4)", "of the line: as given, else price × quantity"),
    ),
}
"""The tables and their columns; `profiles` has one more for each computed trait."""

# ---------------------------------------------------------------- the gate


class Statement(NamedTuple):
    """A statement to run: `prefix` (EXPLAIN …) + `body`."""

    prefix: str
    body: str


def statement_of(text: str) -> Statement:
    """Check the text before any parser sees it. Raises SqlRefused."""
    if len(text.encode("utf-8", "surrogatepass")) > MAX_TEXT_BYTES:
        raise SqlRefused(f"the statement is longer than {MAX_TEXT_BYTES // 1024} KiB")
    if re.search("[\0\ud800-\udfff]", text):
        raise SqlRefused("the statement contains a character that SQL text cannot have")
    if not text.strip():
        raise SqlRefused("the statement is empty; try: select count(*) from events")
    if _depth(text) > MAX_DEPTH:
        raise SqlRefused(f"the statement has more than {MAX_DEPTH} nested brackets")
    found = _EXPLAIN.match(text)
    if found is None:
        return Statement("", text)
    return Statement("explain analyze " if found.group(1) else "explain ", text[found.end() :])


def _depth(text: str) -> int:
    """The greatest nesting of brackets. Brackets in strings count too: nobody writes that many of either.

    DuckDB's parser needs memory exponential in the depth: 30,000 open brackets ended at 20 GB.
    """
    depth = most = 0
    for letter in text:
        if letter in "([{":
            depth += 1
            most = max(most, depth)
        elif letter in ")]}":
            depth -= 1
    return most


_QUERIES: Final = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
_OTHERS: Final = frozenset(
    {
        *("ORDER_MODIFIER", "LIMIT_MODIFIER", "LIMIT_PERCENT_MODIFIER", "DISTINCT_MODIFIER"),
        *("ORDER_DEFAULT", "ASCENDING", "DESCENDING"),
        *("BASE_TABLE", "SUBQUERY", "JOIN", "TABLE_FUNCTION", "EXPRESSION_LIST", "EMPTY", "PIVOT", "SHOW_REF"),
    }
)
_EXPRESSIONS: Final = frozenset(
    {
        *("CONSTANT", "COLUMN_REF", "FUNCTION", "WINDOW", "STAR", "OPERATOR", "COMPARISON", "CONJUNCTION", "CASE"),
        *("CAST", "TYPE", "SUBQUERY", "LAMBDA", "LAMBDA_REF", "BETWEEN", "COLLATE", "POSITIONAL_REFERENCE"),
    }
)
_CATALOGUE: Final = ("duckdb_", "pg_", "sqlite_", "pragma_", "information_schema")
_WRITES: Final = {"DELETE_QUERY_NODE": "DELETE", "INSERT_QUERY_NODE": "INSERT", "UPDATE_QUERY_NODE": "UPDATE"}


class Use(NamedTuple):
    """What a statement reads: tables, and the columns it names in lower case; None: possibly all."""

    tables: frozenset[str]
    columns: frozenset[str] | None


def check(serialized: str) -> Use:
    """Check `json_serialize_sql` of a statement's body; returns what it reads. Raises SqlRefused."""
    try:
        tree = msgspec.json.decode(serialized)
    except RecursionError:
        raise SqlRefused("the statement is nested too deeply") from None
    if tree.get("error"):
        raise SqlRefused(_parse_problem(tree))
    statements = tree["statements"]
    if len(statements) != 1:
        raise SqlRefused(f"{len(statements)} statements; {_ONLY_READS}")
    nodes = list(_nodes(statements[0]))
    named = {name for node in nodes for name in _cte_names(node)}
    tables = {table for node in nodes for table in _tables(node, named)}
    for node in nodes:
        _check_kind(node)
        _check_function(node)
    return Use(frozenset(tables), _columns(nodes, named))


def _parse_problem(tree: Mapping[str, Any]) -> str:
    if tree.get("error_type") == "not implemented":
        return _ONLY_READS
    place = f" (at character {tree['position']})" if "position" in tree else ""
    return f"{tree.get('error_message', 'syntax error')}{place}"


def _nodes(tree: Any) -> Iterable[dict[str, Any]]:
    """Every object in the tree."""
    stack: list[Any] = [tree]
    while stack:
        each = stack.pop()
        if isinstance(each, dict):
            yield each
            stack.extend(each.values())
        elif isinstance(each, list):
            stack.extend(each)


def _cte_names(node: Mapping[str, Any]) -> Iterable[str]:
    """Names defined by WITH. None may have a catalogue view's name, which it would stand for when out of scope."""
    cte_map = node.get("cte_map")
    entries = cte_map.get("map", ()) if isinstance(cte_map, dict) else ()
    for entry in entries:
        name = str(entry.get("key", "")).lower()
        if name.startswith(_CATALOGUE):
            raise SqlRefused(f"WITH {name}: the name starts like a catalogue name; choose another")
        yield name


def _path(node: Mapping[str, Any]) -> list[str]:
    qualified = node.get("qualified_name")
    path = qualified.get("path", []) if isinstance(qualified, dict) else []
    return [str(part).strip('"').lower() for part in path]


def _tables(node: Mapping[str, Any], named: set[str]) -> Iterable[str]:
    """Which of our tables a node reads."""
    kind = node.get("type")
    if kind not in ("BASE_TABLE", "SHOW_REF") or "class" in node:
        return
    path = _path(node)
    if kind == "SHOW_REF" and not path:
        return  # DESCRIBE or SUMMARIZE of a query, which is checked like any other
    if kind == "SHOW_REF" and node.get("show_type") == "SHOW_SPECIAL":
        raise SqlRefused("list the tables with `touchfold sql --tables`, or DESCRIBE one")
    if len(path) == 2 and path[0] == "main":
        path = path[1:]
    if len(path) == 1 and path[0] in TABLES:
        yield path[0]  # even if WITH defines the name: inside the WITH it still means the table
    elif len(path) != 1 or path[0] not in named:
        raise SqlRefused(f"no table {'.'.join(path)!r}; the tables are {', '.join(TABLES)}")


def _columns(nodes: Iterable[Mapping[str, Any]], named: set[str]) -> frozenset[str] | None:
    """Every column named, or None when a star, DESCRIBE, a natural join, a row or a renaming may read any."""
    found: set[str] = set()
    rows = set(named) | set(TABLES)
    for node in nodes:
        kind = node.get("type")
        if kind in ("STAR", "SHOW_REF", "PIVOT") or node.get("ref_type") == "NATURAL":
            return None
        if kind == "BASE_TABLE" and node.get("column_name_alias"):
            return None  # FROM orders AS o(a, b): the columns have other names
        rows.add(str(node.get("alias", "")).lower())
        found.update(str(name).lower() for name in node.get("using_columns", ()))
        if kind == "COLUMN_REF":
            found.update(str(name).lower() for name in node.get("column_names", ()))
    whole = {str(node["column_names"][0]).lower() for node in nodes if len(node.get("column_names", ())) == 1}
    return None if whole & rows else frozenset(found)


def _check_kind(node: Mapping[str, Any]) -> None:
    kind, group = node.get("type"), node.get("class")
    if group == "PARAMETER":
        raise SqlRefused("parameters (? and $1) have no values here; write the value itself")
    if group is not None:
        if group not in _EXPRESSIONS:
            raise SqlRefused(f"{group} is not supported here")
    elif isinstance(kind, str) and kind not in _QUERIES and kind not in _OTHERS:
        raise SqlRefused(
            f"{_WRITES[kind]} changes data; {_ONLY_READS}" if kind in _WRITES else f"{kind}: {_ONLY_READS}"
        )


def _check_function(node: Mapping[str, Any]) -> None:
    if node.get("type") == "TABLE_FUNCTION" and "class" not in node:
        function = node.get("function")
        name = str(function.get("function_name", "")).lower() if isinstance(function, dict) else ""
        if name not in ALLOWED_TABLE:
            raise SqlRefused(f"{name}() cannot be used in FROM here; {', '.join(sorted(ALLOWED_TABLE))} can")
    elif "function_name" in node:
        name = str(node["function_name"]).lower()
        if name not in _CALLABLE:
            raise SqlRefused(f"the function {name}() is not available here")


_CALLABLE: Final = frozenset(name.lower() for name in ALLOWED | ALLOWED_TABLE)

# ---------------------------------------------------------------- the views

BASES: Final = (
    *("_archive", "_tail", "_owners", "_not_applied", "_profiles", "_segments", "_memberships"),
    *("_orders", "_refunds"),
)
"""Arrow tables that the process registers; `_archive` and `_tail` have the columns of event_columns.EVENT_SCHEMA."""

# Events that belong to nobody (any more) show no identifier set: anyone who knows one event of an erased person could
# find all the others by it (decision 0027).
_EVENTS: Final = """
create view events as
select e.id, e.message_id, e.type, e.name, e.occurred_at, e.received_at, e.source, o.profile_id,
    case when o.profile_id is not null then e.signature end as signature,
    e.order_id, e.revenue, e.currency, e.campaign_id, e.product_ids,
    e.properties::json as properties, e.context::json as context, e.sealed_names,
    coalesce(e.n, 0)::integer as n, coalesce(e.flags, []::varchar[]) as flags
from (
    select partition, "offset", id, message_id, type, name, occurred_at, received_at, source, signature, order_id,
        revenue, currency, campaign_id, product_ids, properties, context, sealed_names, n, flags
    from _archive
    union all
    select partition, "offset", id, message_id, type, name, occurred_at, received_at, source, signature, order_id,
        revenue, currency, campaign_id, product_ids, properties, context, sealed_names, n, flags
    from _tail
) e
anti join _not_applied n on n.partition = e.partition and n."offset" = e."offset"
left join _owners o on o.signature = e.signature
where e.id is not null
"""

_OF_EVENT: Final = frozenset({"source", "items", "coupon"})  # columns of orders that come from the event

_PROFILES: Final = """
create view profiles as
select * replace (attributes::json as attributes) from _profiles
"""

_LOG: Final = frozenset({"_archive", "_tail", "_owners", "_not_applied"})
_NEEDS: Final[Mapping[str, frozenset[str]]] = {
    "events": _LOG,
    "orders": frozenset({"_orders"}),
    "refunds": frozenset({"_refunds"}),
    "order_lines": _LOG | {"_orders"},
    "profiles": frozenset({"_profiles"}),
    "segments": frozenset({"_segments"}),
    "memberships": frozenset({"_memberships"}),
}


def bases_of(use: Use) -> frozenset[str]:
    """The Arrow tables that a statement's tables are built from."""
    made = frozenset[str]().union(*(_NEEDS[table] for table in use.tables))
    return made | _LOG if _joins_events(use) else made


def _joins_events(use: Use) -> bool:
    """Whether `orders` needs each base event: many questions about orders need no event at all."""
    return "orders" in use.tables and (use.columns is None or not use.columns.isdisjoint(_OF_EVENT))


def order_columns(use: Use) -> frozenset[str] | None:
    """The columns of `orders` and `refunds` that a statement needs; None: possibly all."""
    if use.columns is None or "order_lines" in use.tables:
        return None
    return use.columns | {"event_id"} if _joins_events(use) else use.columns


def view_statements(use: Use) -> list[str]:
    """CREATE VIEW statements for a statement's tables over their bases, in order."""
    wanted, joined = use.tables, _joins_events(use)
    made = []
    if joined or wanted & {"events", "order_lines"}:
        made.append(_EVENTS)
    if "orders" in wanted:
        made.append(ORDERS.format(**(FROM_EVENT if joined else NOT_ASKED)))
    if "refunds" in wanted:
        made.append("create view refunds as select * from _refunds")
    if "order_lines" in wanted:
        made.append(ORDER_LINES)
    if "profiles" in wanted:
        made.append(_PROFILES)
    made += [f"create view {name} as select * from _{name}" for name in ("segments", "memberships") if name in wanted]
    return made
