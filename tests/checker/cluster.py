"""The cluster mode from outside: real brokers, `touchfold up` on them, clients with a ledger, and the checker.

    python -m tests.checker.cluster --seed 7 --kills 100 --minutes 10 --brokers 3

causes faults (tests.checker.faults) under load and prints what the checker finds.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from subprocess import DEVNULL, STDOUT, Popen
from typing import Any

import psutil

from tests.checker.check import DEFINITIONS, check
from tests.checker.check_log import Violation
from tests.checker.check_topics import KafkaTopics
from tests.checker.ledger import Ledger
from tests.checker.product import COMMAND, Product, wait_until
from tests.checker.senders import Senders
from tests.checker.sources import KafkaSource
from tests.kafka_broker import Cluster

PREFIX = "chaos"
GROUP = f"{PREFIX}-worker"
PARTITIONS = 4
SETTLED_S = 240.0


class ClusterProduct(Product):
    """`touchfold up` with the log in Kafka, and additional workers."""

    def __init__(self, data: Path, brokers: Cluster, *, workers: int = 2, runner: str = "faust") -> None:
        settings = {
            "TOUCHFOLD_LOG": "kafka",
            "TOUCHFOLD_KAFKA_BOOTSTRAP": brokers.bootstrap,
            "TOUCHFOLD_KAFKA_INSECURE": "1",
            "TOUCHFOLD_KAFKA_PREFIX": PREFIX,
            "TOUCHFOLD_KAFKA_PARTITIONS": str(PARTITIONS),
            "TOUCHFOLD_KAFKA_REPLICATION": str(len(brokers.nodes)),
            "TOUCHFOLD_WORKERS": str(workers),
            "TOUCHFOLD_WORKER_RUNNER": runner,
            "TOUCHFOLD_UI": "0",
        }
        super().__init__(data, settings)
        self._extra: list[Popen[bytes]] = []

    def worker(self, folder: Path) -> "Popen[bytes]":
        """Start `touchfold worker` as another machine would: its own data folder, but the same databases and keys."""
        main, vault = self.dsns()
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.data / "master.key", folder / "master.key")
        environ = self.environ | {
            "TOUCHFOLD_DATABASE": main,
            "TOUCHFOLD_VAULT": vault,
            "TOUCHFOLD_ARCHIVE": str(self.data / "archive"),
            "TOUCHFOLD_WORKERS": "1",
        }
        with (folder / "worker.log").open("ab") as out:
            process = Popen(
                [*COMMAND, "worker", "--data", str(folder)], env=environ, stdin=DEVNULL, stdout=out, stderr=STDOUT
            )
        self._extra.append(process)
        return process

    def stop(self, timeout_s: float = 60) -> int | None:
        for process in self._extra:
            end_tree(process.pid)
            process.wait(10)
        self._extra.clear()
        return super().stop(timeout_s)


def end_tree(pid: int) -> None:
    """SIGKILL a process that we started, including its children."""
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for each in family:
        try:
            each.kill()
        except psutil.NoSuchProcess:
            continue


class Deployment:
    """Brokers, product, ledger and senders of one run. Created by `opened`."""

    def __init__(self, folder: Path, *, brokers: int, workers: int, runner: str, seed: int) -> None:
        self.folder = folder
        self.brokers = Cluster(folder / "brokers", nodes=brokers)
        self.product = ClusterProduct(folder / "data", self.brokers, workers=workers, runner=runner)
        self.ledger = Ledger(folder / "ledger.jsonl")
        self.random = Random(seed)
        self._seed = seed
        self.senders: Senders | None = None

    def open(self) -> None:
        """Start brokers, topics, `up`, definitions and two sources."""
        self.brokers.start()
        applied = self.product.run("topics", "apply")
        assert applied.status == 0, f"touchfold topics apply: {applied}"
        self.product.up(timeout_s=120)
        (self.folder / "checker.yaml").write_text(DEFINITIONS)
        self.product.ask("apply", str(self.folder / "checker.yaml"))
        keys = {name: self.product.source(name) for name in ("web", "till")}
        self.senders = Senders(self.product.port, keys, self.ledger, seed=self._seed, now=datetime.now(UTC))

    @property
    def traffic(self) -> Senders:
        assert self.senders is not None, "open() makes it"
        return self.senders

    @property
    def topic(self) -> str:
        """The events topic."""
        return f"{PREFIX}.events"

    @property
    def source(self) -> KafkaSource:
        return KafkaSource(self.brokers.bootstrap, self.topic, self.product.data / "archive")

    def settle(self) -> None:
        """Wait until everything acknowledged is applied, decided and published."""
        self.product.settle(SETTLED_S)
        with self.product.databases() as (main, _):

            def published() -> bool:
                main.rollback()
                with main.cursor() as cursor:
                    cursor.execute(
                        "select coalesce((select (p.seq, p.idx) from publishers p limit 1)"
                        " >= (select (b.seq, c.idx) from changes c join feed_batches b using (batch)"
                        " order by b.seq desc, c.idx desc limit 1), false)"
                        " or not exists (select from changes)"
                    )
                    row = cursor.fetchone()
                    return row is not None and bool(row[0])

            assert wait_until(published, SETTLED_S), "the publisher does not catch up"

    def judge(self) -> list[Violation]:
        """Pause the senders, settle, then run every check; the senders stay paused."""
        self.traffic.pause()
        assert not self.traffic.gave_up, self.traffic.gave_up
        self.settle()
        shown = self.product.shown()
        with self.product.databases() as (main, vault):
            return check(
                *(main, self.ledger),
                vault=vault,
                archive=self.product.data / "archive",
                shown=shown,
                source=self.source,
                topics=KafkaTopics(self.brokers.bootstrap, PREFIX),
            )

    def rebuild_is_equal(self) -> bool:
        """Whether `rebuild --check` of the settled product finds no difference."""
        return bool(self.product.ask("rebuild", "--check")["equal"])

    def close(self) -> None:
        if self.senders is not None:
            self.senders.close()
        self.product.stop()
        self.brokers.stop()
        self.ledger.close()


@contextmanager
def opened(
    folder: Path, *, brokers: int = 3, workers: int = 2, runner: str = "faust", seed: int = 1
) -> Iterator[Deployment]:
    """A deployment for as long as the block lasts."""
    here = Deployment(folder, brokers=brokers, workers=workers, runner=runner, seed=seed)
    try:
        here.open()
        yield here
    finally:
        here.close()


class Report:
    """What one run did and found."""

    def __init__(self) -> None:
        self.kills = 0
        self.done: list[str] = []
        self.violations: list[Violation] = []
        self.equal: bool | None = None  # None: not compared


def endure(
    here: Deployment,
    *,
    kills: int,
    limit_s: float,
    judged_every: int = 25,
    deep: bool = False,
    say: Callable[[str], None] = lambda _line: None,
) -> Report:
    """Cause faults under load until there were `kills` kills and every kind of fault, or time is up.

    Every kind of fault comes once before any comes twice; `deep` adds changes of definitions, erasures and
    series of kills. Checks run in between and at the end; the first violation ends the run.
    """
    from tests.checker.faults import Faults  # noqa: PLC0415  # it needs what is defined here

    report, faults = Report(), Faults(here, deep=deep)
    deadline = time.monotonic() + limit_s
    kinds: list[str] = []
    judged = 0
    here.traffic.go()
    while (report.kills < kills or len(report.done) < len(faults.kinds)) and time.monotonic() < deadline:
        if not kinds:
            kinds = here.random.sample(sorted(faults.kinds), len(faults.kinds))
        kind = kinds.pop()
        say(f"{len(report.done)}: {kind}")
        made = faults.kinds[kind]()
        report.kills += made
        report.done.append(kind)
        assert here.product.running, "up has ended:\n" + "\n".join(here.product.log[-60:])
        if report.kills - judged >= judged_every and report.kills < kills:
            judged = report.kills
            _judge(here, faults.mend, report, say)
            if report.violations:
                return report
            here.traffic.go()
    _judge(here, faults.mend, report, say)
    report.equal = here.rebuild_is_equal()
    return report


def _judge(here: Deployment, mend: Callable[[], None], report: Report, say: Callable[[str], None]) -> None:
    mend()
    started = time.monotonic()
    report.violations = here.judge()
    say(f"judged after {report.kills} kills in {time.monotonic() - started:.0f} s: {report.violations[:5] or 'clean'}")


def main(arguments: Sequence[str]) -> int:
    """Cause faults and report the outcome; 1 if anything is violated."""
    parser = argparse.ArgumentParser(prog="python -m tests.checker.cluster", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--brokers", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--runner", choices=("faust", "aiokafka"), default="faust")
    parser.add_argument("--judged-every", type=int, default=25)
    parser.add_argument("--deep", action="store_true", help="adds erasures, changed definitions, kills in a row")
    parser.add_argument("--folder", type=Path, help="kept at the end; else a temporary one")
    given = parser.parse_args(arguments)
    folder = given.folder or Path(tempfile.mkdtemp(prefix="touchfold-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    settings: Mapping[str, Any] = {name: getattr(given, name) for name in ("brokers", "workers", "runner", "seed")}
    started = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - started:6.1f} s  {line}", flush=True)

    with opened(folder, **settings) as here, closing(_Tail(here.product.log, folder / "up.log")):
        try:
            limits = {"kills": given.kills, "limit_s": given.minutes * 60, "judged_every": given.judged_every}
            report = endure(here, **limits, deep=given.deep, say=say)
        except Exception:
            traceback.print_exc()
            print("\n".join(here.product.log[-40:]))
            return 1
    say(f"{report.kills} kills in {len(report.done)} faults, seed {given.seed}; rebuild equal: {report.equal}")
    for violation in report.violations:
        say(f"{violation.rule}: {violation.what}")
    if given.folder is None and not report.violations:
        shutil.rmtree(folder)
    return 0 if report.equal and not report.violations else 1


class _Tail:
    """Saves the log of `up` at the end."""

    def __init__(self, log: list[str], path: Path) -> None:
        self._log, self._path = log, path

    def close(self) -> None:
        self._path.write_text("\n".join(self._log) + os.linesep)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
