"""`touchfold key`: a new master key."""

import typer


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    key = typer.Typer(help="The master key.", no_args_is_help=True)
    app.add_typer(key, name="key")
