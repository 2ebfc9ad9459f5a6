"""`touchfold export-person`: everything that is stored about one person, for them."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from infra.cli.options import DATA, JSON


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("export-person")(export_person)


def export_person(
    identifier: Annotated[str, typer.Argument(metavar="KIND:VALUE", help="such as email:ada@example.com")],
    out: Annotated[
        Path | None, typer.Option("--out", help="the file to write (default: person-ID.zip in this folder)")
    ] = None,
    data: DATA = None,
    as_json: JSON = False,
) -> None:
    """Write a ZIP of everything stored about one person: a page to read, and the same data as JSON.

    Example: touchfold export-person email:ada@example.com
    """
    from contextlib import closing

    from infra.app.auditing import note_command
    from infra.app.bootstrap import session
    from infra.app.exporting import ACTION, person_export
    from infra.app.reading import reading_of
    from infra.cli.progress import progress
    from query.people.person_export import name_of_file
    from schemas.identifiers import parse_selector

    kind, value = parse_selector(identifier)
    with session(data) as here, closing(reading_of(here)) as reading, person_export(here, reading) as export:
        profile_id = export.find(kind, value)
        note_command(here, ACTION, profile_id)
        path = out or Path(name_of_file(profile_id))
        with progress(at_once=False) as tell:
            size = _write(path, export.chunks(profile_id, lambda done, total: tell("exporting", done, total)))
    if as_json:
        typer.echo(json.dumps({"file": str(path), "bytes": size}))
    else:
        typer.echo(f"wrote {path} ({size:,} bytes). It is personal: give it to nobody else, and delete it afterwards.")


def _write(path: Path, chunks: Iterable[bytes]) -> int:
    """All or nothing, readable only by the current user. Raises BadRequest when it cannot be written."""
    from schemas.errors import BadRequest, Problem

    making = path.with_name(f"{path.name}.making")
    size = 0
    try:
        making.unlink(missing_ok=True)
        handle = os.open(making, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            for chunk in chunks:
                size += file.write(chunk)
        making.replace(path)
    except OSError as err:
        making.unlink(missing_ok=True)
        raise BadRequest(f"{path} cannot be written: {err.strerror}", [Problem("out", "cannot be written")]) from err
    except BaseException:
        making.unlink(missing_ok=True)
        raise
    return size
