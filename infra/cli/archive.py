"""`touchfold archive`: the role of a cluster; `archive merge|verify`: the archive's files by hand."""

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
    """Role of a cluster: moves applied events from the log to Parquet files. One writes, others wait for its turn.

    Also, by hand, on the archive of any deployment: merge its small files, verify all.

    Examples: TOUCHFOLD_LOG=kafka … TOUCHFOLD_ARCHIVE=s3://bucket/touchfold touchfold archive     touchfold archive
    verify
    """
    from infra.cli.up import run_role

    if context.invoked_subcommand is None:
        run_role("archive", data, None)


def merge(context: typer.Context, data: DATA = None, as_json: JSON = False) -> None:
    """Merge the archive's small files now, until none is due; a running `touchfold up` does it in the background.

    Exit status 1 where a damaged file was left alone. Nothing is lost when it is stopped.

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
        waits = f"; {found.waiting:,} files still wait" if found.waiting else ""
        typer.echo(f"{found.merges:,} merges: {found.files_before:,} files became {found.files:,}{waits}")
    _end(found, as_json)


def verify(context: typer.Context, data: DATA = None, as_json: JSON = False) -> None:
    """Prove the archive: each file by its hash, the chain over them, their ends by the log. Reads every file.

    Also beside a running `touchfold up`. Exit status 1 when something is wrong; each line then names a file.

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
        end = "" if found.problems else ", all as the manifest says"
        typer.echo(f"{found.files:,} files, {found.records:,} records, {found.bytes:,} bytes{end}")
    _end(found, as_json)


def _data_before(context: typer.Context) -> "Path | None":
    """Of `touchfold archive --data DIR merge`."""
    before: Path | None = context.parent.params["data"] if context.parent is not None else None
    return before


def _end(found: "Merged | Verified", as_json: bool) -> None:
    for each in () if as_json else found.problems:
        typer.echo(f"  {each.path}: {each.reason}" if each.path else f"  {each.reason}")
    if found.problems:
        say("restore these files from the backup of the archive")
        raise typer.Exit(1)
