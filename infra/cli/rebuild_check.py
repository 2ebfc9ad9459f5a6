"""`touchfold rebuild --check`: runs the comparison, reports progress, and always prints an answer."""

import json
import signal
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from infra.cli.options import say
from infra.cli.progress import progress, seldom

if TYPE_CHECKING:
    from infra.app.session import Session
    from processors.rebuild.check import Verdict


def run(data: Path | None, as_json: bool) -> None:
    """Compare and print the answer. Exit status 0: equal; 1: not equal or unknown; 130: interrupted.

    With `as_json`, one JSON object is always printed; `equal` is null if the comparison did not finish.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # handled like Ctrl-C, so that it still prints an answer
    from infra.app.bootstrap import session
    from schemas.errors import ServiceFailed, TouchfoldError

    try:
        with session(data, say=say) as here:
            verdict = _compare(here)
    except KeyboardInterrupt:
        _unknown({"success": False, "code": "interrupted", "message": "interrupted", "errors": []}, as_json)
        raise
    except TouchfoldError as err:
        _unknown(err.body(), as_json)
        raise
    except Exception as err:
        failed = ServiceFailed(f"the check itself failed ({type(err).__name__}): please report it with the lines above")
        _unknown(failed.body(), as_json)
        raise failed from err
    _answer(verdict, as_json)
    if not verdict.equal:
        raise typer.Exit(1)


def _compare(here: "Session") -> "Verdict":
    from infra.adapters.postgres.rebuild import PostgresRebuild
    from infra.app.drain import drain
    from infra.app.worker import services_of
    from processors.live.compiled import Compiled
    from processors.rebuild.check import check
    from processors.rebuild.external_sort import Scratch

    if not here.joined:
        drain(here, seldom(say))
    services = services_of(here)
    live = services.control.live()
    compiled = Compiled.of(live, services.time_zone, services.currency, services.order_cap, services.reader)
    folder = here.data  # its disk has the room; the files are unnamed
    with (
        progress() as tell,
        closing(PostgresRebuild(here.dsn)) as rebuild,
        rebuild.snapshot(live.revision, folder=folder, tell=tell) as snapshot,
    ):
        return check(services, compiled, snapshot, tell, Scratch(folder, here.disk.check))


def _answer(verdict: "Verdict", as_json: bool) -> None:
    from processors.rebuild.check import SHOWN
    from schemas.record import from_us

    shown = [difference._asdict() for difference in verdict.differences[:SHOWN]]
    as_of = from_us(verdict.as_of_us).isoformat().replace("+00:00", "Z")
    if as_json:
        result = {"equal": verdict.equal, "profiles": verdict.profiles, "hash": verdict.hash, "as_of": as_of}
        more = {"difference_count": verdict.found, "erased_meanwhile": verdict.left_out}
        typer.echo(json.dumps({**result, **more, "differences": shown}))
    elif verdict.equal:
        typer.echo(f"equal: {verdict.profiles} profiles as of {as_of}\nsha256 {verdict.hash}")
        if verdict.left_out:
            typer.echo(f"left out: {verdict.left_out} readings of people erased during the check")
    else:
        typer.echo(f"NOT equal: {verdict.found} differences")
        for each in shown:
            typer.echo(f"  {each['what']} {each['id']}\n    live {each['live']}\n    log  {each['log']}")


def _unknown(body: Any, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"equal": None, **body}, ensure_ascii=False))
