"""The rules of identity that a deployment has set, and what must be decided again when they change."""

from typing import Final

from infra.adapters.postgres.database import Database
from schemas.identity_rules import LOGIN_LIMIT, IdentityRules, rules_with

_KEY: Final = "login_limit"  # a row of meta; without one, the default
# Logins and cards that may be shared under one limit and not under the other, and their identifier sets, 100 in a row.
_CROWDED: Final = """
select t.token from tokens t
join evidence_tokens own on own.token = t.token
join evidence_tokens beside on beside.signature = own.signature
join tokens o on o.token = beside.token
where (t.kind, o.kind) in (('user_id', 'loyalty_card'), ('user_id', 'email'), ('user_id', 'phone'),
    ('loyalty_card', 'email'), ('loyalty_card', 'phone'))
group by t.token, t.kind, o.kind having count(distinct o.token) > %s
"""
_NOT_KNOWN_AS_SHARED: Final = f"update tokens set hub = false where hub and token in ({_CROWDED})"
_DECIDE_AGAIN: Final = f"""
insert into marks (revision, shard, kind, signatures, newest_us, newest_events)
select revision, 0, 'identity', array_agg(signature), array_agg(0::bigint), array_agg(no_event)
from (
    select r.revision, h.signature, ('0' || repeat('0', 31))::uuid no_event,
        (row_number() over (partition by r.revision order by h.signature) - 1) / 100 as part
    from revisions r, (select distinct signature from evidence_tokens where token in ({_CROWDED})) h
    where r.state = 'live') parts
group by revision, part
"""


def read_rules(database: Database) -> IdentityRules:
    """The rules in force."""
    row = database.one(f"select value from meta where key = '{_KEY}'")
    return rules_with(int(row[0]) if row else LOGIN_LIMIT)


def set_login_limit(database: Database, login_limit: int) -> bool:
    """Put a limit in force; True if that changed it. What it may concern is then decided again by the worker."""
    with database.transaction() as cursor:
        cursor.execute("select pg_advisory_xact_lock(hashtext(%s))", (_KEY,))
        cursor.execute("select value from meta where key = %s", (_KEY,))
        row = cursor.fetchone()
        before = int(row[0]) if row else LOGIN_LIMIT
        if before == login_limit:
            return False
        cursor.execute(
            "insert into meta values (%s, to_jsonb(%s::int)) on conflict (key) do update set value = excluded.value",
            (_KEY, login_limit),
        )
        cursor.execute(_DECIDE_AGAIN, (min(before, login_limit),))
        if login_limit > before:  # who resolves takes it from the row that a token is shared, and never looks again
            cursor.execute(_NOT_KNOWN_AS_SHARED, (before,))
    return True
