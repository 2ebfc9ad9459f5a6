"""`touchfold doctor`: every check on one line, with what to do when it fails."""

import json
from typing import TYPE_CHECKING

import typer

from infra.cli.options import DATA, JSON

if TYPE_CHECKING:
    from infra.checks import Finding


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("doctor")(doctor)


def doctor(data: DATA = None, as_json: JSON = False) -> None:
    """Check the installation, the data folder, the databases, the vault, the log and the archive.

    Exit status 1 when a check fails; each line then says what to do. Example: touchfold doctor
    """
    import os

    from infra.checks import AS_TOLD
    from infra.doctor import examine
    from infra.settings import load

    settings = load(os.environ, data=data)
    findings: list[Finding] = []
    for finding in examine(settings):
        findings.append(finding)
        if not as_json:
            typer.echo(f"{'ok ' if finding.ok else 'BAD'} {finding.check}: {finding.detail}")
            if finding.fix not in ("", AS_TOLD):
                typer.echo(f"    do: {finding.fix}")
    if as_json:
        typer.echo(json.dumps([finding._asdict() for finding in findings]))
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)
