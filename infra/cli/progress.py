"""How far a long command is: a bar on a terminal, a line now and then elsewhere. On stderr."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from infra.cli.options import say

SAY_EVERY_S: Final = 5.0  # where no terminal shows a bar
Tell = Callable[[str, int, int], None]  # (what is done, how much of it, of how much; 0: unknown)


@contextmanager
def progress(*, at_once: bool = True) -> Iterator[Tell]:
    """A bar on a terminal, else lines; on stderr. Not `at_once`: no line where it takes less than five seconds."""
    if not sys.stderr.isatty():
        tell = seldom(say, at_once=at_once)
        yield lambda what, done, total: tell(_line(what, done, total))
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total or None)


def _line(what: str, done: int, total: int) -> str:
    if total:
        return f"{what}: {done:,} of {total:,}"
    return f"{what}: {done:,}" if done else what


def seldom(tell: Callable[[str], None], *, at_once: bool = True) -> Callable[[str], None]:
    """Pass on the first line, and then one every five seconds; not `at_once`: none before."""
    told_at = float("-inf") if at_once else time.monotonic()

    def passed(line: str) -> None:
        nonlocal told_at
        if time.monotonic() - told_at >= SAY_EVERY_S:
            told_at = time.monotonic()
            tell(line)

    return passed
