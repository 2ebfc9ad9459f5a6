"""`touchfold backup` and `touchfold restore`: encrypted copies of a data folder, and a folder restored from one."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.cli.options import DATA, JSON, say

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from infra.app.settings import Settings

DESTINATION = Annotated[
    str | None, typer.Argument(metavar="DEST", help="a folder or s3://bucket/prefix (default: TOUCHFOLD_BACKUP_TO)")
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("backup")(backup)
    app.command("restore")(restore)


def backup(
    destination: DESTINATION = None,
    list_: Annotated[bool, typer.Option("--list", help="list the backups and the times they can restore")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="read and decrypt every object")] = False,
    prune: Annotated[bool, typer.Option("--prune", help="remove expired backups")] = False,
    wal: Annotated[bool, typer.Option("--wal", help="only send the latest WAL, now")] = False,
    forget: Annotated[bool, typer.Option("--forget", help="stop using this destination: it was deleted")] = False,
    data: DATA = None,
    as_json: JSON = False,
) -> None:
    """Back up everything, even while touchfold up is running; its WAL is then sent there continuously.

    Encrypted with the backup key (TOUCHFOLD_BACKUP_KEY, or the file backup.key), which is not the master key. Neither
    key is in the backup: keep copies of both elsewhere. Backups are kept for at most TOUCHFOLD_BACKUP_DAYS days.

    Examples: touchfold backup /mnt/backups/touchfold     touchfold backup s3://bucket/touchfold --list
    """
    import os

    from infra.app.settings import load

    chosen = [name for name, given in _flags(list_, verify, prune, wal, forget) if given]
    if len(chosen) > 1:
        raise typer.BadParameter(f"give only one of {' and '.join(chosen)}")
    settings = load(os.environ, data=data)
    if list_:
        _list(settings, destination, as_json)
    elif verify:
        _verify(settings, destination, as_json)
    elif prune:
        _prune(settings, destination, as_json)
    elif wal:
        _wal(settings, destination, as_json)
    elif forget:
        _forget(settings, destination, as_json)
    else:
        _make(settings, destination, as_json)


def _flags(*given: bool) -> list[tuple[str, bool]]:
    return list(zip(("--list", "--verify", "--prune", "--wal", "--forget"), given, strict=True))


def _make(settings: "Settings", destination: str | None, as_json: bool) -> None:
    from infra.app.auditing import note_command
    from infra.app.backing_up import back_up, destination_of
    from infra.app.bootstrap import session
    from infra.cli.progress import progress

    to = destination_of(settings, destination)
    with session(settings.data, say=say) as here:
        with progress() as tell:
            made = back_up(here, to, tell, say)
        note_command(here, "backup.made", destination=to, base=made.base.id)
    found = {
        **{"destination": to, "base": made.base.id, "at": _text(made.base.ended_at), "until": _text(made.until)},
        **{"bytes": made.bytes, "plain_bytes": made.base.plain_bytes, "archive_files": len(made.base.archive)},
        **{"archive_files_copied": made.archive, "took_s": round(made.took_s, 1), "pruned": made.pruned.bases},
    }
    if as_json:
        typer.echo(json.dumps(found))
        return
    typer.echo(
        f"backed up to {to}: {made.base.id}, everything up to {_text(made.base.ended_at)}\n"
        f"{made.bytes:,} bytes for {made.base.plain_bytes:,} bytes of data; {made.archive} of {len(made.base.archive)} "
        f"archive files copied, in {made.took_s:.1f} s; {made.pruned.bases} old backups removed"
    )


def _list(settings: "Settings", destination: str | None, as_json: bool) -> None:
    from infra.app.backing_up import destination_of, open_store

    store = open_store(settings, destination_of(settings, destination))
    store.prove()
    found: list[dict[str, Any]] = []
    for reach in store.reaches():
        base = reach.base
        found.append(
            {
                **{"base": base.id, "from": _text(reach.since), "until": _text(reach.until)},
                **{"bytes": sum(part.bytes for part in base.parts), "archive_files": len(base.archive)},
                **{"product": base.product, "migrations": base.migrations, "erasures": base.erasures},
                **{"days": base.days, "gap_after": reach.gap_after or None},
            }
        )
    if as_json:
        typer.echo(json.dumps(found))
        return
    for each in found:
        gap = f"; its WAL has a gap after {each['gap_after']}" if each["gap_after"] else ""
        typer.echo(f"{each['base']}  {each['from']} to {each['until']}  {each['bytes']:,} bytes{gap}")
    if not found:
        typer.echo("no complete backup found")


def _verify(settings: "Settings", destination: str | None, as_json: bool) -> None:
    from infra.app.backing_up import destination_of, open_store
    from infra.cli.progress import progress

    store = open_store(settings, destination_of(settings, destination))
    with progress() as tell:
        problems = list(store.verify(tell))
    if as_json:
        typer.echo(json.dumps({"whole": not problems, "problems": problems}))
    else:
        typer.echo("\n".join(problems) or "complete: every object is present and readable")
    if problems:
        raise typer.Exit(1)


def _prune(settings: "Settings", destination: str | None, as_json: bool) -> None:
    from datetime import UTC, datetime

    from infra.adapters.backup.wal_spool import Spool
    from infra.app.backing_up import destination_of, open_store

    to = destination_of(settings, destination)
    store = open_store(settings, to)
    store.prove()
    following = Spool(settings.data).following() if settings.data.exists() else None
    growing = following.chain if following is not None and following.to == to else None
    pruned = store.prune(datetime.now(UTC), settings.backup_days, growing=growing)
    if as_json:
        typer.echo(json.dumps({"bases": pruned.bases, "wal": pruned.wal, "archive_files": pruned.archive}))
    else:
        typer.echo(f"removed {pruned.bases} base backups, {pruned.wal} WAL files, {pruned.archive} archive files")


def _wal(settings: "Settings", destination: str | None, as_json: bool) -> None:
    from infra.app.backing_up import destination_of, send_wal
    from infra.app.bootstrap import session

    to = destination_of(settings, destination)
    with session(settings.data, say=say) as here:
        until = send_wal(here, to)
    typer.echo(json.dumps({"until": _text(until)}) if as_json else f"{to} has everything up to {_text(until)}")


def _forget(settings: "Settings", destination: str | None, as_json: bool) -> None:
    from infra.adapters.backup.notes import BackupNotes
    from infra.app.auditing import note_command
    from infra.app.backing_up import destination_of
    from infra.app.bootstrap import session
    from infra.app.databases import vault_database_of

    to = destination_of(settings, destination)
    with session(settings.data, say=say) as here:
        known = BackupNotes(vault_database_of(here, "touchfold backup")).forget(to)
        note_command(here, "backup.forgotten", destination=to)
    typer.echo(json.dumps({"forgotten": known}) if as_json else ("forgotten" if known else "it was not known"))


def restore(
    source: Annotated[str, typer.Argument(metavar="SRC", help="a folder or s3://bucket/prefix")],
    at: Annotated[str | None, typer.Option(help="a time such as 2026-11-30T10:15:00Z (default: the latest)")] = None,
    data: DATA = None,
    as_json: JSON = False,
) -> None:
    """Restore a backup into an empty data folder, as of a point in time, and replay later erasures from the ledger.

    Needs the backup key and the master key in use at that time, from the environment or already in the folder. The
    backup itself is not changed. Set TOUCHFOLD_LEDGER if the newest erasure ledger is kept elsewhere.

    Example: touchfold restore /mnt/backups/touchfold --at 2026-11-30T10:15:00Z --data /srv/touchfold
    """
    import os

    from infra.app.bootstrap import arm_failpoint
    from infra.app.restoring import restore as run
    from infra.app.settings import load
    from infra.cli.progress import progress

    settings = load(os.environ, data=data)
    arm_failpoint(settings, "cli")
    instant = None if at is None else _instant(at)
    with progress() as tell:
        done = run(settings, source, instant, tell, say)
    known = None if done.ledger_until is None else _text(done.ledger_until)
    found = {
        **{"data": str(settings.data), "base": done.reach.base.id, "at": _text(done.at), "events": done.events},
        **{"erasures": done.erasures, "erased_again": done.again, "ledger_until": known},
    }
    if as_json:
        typer.echo(json.dumps(found))
    else:
        typer.echo(
            f"restored {settings.data} as of {found['at']} from {done.reach.base.id}: {done.events:,} events; "
            f"{done.erasures} erasures in the ledger, {done.again} of them replayed"
        )
    say(unknown_erasures(settings.ledger, known))
    say("tokens, sessions and write keys revoked after that time are valid again: revoke them again")


def unknown_erasures(ledger: "Path | None", known: str | None) -> str:
    """A warning about erasures that the restore cannot know of."""
    if ledger is not None:
        return (
            f"only the erasures in {ledger} are known: if there is a newer ledger elsewhere, copy it there and "
            "start touchfold up, which repeats the erasures in it"
        )
    after = f"after {known}" if known else "(the backup has no ledger)"
    return (
        f"erasures {after} are not known here: if anyone was erased, put the newest ledger into ledger/ (or set "
        "TOUCHFOLD_LEDGER to it) and start touchfold up, which repeats the erasures in it"
    )


def _instant(text: str) -> "datetime":
    from datetime import UTC, datetime

    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"--at {text} is not a time such as 2026-11-30T10:15:00Z") from None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found


def _text(at: "datetime") -> str:
    from datetime import UTC

    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")
