"""A real Apache Kafka in KRaft mode from Maven's jars: one broker for most tests, three if brokers are killed."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final

import pytest

DEADLINE_S: Final = 90.0
FETCH: Final = Path(__file__).parents[1] / "tools" / "kafka" / "fetch.sh"
_CLUSTER_ID: Final = "dG91Y2hmb2xkLXRlc3RzMA"  # any 16 bytes in URL-safe base64
_LOGGING: Final = """
status = error
appender.file.type = File
appender.file.name = file
appender.file.fileName = {folder}/broker.log
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d %p %c: %m%n
rootLogger.level = warn
rootLogger.appenderRef.file.ref = file
"""
_PROPERTIES: Final = """
process.roles=broker,controller
node.id={node}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
controller.quorum.voters={voters}
log.dirs={folder}/data
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
num.partitions=1
default.replication.factor={replicas}
min.insync.replicas={insync}
offsets.topic.replication.factor={replicas}
offsets.topic.num.partitions=4
transaction.state.log.replication.factor={replicas}
transaction.state.log.min.isr={insync}
transaction.state.log.num.partitions=4
log.retention.check.interval.ms=1000
log.initial.task.delay.ms=1000
log.cleaner.backoff.ms=500
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=3000
replica.lag.time.max.ms=5000
controlled.shutdown.enable=true
"""


def kafka_jars() -> Path:
    """The folder of the jars, which are fetched if it is empty."""
    done = subprocess.run(["bash", str(FETCH)], stdout=subprocess.PIPE, text=True, check=True, timeout=600)
    return Path(done.stdout.strip())


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Node:
    """One broker (and controller) of a cluster."""

    number: int
    folder: Path
    port: int
    controller: int
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


class Cluster:
    """`start` formats and runs the nodes; `kill`, `pause`, `go_on` and `restart` are for fault tests.

    `properties` are added to every node's and override the defaults here; `formatting`: more arguments for the format
    tool. Heap: 512 MiB per node (384 with three).
    """

    def __init__(
        self,
        folder: Path,
        nodes: int = 1,
        properties: Mapping[str, str] | None = None,
        formatting: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self._formatting = formatting
        self._jars = kafka_jars()
        self._heap = 512 if nodes == 1 else 384
        self.nodes = [Node(n, folder / f"node{n}", free_port(), free_port()) for n in range(1, nodes + 1)]
        voters = ",".join(f"{node.number}@127.0.0.1:{node.controller}" for node in self.nodes)
        for node in self.nodes:
            node.folder.mkdir(parents=True)
            text = _PROPERTIES.format(
                node=node.number,
                port=node.port,
                controller=node.controller,
                voters=voters,
                folder=node.folder,
                replicas=nodes,
                insync=1 if nodes == 1 else 2,
            )
            lines = dict(line.split("=", 1) for line in text.strip().splitlines()) | dict(properties or {})
            (node.folder / "server.properties").write_text("".join(f"{k}={v}\n" for k, v in lines.items()))
            (node.folder / "log4j2.properties").write_text(_LOGGING.format(folder=node.folder))

    @property
    def bootstrap(self) -> str:
        return ",".join(node.address for node in self.nodes)

    def start(self) -> None:
        formatting = [
            self._java(
                node, "kafka.tools.StorageTool", "format", "-t", _CLUSTER_ID, "-c", _properties(node), *self._formatting
            )
            for node in self.nodes
        ]
        for process in formatting:
            assert process.wait(DEADLINE_S) == 0, "a node cannot be formatted"
        for node in self.nodes:
            self._run(node)
        self.wait(self.nodes)

    def wait(self, nodes: Sequence[Node]) -> None:
        """Wait until these nodes answer as brokers."""
        from kafka import KafkaAdminClient  # noqa: PLC0415  # 0.5 s that tests without Kafka need not pay
        from kafka.errors import KafkaError  # noqa: PLC0415

        deadline = time.monotonic() + DEADLINE_S
        for node in nodes:
            while True:
                assert node in self.running(), _tail(node)
                assert time.monotonic() < deadline, f"node {node.number} does not answer:\n{_tail(node)}"
                with suppress(KafkaError, OSError), closing(socket.create_connection(("127.0.0.1", node.port), 1)):
                    admin = KafkaAdminClient(bootstrap_servers=node.address, request_timeout_ms=3_000)
                    try:
                        if len(admin.describe_cluster()["brokers"]) >= len(self.running()):
                            break
                    finally:
                        admin.close()
                time.sleep(0.1)

    def running(self) -> list[Node]:
        return [node for node in self.nodes if node.process is not None and node.process.poll() is None]

    def kill(self, node: Node, number: int = signal.SIGKILL) -> None:
        """End a node, by default with SIGKILL; returns when it is gone."""
        assert node.process is not None, "it does not run"
        node.process.send_signal(number)
        node.process.wait(DEADLINE_S)

    def pause(self, node: Node) -> None:
        assert node.process is not None, "it does not run"
        node.process.send_signal(signal.SIGSTOP)

    def go_on(self, node: Node) -> None:
        assert node.process is not None, "it does not run"
        node.process.send_signal(signal.SIGCONT)

    def restart(self, node: Node) -> None:
        """Start an ended node again, with its data and ports; returns when it answers."""
        self._run(node)
        self.wait([node])

    def stop(self) -> None:
        for node in self.running():
            assert node.process is not None, "it runs"
            node.process.send_signal(signal.SIGCONT)
            node.process.kill()  # nobody needs its files again
            node.process.wait(DEADLINE_S)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, node: Node) -> None:
        node.process = self._java(node, "kafka.Kafka", _properties(node))

    def _java(self, node: Node, main: str, *arguments: str) -> "subprocess.Popen[bytes]":
        options = [f"-Xmx{self._heap}m", f"-Xms{self._heap // 2}m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        options.append(f"-Dlog4j2.configurationFile={node.folder / 'log4j2.properties'}")
        with (node.folder / "out.log").open("ab") as out:
            return subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "java", *options, "-cp", f"{self._jars}/*", main, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )


def _properties(node: Node) -> str:
    return str(node.folder / "server.properties")


def _tail(node: Node) -> str:
    text = ""
    for name in ("out.log", "broker.log"):
        with suppress(FileNotFoundError):
            text += (node.folder / name).read_text(errors="replace")[-3_000:]
    return text


_NUMBERS: Final = count(1)


class Kafka:
    """A broker to test against, and unique topic names."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap

    @staticmethod
    def prefix() -> str:
        """A new prefix for the topics of one test (setting KAFKA_PREFIX)."""
        return f"t{os.getpid()}x{next(_NUMBERS)}"


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """One broker per session: TOUCHFOLD_TEST_KAFKA, else one that we start."""
    given = os.environ.get("TOUCHFOLD_TEST_KAFKA")
    if given:
        yield Kafka(given)
        return
    cluster = Cluster(tmp_path_factory.mktemp("kafka"))
    try:
        cluster.start()
        yield Kafka(cluster.bootstrap)
    finally:
        cluster.stop()
