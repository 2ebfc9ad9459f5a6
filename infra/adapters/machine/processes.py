"""The processes of a running `touchfold up`, from Linux's /proc."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

_PROC: Final = Path("/proc")
_UP: Final = "up"


class Process(NamedTuple):
    """Including its own children: `cpu_s`: since its start; `memory`: resident bytes, counting shared pages once."""

    role: str
    pid: int
    memory: int
    cpu_s: float
    lives_s: float


def processes_of(supervisor: int) -> list[Process]:
    """The supervisor and its children, itself first; empty if there is no /proc."""
    if not (_PROC / "uptime").exists():
        return []
    found = [_process(supervisor, _UP)]
    for child in _children(supervisor):
        found.append(_with_children(_process(child, _role(child))))
    return [each for each in found if each is not None]


def _with_children(process: Process | None) -> Process | None:
    """PostgreSQL works in child processes, and SQL runs in one of ours."""
    if process is None:
        return None
    below = [each for child in _children(process.pid) if (each := _process(child, "", shared=False)) is not None]
    return process._replace(
        memory=process.memory + sum(each.memory for each in below),
        cpu_s=process.cpu_s + sum(each.cpu_s for each in below),
    )


def _children(pid: int) -> list[int]:
    with suppress(OSError, ValueError):
        texts = [(each / "children").read_text() for each in (_PROC / str(pid) / "task").iterdir()]
        return sorted(int(word) for text in texts for word in text.split())
    return []


def _role(pid: int) -> str:
    """`http` of `python -m infra.drivers.process.roles http …`; else the program's name."""
    with suppress(OSError, ValueError):
        words = (_PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
        if "infra.drivers.process.roles" in words:
            return words[words.index("infra.drivers.process.roles") + 1]
        return Path(words[0]).name
    return "?"


def _process(pid: int, role: str, *, shared: bool = True) -> Process | None:
    """None if it has ended meanwhile. `shared`: include memory that others may share."""
    with suppress(OSError, ValueError, IndexError):
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()  # from field 3, the state
        ticks = os.sysconf("SC_CLK_TCK")
        uptime = float((_PROC / "uptime").read_text().split()[0])
        pages = [int(word) for word in (_PROC / str(pid) / "statm").read_text().split()]
        resident = (pages[1] if shared else pages[1] - pages[2]) * os.sysconf("SC_PAGE_SIZE")
        # Including children that have ended, so that the sum never falls; the supervisor's are shown separately.
        cpu = sum(int(field) for field in fields[11 : 13 if role == _UP else 15]) / ticks
        return Process(role, pid, resident, cpu, max(0.0, uptime - int(fields[19]) / ticks))
    return None
