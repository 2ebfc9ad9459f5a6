"""`touchfold archive`: a cluster role; `archive merge|verify`: maintain the archive's files by hand."""

import json
from typing import TYPE_CHECKING

import typer

from infra.cli.options import DATA, JSON, say

if TYPE_CHECKING:
    from pathlib import Path

    from infra.app.archive_care import Merged, Verified


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    group = typer.Typer(invoke_without_command=True)
    group.callback()(archive)
    group.command("merge")(merge)
    group.command("verify")(verify)
    app.add_typer(group, name="archive")


def archive(context: typer.Context, data: DATA = None) -> None:
    """Cluster role: moves applied events from the log to Parquet files. One process writes, the others stand by.

    Its subcommands work on the archive of any deployment: merge small files, verify all files.

    Examples: TOUCHFOLD_LOG=kafka … TOUCHFOLD_ARCHIVE=s3://bucket/touchfold touchfold archive     touchfold archive
    verify
    """
    from infra.cli.up import run_role

    if context.invoked_subcommand is None:
        run_role("archive", data, None)


def merge(context: typer.Context, data: DATA = None, as_json: JSON = False) -> None:
    """Merge the archive's small files now. A running `touchfold up` does this in the background.

    Exits with status 1 if it had to skip a damaged file. It is safe to interrupt.

    Example: touchfold archive merge
    """
    from infra.app.archive_care import described, merge
    from infra.app.bootstrap import session
    from infra.cli.progress import progress

    with session(data or _data_before(context), say=say) as here, progress(at_once=False) as tell:
        found = merge(here, tell)
    if as_json:
        typer.echo(json.dumps(described(found)))
    else:
        waits = f"; {found.waiting:,} files still to merge" if found.waiting else ""
        typer.echo(f"{found.merges:,} merges: {found.files_before:,} files became {found.files:,}{waits}")
    _end(found, as_json)


def verify(context: typer.Context, data: DATA = None, as_json: JSON = False) -> None:
    """Verify the archive: every file's hash, the hash chain, and where it meets the log. Reads every file.

    Can run alongside `touchfold up`. Exits with status 1 if anything is wrong; each line then names a file.

    Example: touchfold archive verify
    """
    from infra.app.archive_care import described, verify
    from infra.app.bootstrap import session
    from infra.cli.progress import progress

    with session(data or _data_before(context), say=say) as here, progress(at_once=False) as tell:
        found = verify(here, tell)
    if as_json:
        typer.echo(json.dumps(described(found)))
    else:
        end = "" if found.problems else ", all matching the manifest"
        typer.echo(f"{found.files:,} files, {found.records:,} records, {found.bytes:,} bytes{end}")
    _end(found, as_json)


def _data_before(context: typer.Context) -> "Path | None":
    """The --data given before the subcommand: `touchfold archive --data DIR merge`."""
    before: Path | None = context.parent.params["data"] if context.parent is not None else None
    return before


def _end(found: "Merged | Verified", as_json: bool) -> None:
    for each in () if as_json else found.problems:
        typer.echo(f"  {each.path}: {each.reason}" if each.path else f"  {each.reason}")
    if found.problems:
        say("restore these files from a backup of the archive")
        raise typer.Exit(1)
