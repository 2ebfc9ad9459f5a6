"""Progress of a long command on stderr: a bar on a terminal, otherwise a line now and then."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from infra.cli.options import say

SAY_EVERY_S: Final = 5.0  # without a terminal
Tell = Callable[[str, int, int], None]  # (what is done, how much of it, of how much; 0: unknown)


@contextmanager
def progress(*, at_once: bool = True) -> Iterator[Tell]:
    """A bar on a terminal, otherwise lines, on stderr. Without `at_once`, no line for the first five seconds."""
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
    """Pass on the first line, then one every five seconds. Without `at_once`, none for the first five seconds."""
    told_at = float("-inf") if at_once else time.monotonic()

    def passed(line: str) -> None:
        nonlocal told_at
        if time.monotonic() - told_at >= SAY_EVERY_S:
            told_at = time.monotonic()
            tell(line)

    return passed
