"""`touchfold segment list|show|members`: segments, what they mean and who is in them."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.cli.options import DATA, JSON, print_array

if TYPE_CHECKING:
    from query.segments.segments import Segments

NAME = Annotated[str, typer.Argument(metavar="NAME", help="the segment's name")]
PAGE = 10_000


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    group = typer.Typer(help="Segments: what they mean, how large they are, who is in them.", no_args_is_help=True)
    group.command("list")(list_segments)
    group.command("show")(show)
    group.command("members")(members)
    app.add_typer(group, name="segment")


def list_segments(data: DATA = None, as_json: JSON = False) -> None:
    """List every segment with its size.

    Example: touchfold segment list
    """
    from contextlib import closing

    from infra.app.bootstrap import session
    from infra.app.reading import reading_of

    with session(data) as here, closing(reading_of(here)) as reading:
        found = reading.segments.overview()
    if as_json:
        typer.echo(json.dumps(found, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for heading in ("segment", "size", "state", "description"):
        table.add_column(heading, justify="right" if heading == "size" else "left", overflow="fold")
    for each in found:
        table.add_row(Text(each["name"], style="cyan"), f"{each['size']:,}", each["state"], Text(each["description"]))
    Console().print(table)


def show(name: NAME, data: DATA = None, as_json: JSON = False) -> None:
    """Show one segment: its condition in words, its size, and how it moved today.

    Example: touchfold segment show vip
    """
    from contextlib import closing

    from infra.app.bootstrap import session
    from infra.app.reading import reading_of

    with session(data) as here, closing(reading_of(here)) as reading:
        found = reading.segments.show(name)
    if as_json:
        typer.echo(json.dumps(found, ensure_ascii=False))
        return
    typer.echo(f"{found['name']} (version {found['version']}, {found['state']})")
    for line in (found["description"], found["sentence"]):
        if line:
            typer.echo(line)
    typer.echo(f"{found['size']:,} members; today {found['entered_today']:,} entered, {found['left_today']:,} left")
    typer.echo(f"as of {found['as_of'] or 'before the first event'}")


def members(
    name: NAME,
    data: DATA = None,
    as_json: JSON = False,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="list at most this many", show_default=False)
    ] = None,
) -> None:
    """List a segment's members by profile id, with when they entered (empty: since the first load).

    Example: touchfold segment members vip --json
    """
    from contextlib import closing

    from infra.app.bootstrap import session
    from infra.app.reading import reading_of

    with session(data) as here, closing(reading_of(here)) as reading:
        found = _members(reading.segments, name, limit)
        if as_json:
            print_array(found)
        else:
            for each in found:
                typer.echo(f"{each['id']}  {each['since'] or ''}".rstrip())


def _members(segments: "Segments", name: str, limit: int | None) -> Iterator[dict[str, Any]]:
    """All members, page by page, so that a segment of a million is never held in memory."""
    cursor, left = None, limit
    while left is None or left > 0:
        page = segments.members(name, cursor, PAGE if left is None else min(PAGE, left))
        yield from page["items"]
        cursor = page["next"]
        left = None if left is None else left - len(page["items"])
        if cursor is None:
            return
