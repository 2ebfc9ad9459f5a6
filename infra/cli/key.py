"""`touchfold key`: replace the master key."""

import json

import typer

from infra.cli.options import DATA, JSON, say


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    key = typer.Typer(help="The master key, which opens the vault.", no_args_is_help=True)
    key.command("rotate")(rotate)
    app.add_typer(key, name="key")


def rotate(data: DATA = None, as_json: JSON = False) -> None:
    """Replace the master key while everything runs; afterwards the old key is refused.

    A key in the file master.key is replaced there. For a key in a setting, give the new one in
    TOUCHFOLD_MASTER_KEY_NEXT (or TOUCHFOLD_MASTER_KEY_NEXT_FILE) and move it to TOUCHFOLD_MASTER_KEY afterwards. If
    interrupted, run the same command again or start touchfold up to finish.

    Example: touchfold key rotate
    """
    from infra.app.auditing import note_command
    from infra.app.bootstrap import session
    from infra.app.rotating import rotate as run
    from infra.cli.progress import progress

    with session(data, say=say) as here:
        days = here.settings.backup_days
        with progress() as tell:
            done = run(here, tell)
        note_command(here, "key.rotated", keys=done.keys)
    if as_json:
        typer.echo(json.dumps(done._asdict()))
    else:
        typer.echo(
            f"the master key was replaced: {done.keys:,} keys are now wrapped with the new one; the old one is refused"
        )
    where = "set it as TOUCHFOLD_MASTER_KEY for every process before its next start, and unset the _NEXT setting"
    if done.file is not None:
        where = f"it is in {done.file}: copy it to a safe place NOW"
    say(f"the new key: {where}. Keep the old one for {days} more days: older backups can only be opened with it")
