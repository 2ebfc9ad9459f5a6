"""`touchfold dead-letters list|show|retry`: what was set aside, why, and sending it again."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.cli.options import DATA, JSON, say

if TYPE_CHECKING:
    from infra.bootstrap import Session
    from schemas.dead_letters import DeadLetter

ALL = 2**63 - 1
STATE = Annotated[str, typer.Option("--state", help="open, retried or erased")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    group = typer.Typer(help="See what was set aside, and send it again.", no_args_is_help=True)
    group.command("list")(list_letters)
    group.command("show")(show)
    group.command("retry")(retry)
    app.add_typer(group, name="dead-letters")


def list_letters(
    state: STATE = "open",
    limit: Annotated[int | None, typer.Option(min=1, help="at most so many, the newest; else all")] = None,
    data: DATA = None,
    as_json: JSON = False,
) -> None:
    """List dead letters, the newest first.

    Example: touchfold dead-letters list
    """
    from contextlib import closing

    from infra.adapters.postgres_dead_letters import STATES, PostgresDeadLetters
    from infra.bootstrap import session
    from schemas.errors import BadRequest

    if state not in STATES:
        raise BadRequest(f"no state {state}: there are {', '.join(STATES)}")
    with session(data, say=say) as here, closing(PostgresDeadLetters(here.dsn)) as store:
        found = [described(letter) for letter in store.list(state, limit or ALL)]
    if as_json:
        typer.echo(json.dumps(found))
        return
    for each in found:
        place = f" at {each['path']}" if each["path"] else ""
        typer.echo(f"{each['id']} {each['received_at']} {each['source']}: {each['rule']}{place}: {each['reason']}")
    if not found:
        typer.echo(f"no {state} dead letters")


def show(
    letter: Annotated[str, typer.Argument(help="the dead letter's id", show_default=False)],
    data: DATA = None,
    as_json: JSON = False,
) -> None:
    """Show one dead letter with its content, opened.

    Example: touchfold dead-letters show 0d2c9f0e-…
    """
    from contextlib import closing

    from infra.adapters.postgres_dead_letters import PostgresDeadLetters
    from infra.bootstrap import session

    with session(data, say=say) as here, closing(PostgresDeadLetters(here.dsn)) as store:
        row, state = _get(store, letter)
        (plain,) = here.vault().open_many([(row.seal_key, row.sealed, row.id)])
    found = described(row) | {"state": state, "content": None if plain is None else json.loads(plain)}
    typer.echo(json.dumps(found, ensure_ascii=False, indent=None if as_json else 2))


def retry(
    letters: Annotated[list[str] | None, typer.Argument(help="ids; else --all", show_default=False)] = None,
    every: Annotated[bool, typer.Option("--all", help="all open ones of the door")] = False,
    data: DATA = None,
    as_json: JSON = False,
) -> None:
    """Send dead letters of the door again, as if they came now; those still refused stay open.

    Example: touchfold dead-letters retry --all
    """
    from contextlib import closing

    from infra.adapters.postgres_dead_letters import PostgresDeadLetters
    from infra.bootstrap import session
    from schemas.errors import BadRequest

    if bool(letters) == every:
        raise BadRequest("which dead letters? Give ids, or --all")
    with session(data, say=say) as here, closing(PostgresDeadLetters(here.dsn)) as store:
        if every:
            rows = [row for row, _ in (_get(store, each.id.hex()) for each in store.list("open", ALL))
                    if row.stage == "door"]  # fmt: skip
        else:
            rows = [_get(store, letter)[0] for letter in letters or []]
        outcome = _Retrying(here, store).run(rows)
        here.settle()
    if as_json:
        typer.echo(json.dumps(outcome))
    else:
        typer.echo(f"{outcome['accepted']} accepted, {len(outcome['refused'])} still refused, {outcome['gone']} erased")


class _Retrying:
    """Sends letters through acceptance; each is appended before it is marked, so a crash repeats and loses nothing."""

    def __init__(self, here: "Session", store: Any) -> None:
        from infra.accepting import acceptor_of
        from infra.adapters.postgres_sources import PostgresSources

        self._here = here
        self._store = store
        self._acceptor = acceptor_of(here)
        self._log = here.log()
        sources = PostgresSources(here.dsn)
        self._declared = sources.declared()
        sources.close()

    def run(self, rows: "list[DeadLetter]") -> dict[str, Any]:
        from schemas.record import uuid_text

        accepted, gone, refused = 0, 0, []
        for row in rows:
            (plain,) = self._here.vault().open_many([(row.seal_key, row.sealed, row.id)])
            if plain is None:
                self._store.mark(row.id, "erased")
                gone += 1
            elif self._again(row, plain):
                accepted += 1
            else:
                refused.append(uuid_text(row.id))
        return {"accepted": accepted, "refused": refused, "gone": gone}

    def _again(self, row: "DeadLetter", plain: bytes) -> bool:
        """True when the item is in the log now (or its person is suppressed: then it is done with, too)."""
        from ingest.retry import accept_again

        now = self._here.door_clock.now()
        result = accept_again(row, plain, self._acceptor, self._declared, now)
        if result.dead:
            self._store.insert(result.dead, [], now)
            same = any(letter.id == row.id for letter in result.dead)
            self._store.mark(row.id, "open" if same else "retried")  # else the new letter stands for it
            return False
        self._log.append(result.pending)
        self._store.insert([], result.suppressed, now)
        self._store.mark(row.id, "retried")
        return True


def _get(store: Any, letter: str) -> "tuple[DeadLetter, str]":
    from uuid import UUID

    from schemas.errors import NotFound

    try:
        found = store.get(UUID(letter).bytes)
    except ValueError:
        found = None
    if found is None:
        raise NotFound(f"there is no dead letter {letter}: see dead-letters list")
    return found[0], str(found[1])


def described(letter: "DeadLetter") -> dict[str, Any]:
    """The JSON of contracts."""
    from schemas.record import uuid_text

    return {
        "id": uuid_text(letter.id),
        "stage": letter.stage,
        "rule": letter.rule,
        "path": letter.path,
        "reason": letter.reason,
        "source": letter.source,
        "received_at": letter.received_at.isoformat().replace("+00:00", "Z"),
        "event_id": None if letter.event_id is None else uuid_text(letter.event_id),
    }
