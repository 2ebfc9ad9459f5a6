"""`touchfold dead-letters list|show|retry`: what was set aside and why, and sending it again."""

import json
from collections.abc import Iterable
from typing import Annotated

import typer

from infra.cli.options import DATA, JSON, print_array, say

SENT_AGAIN = ("door", "inbox")  # stages; dead letters of other stages are in the log already, or in a file
BY_HAND = "record_set_aside"  # the rule of log records that --all also retries
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
    limit: Annotated[int | None, typer.Option(min=1, help="show only this many, newest first (default: all)")] = None,
    data: DATA = None,
    as_json: JSON = False,
) -> None:
    """List dead letters, newest first.

    Example: touchfold dead-letters list
    """
    from contextlib import closing

    from infra.adapters.postgres.dead_letters import STATES, PostgresDeadLetters
    from infra.app.bootstrap import session
    from infra.app.retrying import described
    from schemas.dead_letters import remedies
    from schemas.errors import BadRequest

    if state not in STATES:
        raise BadRequest(f"unknown state {state}: use one of {', '.join(STATES)}")
    with session(data, say=say) as here, closing(PostgresDeadLetters(here.dsn)) as store:
        found = map(described, store.each(state, limit))
        if as_json:
            print_array(found)
            return
        kinds: dict[tuple[str, str], None] = {}
        for each in found:
            kinds[each["stage"], each["rule"]] = None
            place = f" at {each['path']}" if each["path"] else ""
            typer.echo(f"{each['id']} {each['received_at']} {each['source']}: {each['rule']}{place}: {each['reason']}")
        _tell(remedies(kinds) if state == "open" else ())
        if not kinds:
            typer.echo(f"no {state} dead letters")


def show(
    letter: Annotated[str, typer.Argument(help="the dead letter's id", show_default=False)],
    data: DATA = None,
    as_json: JSON = False,
) -> None:
    """Show one dead letter with its content, decrypted.

    Example: touchfold dead-letters show 0d2c9f0e-…
    """
    from contextlib import closing

    from infra.app.auditing import note_command
    from infra.app.bootstrap import session
    from infra.app.retrying import Retrying, described
    from infra.app.vault import vault_of

    with session(data, say=say) as here, closing(Retrying(here)) as retrying:
        row, state = retrying.get(letter)
        (plain,) = vault_of(here).open_many([(row.seal_key, row.sealed, row.id)])
        note_command(here, "dead_letter.opened", letter=described(row)["id"])
    found = described(row) | {"state": state, "content": None if plain is None else json.loads(plain)}
    typer.echo(json.dumps(found, ensure_ascii=False, indent=None if as_json else 2))


def retry(
    letters: Annotated[list[str] | None, typer.Argument(help="ids, or --all", show_default=False)] = None,
    every: Annotated[bool, typer.Option("--all", help="all open dead letters of the door and the inbox")] = False,
    source: Annotated[str | None, typer.Option(help="the source of inbox messages whose write key is unknown")] = None,
    data: DATA = None,
    as_json: JSON = False,
) -> None:
    """Send dead letters of the door and the inbox again, as if they arrived now. Those still refused stay open.

    They are resent unchanged: fix a faulty event in the system that sends it. A log record that was set aside is
    applied in place once this build can read it.

    Example: touchfold dead-letters retry --all
    """
    from contextlib import closing

    from infra.app.bootstrap import session
    from infra.app.drain import drain
    from infra.app.retrying import Retrying
    from schemas.errors import BadRequest

    if bool(letters) == every:
        raise BadRequest("which dead letters? Give their ids, or --all")
    with session(data, say=say) as here, closing(Retrying(here)) as retrying:
        if every:
            outcome = retrying.run(retrying.every(SENT_AGAIN, BY_HAND), source)
        else:
            outcome = retrying.run([retrying.get(letter)[0] for letter in letters or []], source)
        drain(here)
    if as_json:
        typer.echo(json.dumps(outcome))
    else:
        typer.echo(f"{outcome['accepted']} accepted, {len(outcome['refused'])} still refused, {outcome['gone']} erased")
        _tell(outcome["remedies"])


def _tell(remedies: Iterable[str]) -> None:
    for each in remedies:
        typer.echo(f"what to do about {each}")
