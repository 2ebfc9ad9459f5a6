"""Baselines for the door: a process that only decodes, seals, appends and syncs; and an empty handler."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from starlette.types import Receive, Scope, Send

from infra.app.stop_signals import stop_at
from infra.drivers.http.listening import listen_on
from infra.drivers.http.server import serve
from tests.bench.http_load import Plan, bodies

_HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"16")]


async def empty_app(_scope: Scope, receive: Receive, send: Send) -> None:
    """Read the body and answer 200."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": b'{"success":true}'})


def append_and_sync(plan: Plan) -> float:
    """Events per second of one process that decodes each request, seals and appends its events, and fdatasyncs."""
    waiting = list(bodies(plan))
    decode, encode = msgspec.json.Decoder().decode, msgspec.json.Encoder().encode
    key = AESGCM.generate_key(256)
    with tempfile.NamedTemporaryFile() as file:
        handle = file.fileno()
        started = time.perf_counter()
        for body in waiting:
            parsed = decode(body)
            lines = []
            for item in parsed.get("batch", (parsed,)):
                nonce = os.urandom(12)
                lines.append(nonce + AESGCM(key).encrypt(nonce, encode(item), b"16 bytes of aad!"))
            os.write(handle, b"".join(lines))
            os.fdatasync(handle)
        return plan.requests * plan.events_per_request / (time.perf_counter() - started)


@contextmanager
def empty_server() -> Iterator[int]:
    """Run the product's own HTTP server with `empty_app` instead of the door; yields its port."""
    process = subprocess.Popen([sys.executable, "-m", "tests.bench.baselines"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None, "asked for a pipe"
        yield int(process.stdout.readline())
    finally:
        process.terminate()
        process.wait(10)


def main() -> None:
    """Serve the empty handler until SIGTERM; prints the port."""
    stop = stop_at(signal.SIGTERM)
    listener = listen_on("127.0.0.1", 0)
    listener.listen(512)
    port = listener.getsockname()[1]
    serve(empty_app, stop, lambda: print(port, flush=True), listener)


def describe() -> str:
    """A description of the machine, for the page."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if "model name" in line), "unknown")
    return f"{os.cpu_count()} cores of {model}"


if __name__ == "__main__":
    main()
