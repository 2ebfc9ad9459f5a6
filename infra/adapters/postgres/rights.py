"""What an account may do in a database, checked before anything is done; the error lists the GRANTs to run."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from psycopg2.extensions import cursor as Cursor

from schemas.errors import Problem, RightsMissing

MAINTAIN_SINCE: Final = 170_000  # older servers lack this right: only an owner may VACUUM


class Need(NamedTuple):
    """Rights on tables of the schema `public`. `pattern`: a regular expression for the whole name."""

    pattern: str
    rights: Sequence[str]  # select, insert, update, delete; maintain: VACUUM; own: ALTER, DROP


def check_rights(cursor: Cursor, needs: Sequence[Need], what: str) -> None:
    """Raises RightsMissing with the statements to run, one per problem; `what`: what is refused without them."""
    cursor.execute(
        "select current_user, current_database(), current_setting('server_version_num')::int,"
        " current_setting('transaction_read_only')::bool"
    )
    row = cursor.fetchone()
    assert row is not None, "a function returns a row"
    user, database, version, read_only = row
    if read_only:
        raise RightsMissing(
            f"{what} was refused before anything was done: the database {database} is read-only here (a replica, or "
            "default_transaction_read_only): give the address of the primary"
        )
    missing = [each for need in needs for each in _missing(cursor, need, str(user), int(version))]
    if missing:
        raise RightsMissing(
            f"{what} was refused before anything was done: the account {user} lacks rights in the database {database}. "
            f"Run there, as an owner: {'; '.join(missing)}",
            [Problem(str(database), each) for each in missing],
        )


def _missing(cursor: Cursor, need: Need, user: str, version: int) -> list[str]:
    cursor.execute(
        "select c.oid::regclass::text, c.oid, quote_ident(%(user)s), quote_ident(pg_get_userbyid(c.relowner)),"
        " pg_has_role(c.relowner, 'usage')"
        " from pg_class c where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p')"
        " and c.relname ~ %(pattern)s order by 1",
        {"user": user, "pattern": f"^({need.pattern})$"},
    )
    found = []
    for table, oid, account, owner, owns in cursor.fetchall():
        lacks = [] if owns else [right for right in need.rights if not _has(cursor, oid, right, version)]
        if "own" in lacks or ("maintain" in lacks and version < MAINTAIN_SINCE):
            found.append(f"GRANT {owner} TO {account}")
        elif lacks:
            found.append(f"GRANT {', '.join(lacks).upper()} ON {table} TO {account}")
    return sorted(set(found))


def _has(cursor: Cursor, oid: int, right: str, version: int) -> bool:
    if right == "own" or (right == "maintain" and version < MAINTAIN_SINCE):
        return False
    cursor.execute("select has_table_privilege(%s::oid, %s)", (oid, right))
    row = cursor.fetchone()
    return row is not None and bool(row[0])
