"""Clients that keep sending while everything else is being killed; each has its own traffic, all share one ledger."""

import time
from collections.abc import Mapping
from datetime import datetime
from threading import Event, Thread

from tests.checker.client import Client
from tests.checker.ledger import Ledger
from tests.checker.load import Traffic

BATCH = 12
PATIENCE_S = 120.0  # how long a sender repeats a batch before it gives up


class Senders:
    """One thread per source. Every batch is repeated with the same ids until it is answered, as SDKs do."""

    def __init__(
        self, port: int, keys: Mapping[str, str], ledger: Ledger, *, seed: int, now: datetime, customers: int = 2_000
    ) -> None:
        self._go, self._stop = Event(), Event()
        self._idle = {name: Event() for name in keys}
        self.gave_up: list[str] = []
        self._threads = []
        for name, key in keys.items():
            client = Client(port, name, key, ledger, timeout_s=30)
            traffic = Traffic(f"{name}{seed}", seed=seed, now=now, customers=customers)
            self._threads.append(Thread(target=self._send, args=(name, client, traffic), daemon=True))
        for thread in self._threads:
            thread.start()

    def _send(self, name: str, client: Client, traffic: Traffic) -> None:
        while not self._stop.is_set():
            if not self._go.is_set():
                self._idle[name].set()
                self._go.wait(0.05)
                continue
            self._idle[name].clear()
            answer = client.send_until_answered(traffic.batch(BATCH), time.monotonic() + PATIENCE_S, self._stop.is_set)
            if answer.status != 200 and not self._stop.is_set():
                self.gave_up.append(f"{name}: {answer.status} {answer.body}")
                break
            self._stop.wait(0.02)  # ordinary shop traffic, not a stress test
        self._idle[name].set()
        client.close()

    def go(self) -> None:
        """Start or resume."""
        for idle in self._idle.values():
            idle.clear()
        self._go.set()

    def pause(self, timeout_s: float = PATIENCE_S) -> None:
        """Stop sending; returns when every started batch has its answer. The product must be up."""
        self._go.clear()
        deadline = time.monotonic() + timeout_s
        for name, idle in self._idle.items():
            if not idle.wait(max(0.0, deadline - time.monotonic())):
                raise TimeoutError(f"sender {name} still waits for an answer")

    def close(self) -> None:
        """End the threads; unanswered batches stay unanswered in the ledger."""
        self._stop.set()
        self._go.set()
        for thread in self._threads:
            thread.join(60)
