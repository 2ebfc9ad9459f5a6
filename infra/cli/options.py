"""Options that several commands take."""

from pathlib import Path
from typing import Annotated

import typer

DATA = Annotated[Path | None, typer.Option("--data", help="the data folder", show_default=False)]
JSON = Annotated[bool, typer.Option("--json", help="print the result as JSON")]


def say(line: str) -> None:
    """Progress, on stderr."""
    typer.echo(line, err=True)
