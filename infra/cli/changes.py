"""`touchfold changes`: the change feed as JSON lines."""

import json
import sys
from typing import Annotated

import typer

from infra.cli.options import DATA

PAGE = 1_000


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("changes")(changes)


def changes(
    after: Annotated[
        str | None, typer.Option("--after", metavar="CURSOR", help="start after this change", show_default=False)
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="keep printing new changes until Ctrl-C")] = False,
    type_: Annotated[
        list[str] | None,
        typer.Option("--type", help="only these: profile, segment, lifecycle, risk, identity, erased"),
    ] = None,
    data: DATA = None,
    as_json: Annotated[bool, typer.Option("--json", help="no effect: the output is always JSON lines")] = False,
) -> None:
    """Print changes in order, one JSON object per line; pass a change's `cursor` to --after to continue from there.

    Example: touchfold changes --type segment --follow
    """
    from contextlib import closing

    from infra.app.bootstrap import session
    from infra.app.reading import reading_of

    types = type_ or ()
    with session(data) as here, closing(reading_of(here)) as reading:
        try:
            if follow:
                for page in reading.changes.follow(reading.notifier, after, types, PAGE):
                    _print(page.items)
            else:
                page = reading.changes.page(after, PAGE, types)
                while page.items:
                    _print(page.items)
                    page = reading.changes.page(page.next, PAGE, types)
        except KeyboardInterrupt:
            return  # how a follower ends


def _print(items: list[dict[str, object]]) -> None:
    sys.stdout.write("".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items))
    sys.stdout.flush()
