"""What a role tells on its probe port: whether it is live, whether it is ready, and figures of its processes."""

import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from infra.adapters.machine.processes import processes_of
from infra.adapters.machine.transient import Steady
from infra.drivers.http.probes import ProbeServer, Reply, json_reply
from infra.drivers.process.liveness import Vitals
from infra.drivers.process.readiness import Readiness

HELP: Final[Mapping[str, str]] = {
    "role_live": "1 when the loops of this role's processes turn",
    "role_ready": "1 when this role can do its work",
    "role_process_running": "1 when the process runs, by process",
    "role_process_starts": "Starts of the process since its supervisor's, by process",
    "role_process_turned_seconds": "Since the loop of the process turned last, by process",
    "role_process_memory_bytes": "Resident memory of the role's processes, by role; absent where there is no /proc",
}


class RoleProbes:
    """Serves from its making until `close`. Not ready before `look_at` was told what to look at."""

    def __init__(self, command: str, vitals: Vitals, listener: socket.socket, stop: threading.Event) -> None:
        self._command = command
        self._vitals = vitals
        self._stop = stop
        self._up: Callable[[], bool] = lambda: False
        self._readiness: Readiness | None = None
        pages = {"/live": self.live, "/ready": self.ready, "/metrics": self.metrics}
        self._server = ProbeServer(listener, pages)
        self._server.start()

    def look_at(self, needs: Mapping[str, Steady], up: Callable[[], bool]) -> None:
        """`up`: whether all processes of the role have started."""
        self._up = up
        self._readiness = Readiness(needs, self._vitals.excuse)
        self._readiness.start()

    def live(self) -> Reply:
        """{"live", "role", "problems"}."""
        problems = self._hangs()
        return json_reply(not problems, {"live": not problems, "role": self._command, "problems": problems})

    def ready(self) -> Reply:
        """{"ready", "role", "problems"}, `problems` by what is lacking."""
        problems = self._lacks()
        return json_reply(not problems, {"ready": not problems, "role": self._command, "problems": problems})

    def _hangs(self) -> list[str]:
        if self._readiness is not None:
            self._readiness.excuse_a_wait()
        return self._vitals.problems()

    def _lacks(self) -> dict[str, str]:
        if self._stop.is_set():
            return {"stop": "it stops"}
        if self._readiness is None or not self._up():
            return {"start": "its processes are starting"}
        return self._readiness.problems()

    def metrics(self) -> Reply:
        """Prometheus text."""
        text = "".join(f"{line}\n" for line in self._lines())
        return Reply(200, text.encode(), "text/plain; version=0.0.4; charset=utf-8")

    def _lines(self) -> Iterator[str]:
        figures = self._vitals.figures().items()
        command = f'command="{self._command}"'
        yield from _family("role_live", {command: int(not self._hangs())})
        yield from _family("role_ready", {command: int(not self._lacks())})
        labels = {name: f'{command},process="{name}"' for name, _ in figures}
        yield from _family("role_process_running", {labels[name]: int(runs) for name, (runs, _, _) in figures})
        yield from _family("role_process_starts", {labels[name]: starts for name, (_, _, starts) in figures})
        yield from _family(
            "role_process_turned_seconds", {labels[name]: round(turned, 1) for name, (_, turned, _) in figures}
        )
        memory: dict[str, float] = {}
        for each in processes_of(os.getpid()):
            label = f'{command},role="{"supervisor" if each.role == "up" else each.role}"'
            memory[label] = memory.get(label, 0) + each.memory
        yield from _family("role_process_memory_bytes", memory)

    def close(self) -> None:
        if self._readiness is not None:
            self._readiness.close()
        self._server.close()


def _family(name: str, values: Mapping[str, float]) -> Iterator[str]:
    if values:
        yield f"# HELP touchfold_{name} {HELP[name]}"
        yield f"# TYPE touchfold_{name} gauge"
        yield from (f"touchfold_{name}{{{labels}}} {value}" for labels, value in values.items())
