"""`touchfold import FILE…`: bring files of past touchpoints into the log, exactly once.

Without a mapping it proposes one, shows what would become of the first lines, and asks.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.cli.import_report import print_preview, print_proposal, print_result
from infra.cli.options import DATA, JSON, say

if TYPE_CHECKING:
    from infra.app.session import Session
    from ingest.files.importer import Importer, Result
    from ingest.files.proposing import Proposed
    from ingest.files.rows import Source


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("import")(import_files)


def import_files(
    files: Annotated[list[Path], typer.Argument(help="CSV, JSON, Parquet, Excel; also in gzip or zip")],
    mapping: Annotated[
        Path | None, typer.Option("--mapping", "-m", help="YAML file that says what each column is", show_default=False)
    ] = None,
    preview: Annotated[bool, typer.Option("--preview", help="show the first events; store nothing")] = False,
    write_mapping: Annotated[
        bool, typer.Option("--write-mapping", help="save the proposed mapping beside the file")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="import with the proposed mapping, without asking")] = False,
    data: DATA = None,
    as_json: JSON = False,
) -> None:
    """Import files. Safe to run again: an event that is already stored is skipped as a duplicate.

    Without --mapping, one is proposed from the first 10,000 rows and shown with three events. The files of one command
    are one data set. Lines that cannot be imported are reported by number and kept as dead letters; the rest is
    imported. A mapping looks like this (more in examples/):

    \b
      source: till_export
      time_zone: America/New_York
      type: pos.purchase
      id: transaction_id                         # leave out if no column identifies the event
      identifiers: {loyalty_card: card}
      occurred_at: {column: date, format: "%Y%m%d"}
      group_by: [basket]                         # lines of one order
      products: {product_id: product, amount: {column: price, money: USD}}
      properties:
        order_id: basket
        revenue: {sum: price, money: USD}
        week: {column: week, personal: false}    # else sealed, unless a commerce field
      historical: true

    \b
    Examples:
      touchfold import tills.csv
      touchfold import tills.xlsx --write-mapping
      touchfold import tills.csv --mapping tills.yaml --preview
      touchfold import examples.csv.gz --mapping examples/cdnow.yaml
    """
    if mapping is not None and write_mapping:
        raise typer.BadParameter("saves a proposal: leave out --mapping", param_hint="--write-mapping")
    if mapping is None:
        text, name = _propose(files, data, preview=preview, write=write_mapping, yes=yes, as_json=as_json)
    else:
        text, name = _read(mapping), mapping.name
    from ingest.files.rows import preview as shown_of
    from schemas.mapping_reading import read_mapping

    read = read_mapping(text, name)
    if preview:
        print_preview(shown_of(files, read, now=datetime.now(UTC)), as_json)
        return
    from infra.app.bootstrap import session
    from infra.app.importing import declare, services_of, without_rate
    from infra.app.vault import vault_of
    from ingest.files.importer import Importer
    from ingest.files.rows import Source

    with session(data, say=say) as here:
        secret = vault_of(here).hash_key
        source = Source(files, read, secret, now=here.door_clock.now())
        _settle(here, "applying earlier events")
        here.disk.check()
        declare(here, read, name)  # counts for what comes; nobody waits here for the past to follow
        with services_of(here) as services:
            result = _run(Importer(services, source), source)
        warnings = [*source.notes(), *without_rate(here, source.shaper.currencies)]
        _settle(here, "applying and deciding")
    print_result(result, warnings, len(source.tables), as_json)
    if not result.accepted and not result.duplicates:
        say("nothing was imported: " + ("every line was refused" if result.events else "the file has no lines"))
        raise typer.Exit(1)


def _read(mapping: Path) -> str:
    from schemas.errors import DefinitionsInvalid

    try:
        return mapping.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as err:
        raise DefinitionsInvalid(f"the mapping {mapping} cannot be read: {type(err).__name__}") from err


def _propose(
    files: list[Path], data: Path | None, *, preview: bool, write: bool, yes: bool, as_json: bool
) -> tuple[str, str]:
    """The YAML of a proposed mapping that may be used, and its name. Exits where it is not to be used."""
    from infra.app.settings import load
    from ingest.files.proposing import propose_for
    from ingest.files.sample import Setting

    deployment = load(os.environ, data=data).deployment
    proposed = propose_for(files, Setting(deployment.currency, deployment.time_zone, datetime.now(UTC)))
    if not (as_json and yes and proposed.usable):
        print_proposal(proposed, as_json)
    path = files[0].with_name(f"{_bare(files[0].name)}.mapping.yaml")
    if write:
        _write(path, proposed.yaml)
    if not proposed.usable:
        say(f"nothing was imported: {'; '.join(problem.reason for problem in proposed.proposal.missing)}")
        say("complete the mapping (--write-mapping saves it) and give it with --mapping")
        raise typer.Exit(1)
    if preview or (write and not yes) or (as_json and not yes):
        raise typer.Exit(0)
    if not yes and not _agreed(proposed):
        say("nothing was imported: look at the mapping, then say --yes, or change it and give it with --mapping")
        raise typer.Exit(1)
    return proposed.yaml, path.name


def _bare(name: str) -> str:
    """A file's name without its suffixes; `2024.05` is none."""
    while len(suffix := Path(name).suffix) > 1 and suffix[1:].isalnum() and not suffix[1:].isdecimal():
        name = name.removesuffix(suffix)
    return name


def _agreed(proposed: "Proposed") -> bool:
    return sys.stdin.isatty() and typer.confirm("import with it?", default=False, err=True)


def _write(path: Path, text: str) -> None:
    """Save a mapping; one that a person may have changed is never overwritten."""
    from schemas.errors import BadRequest

    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as err:
        if path.read_text(encoding="utf-8") != text:
            raise BadRequest(f"{path} is there and different: give it with --mapping, or move it away") from err
    except OSError as err:
        raise BadRequest(f"{path} cannot be written: {err.strerror}") from err
    say(f"wrote {path}")


@contextmanager
def _bar(label: str) -> "Iterator[Any]":
    """update(share 0..1, text) of a bar on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[text]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=None, text="")
        yield lambda share, text: bar.update(task, total=None if share is None else 1.0, completed=share, text=text)


def _settle(here: "Session", label: str) -> None:
    from infra.app.drain import drain

    with _bar(label) as update:
        drain(here, lambda text: update(None, text))


def _run(importer: "Importer", source: "Source") -> "Result":
    with _bar("importing") as update:
        try:
            return importer.run(lambda at: update(at.done, f"{at.events:,} events"))
        except BaseException:
            result = importer.result
            if result.accepted:
                say(
                    f"stopped: {result.accepted:,} events are stored. Run the same command again: none will count twice"
                )
            raise
