"""Membership changes by DECIDE, a swap and an erasure, and the number of members, updated with each change."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from psycopg2.extensions import cursor as Cursor

from infra.adapters.postgres.database import copy_rows, f_int8
from infra.adapters.postgres.rows import LEFT, MEMBER_ROW
from infra.adapters.postgres.staging import Stage

PARTS: Final = 64  # rows a segment's count is spread over, by backend: transactions rarely need the same one


def remove(cursor: Cursor, revision: int, those: str) -> None:
    """Delete the memberships `m` selected by `those`: `using …` and `where …`."""
    cursor.execute(_counted(revision, f"delete from memberships_r{revision} m {those} returning m.segment", {}))


def change(
    cursor: Cursor,
    stage: Stage,
    revision: int,
    entered: Sequence[tuple[int, bytes, int | None]],
    left: Sequence[tuple[int, bytes]],
) -> None:
    """(segment index, profile id, since) to insert; (segment index, profile id) to delete, if present."""
    came = Counter(segment for segment, _, _ in entered)
    if left:
        packed = [MEMBER_ROW(2, segment, 16, profile_id) for segment, profile_id in sorted(left)]
        gone = (
            f"delete from memberships_r{revision} m using {stage.rows(LEFT, packed)}"
            " where m.segment = old_memberships.segment and m.profile_id = old_memberships.profile_id"
            " returning m.segment"
        )
        cursor.execute(_counted(revision, gone, came))
    elif came:
        cursor.execute(_counted(revision, None, came))
    rows = sorted(entered, key=lambda row: row[:2])
    copy_rows(
        cursor,
        f"memberships_r{revision}",
        ("segment", "profile_id", "since_us"),
        [MEMBER_ROW(2, segment, 16, profile_id) + f_int8(since) for segment, profile_id, since in rows],
    )


def forget(cursor: Cursor, revision: int) -> None:
    """Drop the counts of a revision whose tables are gone."""
    cursor.execute("delete from segment_counts where revision = %s", (revision,))


def _counted(revision: int, gone: str | None, came: "Counter[int] | dict[int, int]") -> str:
    """A statement that deletes memberships and counts them, along with new ones, in ascending order of segment."""
    parts = [f"values {','.join(f'({int(s)}::smallint, {int(n)}::bigint)' for s, n in came.items())}"] if came else []
    parts += [] if gone is None else ["select segment, -1 from gone"]
    return (
        f"{'' if gone is None else f'with gone as ({gone}) '}"
        "insert into segment_counts as c (revision, segment, part, members)"
        f" select {revision}, segment, pg_backend_pid() % {PARTS}, sum(n)"
        f" from ({' union all '.join(parts)}) d (segment, n) group by segment having sum(n) <> 0 order by segment"
        " on conflict (revision, segment, part) do update set members = c.members + excluded.members"
    )
