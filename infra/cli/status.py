"""`touchfold status [--wait]`: how far acceptance, folding, decisions and the archive are."""

import json
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from infra.cli.options import DATA, JSON, say

if TYPE_CHECKING:
    from infra.bootstrap import Session

PATIENCE_S: Final = 15.0  # with brokers that are busy or just starting


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("status")(status)


def status(
    wait: Annotated[bool, typer.Option("--wait", help="until all accepted by now is applied and decided")] = False,
    data: DATA = None,
    as_json: JSON = False,
) -> None:
    """Tell how far the platform is; with --wait, return when it has caught up.

    Examples: touchfold status     touchfold status --wait --json
    """
    from infra.bootstrap import session

    with session(data, say=say) as here:
        if wait:
            here.settle(_changed_only() if not as_json else lambda _line: None)
        found = measure(here)
    if as_json:
        typer.echo(json.dumps(found))
        return
    typer.echo("ready" if found["ready"] else "not running: start touchfold up")
    for name in ("accepted", "applied", "decided", "lag", "archived", "archive_files", "dead_letters"):
        number = "unknown" if found[name] is None else f"{found[name]:,}"
        typer.echo(f"{name.replace('_', ' '):13}{number:>14}")
    if found["archive_merges_waiting"]:
        typer.echo(f"the archive merges its small files: {found['archive_merges_waiting']:,} wait")


def measure(here: "Session") -> dict[str, Any]:
    """The JSON of contracts. Counts are records of the log; `ready`: an `up` runs and answers healthy.

    `decided` leaves out one record for each signature that waits for its decision; it equals `applied` when
    nothing waits. `lag`: accepted and not yet decided. `archived`: None where the archive cannot be read.
    """
    from contextlib import closing

    from infra.adapters.postgres_operations import Operations
    from infra.archives import archive_of

    with closing(Operations(here, archive_of(here), ends_s=PATIENCE_S)) as operations:
        found = operations.state(here.clock.now())
    accepted, applied = found["accepted"], found["applied"]
    decided = max(0, applied - found["waiting"])
    return {
        "ready": here.url is not None and answers(here.url),
        "lag": accepted - decided,
        "accepted": accepted,
        "applied": applied,
        "decided": decided,
        "dead_letters": found["dead_letters"],
        "archived": found["archived"],
        "archive_files": found["archive_files"],
        "archive_merges_waiting": found["archive_merging"],
    }


def answers(url: str) -> bool:
    """Whether /health says ok. Asks the machine itself, past any proxy of the environment."""
    import urllib.error
    import urllib.request

    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{url}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _changed_only() -> Any:
    last = ""

    def tell(line: str) -> None:
        nonlocal last
        if line != last:
            say(line)
        last = line

    return tell
