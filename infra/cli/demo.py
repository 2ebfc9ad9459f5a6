"""`touchfold demo`: a small made-up shop, loaded, then live. `touchfold demo-score`: how well it was understood."""

import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.cli.options import DATA, JSON, say

if TYPE_CHECKING:
    import threading
    from datetime import date
    from pathlib import Path

    from infra.app.session import Session
    from infra.app.settings import Settings
    from infra.demo.driver import Wanted
    from infra.demo.folder import DemoFolder


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("demo")(demo)
    app.command("demo-score")(demo_score)


def demo(
    seed: Annotated[
        int | None, typer.Option("--seed", help="a different number makes different customers", show_default="7")
    ] = None,
    until: Annotated[
        str | None,
        typer.Option("--until", metavar="DATE", help="the history ends at midnight of this day", show_default="today"),
    ] = None,
    rate: Annotated[
        float, typer.Option("--rate", min=0, max=1_000, help="live events per second after the history")
    ] = 2.0,
    customers: Annotated[int | None, typer.Option("--customers", min=1, max=9_000, hidden=True)] = None,
    port: Annotated[int | None, typer.Option(help="the port to listen on; 0 picks a free one")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="load even into a folder that holds other data")] = False,
    data: DATA = None,
) -> None:
    """Run the platform with a small made-up shop: 18 months of history, then a live trickle until Ctrl-C.

    A second run continues where the first one stopped. A folder that holds other data is refused without --yes. If
    `touchfold up` is already running on the folder, the shop's events go to it.

    Examples: touchfold demo     touchfold demo --data /tmp/shop --port 8800 --rate 5
    """
    import os

    from infra.adapters.machine.data_folder import DataFolder
    from infra.app import log_lines
    from infra.app.settings import load
    from infra.app.stop_signals import ENDING, stop_at
    from infra.demo.driver import Wanted, planned
    from infra.demo.folder import DemoFolder

    wanted = Wanted(seed, _date(until), customers, yes)
    stop = stop_at(*ENDING)
    log_lines.configure("demo")
    settings = load(os.environ, data=data, port=port)
    planned(DemoFolder(settings.data), wanted)  # refuses before anything is started
    player = _Player(settings, wanted, rate, stop)
    if DataFolder(settings.data).owner() is not None:
        player.play()
    else:
        _with_own_up(settings, player, stop)
    if player.error is not None:
        raise player.error
    say("stopped")


def _date(text: "str | None") -> "date | None":
    from datetime import date

    try:
        return None if text is None else date.fromisoformat(text)
    except ValueError as err:
        raise typer.BadParameter("write a date as 2026-05-31", param_hint="--until") from err


def _with_own_up(settings: "Settings", player: "_Player", stop: "threading.Event") -> None:
    """Runs the supervisor in this thread, because its children are tied to it, and the shop in another."""
    import threading

    from infra.drivers.process.supervisor import Supervisor

    thread = threading.Thread(target=player.play, name="demo", daemon=True)
    Supervisor(settings, stop, say).run(lambda _url: thread.start())
    if thread.ident is not None:
        thread.join(10)


class _Player:
    """Plays the shop in whatever thread calls `play`; an error stops everything and is kept."""

    def __init__(self, settings: "Settings", wanted: "Wanted", rate: float, stop: "threading.Event") -> None:
        self._settings = settings
        self._wanted = wanted
        self._rate = rate
        self._stop = stop
        self.error: Exception | None = None

    def play(self) -> None:
        from infra.demo.sender import Stopped

        try:
            self._play()
        except Stopped:
            return
        except Exception as err:
            if not self._stop.is_set():  # an error caused by Ctrl-C is not worth reporting
                self.error = err
        finally:
            self._stop.set()

    def _play(self) -> None:
        from infra.app.bootstrap import session
        from infra.demo import driver
        from infra.demo.folder import DemoFolder

        with session(self._settings.data, say=say) as here:
            assert here.url, "the demo sends its events to a running `up`"
            folder, now = DemoFolder(here.data), here.door_clock.now
            shop = driver.Shop(here.url, _token(here, folder), here.time_zone, here.currency, now)
        plan = driver.plan_of(shop, folder, self._wanted)
        keys = driver.ensure_keys(shop, folder)
        with _Bar() as bar:
            sent = driver.load(shop, folder, plan, keys, self._stop, bar.show)
        say(f"loaded {sent:,} events in {bar.elapsed_s:.0f} s" if sent else "the history is already loaded")
        typer.echo(_welcome(shop.url, shop.token, self._settings.data, self._rate))
        sys.stdout.flush()
        driver.trickle(shop, plan, keys, self._rate, self._stop, say)


