"""`touchfold apply DIR`: apply definitions as a new revision, built alongside the live one and then swapped in."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from infra.cli.fields import lines_of, sealed_fields
from infra.cli.options import DATA, JSON
from infra.cli.revisions import await_revision_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from infra.adapters.postgres.control import PostgresControl
    from infra.app.session import Session
    from processors.rebuild.definitions import Applied
    from schemas.errors import Problem

SHOWN: Final = 10  # undeclared sealed fields


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("apply")(apply)


def apply(
    directory: Annotated[Path, typer.Argument(help="a folder of YAML files, or one file")],
    data: DATA = None,
    as_json: JSON = False,
) -> None:
    """Apply definitions: properties, traits, computed traits, segments, lifecycle, risk.

    The new revision is folded from the log alongside the live one and swapped in when complete. Removing a file
    deletes nothing; write `delete: [name]` instead.

    Example: touchfold apply definitions/
    """
    from infra.adapters.postgres.control import PostgresControl
    from infra.app.bootstrap import session
    from infra.app.log import log_of
    from processors.rebuild.definitions import apply_files
    from query.reports.unseen import unseen
    from schemas.errors import DefinitionsInvalid

    try:
        files = _read(directory)
        with session(data) as here:
            control = PostgresControl(here.dsn)
            applied = apply_files(control, files, here.clock.now())
            warnings = [*applied.warnings, *unseen(log_of(here), applied.patch)]
            for warning in warnings:
                typer.echo(f"warning: {warning.path}: {warning.reason}", err=True)
            if applied.revision is not None:
                _block(here, control)
                await_revision_of(here, control, applied.revision)
            if not as_json:
                _tell_what_is_sealed(here)
    except DefinitionsInvalid as err:
        if not as_json:
            raise
        errors = [each._asdict() for each in err.problems]
        refused = {"added": [], "changed": [], "unchanged": [], "errors": errors}
        typer.echo(json.dumps(refused, ensure_ascii=False))
        raise typer.Exit(1) from err
    _tell(applied, warnings, as_json)


def _block(here: "Session", control: "PostgresControl") -> None:
    """Tokens of values that the definitions block now link nothing from here on."""
    from functools import partial

    from infra.adapters.phones import Phones
    from infra.app.forms import block_defined
    from infra.app.vault import vault_of
    from schemas.clear_rules import declared_of
    from schemas.identifiers import normalise

    declared = declared_of(control.newest().definitions)
    block_defined(here, vault_of(here), partial(normalise, phone=Phones(here.region)), declared)


def _tell_what_is_sealed(here: "Session") -> None:
    """List the undeclared sealed fields, which need a decision."""
    from schemas.errors import TouchfoldError

    try:
        found = sealed_fields(here)
    except TouchfoldError as err:  # the definitions have been applied all the same
        typer.echo(f"cannot tell which fields arrived sealed: {err.message}", err=True)
        return
    if found:
        typer.echo(
            "arrived sealed, not yet declared personal or not (touchfold fields clear|personal EVENT FIELD):",
            err=True,
        )
        typer.echo("\n".join(lines_of(found[:SHOWN])), err=True)
    if len(found) > SHOWN:
        typer.echo(f"and {len(found) - SHOWN} more: touchfold fields list", err=True)


def _read(directory: Path) -> list[tuple[str, str]]:
    """The (name, text) pairs of the YAML files. Raises DefinitionsInvalid when there are none."""
    from schemas.errors import DefinitionsInvalid, Problem

    paths = sorted(directory.glob("*.y*ml")) if directory.is_dir() else [directory]
    if not paths or not all(path.is_file() for path in paths):
        reason = f"no YAML files at {directory}: give a folder with *.yaml, or one file"
        raise DefinitionsInvalid(reason, [Problem(str(directory), reason)])
    files = []
    for path in paths:
        try:
            files.append((path.name, path.read_text(encoding="utf-8")))
        except UnicodeDecodeError as err:
            reason = f"{path.name} is not UTF-8 text: save it as UTF-8"
            raise DefinitionsInvalid(reason, [Problem(path.name, reason)]) from err
    return files


def _tell(applied: "Applied", warnings: "Sequence[Problem]", as_json: bool) -> None:
    summary = applied.summary
    if as_json:
        told = {**summary, "errors": [], "warnings": [each._asdict() for each in warnings]}
        typer.echo(json.dumps(told, ensure_ascii=False))
        return
    for key in ("added", "changed", "deleted", "unchanged"):
        names = summary.get(key, [])
        shown = ", ".join(names) if len(names) <= 12 else f"{len(names)} definitions"
        if names:
            typer.echo(f"{key}: {shown}")
    if applied.revision is None:
        typer.echo("nothing changed")
