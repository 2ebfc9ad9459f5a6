"""Everything the checker reads from the main database, by raw SQL in one snapshot. The migration is the contract.

128-bit values are lower-case hex text without dashes here, so that they compare with what the records say.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from psycopg2.extensions import connection as Connection

Position = tuple[int, int]  # (partition, offset)

APPLIED, DUPLICATE, CONFLICT, QUARANTINED, ERASED = range(5)


class RegisterRow(NamedTuple):
    key: str
    digest: str
    partition: int
    offset: int
    signature: str
    verdict: int


class ProfileRow(NamedTuple):
    version: int
    first_us: int | None
    last_us: int | None
    event_count: int


class DeadLetterRow(NamedTuple):
    id: str
    stage: str
    rule: str
    source: str
    event: str | None
    tokens: frozenset[str]
    state: str


class ChangeRow(NamedTuple):
    seq: int | None  # of its feed batch; None: not numbered yet
    place: int
    id: str
    type: str
    profile: str
    version: int
    name: str | None
    new: Any


@dataclass
class Tables:
    """The main database at one instant."""

    log: dict[Position, bytes] = field(default_factory=dict)
    heads: dict[int, int] = field(default_factory=dict)
    revision: int = 0
    definitions: dict[str, Any] = field(default_factory=dict)
    progress: dict[int, int] = field(default_factory=dict)
    register: list[RegisterRow] = field(default_factory=list)
    not_applied: list[tuple[int, int, str | None, int]] = field(default_factory=list)
    dead_letters: list[DeadLetterRow] = field(default_factory=list)
    suppressed: set[str] = field(default_factory=set)
    erased: set[str] = field(default_factory=set)
    tokens: dict[str, tuple[str, bool, str | None]] = field(default_factory=dict)
    evidence: dict[str, tuple[frozenset[str], str | None]] = field(default_factory=dict)
    marks: int = 0
    states: set[tuple[str, int]] = field(default_factory=set)
    profiles: dict[str, ProfileRow] = field(default_factory=dict)
    memberships: set[tuple[int, str]] = field(default_factory=set)
    segment_masks: dict[str, int] = field(default_factory=dict)
    changes: list[ChangeRow] = field(default_factory=list)
    batches: list[tuple[int, int | None]] = field(default_factory=list)


def _hex(value: object) -> str:
    if isinstance(value, bytes | memoryview):
        return bytes(value).hex()
    return str(value).replace("-", "")


def _hex_or_none(value: object) -> str | None:
    return None if value is None else _hex(value)


def read(connection: Connection) -> Tables:
    """Read all tables; the caller's transaction should be REPEATABLE READ and decides what follows."""

    def rows(statement: str) -> list[tuple[Any, ...]]:
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall()

    live = rows("select revision, definitions from revisions where state = 'live'")
    revision = int(live[0][0]) if live else 0
    tables = Tables(
        log={(p, o): bytes(v) for p, o, v in rows('select partition, "offset", value from event_log')},
        heads=dict(rows("select partition, next_offset from log_head")),
        revision=revision,
        definitions=live[0][1] if live else {},
        progress=dict(rows(f"select partition, next_offset from progress where revision = {revision}")),
        register=[
            RegisterRow(_hex(k), _hex(d), p, o, _hex(s), v)
            for k, d, p, o, s, v in rows(
                'select event_key, digest, partition, "offset", signature, verdict from register'
            )
        ],
        not_applied=[
            (p, o, _hex_or_none(k), v)
            for p, o, k, v in rows('select partition, "offset", event_key, verdict from not_applied')
        ],
        dead_letters=[
            DeadLetterRow(_hex(i), stage, rule, source, _hex_or_none(event), _tokens(held), state)
            for i, stage, rule, source, event, held, state in rows(
                "select id, stage, rule, source, event_id, tokens::text, state from dead_letters"
            )
        ],
        suppressed={_hex(row[0]) for row in rows("select event_id from suppressed_events")},
        erased={_hex(row[0]) for row in rows("select token from erased_tokens")},
        tokens={
            _hex(t): (kind, hub, _hex_or_none(profile))
            for t, kind, hub, profile in rows("select token, kind, hub, profile_id from tokens")
        },
        evidence={
            _hex(s): (_tokens(ts), _hex_or_none(profile))
            for s, ts, profile in rows("select signature, tokens::text, profile_id from evidence")
        },
        changes=[
            ChangeRow(seq, idx, _hex(id_), type_, _hex(profile), version, name, new)
            for seq, idx, id_, type_, profile, version, name, new in rows(
                "select b.seq, c.idx, c.id, c.type, c.profile_id, c.version, c.name, c.new"
                " from changes c left join feed_batches b using (batch)"
            )
        ],
        batches=rows("select batch, seq from feed_batches"),
    )
    if live:
        _read_revision(tables, rows, revision)
    return tables


def _read_revision(tables: Tables, rows: Any, revision: int) -> None:
    tables.marks = rows(f"select count(*) from marks where revision = {revision}")[0][0]
    tables.states = {(_hex(s), p) for s, p in rows(f"select signature, partition from states_r{revision}")}
    for profile, version, first, last, count, mask in rows(
        f"select profile_id, version, first_us, last_us, event_count, segments from profiles_r{revision}"
    ):
        tables.profiles[_hex(profile)] = ProfileRow(version, first, last, count)
        tables.segment_masks[_hex(profile)] = int.from_bytes(bytes(mask), "little")
    tables.memberships = {
        (segment, _hex(profile))
        for segment, profile in rows(f"select segment, profile_id from memberships_r{revision}")
    }


def _tokens(text: str) -> frozenset[str]:
    """`{a,b}` as PostgreSQL prints uuid[]."""
    return frozenset(_hex(part) for part in text.strip("{}").split(",") if part)


def vault_tokens(connection: Connection) -> set[str]:
    """Every token whose identifier the vault can open."""
    with connection.cursor() as cursor:
        cursor.execute("select token from identifiers")
        return {_hex(row[0]) for row in cursor.fetchall()}
