"""The `touchfold` command: imports a command's module, runs it, and turns errors into messages and an exit status.

0 done, 1 failed, 2 wrong usage, 130 interrupted. Results go to stdout, logs and errors to stderr.
"""

import json
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final

import typer

MODULES: Final = {
    "up": "up",
    "status": "status",
    "source": "source",
    "token": "token",
    "user": "user",
    "audit": "user",
    "import": "import_",
    "profile": "profile",
    "segment": "segment",
    "changes": "changes",
    "sql": "sql",
    "apply": "apply",
    "fields": "fields",
    "rebuild": "rebuild",
    "refold": "rebuild",
    "erase": "erase",
    "unsuppress": "erase",
    "export-person": "export_person",
    "dead-letters": "dead_letters",
    "record": "record",
    "doctor": "doctor",
    "backup": "backup",
    "restore": "backup",
    "key": "key",
    "topics": "topics",
    **dict.fromkeys(("ingest", "worker", "publish", "serve"), "up"),
    "archive": "archive",
    "capacity": "capacity",
    "demo": "demo",
    "demo-score": "demo",
}
"""Command -> module of infra.cli, in the order a newcomer needs them."""

_HELP: Final = """Touchfold: every customer touchpoint in one log, every answer a fold of it.

\b
Start:
  touchfold up                                 run the whole platform on one machine
  touchfold source create web                  get a write key and a curl command to try it

\b
Ask:
  touchfold profile email:ada@example.com      one customer, with segments and risk
  touchfold segment members vip                who is in a segment
  touchfold sql "select type, count(*) from events group by 1"

\b
Feed and change:
  touchfold import tills.csv --mapping tills.yaml
  touchfold apply definitions/                 traits, segments, lifecycle, risk
  touchfold doctor                             what is wrong, and what to do about it

Every command takes --data DIR (default: TOUCHFOLD_DATA, or ./touchfold-data).
"""


def build_app(arguments: Sequence[str]) -> typer.Typer:
    """The application with only the modules these arguments need: importing all of them takes 0.1 s longer."""
    app = typer.Typer(
        help=_HELP,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_version)
    first = next((argument for argument in arguments if not argument.startswith("-")), None)
    wanted = [MODULES[first]] if first in MODULES else list(dict.fromkeys(MODULES.values()))
    for name in wanted:
        import_module(f"infra.cli.{name}").register(app)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"touchfold {version('touchfold')}")
        raise typer.Exit


def _version(
    version: bool = typer.Option(False, "--version", help="print the version", is_eager=True, callback=_print_version),
) -> None:
    """Options of `touchfold` itself."""


def main() -> None:
    """Entry point of the console script."""
    from infra.adapters.machine.private_files import keep_private

    keep_private()
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run a command and return its exit status; errors go to stderr."""
    from schemas.errors import TouchfoldError

    command = typer.main.get_command(build_app(arguments))
    try:
        status = command.main(args=list(arguments), prog_name="touchfold", standalone_mode=False)
    except TouchfoldError as err:
        return _failed(err, arguments)
    except typer.Abort as err:  # Ctrl-C arrives as one too
        typer.echo("not done", err=True)
        return 130 if isinstance(err.__cause__, KeyboardInterrupt) else 1
    except BrokenPipeError:  # the reader, such as `| head`, is gone; discard what is left to flush
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except typer.TyperException as err:
        return _misused(err)
    return status if isinstance(status, int) else 0


def _failed(err: "Exception", arguments: Sequence[str]) -> int:
    from schemas.errors import BadRequest, TouchfoldError

    assert isinstance(err, TouchfoldError), "called for our own errors"
    status = 2 if type(err) is BadRequest else 1  # wrong usage of the command itself; subclasses concern content
    if "--json" in arguments:
        typer.echo(json.dumps(err.body(), ensure_ascii=False), err=True)
        return status
    typer.echo(f"touchfold: {err.message}", err=True)
    for problem in err.problems:
        if problem.reason not in err.message:
            typer.echo(f"  {problem.path}: {problem.reason}" if problem.path else f"  {problem.reason}", err=True)
    return status


def _misused(err: "Exception") -> int:
    show = getattr(err, "show", None)
    if show is None:
        typer.echo(f"touchfold: {err}", err=True)
    else:
        show()
    return int(getattr(err, "exit_code", 2))


if __name__ == "__main__":
    main()
