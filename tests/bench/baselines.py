"""What the door is measured against: a process that only decodes, seals, appends and syncs; and an empty handler."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.bench.http_load import Plan, bodies

EMPTY_APP = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-type", b"application/json"), (b"content-length", b"16")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b'{"success":true}'})
"""


def append_and_sync(plan: Plan) -> float:
    """Events a second of one process that decodes each request, seals and appends its events, and fdatasyncs."""
    waiting = list(bodies(plan))
    decode, encode = msgspec.json.Decoder().decode, msgspec.json.Encoder().encode
    key = AESGCM.generate_key(256)
    with tempfile.NamedTemporaryFile() as file:
        handle = file.fileno()
        started = time.perf_counter()
        for body in waiting:
            parsed = decode(body)
            lines = []
            for item in parsed["batch"] if "batch" in parsed else (parsed,):
                nonce = os.urandom(12)
                lines.append(nonce + AESGCM(key).encrypt(nonce, encode(item), b"16 bytes of aad!"))
            os.write(handle, b"".join(lines))
            os.fdatasync(handle)
        return plan.requests * plan.events_per_request / (time.perf_counter() - started)


@contextmanager
def empty_server() -> Iterator[int]:
    """The same server (uvicorn, uvloop, httptools) with a raw handler that reads the body and says 200; its port."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as listener:
        (Path(folder) / "empty_app.py").write_text(EMPTY_APP)
        listener.bind(("127.0.0.1", 0))
        listener.listen(512)
        port = int(listener.getsockname()[1])
        command = [sys.executable, "-m", "uvicorn", "--app-dir", folder, "empty_app:app", "--loop", "uvloop"]
        command += ["--http", "httptools", "--no-access-log", "--log-level", "error", "--fd", str(listener.fileno())]
        process = subprocess.Popen(command, pass_fds=[listener.fileno()])
        try:
            _wait(port)
            yield port
        finally:
            process.terminate()
            process.wait(10)


def _wait(port: int, within_s: float = 20) -> None:
    """Until a request is answered."""
    deadline = time.monotonic() + within_s
    while True:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.settimeout(max(0.1, deadline - time.monotonic()))
            connection.sendall(b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
            if connection.recv(12) == b"HTTP/1.1 200":
                return
        if time.monotonic() > deadline:
            raise TimeoutError(f"the empty server did not answer within {within_s} s")


def describe() -> str:
    """The machine, for the page."""
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        "?",
    )
    return json.dumps({"cores": os.cpu_count(), "cpu": model})
