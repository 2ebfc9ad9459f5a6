"""The faults of the cluster mode, each a small action on a running deployment. Anything they write is in the ledger."""

import json
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from datetime import UTC, datetime
from subprocess import DEVNULL, PIPE, Popen
from threading import Timer
from typing import Any

import psutil
import psycopg2

from tests.checker.cluster import GROUP, PARTITIONS, Deployment, end_tree
from tests.checker.ledger import ABORTED, COMMITTED, POISON, UNKNOWN, Direct, Name
from tests.checker.product import COMMAND, wait_until
from tests.checker.sources import Message, messages
from tests.kafka_broker import Node

SESSION_S = 30.0  # after which a silent worker's partitions are reassigned; it is a static member of its group
STOP_S = 30.0  # for a worker to end in order
# A worker killed while it joined is a member until the rebalance ends, and a group that moved to another broker has
# its sessions begin again there.
EMPTY_S = 4 * SESSION_S
SERVER_EVERY_S = 9.0  # `up` gives up if PostgreSQL exits 5 times in 30 s, which is not what is tested here
ROLES = ("worker", "http", "archive", "publish")
ROW = 30  # kills, in 20 s
SEEN = 400  # records kept as models for those written directly to the log
_OURS = (
    "select pid from pg_stat_activity where application_name like 'touchfold%' and pid <> pg_backend_pid() order by 1"
)
_COMMITTING = _OURS.replace("where", "where state = 'active' and query ilike 'commit%' and")


