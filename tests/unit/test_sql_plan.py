"""How DuckDB plans the views of SQL: memory must not grow with the events."""

import pytest

from infra.adapters.postgres import sql_snapshot
from infra.drivers.sql.child import connection
from query.sql import statements as sql
from query.sql.statements import Use
from schemas.event_columns import EVENT_SCHEMA


@pytest.mark.parametrize(
    "statement", ["select type, count(*) from events group by 1", "select profile_id from events where type = 'x'"]
)
def test_events_are_streamed_past_their_owners_and_not_kept(statement: str) -> None:
    database = connection(2**28)
    events, owners = EVENT_SCHEMA.empty_table(), sql_snapshot.OWNERS.empty_table()
    bases = {"_archive": events, "_tail": events, "_owners": owners}
    for name, table in {**bases, "_not_applied": sql_snapshot.NOT_APPLIED.empty_table()}.items():
        database.register(name, table)
    for view in sql.view_statements(Use(frozenset({"events"}), None)):
        database.execute(view).fetchall()
    plan = str(database.execute(f"explain {statement}").fetchall()[0][1])
    assert "Join Type: ANTI" in plan
    assert "RIGHT" not in plan, "that is a table of all events in memory: a month of four a second did not fit"