def _token(here: "Session", folder: "DemoFolder") -> str:
    """The demo's API token (role admin), created once, and again if it was revoked or lost."""
    from contextlib import closing

    from infra.adapters.postgres.tokens import PostgresTokens

    with closing(PostgresTokens(here.dsn)) as tokens:
        token = folder.token()
        now = here.door_clock.now()
        if token is None or tokens.role(token, now) is None:
            _, token = tokens.create("admin", now)
            folder.write_token(token)
    return token


def _welcome(url: str, token: str, data: "Path", rate: float) -> str:
    import shlex

    where = f" --data {shlex.quote(str(data))}"
    lines = [
        f"ready {url}",
        f"token {token}",
        "",
        f"See the shop: open {url} in a browser, choose “Use an API token instead”, paste the token.",
        "",
        "Try, in another terminal:",
        f"  touchfold segment list{where}",
        f"  touchfold profile user_id:{_SOMEBODY}{where}",
        f'  curl -sS {url}/api/v1/segments -H "Authorization: Bearer {token}"',
        "",
        f"{rate:g} events a second from now on; Ctrl-C stops." if rate else "No live events (--rate 0); Ctrl-C stops.",
    ]
    return "\n".join(lines)


_SOMEBODY = "u-10014"


class _Bar:
    """Progress on stderr: a bar on a terminal, otherwise a line every 10 %."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        console = Console(stderr=True)
        columns = (TextColumn("{task.description:10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self._tasks: dict[str, Any] = {}
        self._told: dict[str, int] = {}
        self._plain: Callable[[str], None] | None = None if console.is_terminal else say
        self.elapsed_s = 0.0

    def __enter__(self) -> "_Bar":
        import time

        self._started = time.monotonic()
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        import time

        self.elapsed_s = time.monotonic() - self._started
        self._bar.stop()

    def show(self, what: str, done: int, total: int) -> None:
        """`total` 0: unknown."""
        if self._plain is not None:
            tenth = done * 10 // total if total else 0
            if self._told.get(what) != tenth:
                self._told[what] = tenth
                self._plain(f"{what} {done:,} of {total:,}" if total else what)
            return
        if what not in self._tasks:
            self._tasks[what] = self._bar.add_task(what, total=total or None)
        self._bar.update(self._tasks[what], completed=done, total=total or None)


def demo_score(data: DATA = None, as_json: JSON = False) -> None:
    """Score identity resolution and the churn flag of the demo's customers, as of now, against the truth.

    The truth is as of the last midnight of the history: on days when the demo does not run, all customers are silent.

    Example: touchfold demo-score
    """
    from infra.app.bootstrap import session
    from infra.app.drain import drain
    from infra.app.scoring import Scoring
    from infra.demo.folder import DemoFolder
    from infra.demo.score import score

    with session(data, say=say) as here:
        folder = DemoFolder(here.data)
        truths, _shared = folder.truth()  # first, because without a demo there is nothing to wait for
        drain(here)
        found = score(Scoring(here), truths)
    if as_json:
        typer.echo(json.dumps(found))
        return
    identity, churn = found["identity"], found["churn"]
    lead = churn["lead_days"]
    typer.echo(
        f"identity: {_percent(identity['precision'])} of the linked identifier pairs belong to one person "
        f"(precision), {_percent(identity['recall'])} of each person's pairs are linked (recall); "
        f"{identity['people']:,} people, {identity['profiles']:,} profiles"
    )
    typer.echo(
        f"churn flag: of {churn['flagged']:,} flagged customers {_percent(churn['precision'])} left (precision), "
        f"of {churn['left']:,} who left {_percent(churn['recall'])} are flagged (recall); "
        f"{churn['customers']:,} customers"
    )
    if lead["median"] is not None:
        side = "before" if lead["median"] >= 0 else "after"
        typer.echo(
            f"lead time: flagged {abs(lead['median']):g} days {side} the last touch (median); "
            f"{_percent(lead['before_leaving'])} before it"
        )


def _percent(share: "float | None") -> str:
    return "none" if share is None else f"{share:.1%}"
