"""Options that several commands take."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

DATA = Annotated[Path | None, typer.Option("--data", help="the data folder", show_default=False)]
JSON = Annotated[bool, typer.Option("--json", help="print the result as JSON")]


def print_array(items: Iterable[Any]) -> None:
    """A JSON array on stdout, written as the rows arrive, one object per line."""
    typer.echo("[", nl=False)
    for number, each in enumerate(items):
        typer.echo((",\n" if number else "") + json.dumps(each), nl=False)
    typer.echo("]")


def say(line: str) -> None:
    """Progress, on stderr."""
    typer.echo(line, err=True)
