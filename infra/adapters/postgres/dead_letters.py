"""Dead letters in PostgreSQL: durable when `insert` returns; a repeated one is still one row."""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import date, datetime
from typing import Any, Final

from psycopg2.extras import execute_values

from infra.adapters.postgres.connection_pool import Lane
from infra.adapters.postgres.database import Database, Uuid, Uuids
from schemas.dead_letters import DeadLetter
from schemas.errors import TouchfoldError
from schemas.placeholders import Blocked

_log = logging.getLogger("touchfold.door")

_COLUMNS: Final = "id, stage, rule, path, reason, source, received_at, event_id, tokens, seal_key, sealed"
_PAGE: Final = 1_000
STATES: Final = ("open", "retried", "erased")


class PostgresDeadLetters:
    """One connection: give each thread its own."""

    def __init__(self, dsn: str) -> None:
        self._database = Database(dsn, "touchfold dead letters", Lane.WORK)

    def insert(self, letters: Sequence[DeadLetter], suppressed: Sequence[bytes], at: datetime) -> None:
        """Store dead letters and the event keys refused for a suppressed person; one commit. Raises StoreUnavailable.

        An existing dead letter is left as it is, but opened again if it had been retried.
        """
        if not letters and not suppressed:
            return
        with self._database.transaction() as cursor:
            if letters:
                rows = {letter.id: letter for letter in letters}  # duplicates in one statement would be an error
                execute_values(
                    cursor,
                    f"insert into dead_letters ({_COLUMNS}) values %s"
                    " on conflict (id) do update set state = 'open' where dead_letters.state = 'retried'",
                    [_values(rows[id_]) for id_ in sorted(rows)],
                )
            if suppressed:
                execute_values(
                    cursor,
                    "insert into suppressed_events (event_id, received_at) values %s on conflict do nothing",
                    [(Uuid(key), at) for key in sorted(set(suppressed))],
                )

    def count_blocked(self, blocked: Sequence[Blocked], at: datetime) -> None:
        """See the port: one statement and no flush. Rows ascending, so that two doors never deadlock."""
        if not blocked:
            return
        try:
            self._count(sorted(Counter(blocked).items()), at)
        except TouchfoldError as err:
            _log.warning("%d ids that name nobody are not counted: %s", len(blocked), err.message)

    def _count(self, counts: Sequence[tuple[Blocked, int]], at: datetime) -> None:
        with self._database.transaction() as cursor:
            cursor.execute("set local synchronous_commit = off")
            execute_values(
                cursor,
                "insert into blocked_identifiers as old (source, kind, rule, value, events, last_at) values %s"
                " on conflict (source, kind, rule, value) do update set events = old.events + excluded.events,"
                " last_at = greatest(old.last_at, excluded.last_at)",
                [(*each, count, at) for each, count in counts],
            )

    def list(self, state: str = "open", limit: int = 1_000, after: DeadLetter | None = None) -> list[DeadLetter]:
        """The newest dead letters in a state, without their sealed bytes; `after`: those that follow this one."""
        columns = _COLUMNS.replace(", sealed", ", ''::bytea")
        place: tuple[Any, ...] = ()
        if after is not None:
            place = (after.received_at, after.received_at, Uuid(after.id))
        where = "state = %s" + (" and received_at <= %s and (received_at < %s or id > %s)" if place else "")
        with self._database.transaction() as cursor:
            cursor.execute(
                f"select {columns} from dead_letters where {where} order by received_at desc, id limit %s",
                (state, *place, limit),
            )
            return [_letter(row) for row in cursor.fetchall()]

    def each(self, state: str = "open", limit: int | None = None) -> Iterator[DeadLetter]:
        """All in a state (or `limit`), newest first, read a page at a time: there may be millions."""
        last: DeadLetter | None = None
        left = limit
        while left is None or left > 0:
            page = self.list(state, _PAGE if left is None else min(_PAGE, left), last)
            yield from page
            if not page:
                return
            last = page[-1]
            left = None if left is None else left - len(page)

    def get(self, id_: bytes) -> tuple[DeadLetter, str] | None:
        """A dead letter with its state."""
        with self._database.transaction() as cursor:
            cursor.execute(f"select {_COLUMNS}, state from dead_letters where id = %s", (Uuid(id_),))
            row = cursor.fetchone()
        return None if row is None else (_letter(row[:-1]), str(row[-1]))

    def find_event(self, event_id: bytes) -> DeadLetter | None:
        """The newest open dead letter of an event."""
        with self._database.transaction() as cursor:
            cursor.execute(
                f"select {_COLUMNS} from dead_letters where event_id = %s and state = 'open'"
                " order by received_at desc limit 1",
                (Uuid(event_id),),
            )
            row = cursor.fetchone()
        return None if row is None else _letter(row)

    def mark(self, id_: bytes, state: str) -> None:
        """Record what became of a dead letter (one of STATES) and count the attempt."""
        with self._database.transaction() as cursor:
            cursor.execute(
                "update dead_letters set state = %s, attempts = attempts + 1 where id = %s", (state, Uuid(id_))
            )

    def delete_without_tokens(self, before: date) -> int:
        """Delete dead letters under a daily key that were received before a day; returns how many."""
        with self._database.transaction() as cursor:
            cursor.execute("delete from dead_letters where received_at < %s and seal_key <> all(tokens)", (before,))
            return cursor.rowcount

    def count(self, state: str = "open") -> int:
        with self._database.transaction() as cursor:
            cursor.execute("select count(*) from dead_letters where state = %s", (state,))
            row = cursor.fetchone()
        return 0 if row is None else int(row[0])

    def close(self) -> None:
        self._database.close()


def _values(letter: DeadLetter) -> tuple[object, ...]:
    return (
        Uuid(letter.id),
        *(letter.stage, letter.rule, letter.path, letter.reason, letter.source, letter.received_at),
        None if letter.event_id is None else Uuid(letter.event_id),
        Uuids(letter.tokens),
        Uuid(letter.seal_key),
        letter.sealed,
    )


def _letter(row: tuple[Any, ...]) -> DeadLetter:
    *head, event_id, tokens, seal_key, sealed = row
    return DeadLetter._make((*head, event_id, tuple(tokens or ()), seal_key, bytes(sealed)))
