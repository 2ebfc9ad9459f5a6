"""End to end: from the moment an event is sent over HTTP until its customer's profile answers through the API.

The load is an open loop in a process of its own; the probes are new customers, one event each, asked for every 2 ms.
"""

import http.client
import json
import time
from base64 import b64encode
from contextlib import closing
from typing import Final, NamedTuple

from tests.bench import http_load
from tests.bench.http_load import STEP, Plan
from tests.bench.kafka.running import Up
from tests.bench.measure import percentile

RATE: Final = 1_000  # events a second
EVENTS_A_REQUEST: Final = 20
ASK_S: Final = 0.002
DEADLINE_S: Final = 30.0
PAUSE_S: Final = 0.05


class Latency(NamedTuple):
    """Seconds of each probe, sorted."""

    found: list[float]

    @property
    def p50_ms(self) -> float:
        return percentile(self.found, 0.5) * 1_000

    @property
    def p99_ms(self) -> float:
        return percentile(self.found, 0.99) * 1_000

    def words(self) -> str:
        return f"p50 {self.p50_ms:.1f} ms, p99 {self.p99_ms:.1f} ms ({len(self.found)} probes)"


def measure(ready: Up, key: str, probes: int, customers: int) -> tuple[Latency | None, Latency]:
    """With RATE events a second arriving beside the probes: while each of them is of a new customer (None where that
    is over before a probe is), and from when all customers are known.
    """
    token = str(ready.product.ask("token", "create", "--role", "admin")["token"])
    port = ready.product.port
    per_second = RATE / EVENTS_A_REQUEST
    requests = int(per_second * (120 + customers / RATE))
    seconds = 3_600.0  # ended by us
    plan = Plan(port, "track", 8, requests, EVENTS_A_REQUEST, key, customers, per_second, "beside", seconds)
    first, last = (number * STEP % customers for number in (1, customers - 1))
    with http_load.start(plan) as process:
        try:
            deadline = time.monotonic() + DEADLINE_S
            while not _is_there(port, token, first):
                assert time.monotonic() < deadline, "no event of the load arrives"
                time.sleep(0.05)
            _probe(port, key, token, "warm", 5)
            new: list[float] = []
            deadline = time.monotonic() + 4 * customers / RATE + DEADLINE_S
            while not _is_there(port, token, last):
                assert time.monotonic() < deadline, "some customers of the load do not arrive"
                new += _probe(port, key, token, f"new-{len(new)}", 5)
            known = _probe(port, key, token, "known", probes)
        finally:
            process.terminate()
    return Latency(sorted(new)) if new else None, Latency(sorted(known))


def _is_there(port: int, token: str, customer: int) -> bool:
    """Whether a customer of the load has a profile."""
    with closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
        path = f"/api/v1/profiles/user_id/customer-{customer}"
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
        return connection.getresponse().status == 200


def _probe(port: int, key: str, token: str, word: str, probes: int) -> list[float]:
    """Seconds of each probe, one after the other, from before the request to the first 200 for the profile."""
    door, api = (http.client.HTTPConnection("127.0.0.1", port) for _ in range(2))
    basic = b64encode(f"{key}:".encode()).decode()
    found = []
    for number in range(probes):
        who = f"{word}-{number}"
        body = {"type": "track", "event": "Product Viewed", "userId": who, "messageId": f"{who}-{time.time_ns()}"}
        started = time.perf_counter()
        door.request("POST", "/v1/track", json.dumps(body), {"Authorization": f"Basic {basic}"})
        answer = door.getresponse()
        answer.read()
        assert answer.status == 200, f"the door answers {answer.status}"
        while True:
            api.request("GET", f"/api/v1/profiles/user_id/{who}", headers={"Authorization": f"Bearer {token}"})
            shown = api.getresponse()
            shown.read()
            waited = time.perf_counter() - started
            if shown.status == 200:
                break
            assert waited < DEADLINE_S, f"{who} is not to be seen after {waited:.0f} s: {shown.status}"
            time.sleep(ASK_S)
        found.append(waited)
        time.sleep(PAUSE_S)
    door.close()
    api.close()
    return found
