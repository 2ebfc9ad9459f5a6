"""`touchfold dead-letters list|show|retry`: what was set aside, why, and sending it again."""

import json
from typing import Annotated

import typer

from infra.cli.options import DATA, JSON, print_array, say

SENT_AGAIN = ("door", "inbox")  # stages; what others set aside was in the log already, or is in a file
BY_HAND = "record_set_aside"  # rule of records of the log that --all tries again too
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

    from infra.adapters.postgres.dead_letters import STATES, PostgresDeadLetters
    from infra.app.bootstrap import session
    from infra.app.retrying import described
    from schemas.errors import BadRequest

    if state not in STATES:
        raise BadRequest(f"no state {state}: there are {', '.join(STATES)}")
    with session(data, say=say) as here, closing(PostgresDeadLetters(here.dsn)) as store:
        found = map(described, store.each(state, limit))
        if as_json:
            print_array(found)
            return
        each = None
        for each in found:
            place = f" at {each['path']}" if each["path"] else ""
            typer.echo(f"{each['id']} {each['received_at']} {each['source']}: {each['rule']}{place}: {each['reason']}")
        if each is None:
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

    from infra.app.auditing import note_command
    from infra.app.bootstrap import session
    from infra.app.retrying import Retrying, described

    with session(data, say=say) as here, closing(Retrying(here)) as retrying:
        row, state = retrying.get(letter)
        (plain,) = here.vault().open_many([(row.seal_key, row.sealed, row.id)])
        note_command(here, "dead_letter.opened", letter=described(row)["id"])
    found = described(row) | {"state": state, "content": None if plain is None else json.loads(plain)}
    typer.echo(json.dumps(found, ensure_ascii=False, indent=None if as_json else 2))


def retry(
    letters: Annotated[list[str] | None, typer.Argument(help="ids; else --all", show_default=False)] = None,
    every: Annotated[bool, typer.Option("--all", help="all open ones of the door and of the inbox")] = False,
    source: Annotated[
        str | None, typer.Option(help="whose messages of the inbox are, where their write keys are none of ours")
    ] = None,
    data: DATA = None,
    as_json: JSON = False,
) -> None:
    """Send dead letters of the door and of the inbox again, as if they came now; those still refused stay open.

    A record of the log that was set aside is applied where it lies, once this build can read it.

    Example: touchfold dead-letters retry --all
    """
    from contextlib import closing

    from infra.app.bootstrap import session
    from infra.app.retrying import Retrying
    from schemas.errors import BadRequest

    if bool(letters) == every:
        raise BadRequest("which dead letters? Give ids, or --all")
    with session(data, say=say) as here, closing(Retrying(here)) as retrying:
        if every:
            outcome = retrying.run(retrying.every(SENT_AGAIN, BY_HAND), source)
        else:
            outcome = retrying.run([retrying.get(letter)[0] for letter in letters or []], source)
        here.settle()
    if as_json:
        typer.echo(json.dumps(outcome))
    else:
        typer.echo(f"{outcome['accepted']} accepted, {len(outcome['refused'])} still refused, {outcome['gone']} erased")
