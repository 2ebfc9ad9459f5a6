"""CPU, memory and time of processes, read from /proc; and the table of figures and their baselines."""

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

_TICKS = os.sysconf("SC_CLK_TCK")


class Cpu(NamedTuple):
    """Seconds of CPU, user and system."""

    python_s: float
    postgres_s: float

    @property
    def total_s(self) -> float:
        return self.python_s + self.postgres_s

    def __sub__(self, other: "Cpu") -> "Cpu":
        return Cpu(self.python_s - other.python_s, self.postgres_s - other.postgres_s)

    def plus(self, other: "Cpu") -> "Cpu":
        return Cpu(self.python_s + other.python_s, self.postgres_s + other.postgres_s)


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat after the name, which may contain spaces; [] if the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def cpu_of_tree(root: int) -> float:
    """CPU seconds of a process, its living descendants and those it has waited for."""
    total = 0.0
    for pid in tree(root):
        stat = _stat(pid)
        if stat:
            total += sum(int(stat[i]) for i in (11, 12, 13, 14)) / _TICKS  # utime, stime, and both for ended children
    return total


def tree(root: int) -> list[int]:
    """A process and its living descendants."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            stat = _stat(int(entry.name))
            if stat:
                parents.setdefault(int(stat[1]), []).append(int(entry.name))
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += parents.get(pid, [])
    return found


def cpu_now(postgres_pid: int) -> Cpu:
    """CPU of this process and of a PostgreSQL server with its backends."""
    return Cpu(time.process_time(), cpu_of_tree(postgres_pid))


def command_of(pid: int) -> str:
    """The command line of a process; "" if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def pss_bytes(pid: int) -> int:
    """Proportional set size: shared pages (PostgreSQL's buffers) are divided among the processes that map them."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def rss_bytes(pid: int = 0) -> int:
    """Resident set size; of this process by default."""
    try:
        status = Path(f"/proc/{pid or 'self'}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS:")), 0)


def percentile(sorted_values: Sequence[float], share: float) -> float:
    """The value below which `share` of the values lie."""
    if not sorted_values:
        return float("nan")
    return sorted_values[min(len(sorted_values) - 1, int(len(sorted_values) * share))]


class Row(NamedTuple):
    """A figure, its baseline from the same run, their ratio and the target."""

    what: str
    figure: str
    baseline: str
    ratio: str
    target: str
    met: bool | None  # None: reported without a target


@dataclass
class Table:
    """Everything measured in one run."""

    rows: list[tuple[str, Row]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    say: Callable[[str], None] = print

    def add(
        self,
        section: str,
        what: str,
        figure: str,
        baseline: str = "",
        ratio: float | None = None,
        target: str = "",
        met: bool | None = None,
    ) -> None:
        row = Row(what, figure, baseline, "" if ratio is None else f"{ratio:.2f}", target, met)
        self.rows.append((section, row))
        self.say(f"{section}: {what}: {figure} | {baseline} | {row.ratio} | {target} {_verdict(met)}")

    def note(self, text: str) -> None:
        self.notes.append(text)
        self.say(f"note: {text}")

    def markdown(self, title: str) -> str:
        """The whole run as a page."""
        lines = [f"# {title}", ""]
        for section in dict.fromkeys(name for name, _ in self.rows):
            lines += [f"## {section}", "", "| what | measured | baseline, same run | ratio | goal | |"]
            lines.append("|---|---|---|---|---|---|")
            lines += [
                f"| {row.what} | {row.figure} | {row.baseline} | {row.ratio} | {row.target} | {_verdict(row.met)} |"
                for name, row in self.rows
                if name == section
            ]
            lines.append("")
        return "\n".join([*lines, *(f"- {note}" for note in self.notes), ""])


def _verdict(met: bool | None) -> str:
    return "" if met is None else ("met" if met else "missed")


def mean(values: Iterable[float]) -> float:
    """The arithmetic mean."""
    listed = list(values)
    return sum(listed) / len(listed)
