"""`touchfold import FILE… --mapping MAP`: bring files of past touchpoints into the log, exactly once."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.cli.options import DATA, JSON, say

if TYPE_CHECKING:
    from infra.app.session import Session
    from ingest.files.importer import Importer, Result
    from ingest.files.rows import Source

SHOWN = 20  # refused lines shown in the terminal; --json has all


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("import")(import_files)


def import_files(
    files: Annotated[list[Path], typer.Argument(help="CSV or JSON lines (plain or gzip), or Parquet")],
    mapping: Annotated[Path, typer.Option("--mapping", "-m", help="YAML file that says what each column is")],
    preview: Annotated[bool, typer.Option("--preview", help="show the first events; store nothing")] = False,
    data: DATA = None,
    as_json: JSON = False,
) -> None:
    """Import files with a mapping. Safe to run again: an event that is already stored is skipped as a duplicate.

    The files of one command are one data set. Lines that cannot be imported are reported by number and kept as
    dead letters; the rest is imported. A mapping looks like this (more in examples/):

    \b
      source: till_export
      format: csv                                # csv | jsonl | parquet
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

    Examples: touchfold import tills.csv --mapping tills.yaml --preview
              touchfold import examples.csv.gz --mapping examples/cdnow.yaml
    """
    from ingest.files.rows import preview as shown_of
    from schemas.errors import DefinitionsInvalid
    from schemas.mapping import read_mapping

    try:
        text = mapping.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as err:
        raise DefinitionsInvalid(f"the mapping {mapping} cannot be read: {type(err).__name__}") from err
    read = read_mapping(text, mapping.name)
    if preview:
        _print_preview(shown_of(files, read), as_json)
        return
    from infra.app.bootstrap import session
    from infra.app.importing import declare, services_of
    from infra.app.vault import vault_of
    from ingest.files.importer import Importer
    from ingest.files.rows import Source

    with session(data, say=say) as here:
        secret = vault_of(here).hash_key
        source = Source(files, read, secret)
        _settle(here, "applying earlier events")
        here.disk.check()
        declare(here, read, mapping.name)  # counts for what comes; nobody waits here for the past to follow
        with services_of(here) as services:
            result = _run(Importer(services, source), source)
        _settle(here, "applying and deciding")
    _print_result(result, len(files), as_json)


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


def _print_preview(shown: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(shown, ensure_ascii=False))
        return
    for each in shown:
        place = f"{each['file']} line {each['line']}" if "file" in each else f"line {each['line']}"
        typer.echo(f"{place}:{' refused: ' + each['refused'] if 'refused' in each else ''}")
        if "item" in each:
            typer.echo(json.dumps(each["item"], ensure_ascii=False, indent=2))
    if not shown:
        typer.echo("no lines")


def _print_result(result: "Result", files: int, as_json: bool) -> None:
    if as_json:
        _print_json(result, files)
        return
    rows = {
        "events": result.events,
        "accepted": result.accepted,
        "duplicates": result.duplicates,
        "refused": len(result.refused),
    }
    for name, count in rows.items():
        typer.echo(f"{name:<10} {count:>12,}")
    for each in islice(result.refused, SHOWN):
        place = f"{each.file} line {each.line}" if files > 1 else f"line {each.line}"
        typer.echo(f"  {place}: {each.reason}")
    if len(result.refused) > SHOWN:
        typer.echo(f"  and {len(result.refused) - SHOWN:,} more: --json has all; touchfold dead-letters list")


def _print_json(result: "Result", files: int) -> None:
    """One object, its refused lines written one by one: there may be millions."""
    counts = {"events": result.events, "accepted": result.accepted, "duplicates": result.duplicates}
    typer.echo(json.dumps(counts)[:-1] + ', "refused": [', nl=False)
    for number, each in enumerate(result.refused):
        line = each._asdict() if files > 1 else {"line": each.line, "reason": each.reason}
        typer.echo((", " if number else "") + json.dumps(line, ensure_ascii=False), nl=False)
    typer.echo("]}")
