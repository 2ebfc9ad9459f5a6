"""A stock Faust agent: a Table of counts and one upsert into PostgreSQL an event, as such software is written.

`python -m tests.bench.kafka.agent BOOTSTRAP TOPIC PARTITIONS EVENTS DSN` runs the app until it has had EVENTS and
prints what it took since the first. The Table lives in memory (RocksDB would cost more); its changelog goes to Kafka.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from typing import Any, Final

import faust
import psycopg2

from infra.adapters.postgres.embedded import EmbeddedPostgres
from tests.bench.kafka.topic import PARTITIONS, Broker, Filled, Ran, result_of
from tests.bench.measure import cpu_of_tree

_TABLE: Final = "create table if not exists counts (customer text primary key, events bigint, last_type text)"
_UPSERT: Final = """
insert into counts values (%s, %s, %s)
on conflict (customer) do update set events = excluded.events, last_type = excluded.last_type
"""


def run(on: Broker, filled: Filled, upsert: bool = True, timeout_s: float = 900) -> Ran:
    """The agent over the topic, in a process of its own, with a PostgreSQL of its own."""
    with tempfile.TemporaryDirectory(prefix="touchfold-bench-agent-") as folder:
        from pathlib import Path  # noqa: PLC0415

        postgres = EmbeddedPostgres(Path(folder))
        postgres.start()
        try:
            broker, server = on.cpu_s(), cpu_of_tree(postgres.pid)
            dsn = postgres.dsn if upsert else ""
            numbers = (str(PARTITIONS), str(filled.events))
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.bench.kafka.agent", on.bootstrap, filled.topic, *numbers, dsn, folder],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            found = result_of(process, timeout_s)
            other = cpu_of_tree(postgres.pid) - server if upsert else 0.0
            return Ran(filled.events, found["wall_s"], found["cpu_s"], on.cpu_s() - broker, other)
        finally:
            postgres.stop()


def main(bootstrap: str, topic: str, partitions: str, events: str, dsn: str, folder: str) -> None:
    """The app. Ends its process when the last event was counted: a stop would wait for the next rebalance."""
    app = faust.App(
        f"agent-{topic}",
        broker=f"kafka://{bootstrap}",
        store="memory://",
        datadir=folder,
        topic_partitions=int(partitions),
        topic_replication_factor=1,
        consumer_auto_offset_reset="earliest",
        web_enabled=False,
    )
    source = app.topic(topic, key_type=bytes, key_serializer="raw", value_serializer="json")
    counts = app.Table("counts", default=int, partitions=int(partitions))
    cursor: Any = None
    if dsn:
        connection = psycopg2.connect(dsn)
        connection.autocommit = True
        cursor = connection.cursor()
        cursor.execute(_TABLE)
    wanted, started, cpu = int(events), 0.0, 0.0
    seen = 0

    @app.agent(source)
    async def count(stream: Any) -> None:
        nonlocal seen, started, cpu
        async for key, event in stream.items():
            if not seen:
                started, cpu = time.monotonic(), time.process_time()
            customer = key.hex()
            counts[customer] += 1
            if cursor is not None:
                cursor.execute(_UPSERT, (customer, counts[customer], event["type"]))
            seen += 1
            if seen == wanted:
                found = {"wall_s": time.monotonic() - started, "cpu_s": time.process_time() - cpu}
                os.write(1, ("\n" + json.dumps(found) + "\n").encode())
                os._exit(0)

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    faust.Worker(app, loop=loop, loglevel="ERROR", redirect_stdouts=False, quiet=True).execute_from_commandline()


if __name__ == "__main__":
    main(*sys.argv[1:])
