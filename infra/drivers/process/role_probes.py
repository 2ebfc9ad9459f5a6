"""What a role reports on its probe port: whether it is live and ready, and metrics of its processes."""

import os
import socket
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

from infra.adapters.machine.processes import processes_of
from infra.adapters.machine.transient import Steady
from infra.drivers.http.exposition import CONTENT_TYPE, Labels, Told, families, gauge, text_of
from infra.drivers.http.probes import ProbeServer, Reply, json_reply
from infra.drivers.process.liveness import Vitals
from infra.drivers.process.readiness import Readiness

HELP: Final[Mapping[str, Told]] = {
    "role_live": gauge("1 when the loops of this role's processes are running", ("command",)),
    "role_ready": gauge("1 when this role can do its work", ("command",)),
    "role_process_running": gauge("1 when the process is running, by process", ("command", "process")),
    "role_process_starts": gauge(
        "Starts of the process since the supervisor started, by process", ("command", "process")
    ),
    "role_process_turned_seconds": gauge(
        "Time since the last turn of the process's loop, by process", ("command", "process")
    ),
    "role_process_memory_bytes": gauge(
        "Resident memory of the role's processes, by role; absent without /proc", ("command", "role")
    ),
}


class RoleProbes:
    """Serves from construction until `close`. Not ready until `look_at` has been called."""

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
        """{"ready", "role", "problems"}, `problems` by unmet need."""
        problems = self._lacks()
        return json_reply(not problems, {"ready": not problems, "role": self._command, "problems": problems})

    def _hangs(self) -> list[str]:
        if self._readiness is not None:
            self._readiness.excuse_a_wait()
        return self._vitals.problems()

    def _lacks(self) -> dict[str, str]:
        if self._stop.is_set():
            return {"stop": "it is stopping"}
        if self._readiness is None or not self._up():
            return {"start": "its processes are starting"}
        return self._readiness.problems()

    def metrics(self) -> Reply:
        """Prometheus text."""
        return Reply(200, text_of(families(HELP, self._figures())), CONTENT_TYPE)

    def _figures(self) -> dict[str, Mapping[Labels, float]]:
        of_processes = self._vitals.figures().items()
        command = self._command
        memory: Counter[Labels] = Counter()
        for each in processes_of(os.getpid()):
            memory[command, "supervisor" if each.role == "up" else each.role] += each.memory
        return {
            "role_live": {(command,): not self._hangs()},
            "role_ready": {(command,): not self._lacks()},
            "role_process_running": {(command, name): runs for name, (runs, _, _) in of_processes},
            "role_process_starts": {(command, name): starts for name, (_, _, starts) in of_processes},
            "role_process_turned_seconds": {(command, name): round(turned, 1) for name, (_, turned, _) in of_processes},
            "role_process_memory_bytes": memory,
        }

    def close(self) -> None:
        if self._readiness is not None:
            self._readiness.close()
        self._server.close()
