"""Kafka Streams `count()` with RocksDB and exactly_once_v2 over the same topic: what a Java shop would write first."""

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from tests.bench.kafka.topic import PARTITIONS, Broker, Filled, Ran, result_of

SOURCE: Final = Path(__file__).parents[1] / "streams" / "CountByCustomer.java"


def missing() -> str | None:
    """Why it cannot be measured here, or None."""
    return None if shutil.which("javac") else "there is no javac: apt-get install default-jdk-headless"


def run(on: Broker, filled: Filled, threads: int = 1, timeout_s: float = 600) -> Ran:
    """Count the topic in a Java process of its own, from its first event until its last commit."""
    folder = Path(tempfile.mkdtemp(prefix="touchfold-bench-streams-"))
    classpath = f"{on.jars}/*"
    try:
        subprocess.run(["javac", "-cp", classpath, "-d", str(folder), str(SOURCE)], check=True)
        (folder / "log4j2.properties").write_text("status = error\nrootLogger.level = error\n")
        options = ["-Xmx1g", f"-Dlog4j2.configurationFile={folder / 'log4j2.properties'}"]
        arguments = [on.bootstrap, filled.topic, str(PARTITIONS), str(folder / "state"), str(threads)]
        before = on.cpu_s()
        process = subprocess.Popen(
            ["java", *options, "-cp", f"{folder}:{classpath}", "CountByCustomer", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        found = result_of(process, timeout_s)
        assert found["events"] >= filled.events, "it says it is done and is not"
        return Ran(filled.events, found["wall_s"], found["cpu_s"], on.cpu_s() - before)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
