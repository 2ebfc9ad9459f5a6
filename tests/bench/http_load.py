"""The load generator: a separate process with raw sockets, so that the server is the bottleneck.

`python -m tests.bench.http_load` reads a plan (JSON) from stdin and prints the result (JSON). Each connection
sends a request, waits for its response, sends the next: a closed loop. With `rate`, sends are due at fixed times
regardless of responses (an open loop), and latency counts from when a request was due.
"""

import asyncio
import json
import subprocess
import sys
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final, NamedTuple, cast

import uvloop

from tests.bench.measure import percentile

STEP: Final = 7_919  # between consecutive customers: prime, so that every customer comes once before any comes twice


class Plan(NamedTuple):
    """What to send. `kind`: track (events), empty (the bare handler) or profile (reads)."""

    port: int
    kind: str
    connections: int
    requests: int
    events_per_request: int = 1
    key: str = ""
    customers: int = 10_000
    rate: float = 0.0  # requests per second over all connections; 0: as fast as they are answered
    prefix: str = "load"
    seconds: float = 0.0  # stop after this time; 0: when all requests are answered


class Result(NamedTuple):
    """What was measured."""

    requests: int
    ok: int
    statuses: dict[str, int]
    wall_s: float
    p50_ms: float
    p99_ms: float

    @property
    def per_second(self) -> float:
        return self.requests / self.wall_s


def run(plan: Plan) -> Result:
    """Carry out a plan in a separate process."""
    with start(plan) as process:
        return finish(process)


def start(plan: Plan) -> "subprocess.Popen[str]":
    """Start a plan; `finish` waits for its end."""
    command = [sys.executable, "-m", "tests.bench.http_load"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None, "asked for a pipe"
    process.stdin.write(json.dumps(plan._asdict()))
    process.stdin.close()
    return process


def finish(process: "subprocess.Popen[str]") -> Result:
    """The result of a started plan."""
    assert process.stdout is not None, "asked for a pipe"
    text = process.stdout.read()
    if process.wait() != 0:
        raise RuntimeError(f"the load generator ended with {process.returncode}")
    return Result(**json.loads(text))


# ---------------------------------------------------------------- requests


def bodies(plan: Plan) -> Iterator[bytes]:
    """JSON bodies of track calls, about 600 bytes per event, each message id new."""
    context = {
        "channel": "web",
        "library": {"name": "analytics.js", "version": "2.1.0"},
        "page": {"path": "/shop/item", "url": "https://shop.example/shop/item", "title": "Item"},
        "userAgent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/124.0 Safari/537.36",
        "ip": "203.0.113.9",
    }
    number = 0
    for _ in range(plan.requests):
        items = []
        for _ in range(plan.events_per_request):
            number += 1
            customer = number * STEP % plan.customers
            revenue = (number % 9_000 + 100) / 100
            items.append(
                {
                    "type": "track",
                    "event": "Order Completed" if number % 7 == 0 else "Product Viewed",
                    "messageId": f"{plan.prefix}-{number:012d}",
                    "userId": f"customer-{customer}",
                    "anonymousId": f"visitor-{customer}",
                    "properties": {"order_id": f"{plan.prefix}-o{number}", "revenue": revenue, "currency": "USD"},
                    "context": context,
                }
            )
        yield json.dumps({"batch": items} if plan.events_per_request > 1 else items[0]).encode()


def _requests(plan: Plan) -> list[bytes]:
    """Complete HTTP requests, built before the clock starts."""
    if plan.kind == "profile":
        return [
            f"GET /api/v1/profiles/user_id/customer-{number * STEP % plan.customers} HTTP/1.1\r\nHost: bench\r\n"
            f"Authorization: Bearer {plan.key}\r\n\r\n".encode()
            for number in range(plan.requests)
        ]
    path = "/v1/batch" if plan.events_per_request > 1 else "/v1/track"
    basic = b64encode(f"{plan.key}:".encode()).decode()
    head = f"POST {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Basic {basic}\r\nContent-Type: application/json\r\n"
    return [f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body for body in bodies(plan)]


# ---------------------------------------------------------------- sending


class _Connection(asyncio.Protocol):
    """Reads one response after another, delimited by Content-Length."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.answer: asyncio.Future[int] | None = None
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's behaves like one

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end].lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(self._buffer) < end + 4 + length:
            return
        status = int(self._buffer[9:12])
        self._buffer = self._buffer[end + 4 + length :]
        if self.answer is not None and not self.answer.done():
            self.answer.set_result(status)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.answer is not None and not self.answer.done():
            self.answer.set_result(0)


async def _drive(plan: Plan, requests: list[bytes]) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    waiting = iter(range(len(requests)))
    latencies: list[float] = []
    statuses: Counter[str] = Counter()
    started = time.perf_counter()

    async def connection() -> None:
        _, protocol = await loop.create_connection(_Connection, "127.0.0.1", plan.port)
        for number in waiting:
            due = started + number / plan.rate if plan.rate else time.perf_counter()
            if plan.seconds and due - started > plan.seconds:
                break
            if plan.rate:
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
            answer = protocol.answer = loop.create_future()
            assert protocol.transport is not None, "connected"
            protocol.transport.write(requests[number])
            status = await answer
            statuses[str(status)] += 1
            latencies.append(time.perf_counter() - due)
            if status == 0:
                _, protocol = await loop.create_connection(_Connection, "127.0.0.1", plan.port)
        if protocol.transport is not None:
            protocol.transport.close()

    await asyncio.gather(*(connection() for _ in range(plan.connections)))
    wall_s = time.perf_counter() - started
    latencies.sort()
    p50_s, p99_s = percentile(latencies, 0.5), percentile(latencies, 0.99)
    return Result(len(latencies), statuses["200"], dict(statuses), wall_s, p50_s * 1000, p99_s * 1000)._asdict()


def main() -> None:
    """Read a plan, carry it out and print the result."""
    plan = Plan(**json.load(sys.stdin))
    result = uvloop.run(_drive(plan, _requests(plan)))
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
