"""`touchfold erase` and `touchfold unsuppress`: forget a person, and accept their events again."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.cli.options import DATA, JSON

if TYPE_CHECKING:
    from infra.app.erasing_many import Summary
    from infra.app.session import Session

IDENTIFIER = Annotated[str, typer.Argument(help="KIND:VALUE, such as email:ada@example.com")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("erase")(erase)
    app.command("unsuppress")(unsuppress)


def erase(
    identifier: Annotated[str, typer.Argument(help="KIND:VALUE, such as email:ada@example.com")] = "",
    file: Annotated[
        Path | None, typer.Option("--file", help="erase a list of people, one KIND:VALUE or kind,value per line")
    ] = None,
    receipts: Annotated[
        Path | None, typer.Option("--receipts", help="where to write the receipts (default: next to the file)")
    ] = None,
    check: Annotated[Path | None, typer.Option("--check", help="only check whether a receipt is genuine")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
    force: Annotated[bool, typer.Option("--force", help="erase even if this may be more than one person")] = False,
    suppress: Annotated[bool, typer.Option("--suppress", help="refuse the person's events from now on")] = False,
    data: DATA = None,
    as_json: JSON = False,
) -> None:
    """Erase the customer an identifier belongs to: identifiers, personal values, profile. Cannot be undone.

    Their events still count in totals, but belong to nobody and cannot be read. With --file, erase everybody on a
    list; after a crash, run the same command again and it continues. Example: touchfold erase email:ada@example.com
    """
    from schemas.errors import BadRequest

    if [bool(identifier), file is not None, check is not None].count(True) != 1:
        raise BadRequest("give exactly one of KIND:VALUE, --file FILE (a list of people) and --check FILE (a receipt)")
    if file is not None:
        _erase_file(file, receipts, yes=yes, force=force, suppress=suppress, data=data, as_json=as_json)
    elif check is not None:
        _check(check, data, as_json=as_json)
    else:
        _erase_one(identifier, yes=yes, force=force, suppress=suppress, data=data, as_json=as_json)


def _erase_file(
    file: Path, receipts: Path | None, *, yes: bool, force: bool, suppress: bool, data: Path | None, as_json: bool
) -> None:
    from infra.adapters.phones import Phones
    from infra.app.bootstrap import session
    from infra.app.people_files import read_people

    with session(data) as here:
        people, wrong = read_people(file, Phones(here.region, looking_up=True))
        for each in wrong:
            typer.echo(f"line {each.line} {each.reason}", err=True)
        if not yes:
            typer.echo(f"usable lines: {len(people):,}; unusable lines: {len(wrong):,}.", err=True)
            typer.confirm("This cannot be undone. Erase?", abort=True, err=True)
        path = receipts or file.with_name(f"{file.name}.receipts.jsonl")
        summary = _run_file(here, people, wrong, path, force=force, suppress=suppress)
    _tell_of_many(summary, path, as_json=as_json)


def _run_file(
    here: "Session", people: list[Any], wrong: list[Any], path: Path, *, force: bool, suppress: bool
) -> "Summary":
    from infra.app.auditing import note_command
    from infra.app.erasing_many import Results, erase_many
    from infra.cli.progress import progress
    from schemas.errors import TouchfoldError

    results = Results(path, len(people) + len(wrong))
    try:
        with progress() as tell:
            summary = erase_many(here, people, wrong, results, tell, force=force, suppress=suppress)
    except TouchfoldError:
        typer.echo("stopped early: run the same command again to continue; receipts are written at the end", err=True)
        raise
    counts = {name: count for name, count in summary._asdict().items() if name != "note"}
    note_command(here, "profiles.erased", suppress=suppress, **counts)
    return summary


def _tell_of_many(summary: "Summary", path: Path, *, as_json: bool) -> None:
    from infra.app.erasing import told

    for line in told(summary.note):
        typer.echo(line, err=True)
    if as_json:
        said = summary._asdict()
        typer.echo(json.dumps(said | said.pop("note") | {"receipts": str(path)}))
    else:
        people = "1 person" if summary.erased == 1 else f"{summary.erased:,} people"
        typer.echo(f"erased {people}; the receipts are in {path}")
        for count, what in (
            (summary.same, "naming the same person again"),
            (summary.unknown, "naming nobody"),
            (summary.refused, "that may be more than one person: use --force"),
            (summary.malformed, "that cannot be used"),
        ):
            if count:
                typer.echo(f"{count:,} {'line' if count == 1 else 'lines'} {what}")
    if summary.refused or summary.malformed:
        raise typer.Exit(1)


def _nobody(identifier: str, region: str, *, suppress: bool) -> str:
    """The message when nobody was found: a typo must not pass for somebody who was never here."""
    from infra.adapters.phones import Phones
    from schemas.identifiers import examine, parse_selector

    kind, value = parse_selector(identifier)
    reason = "" if kind == "profile" else examine(kind, value, phone=Phones(region, looking_up=True)).reason
    if reason:
        return f"nobody can have this {kind} ({reason.replace('_', ' ')}): is it mistyped?"
    return "nobody has this identifier" + ("; events with it are refused from now on" if suppress else "")


def _check(file: Path, data: Path | None, *, as_json: bool) -> None:
    from infra.app.bootstrap import session
    from infra.app.erasing import eraser
    from infra.app.vault import vault_of
    from schemas.errors import BadRequest

    try:
        receipt = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        raise BadRequest(f"{file} is not a receipt: it must be a file with one JSON object") from err
    with session(data) as here:
        vault, now = vault_of(here), here.door_clock.now
        with eraser(here.dsn, here.vault_dsn, vault, here.ledger_folder, here.region, now) as work:
            ours = isinstance(receipt, dict) and work.is_ours(receipt)
    if as_json:
        typer.echo(json.dumps({"ours": ours}))
    else:
        typer.echo("this receipt is genuine and unchanged" if ours else "this receipt is not genuine, or was changed")
    if not ours:
        raise typer.Exit(1)


def _erase_one(identifier: str, *, yes: bool, force: bool, suppress: bool, data: Path | None, as_json: bool) -> None:
    from infra.app.auditing import note_command
    from infra.app.bootstrap import session
    from infra.app.erasing import OF_OTHERS, drain_or_note, eraser, told
    from infra.app.vault import vault_of
    from schemas.errors import ErasureRefused
    from schemas.identifiers import parse_selector

    kind, value = parse_selector(identifier)
    with session(data) as here:
        note = drain_or_note(here)
        vault, now = vault_of(here), here.door_clock.now
        with eraser(here.dsn, here.vault_dsn, vault, here.ledger_folder, here.region, now) as work:
            token = work.find(kind, value)
            if token is not None:
                preview = work.preview(token)
                if preview.problems and not force:
                    raise ErasureRefused("this may be more than one person: check, then use --force", preview.problems)
                if not yes:
                    kinds = ", ".join(f"{count} {name}" for name, count in preview.kinds.items())
                    typer.echo(f"{preview.identifiers} identifiers ({kinds}) will be erased.", err=True)
                    typer.echo(
                        f"{preview.events} events will no longer belong to anyone and can never be read again.",
                        err=True,
                    )
                    typer.confirm("This cannot be undone. Erase?", abort=True, err=True)
            done = work.erase(kind, value, force=force, suppress=suppress)
            counts = {"found": done.found, "identifiers": done.identifiers, "events": done.events}
            note_command(here, "profile.erased", kind=kind, suppress=suppress, **counts)
        note |= drain_or_note(here)
    for line in told(note):
        typer.echo(line, err=True)
    if as_json:
        typer.echo(json.dumps(done._asdict() | ({"others": OF_OTHERS} if done.found else {}) | note))
    elif not done.found:
        typer.echo(_nobody(identifier, here.region, suppress=suppress))
    else:
        typer.echo(f"erased {done.identifiers} identifiers; {done.events} events no longer belong to anyone")
        typer.echo(f"receipt {json.dumps(done.receipt)}")
        typer.echo(OF_OTHERS)


def unsuppress(identifier: IDENTIFIER, data: DATA = None, as_json: JSON = False) -> None:
    """Accept events from an erased and suppressed customer again, as a new customer.

    Example: touchfold unsuppress email:ada@example.com
    """
    from infra.app.auditing import note_command
    from infra.app.bootstrap import session
    from infra.app.erasing import eraser
    from infra.app.vault import vault_of
    from schemas.identifiers import parse_selector

    kind, value = parse_selector(identifier)
    with session(data) as here:
        vault, now = vault_of(here), here.door_clock.now
        with eraser(here.dsn, here.vault_dsn, vault, here.ledger_folder, here.region, now) as work:
            found = work.unsuppress(kind, value)
            note_command(here, "profile.unsuppressed", kind=kind, found=found)
    if as_json:
        typer.echo(json.dumps({"found": found}))
    else:
        typer.echo("this person's events are accepted again" if found else "this identifier is not suppressed")
