"""What the door on Kafka is measured against: one process that decodes, seals and produces the same requests.

`python -m tests.bench.kafka.door BOOTSTRAP PREFIX REQUESTS` is that process.
"""

import json
import os
import subprocess
import sys
import time
from typing import Final

import msgspec
from confluent_kafka import KafkaError, Message
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from infra.adapters.kafka.access import KafkaAccess
from schemas.topics import EVENTS
from tests.bench.http_load import Plan, bodies
from tests.bench.kafka.topic import PARTITIONS, Broker, Ran, create, producer, result_of

EVENTS_A_REQUEST: Final = 100
IN_FLIGHT: Final = 16  # requests at a time, as many as the load generator has connections


def run(on: Broker, requests: int, timeout_s: float = 300) -> Ran:
    """Measure it, with a topic of its own."""
    access = on.access()
    create(access)
    before = on.cpu_s()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.kafka.door", on.bootstrap, access.prefix, str(requests)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    found = result_of(process, timeout_s)
    return Ran(requests * EVENTS_A_REQUEST, found["wall_s"], found["cpu_s"], on.cpu_s() - before)


def main(bootstrap: str, prefix: str, requests: str) -> None:
    """Decode each request, seal and produce its events; at most IN_FLIGHT requests wait for the broker."""
    access = KafkaAccess(bootstrap, prefix=prefix, insecure=True)
    topic = access.topic(EVENTS)
    waiting = list(bodies(Plan(0, "track", 1, int(requests), EVENTS_A_REQUEST)))
    decode, encode = msgspec.json.Decoder().decode, msgspec.json.Encoder().encode
    key = AESGCM.generate_key(256)
    sending = producer(access)
    sending.list_topics(topic, timeout=30)
    acknowledged = 0

    def told(error: KafkaError | None, _message: Message) -> None:
        nonlocal acknowledged
        assert error is None, error
        acknowledged += 1

    produced, started, cpu = 0, time.perf_counter(), time.process_time()
    for body in waiting:
        for item in decode(body)["batch"]:
            nonce = os.urandom(12)
            value = nonce + AESGCM(key).encrypt(nonce, encode(item), b"16 bytes of aad!")
            sending.produce(topic, value, nonce, produced % PARTITIONS, on_delivery=told)
            produced += 1
        sending.poll(0)
        while produced - acknowledged > IN_FLIGHT * EVENTS_A_REQUEST:
            sending.poll(0.05)
    assert sending.flush(60) == 0, "the broker does not take the events"
    found = {"wall_s": time.perf_counter() - started, "cpu_s": time.process_time() - cpu}
    os.write(1, (json.dumps(found) + "\n").encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
