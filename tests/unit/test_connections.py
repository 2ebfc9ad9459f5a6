"""The numbers of connections are those the decision page tells, and pooled connections keep no state of a session."""

import re
from pathlib import Path

from infra.adapters.postgres.connection_pool import Lane
from infra.app.connections import COMMANDS, SHARES, embedded_connections

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "decisions" / "0014-connections.md"
# What stays in a session after the transaction. `set local`, `…_xact_lock` and `on commit drop` do not.
STATE = re.compile(
    r"""(["']|; )(set (?!local |transaction )[a-z_]+ (=|to) |listen |create temp(?!.*on commit drop)"""
    r"|select pg_(try_)?advisory_lock)",
    re.IGNORECASE,
)


def test_the_table_of_the_decision_is_what_the_code_says() -> None:
    text = PAGE.read_text()
    for process, share in SHARES.items():
        row = f"| {process} | {share.main.size} | {share.vault.size} | {share.dedicated} | {share.sql} | {share.most} |"
        assert row in text, f"0014-connections.md lacks: {row}"
    for doors in (1, 2, 4, 16):
        assert f"| {doors} | {embedded_connections(doors)} |" in text, f"the number for {doors} doors"
    assert f"{COMMANDS} commands" in text


def test_every_pool_has_room_for_work_and_for_reads() -> None:
    assert list(Lane) == [Lane.NESTED, Lane.WORK, Lane.READ]
    for share in SHARES.values():
        for limits in (share.main, share.vault):
            assert 2 <= limits.kept < limits.size  # one for who holds one, one for work, one for reads


def test_what_a_session_keeps_stands_where_the_connection_is_dedicated() -> None:
    found = [
        str(path.relative_to(ROOT / "infra"))
        for path in sorted((ROOT / "infra").rglob("*.py"))
        if STATE.search(path.read_text()) and "Dedicated" not in path.read_text()
    ]
    assert found == ["adapters/postgres/staging.py", "drivers/sql/child.py"]  # the store's tables; DuckDB's settings
