"""`touchfold status [--wait]`: progress of acceptance, folding, decisions and the archive."""

import json
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from infra.cli.options import DATA, JSON, say

if TYPE_CHECKING:
    from infra.app.session import Session

PATIENCE_S: Final = 15.0  # enough for brokers that are busy or just starting


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("status")(status)


def status(
    wait: Annotated[
        bool, typer.Option("--wait", help="wait until everything accepted so far is applied and decided")
    ] = False,
    data: DATA = None,
    as_json: JSON = False,
) -> None:
    """Show how far processing has come; with --wait, return once it has caught up.

    With --wait, exits with status 1 if a partition is stuck at a record that cannot be read yet: the records after it
    are not applied. Examples: touchfold status     touchfold status --wait --json
    """
    from infra.app.bootstrap import session
    from infra.app.drain import drain

    with session(data, say=say) as here:
        if wait:
            drain(here, _changed_only() if not as_json else lambda _line: None)
        found = measure(here)
        state = "ready" if found["ready"] else _not_ready(here)
    if as_json:
        typer.echo(json.dumps(found))
    else:
        typer.echo(state)
        _tell(found)
    if wait and found["waiting"]:
        raise typer.Exit(1)


def _not_ready(here: "Session") -> str:
    """Print what keeps it from accepting and answering requests, each with its remedy."""
    if here.running is None:
        return "not running: start touchfold up"
    from infra.app.running import health_of

    problems = ((health_of(here.url) if here.url else None) or {}).get("problems", [])
    told = [f"{each['check']}: {each['detail']}\n    do: {each['fix']}" for each in problems]
    return "\n".join(["running, but not ready" + ("" if told else ": see touchfold doctor"), *told])


def _tell(found: dict[str, Any]) -> None:
    for name in ("accepted", "applied", "decided", "lag", "archived", "archive_files", "dead_letters"):
        number = "unknown" if found[name] is None else f"{found[name]:,}"
        typer.echo(f"{name.replace('_', ' '):13}{number:>14}")
    if found["archive_rewrites_waiting"]:
        files = f"{found['archive_rewrites_waiting']:,} of {found['archive_files']:,} files left"
        typer.echo(f"rewriting the archive for newly declared fields: {files}")
    if found["archive_merges_waiting"]:
        typer.echo(f"merging small files of the archive: {found['archive_merges_waiting']:,} left")
    for each in found["waiting"]:
        typer.echo(
            f"partition {each['partition']} waits at offset {each['offset']}"
            f"{'' if each['since'] is None else ' since ' + each['since']} ({each['reader']}):"
            f" {each['reason']}\n    do: {each['remedy']}"
        )


def measure(here: "Session") -> dict[str, Any]:
    """The JSON documented in docs/contracts.md. Counts are log records; `ready`: an `up` runs and reports healthy.

    `decided` is `applied` minus one record per identifier set whose decision is pending. `lag`: accepted but not yet
    decided. `archived`: None if the archive cannot be read. `waiting`: partitions stuck at a record that cannot be
    read yet.
    """
    from contextlib import closing

    from infra.app.archive import archive_of
    from infra.app.operations import operations_of

    with closing(operations_of(here, archive_of(here), ends_s=PATIENCE_S)) as operations:
        found = operations.state(here.clock.now())
    accepted, applied = found["accepted"], found["applied"]
    decided = max(0, applied - found["waiting"])
    return {
        "ready": is_ready(here),
        "lag": accepted - decided,
        "accepted": accepted,
        "applied": applied,
        "decided": decided,
        "dead_letters": found["dead_letters"],
        "archived": found["archived"],
        "archive_files": found["archive_files"],
        "archive_merges_waiting": found["archive_merging"],
        "archive_rewrites_waiting": found["archive_rewriting"],
        "waiting": found["partitions_waiting"],
    }


def is_ready(here: "Session") -> bool:
    """Whether the `up` or role on this folder is working; False if none runs.

    A role without HTTP reports this through its probe, or failing that through its processes' heartbeats.
    """
    running = here.running
    if here.url:
        return answers(here.url)
    if running is None:
        return False
    if running.probe:
        from infra.app.running import readiness_of

        found = readiness_of(running.probe)
        return found is not None and found.get("ready") is True
    from contextlib import closing
    from socket import gethostname

    from infra.adapters.postgres.database import Database
    from infra.adapters.postgres.presence import present

    with closing(Database(here.dsn, "touchfold status")) as database:
        return any((each.role, each.host) == (running.role, gethostname()) for each in present(database))


def answers(url: str) -> bool:
    """Whether requests are accepted and answered, according to /health."""
    from infra.app.running import health_of

    found = health_of(url)
    return found is not None and found.get("status") in {"ok", "degraded"}


def _changed_only() -> Any:
    last = ""

    def tell(line: str) -> None:
        nonlocal last
        if line != last:
            say(line)
        last = line

    return tell