class Faults:
    """`kinds`: name -> function that causes it and returns how many processes, brokers or sessions it ended.

    `deep`: definitions change, people are erased and kills come in series.
    """

    def __init__(self, here: Deployment, *, deep: bool = False) -> None:
        self._here = here
        self._random = here.random
        self._written = 0
        self._extra = 0
        self._server_at = 0.0
        self._paused: dict[int, Timer] = {}
        self._models: list[Message] = []
        self._applying: list[Popen[str]] = []
        self._defined = 0
        self._half_erased = False
        many = len(here.brokers.nodes) > 2
        self.kinds: Mapping[str, Callable[[], int]] = {
            "kill a worker": lambda: self._kill("worker"),
            "kill all workers": lambda: self._kill("worker", everyone=True),
            "kill the door": lambda: self._kill("http", everyone=True),
            "kill the archiver": lambda: self._kill("archive"),
            "kill the publisher": lambda: self._kill("publish"),
            "kill several roles at once": self._several,
            "stop a worker for a moment": lambda: self._stop("worker", 0.5, 4),
            "stop a worker for longer than its session": lambda: self._stop("worker", SESSION_S + 1, SESSION_S + 4),
            "stop the door": lambda: self._stop("http", 0.5, 5),
            "stop the publisher": lambda: self._stop("publish", 1, 8),
            "a worker joins and leaves": lambda: self._rebalance(signal.SIGTERM),
            "a worker joins and is killed": lambda: self._rebalance(signal.SIGKILL),
            "kill a broker": lambda: self._brokers(1, signal.SIGKILL),
            "end a broker in order": lambda: self._brokers(1, signal.SIGTERM),
            **({"kill two brokers": lambda: self._brokers(2, signal.SIGKILL)} if many else {}),
            "kill PostgreSQL": self._kill_server,
            "end sessions of PostgreSQL": self._end_sessions,
            "offset of the group set ahead": lambda: self._set_offsets(1_000_000),
            "offset of the group set behind": lambda: self._set_offsets(0),
            "poison": self._poison,
            "transactions of another producer": self._transactions,
            **(self._long_kinds if deep else {}),
        }

    @property
    def _long_kinds(self) -> Mapping[str, Callable[[], int]]:
        return {
            "definitions change": self._define,
            "a person is erased": self._erase,
            "kills in a row": self._row,
        }

    def mend(self) -> None:
        """Resume or restart everything that was stopped: checks come next."""
        for pid in list(self._paused):
            self._go_on(pid)
        for node in self._here.brokers.nodes:
            if node not in self._here.brokers.running():
                self._here.brokers.restart(node)
        if self._half_erased:  # the next start continues the erasure
            self._half_erased = False
            self._here.product.stop()
            self._here.product.up(timeout_s=120)
        self._here.product.await_up()
        for command in self._applying:
            out, err = command.communicate(timeout=180)
            assert command.returncode == 0 or "unavailable" in out + err, (
                f"apply ended with {command.returncode}: {out}{err}"
            )
        self._applying.clear()

    # ------------------------------------------------------------ processes

    def _processes(self, role: str) -> list[psutil.Process]:
        """The processes of a role; waits while the supervisor is restarting it."""
        found: list[psutil.Process] = []

        def some() -> bool:
            found[:] = self._here.product.processes()[role]
            return bool(found)

        assert wait_until(some, 30), f"no {role} runs:\n" + "\n".join(self._here.product.log[-30:])
        return found

    def _kill(self, role: str, *, everyone: bool = False) -> int:
        victims = self._processes(role)
        if not everyone:
            victims = [self._random.choice(victims)]
        for victim in victims:
            self._forget_pause(victim.pid)
            with suppress(psutil.NoSuchProcess):
                victim.kill()
        self._breathe(0, 1.5)
        return len(victims)

    def _several(self) -> int:
        roles = self._random.sample(ROLES, 3)
        victims = [self._random.choice(self._processes(role)) for role in roles]
        for victim in victims:
            self._forget_pause(victim.pid)
            with suppress(psutil.NoSuchProcess):
                victim.kill()
        self._breathe(0, 1.5)
        return len(victims)

    def _row(self) -> int:
        """Kill running processes again and again, so that restarted ones hardly get going."""
        killed = 0
        for _ in range(ROW):
            living = [each for role in ROLES for each in self._here.product.processes()[role]]
            if living:
                victim = self._random.choice(living)
                self._forget_pause(victim.pid)
                with suppress(psutil.NoSuchProcess):
                    victim.kill()
                    killed += 1
            self._breathe(0.2, 1.2)
        return killed

    def _stop(self, role: str, least_s: float, most_s: float) -> int:
        """SIGSTOP a process; a timer sends SIGCONT, so other faults happen meanwhile."""
        victim = self._random.choice(self._processes(role))
        if victim.pid in self._paused:
            return 0
        with suppress(psutil.NoSuchProcess):
            victim.suspend()
        timer = Timer(self._random.uniform(least_s, most_s), self._go_on, (victim.pid,))
        self._paused[victim.pid] = timer
        timer.daemon = True
        timer.start()
        self._breathe(0.2, 2)
        return 0

    def _go_on(self, pid: int) -> None:
        self._forget_pause(pid)
        with suppress(psutil.NoSuchProcess):
            psutil.Process(pid).resume()

    def _forget_pause(self, pid: int) -> None:
        timer = self._paused.pop(pid, None)
        if timer is not None:
            timer.cancel()

    def _rebalance(self, ending: signal.Signals) -> int:
        """Another worker joins the group under load and leaves it, cleanly (within 10 s) or killed."""
        self._extra += 1
        folder = self._here.folder / f"extra{self._extra}"
        process = self._here.product.worker(folder)
        log = folder / "worker.log"
        ready = wait_until(lambda: "ready worker" in log.read_text() or process.poll() is not None, 60)
        assert ready, f"a further worker does not come up:\n{log.read_text()[-3_000:]}"
        if process.poll() is not None:
            assert "ready" in log.read_text() or self._in_trouble(), log.read_text()[-3_000:]
            return 0
        self._breathe(2, 6)
        if ending is signal.SIGKILL:
            end_tree(process.pid)
            process.wait(10)
            return 1
        began = time.monotonic()
        process.terminate()
        process.wait(30)
        assert time.monotonic() - began < 12, f"a worker took {time.monotonic() - began:.0f} s to end"
        return 0

    def _in_trouble(self) -> bool:
        """Whether PostgreSQL was ended a moment ago: a role that starts then may report that and exit."""
        return time.monotonic() - self._server_at < 15

    # ------------------------------------------------------------ brokers

    def _brokers(self, count: int, number: signal.Signals) -> int:
        cluster = self._here.brokers
        victims: list[Node] = self._random.sample(cluster.running(), count)
        for victim in victims:
            cluster.kill(victim, number)
            self._breathe(0, 1)
        self._breathe(1, 6)
        for victim in victims:
            cluster.restart(victim)
        self._breathe(0, 1)
        return count

    def _client(self) -> dict[str, Any]:
        return {"bootstrap_servers": self._here.brokers.bootstrap.split(","), "request_timeout_ms": 20_000}

    def _set_offsets(self, to: int) -> int:
        """Set the group's offsets from outside. Brokers only allow that while it is empty, so workers are stopped."""
        from kafka import KafkaAdminClient, TopicPartition  # noqa: PLC0415  # 0.5 s that others need not pay
        from kafka.errors import KafkaError  # noqa: PLC0415
        from kafka.structs import OffsetAndMetadata  # noqa: PLC0415

        workers = self._processes("worker")
        (supervisor,) = self._here.product.processes()["up"]
        parts = range(PARTITIONS)
        offsets = {TopicPartition(self._here.topic, part): OffsetAndMetadata(to, "", -1) for part in parts}
        done = False
        supervisor.suspend()
        try:
            for worker in workers:
                self._forget_pause(worker.pid)
                with suppress(psutil.NoSuchProcess):
                    worker.resume()
                    worker.terminate()
            # One that ends slowly is a member until it has ended, and a session longer.
            for worker in psutil.wait_procs(workers, timeout=STOP_S)[1]:
                with suppress(psutil.NoSuchProcess):
                    worker.kill()
            psutil.wait_procs(workers, timeout=STOP_S)

            def set_() -> bool:
                with suppress(KafkaError, OSError), closing(KafkaAdminClient(**self._client())) as admin:
                    answers = admin.alter_group_offsets(GROUP, offsets)
                    return all(answer.errno == 0 for answer in answers.values())
                return False

            done = wait_until(set_, EMPTY_S)
        finally:
            supervisor.resume()
        assert done, "the group never was empty"
        return len(workers)

    # ------------------------------------------------------------ PostgreSQL

    def _kill_server(self) -> int:
        """Like `pg_ctl restart -m immediate`: no checkpoint, so recovery at the next start, which `up` does."""
        if time.monotonic() - self._server_at < SERVER_EVERY_S:
            return 0
        self._server_at = time.monotonic()
        victims = self._processes("postgres")
        for victim in victims:
            with suppress(psutil.NoSuchProcess):
                for child in victim.children():
                    child.kill()
                victim.kill()
        self._breathe(0.5, 3)
        return 1

    def _end_sessions(self) -> int:
        """`pg_terminate_backend` on sessions that are committing, if any can be caught, else on random ones."""
        ended = 0
        with suppress(psycopg2.Error), self._here.product.databases() as (main, _):
            main.autocommit = True
            for _ in range(self._random.randrange(1, 5)):
                with main.cursor() as cursor:
                    for _ in range(40):
                        cursor.execute(_COMMITTING)
                        if pids := [row[0] for row in cursor.fetchall()]:
                            break
                    else:
                        cursor.execute(_OURS)
                        pids = [row[0] for row in cursor.fetchall()]
                    if pids:
                        cursor.execute("select pg_terminate_backend(%s)", (self._random.choice(pids),))
                        ended += 1
                time.sleep(self._random.uniform(0, 0.2))  # a random moment, not synchronisation
        return ended

    # ------------------------------------------------------------ what users do meanwhile

    def _define(self) -> int:
        """Add a segment: a revision is built and swapped in while everything else goes on."""
        self._defined += 1
        path = self._here.folder / f"more{self._defined}.yaml"
        when = f"{{trait: checker_events, op: gte, value: {self._random.randrange(2, 30)}}}"
        path.write_text(f"segments: {{checker_more_{self._defined}: {{when: {when}}}}}\n")
        product = self._here.product
        self._applying.append(
            Popen(
                [*COMMAND, "apply", str(path), "--json", "--data", str(product.data)],
                env=product.environ,
                stdin=DEVNULL,
                stdout=PIPE,
                stderr=PIPE,
                text=True,
            )
        )
        self._breathe(0, 3)
        return 0

    def _erase(self) -> int:
        """Erase a customer, who may come back as a new one."""
        sent = [item for request in self._here.ledger.requests for item in request.items]
        named = sorted({item["userId"] for item in sent if item["type"] == "identify"})
        if named:
            done = self._here.product.run("erase", f"user_id:{self._random.choice(named)}", "--yes", "--force")
            self._half_erased |= done.status not in (0, 1) or "unavailable" in done.out + done.err
        return 0

    # ------------------------------------------------------------ what others write to the topic

    def _look(self) -> list[Message]:
        """Records written by the door, as models; waits until there are some."""

        def some() -> bool:
            found = messages(self._here.brokers.bootstrap, self._here.topic)
            self._models = [each for each in found if _is_model(each)][:SEEN]
            return len(self._models) >= 10

        assert len(self._models) >= SEEN or wait_until(some, 60), "the door appends nothing"
        return self._models

    def _copy(self, model: Message, **changed: Any) -> tuple[Name, bytes]:
        """A new touchpoint of the customer of `model`: only the tokens are kept."""
        self._written += 1
        source, number = "producer", f"direct-{self._written}"
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        record = json.loads(model.value or b"")
        digits = f"{self._random.randrange(2**128):032x}"
        kept = {name: record[name] for name in ("v", "ids", "route_key", "occurred_at")}
        new = {
            "id": f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}",
            "message_id": number,
            "type": "web.page_viewed",
            "source": source,
            "received_at": now,
            "known_at": now,
            "digest": f"{self._random.randrange(2**128):032x}",
            "properties": {"score": self._random.randrange(1_000)},
        }
        return (source, number), json.dumps({**kept, **new, **changed}).encode()

    def _poison(self) -> int:
        """Write records that cannot be read, and some that can be read but not folded; each becomes a dead letter."""
        from kafka import KafkaProducer  # noqa: PLC0415  # as above
        from kafka.errors import KafkaError  # noqa: PLC0415

        models = self._look()
        kinds: list[Callable[[Message], bytes | None]] = [
            lambda model: (model.value or b"")[: self._random.randrange(20, 60)],
            lambda model: f'{{"v": 1, "id": {self._random.randrange(10**9)}}}'.encode(),
            lambda model: self._random.randbytes(40),
            lambda model: self._copy(model, digest="not hex")[1],
            lambda model: self._copy(model, ids=[{"kind": "user_id", "token": f"zz{self._written}"}])[1],
            lambda model: self._copy(model, v="one")[1],
            lambda model: None,  # a tombstone, as in compacted topics
        ]
        with closing(KafkaProducer(**self._client(), acks="all")) as producer:
            for make in self._random.sample(kinds, 3):
                model = self._random.choice(models)
                value = make(model)
                try:
                    sent = producer.send(self._here.topic, value, model.key, partition=model.partition)
                    sent.get(30)
                except KafkaError:
                    self._here.ledger.produced(Direct(None, value or b"", UNKNOWN))
                else:
                    self._here.ledger.produced(Direct(None, value or b"", POISON))
        return 0

    def _transactions(self) -> int:
        """Another team's transactional producer: some of its transactions are aborted, one is left to time out."""
        from kafka import KafkaProducer  # noqa: PLC0415  # as above
        from kafka.errors import KafkaError  # noqa: PLC0415

        models = self._look()
        name = f"other-team-{self._written}"
        settings = {"transactional_id": name, "transaction_timeout_ms": 10_000, **self._client()}
        with closing(KafkaProducer(**settings)) as producer:
            try:
                producer.init_transactions()
            except KafkaError:
                return 0
            for _ in range(4):
                abort = self._random.random() < 0.5
                batch = [(model, *self._copy(model)) for model in self._random.sample(models, 5)]
                fate = UNKNOWN
                try:
                    producer.begin_transaction()
                    for model, _, value in batch:
                        producer.send(self._here.topic, value, model.key, partition=model.partition)
                    producer.flush(20)
                    self._breathe(0, 1)
                    if abort:
                        producer.abort_transaction()
                    else:
                        producer.commit_transaction()
                    fate = ABORTED if abort else COMMITTED
                except KafkaError:
                    abort = True  # this producer is no longer usable
                for _, who, value in batch:
                    self._here.ledger.produced(Direct(who, value, fate))
                if fate == UNKNOWN:
                    break
        return 0

    def _breathe(self, least_s: float, most_s: float) -> None:
        """Let the load go on for a random time; not synchronisation."""
        time.sleep(self._random.uniform(least_s, most_s))


def _is_model(message: Message) -> bool:
    try:
        record = json.loads(message.value or b"")
    except ValueError:
        return False
    return isinstance(record, dict) and record.get("source") in ("web", "till") and message.key is not None
