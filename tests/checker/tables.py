"""Everything the checker reads from the main database, by raw SQL in one snapshot. The migration is the contract.

128-bit values are lower-case hex text without dashes here, so that they can be compared with the records'.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from psycopg2.extensions import connection as Connection

from tests.checker.sources import Position, Source, TableSource

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
    lifecycle: str
    risk: str


class DeadLetterRow(NamedTuple):
    id: str
    stage: str
    rule: str
    source: str
    event: str | None
    tokens: frozenset[str]
    state: str


class ChangeRow(NamedTuple):
    seq: int | None  # number of its feed batch; None: not numbered yet
    place: int
    id: str
    type: str
    profile: str
    version: int
    name: str | None
    old: Any
    new: Any
    at_us: int
    cause: str
    cause_event: str | None


@dataclass
class Tables:
    """The main database at one instant."""

    log: dict[Position, bytes] = field(default_factory=dict)
    heads: dict[int, int] = field(default_factory=dict)
    keys: dict[Position, bytes | None] = field(default_factory=dict)  # of a topic's records
    gapless: bool = True
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
    days: dict[str, tuple[int, int]] = field(default_factory=dict)  # segment -> (entered, left), over all days

    def after_last(self) -> dict[int, int]:
        """The offset after the last record of each partition; a log with gaps may end later."""
        found = dict.fromkeys(self.heads, 0)
        for partition, offset in self.log:
            found[partition] = max(found.get(partition, 0), offset + 1)
        return found


def _hex(value: object) -> str:
    if isinstance(value, bytes | memoryview):
        return bytes(value).hex()
    return str(value).replace("-", "")


def _hex_or_none(value: object) -> str | None:
    return None if value is None else _hex(value)


def read(connection: Connection, source: Source | None = None) -> Tables:
    """Read all tables, and the log from its `source` (the table by default).

    The caller's transaction should be REPEATABLE READ; whether to commit it is up to the caller.
    """

    def rows(statement: str) -> list[tuple[Any, ...]]:
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall()

    live = rows("select revision, definitions from revisions where state = 'live'")
    revision = int(live[0][0]) if live else 0
    log = (source or TableSource()).read(connection)
    tables = Tables(
        log=log.records,
        heads=log.heads,
        keys=log.keys,
        gapless=log.gapless,
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
            ChangeRow(
                *(seq, idx, _hex(id_), type_, _hex(profile), version, name, old, new, us, cause, _hex_or_none(ev))
            )
            for seq, idx, id_, type_, profile, version, name, old, new, us, cause, ev in rows(
                "select b.seq, c.idx, c.id, c.type, c.profile_id, c.version, c.name, c.old, c.new, c.at_us,"
                " c.cause, c.cause_event from changes c left join feed_batches b using (batch)"
            )
        ],
        batches=rows("select batch, seq from feed_batches"),
        days={
            segment: (int(entered), int(left))
            for segment, entered, left in rows(
                'select segment, sum(entered), sum("left") from segment_days group by segment'
            )
        },
    )
    if live:
        _read_revision(tables, rows, revision)
    return tables


def _read_revision(tables: Tables, rows: Any, revision: int) -> None:
    tables.marks = rows(f"select count(*) from marks where revision = {revision}")[0][0]
    tables.states = {(_hex(s), p) for s, p in rows(f"select signature, partition from states_r{revision}")}
    for profile, mask, *row in rows(
        "select profile_id, segments, version, first_us, last_us, event_count, lifecycle, risk"
        f" from profiles_r{revision}"
    ):
        tables.profiles[_hex(profile)] = ProfileRow(*row)
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
