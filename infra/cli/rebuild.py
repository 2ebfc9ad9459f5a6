"""`touchfold rebuild [--check]` and `touchfold refold KIND:VALUE`: fold the log again."""

import json
import time
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli.options import DATA, JSON
from infra.cli.revisions import await_revision_of

if TYPE_CHECKING:
    from infra.adapters.postgres.control import PostgresControl


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("rebuild")(rebuild)
    app.command("refold")(refold)


def rebuild(
    check: Annotated[bool, typer.Option("--check", help="only compare; change nothing")] = False,
    data: DATA = None,
    as_json: JSON = False,
) -> None:
    """Fold the whole log into a new revision and swap it in; or check that the live revision equals it.

    Examples: touchfold rebuild --check     touchfold rebuild
    """
    if check:
        from infra.cli.rebuild_check import run

        run(data, as_json)
        return
    from infra.adapters.postgres.control import PostgresControl
    from infra.app.bootstrap import session
    from processors.rebuild.definitions import start_rebuild

    with session(data) as here:
        control = PostgresControl(here.dsn)
        revision = await_revision_of(here, control, start_rebuild(control, here.clock.now()))
        typer.echo(json.dumps({"revision": revision}) if as_json else f"revision {revision} is live")


def _await_refold(control: "PostgresControl", revision: int, total: int) -> None:
    """Wait until a worker has refolded these states and decided them; later events do not extend the wait."""
    from rich.console import Console
    from rich.progress import Progress

    from schemas.errors import FoldFailed
    from schemas.waits import REFOLD

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("refolding identifier sets", total=total)
        while left := control.open_refolds(revision):
            stuck = [each for each in control.waiting() if each.reader == REFOLD]
            if stuck:
                raise FoldFailed(f"cannot refold: {stuck[0].wait.reason}")
            bar.update(task, completed=max(0, total - left))
            time.sleep(0.05)
        bar.update(task, completed=total)
        _, last = control.work_up_to(revision)
        while control.work_up_to(revision, last)[0]:
            time.sleep(0.05)


def refold(
    identifier: Annotated[str, typer.Argument(help="KIND:VALUE, such as email:ada@example.com")],
    data: DATA = None,
    as_json: JSON = False,
) -> None:
    """Rebuild one customer's state from the log and decide it again.

    Example: touchfold refold user_id:4711
    """
    from infra.adapters.postgres.control import PostgresControl
    from infra.adapters.postgres.store import PostgresStore
    from infra.app.bootstrap import session
    from infra.app.drain import drain
    from infra.app.identifiers import token_of
    from infra.app.vault import vault_of
    from schemas.errors import NotFound
    from schemas.store_rows import NO_EVENT, NewWorkItem

    with session(data) as here:
        token = token_of(identifier, here.region, vault_of(here))
        store = PostgresStore(here.dsn, "touchfold refold")
        revision = PostgresControl(here.dsn).live().revision
        with store.decide() as tx:
            rows = tx.tokens([token]) if token else []
            owned = tx.evidence_of_profiles([row.profile_id for row in rows if row.profile_id])
            identifier_sets = [identifier_set for _, identifier_set in owned]
            if not identifier_sets:
                raise NotFound(f"no profile has the identifier {identifier.split(':', 1)[0]}:…")
            tx.add_work([NewWorkItem(revision, 0, "refold", dict.fromkeys(identifier_sets, (0, NO_EVENT)))])
        if here.joined:
            _await_refold(PostgresControl(here.dsn), revision, len(identifier_sets))
        else:
            drain(here, lambda _text: None)
        typer.echo(
            json.dumps({"signatures": len(identifier_sets)})
            if as_json
            else f"{len(identifier_sets)} identifier sets refolded"
        )
