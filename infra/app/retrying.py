"""Retries dead letters, for the command and the API: each goes through acceptance as if it had just arrived."""

import threading
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from infra.adapters.postgres.dead_letters import PostgresDeadLetters
from infra.adapters.postgres.sources import PostgresSources
from infra.app.accepting import acceptor_of
from infra.app.log import log_of
from infra.app.vault import vault_of
from ingest.accept.calls import Accepted
from ingest.accept.retry import accept_again
from ingest.requests import inbox
from schemas.dead_letters import FOLD, INBOX, DeadLetter, remedies, remedy
from schemas.errors import NotFound
from schemas.record import uuid_text
from schemas.sources import Source, source_of
from schemas.waits import SET_ASIDE, UNREADABLE

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from infra.app.late_folding import LateFolding
    from infra.app.session import Session


_Rules = list[tuple[str, str]]  # (stage, rule) of dead letters
FOLDED_LATE: Final = (UNREADABLE, SET_ASIDE)


class Retrying:
    """Any thread may call. A retry is appended before its dead letter is marked: a crash repeats it, losing nothing."""

    def __init__(self, here: "Session") -> None:
        self._vault = vault_of(here)
        self._now = here.door_clock.now
        self._store = PostgresDeadLetters(here.dsn)
        self._acceptor = acceptor_of(here)
        self._log = log_of(here)
        self._sources = PostgresSources(here.dsn, unknown=here.unknown_clear)
        self._lock = threading.Lock()
        self._here = here
        self._check_disk = here.disk.check

    def list(self, state: str, limit: int) -> list[DeadLetter]:
        """The newest dead letters in a state, without their sealed bytes."""
        with self._lock:
            return self._store.list(state, limit)

    def every(self, stages: Collection[str], rule: str) -> Iterator[DeadLetter]:
        """All open dead letters of these stages, or by this rule, with their content, one page in memory at a time."""
        for each in self._store.each("open"):
            if (each.stage in stages or each.rule == rule) and (found := self._store.get(each.id)) is not None:
                yield found[0]

    def get(self, letter: str) -> tuple[DeadLetter, str]:
        """A dead letter and its state. Raises NotFound."""
        try:
            key = UUID(letter).bytes
        except ValueError:
            key = b""
        with self._lock:
            found = self._store.get(key) if key else None
        if found is None:
            raise NotFound(f"there is no dead letter {letter}: see dead-letters list")
        return found

    def run(self, rows: Iterable[DeadLetter], source: str | None = None) -> dict[str, Any]:
        """{"accepted": n, "refused": [ids], "gone": n, "remedies": [what to do about the refused]}.

        Raises BadRequest, saying what to do, for dead letters that cannot be retried: they are in the log or in a file.
        `source`: which source the inbox messages belong to, whatever their write keys say; NotFound if unknown.
        """
        accepted, gone = 0, 0
        refused: dict[str, _Rules] = {}  # by letter: what is refused of it now
        with self._lock, ExitStack() as opened:
            late: LateFolding | None = None
            owner = None if source is None else self._source(source)
            for row in rows:
                (plain,) = self._vault.open_many([(row.seal_key, row.sealed, row.id)])
                if plain is None:
                    self._store.mark(row.id, "erased")
                    gone += 1
                elif row.stage == FOLD and row.rule in FOLDED_LATE:
                    late = late or opened.enter_context(_late_folding(self._here))
                    if self._fold_late(row, late):
                        accepted += 1
                    else:
                        refused[uuid_text(row.id)] = [(row.stage, row.rule)]
                elif found := self._again(row, plain, owner):
                    refused[uuid_text(row.id)] = found
                else:
                    accepted += 1
        return {
            "accepted": accepted,
            "refused": list(refused),
            "gone": gone,
            "remedies": remedies(rule for rules in refused.values() for rule in rules),
        }

    def _source(self, name: str) -> Source:
        for each in self._sources.list():
            if each.name == name:
                return source_of(name, each.settings)
        raise NotFound(f"there is no source {name!r}: see source list")

    def _again(self, row: DeadLetter, plain: bytes, owner: Source | None) -> "_Rules":
        """What is refused again; nothing if everything is in the log now or its person is suppressed."""
        self._check_disk()
        now = self._now()
        if row.stage == INBOX:
            result = self._message_again(row, plain, owner, now)
        else:
            result = accept_again(row, plain, self._acceptor, self._sources.declared(), now)
        if isinstance(result, inbox.Refusal):
            self._store.mark(row.id, "open")
            return [(row.stage, result.rule)]
        if result.pending:
            self._log.append(result.pending)
        self._store.insert(result.dead, result.suppressed, now)
        self._store.count_blocked(result.blocked, now)
        same = any(letter.id == row.id for letter in result.dead)
        self._store.mark(row.id, "open" if same else "retried")  # else new dead letters cover what was refused
        return [(letter.stage, letter.rule) for letter in result.dead]

    def _fold_late(self, row: DeadLetter, late: "LateFolding") -> bool:
        """Apply a log record that was set aside, without moving it; False if it still cannot be read."""
        done = late.fold(row.id)
        self._store.mark(row.id, "retried" if done else "open")
        return done

    def _message_again(
        self, row: DeadLetter, plain: bytes, owner: Source | None, now: datetime
    ) -> Accepted | inbox.Refusal:
        """The items of an inbox message, or why the whole message is refused again."""
        message = inbox.message_again(plain)
        opened = inbox.open_message(message, self._sources, now, seen_at=row.received_at, source=owner)
        return self._acceptor.accept_many([opened.call])[0] if isinstance(opened, inbox.Opened) else opened

    def close(self) -> None:
        self._store.close()
        self._sources.close()


def _late_folding(here: "Session") -> "AbstractContextManager[LateFolding]":
    from infra.app.late_folding import late_folding  # noqa: PLC0415  # the processors take 0.4 s to import

    return late_folding(here)


def described(letter: DeadLetter) -> dict[str, Any]:
    """The JSON of contracts: a dead letter without its content, and what to do about it."""
    return {
        "id": uuid_text(letter.id),
        "stage": letter.stage,
        "rule": letter.rule,
        "path": letter.path,
        "reason": letter.reason,
        "source": letter.source,
        "received_at": letter.received_at.isoformat().replace("+00:00", "Z"),
        "event_id": None if letter.event_id is None else uuid_text(letter.event_id),
        "remedy": remedy(letter.stage, letter.rule),
    }
