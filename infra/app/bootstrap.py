"""The one place where adapters are chosen and put together. Importing it opens nothing.

`build` chooses by the settings; `prepare` brings databases to this build and to their first revision; `session`
is what every command and every role works with.
"""

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from infra.adapters.kafka.access import KafkaAccess
from infra.adapters.ledger.copies import bring_ledger
from infra.adapters.ledger.erasures import LEDGER
from infra.adapters.machine.clock import SystemClock
from infra.adapters.machine.data_folder import DataFolder, Running
from infra.adapters.machine.disk import WORKER, Disk, room_needed
from infra.adapters.postgres.connection_pool import Lane
from infra.adapters.postgres.control import insert_revision
from infra.adapters.postgres.database import Database
from infra.adapters.postgres.embedded import EmbeddedPostgres, lost
from infra.adapters.postgres.erased_tokens import ErasedTokens
from infra.adapters.postgres.erasure_upgrade import part_hashes_from_tokens
from infra.adapters.postgres.log import PostgresLog
from infra.adapters.postgres.migrate import migrate
from infra.adapters.postgres.own import OwnPostgres
from infra.adapters.vault.master_key import master_key
from infra.adapters.vault.proof import vault_is_new
from infra.adapters.vault.vault import PostgresVault
from infra.app import settings as reading
from infra.app.connections import embedded_connections, take_share
from infra.app.settings import Deployment, Settings
from schemas import failpoints
from schemas.errors import (
    DatabaseLost,
    FolderLocked,
    Problem,
    SettingsInvalid,
    StoreUnavailable,
    TouchfoldError,
)
from schemas.ports import Clock, EventLog

if TYPE_CHECKING:
    from schemas.waits import Waiting

_log = logging.getLogger("touchfold.bootstrap")
LOCK_WAIT_S: Final = 30.0  # a command waits so long for another command; a running `up` is joined at once
PACK: Final = "retail"
Server = EmbeddedPostgres | OwnPostgres
Say = Callable[[str], None]


def quiet(_line: str) -> None:
    """Progress that nobody reads."""


@dataclass(frozen=True)
class Adapters:
    """What the settings chose. `server` is not started."""

    server: Server
    folder: DataFolder
    clock: Clock  # of decisions: shifted in tests
    door_clock: Clock  # of receipts: never shifted
    disk: Disk
    kafka: KafkaAccess | None = None  # where the log is Kafka


def build(settings: Settings) -> Adapters:
    """Choose the adapters. Opens nothing."""
    server: Server
    own: tuple[str, str] | None = None
    if settings.database is None:
        server = EmbeddedPostgres(settings.data, connections=embedded_connections(settings.doors))
    else:
        vault = settings.vault.get_secret_value() if settings.vault else None
        server = OwnPostgres(settings.data, settings.database.get_secret_value(), vault)
        own = server.dsn, server.vault_dsn
    return Adapters(
        server=server,
        folder=DataFolder(settings.data, own, settings.ledger),
        clock=SystemClock(settings.clock_offset_s),
        door_clock=SystemClock(),
        disk=Disk(settings.data),
        kafka=kafka_access(settings),
    )


def kafka_access(settings: Settings) -> KafkaAccess | None:
    """How Kafka is reached; None where the log is PostgreSQL's."""
    if settings.log != "kafka":
        return None
    assert settings.kafka_bootstrap is not None, "the settings say that these belong together"
    return KafkaAccess(
        settings.kafka_bootstrap,
        prefix=settings.kafka_prefix,
        insecure=settings.kafka_insecure,
        tls_ca=settings.kafka_tls_ca,
        tls_cert=settings.kafka_tls_cert,
        tls_key=settings.kafka_tls_key,
        sasl=settings.kafka_sasl,
        username=settings.kafka_username,
        password=settings.kafka_password.get_secret_value() if settings.kafka_password else None,
    )


def arm_failpoint(settings: Settings, role: str) -> None:
    """Arm TOUCHFOLD_FAILPOINT in this process, if it is meant for this role."""
    point = settings.failpoint
    if point is not None and point.role in {None, role}:
        failpoints.arm(point.name, point.hits)


# --- first start and every start ---------------------------------------------------------------------------------


def prepare(settings: Settings, adapters: Adapters, say: Say = quiet) -> Deployment:
    """Bring a started server to this build: migrations, master key, deployment facts, the log, first revision.

    Any number of roles may do it at once. Raises DatabaseLost, SchemaNewer, MasterKeyWrong, SettingsInvalid
    (a deployment fact was changed), ServiceFailed (the brokers' topics are not safe).
    """
    server = adapters.server
    if settings.ledger is not None:
        bring_ledger(settings.data / "ledger", settings.ledger)
    refuse_loss(adapters, server.dsn, server.vault_dsn)
    migrate(server.dsn, "main")
    migrate(server.vault_dsn, "vault")
    with closing(open_vault(settings, server.dsn, server.vault_dsn)) as vault:
        _ = vault.hash_key  # makes it, or proves that the master key is the right one
    part_hashes_from_tokens(server.dsn, server.vault_dsn, adapters.folder.ledger / LEDGER)
    with closing(Database(server.dsn, "touchfold start")) as database:
        deployment = ensure_deployment(database, settings)
        if adapters.kafka is None:
            check_log_is_postgres(database)
        else:
            from infra.app.cluster import ensure_kafka_log  # noqa: PLC0415  # Kafka's clients take 0.5 s to import

            ensure_kafka_log(database, adapters.kafka, settings, say)
        _first_revision(database, adapters.clock.now())
    return deployment


def refuse_loss(adapters: Adapters, dsn: str, vault_dsn: str) -> None:
    """Raises DatabaseLost where one of the two databases, or the folder beside them, is of a deployment that is gone.

    The first start makes the main tables, then the vault's with its keys, then writes the deployment down: so a
    deployment without keys, and keys without main tables, can only be losses.
    """
    with closing(Database(dsn, "touchfold start")) as main:
        # in this order: another role may make it all in the meantime
        used = _exists(main, "meta") and _has(main, "select from meta where key = 'deployment'")
        new_vault = vault_is_new(vault_dsn)
        fresh = not _exists(main, "meta")
    if used and new_vault:
        raise DatabaseLost(
            "the vault is lost: its database is missing or empty, but the main database is in use, and personal values "
            "open with the vault's keys alone. Restore the vault's database from a backup made together with the main "
            "one. Nothing was changed"
        )
    if fresh and not new_vault:
        raise DatabaseLost(
            "the main database is lost: it is missing or empty, but the vault beside it is in use. Restore the main "
            "database from a backup made together with the vault. Nothing was changed"
        )
    traces = adapters.folder.traces() if fresh and isinstance(adapters.server, OwnPostgres) else []
    if traces:
        raise DatabaseLost(lost(adapters.folder.path, "TOUCHFOLD_DATABASE is empty", traces))


def _exists(database: Database, table: str) -> bool:
    with database.reading() as cursor:
        cursor.execute("select to_regclass(%s) is not null", (table,))
        row = cursor.fetchone()
    return bool(row and row[0])


def _has(database: Database, query: str) -> bool:
    with database.reading() as cursor:
        cursor.execute(f"select exists ({query})")
        row = cursor.fetchone()
    return bool(row and row[0])


def check_log_is_postgres(database: Database) -> None:
    """Raises SettingsInvalid where this data's log is in Kafka."""
    with database.reading() as cursor:
        cursor.execute("select value ->> 'topic' from meta where key = 'kafka_topic'")
        row = cursor.fetchone()
    if row is not None:
        raise SettingsInvalid(
            f"this data's log is the Kafka topic {row[0]}: set TOUCHFOLD_LOG=kafka and TOUCHFOLD_KAFKA_BOOTSTRAP, or "
            "start a new data folder",
            [Problem("TOUCHFOLD_LOG", "must be kafka")],
        )


def open_vault(settings: Settings, dsn: str, vault_dsn: str) -> PostgresVault:
    """The vault under this deployment's master key; a new key is made for a new vault alone."""
    configured = settings.master_key.get_secret_value() if settings.master_key else None
    key = master_key(settings.data, configured, lambda: vault_is_new(vault_dsn))
    return PostgresVault(vault_dsn, key, erased=ErasedTokens(dsn))


def ensure_deployment(database: Database, settings: Settings) -> Deployment:
    """Write the deployment facts at the first start; later they hold, and a setting that differs is an error."""
    wanted = settings.deployment._asdict()
    with database.transaction() as cursor:
        cursor.execute("insert into meta values ('deployment', %s) on conflict (key) do nothing", (json.dumps(wanted),))
        cursor.execute("select value from meta where key = 'deployment'")
        row = cursor.fetchone()
        assert row is not None, "meta lost the row it just had"
    stored = Deployment(**row[0])
    for name, value in stored._asdict().items():
        if name in settings.model_fields_set and wanted[name] != value:
            raise SettingsInvalid(
                f"{reading.PREFIX}{name.upper()} is {wanted[name]}, but this data was made with {value}, and stored "
                f"answers depend on it: set it back to {value} (or unset it), or start a new data folder"
            )
    return stored


def _first_revision(database: Database, at: datetime) -> None:
    with database.transaction() as cursor:
        cursor.execute("select 1 from revisions limit 1")
        if cursor.fetchone() is not None:
            return
    # The pack is read and checked only once in a data folder's life: 0.2 s that no later start pays.
    from processors.rebuild.builder import segment_hashes  # noqa: PLC0415
    from projections.definitions.files import load_pack, parse_documents  # noqa: PLC0415
    from schemas.definitions import to_json  # noqa: PLC0415

    definitions = parse_documents(load_pack(PACK))
    ensure_first_revision(database, to_json(definitions), definitions.content_hash, at, segment_hashes(definitions))


def ensure_first_revision(
    database: Database,
    definitions_json: bytes | str,
    content_hash: str,
    at: datetime,
    segment_hashes: Mapping[str, str] | None = None,
) -> bool:
    """Insert revision 1, live, with its tables and progress at 0; False when there is a revision already."""
    with database.transaction() as cursor:
        cursor.execute("lock table revisions in share row exclusive mode")
        cursor.execute("select 1 from revisions limit 1")
        if cursor.fetchone() is not None:
            return False
        insert_revision(cursor, 1, "live", "initial", json.loads(definitions_json), content_hash, at)
        for name, content in (segment_hashes or {}).items():
            cursor.execute("insert into segment_versions values (%s, 1, %s)", (name, content))
    return True


# --- sessions ----------------------------------------------------------------------------------------------------


@dataclass
class Session:
    """The services of one command or role. Made by `session`; closes what it opened when that ends."""

    settings: Settings
    adapters: Adapters
    dsn: str
    vault_dsn: str
    url: str | None  # where the running `up` answers, "" for a role without HTTP; None when none runs
    deployment: Deployment
    running: Running | None = None  # the `up` or role that is joined
    _opened: ExitStack = field(default_factory=ExitStack)
    _vault: PostgresVault | None = None
    _shared_log: EventLog | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def joined(self) -> bool:
        """Whether an `up` runs, whose worker folds and decides; else `settle` does it here."""
        return self.url is not None

    @property
    def clock(self) -> Clock:
        """The clock of decisions and of readers."""
        return self.adapters.clock

    @property
    def door_clock(self) -> Clock:
        """The clock of receipts."""
        return self.adapters.door_clock

    @property
    def disk(self) -> Disk:
        return self.adapters.disk

    @property
    def data(self) -> Path:
        return self.adapters.folder.path

    @property
    def archive_folder(self) -> Path:
        return self.adapters.folder.archive

    @property
    def ledger_folder(self) -> Path:
        """Erasures, appended; no restore overwrites it."""
        return self.adapters.folder.ledger

    @property
    def time_zone(self) -> str:
        return self.deployment.time_zone

    @property
    def region(self) -> str:
        return self.deployment.region

    @property
    def currency(self) -> str:
        return self.deployment.currency

    @property
    def unknown_clear(self) -> bool:
        """Whether numbers, booleans and times that nothing names stay in clear."""
        return self.settings.unknown == "clear"

    def log(self) -> EventLog:
        """A log for one thread: PostgreSQL's with a connection of its own; Kafka's is one for all threads."""
        if self.adapters.kafka is None:
            log = PostgresLog(self.dsn)
            self._opened.callback(log.close)
            return log
        with self._lock:
            if self._shared_log is None:
                from infra.app.cluster import open_kafka_log  # noqa: PLC0415  # Kafka's clients take 0.5 s to import

                self._shared_log, close = open_kafka_log(self)
                self._opened.callback(close)
            return self._shared_log

    def vault(self) -> PostgresVault:
        """The session's one vault; any thread. Who makes tokens calls `hold_lease` first."""
        if self._vault is None:
            self._vault = open_vault(self.settings, self.dsn, self.vault_dsn)
            self._opened.callback(self._vault.close)
        return self._vault

    def database(self, name: str, lane: Lane = Lane.READ) -> Database:
        """The main database, given up with the session."""
        database = Database(self.dsn, name, lane)
        self._opened.callback(database.close)
        return database

    def vault_database(self, name: str) -> Database:
        """The same to the vault's."""
        database = Database(self.vault_dsn, name)
        self._opened.callback(database.close)
        return database

    def find_token(self, identifier: str) -> bytes | None:
        """The token of KIND:VALUE, or None. `profile:` takes a profile id. Raises BadRequest."""
        from infra.app.identifiers import token_of  # noqa: PLC0415  # phonenumbers takes 0.1 s to import

        return token_of(identifier, self.region, self.vault())

    def settle(self, progress: Say = quiet) -> "list[Waiting]":
        """Return when all accepted before the call is applied and decided, and no revision is being built.

        Runs the worker here, or waits for the one of the running `up`. Partitions that wait at a record that cannot
        be read yet are not waited for: they are told as progress, and returned.
        """
        from infra.app.drain import settle  # noqa: PLC0415  # the processors take 0.4 s to import

        return settle(self, progress)

    def close(self) -> None:
        self._opened.close()


@contextmanager
def session(data: Path | str | None = None, *, role: str = "cli", say: Say = quiet) -> Iterator[Session]:
    """The services on a data folder: joins its running `up`, else starts PostgreSQL and stops it at the end.

    `data`: else TOUCHFOLD_DATA, else ./touchfold-data. Raises SettingsInvalid, FolderLocked, ServiceFailed,
    SchemaNewer, MasterKeyWrong.
    """
    settings = reading.load(os.environ, data=None if data is None else Path(data))
    arm_failpoint(settings, role)
    adapters = build(settings)
    with room_needed(settings.data):
        running = claim(adapters, LOCK_WAIT_S, say)
    if running is not None:
        with closing(_joined(settings, adapters, running, role)) as joined:
            yield joined
        return
    server = adapters.server
    try:
        with room_needed(settings.data):
            adapters.folder.make()
            server.start(say)
            take_share(role, server.dsn, server.vault_dsn)
            deployment = prepare(settings, adapters, say)
        alone = Session(settings, adapters, server.dsn, server.vault_dsn, None, deployment)
        with closing(alone):
            yield alone
    finally:
        ran = bool(server.pid)
        server.stop()
        if ran:
            seal_wal(settings)


def seal_wal(settings: Settings) -> None:
    """After the server has stopped: no WAL that waits for a backup stays readable in the folder."""
    if (settings.data / "backup" / "following.json").exists():
        from infra.app.backing_up import seal_rest  # noqa: PLC0415  # pyarrow's 60 MB

        try:
            seal_rest(settings)
        except TouchfoldError as err:  # the folder stays whole; it is sealed by who comes next
            _log.warning("WAL for the backup was not sealed: %s", err.message)


@contextmanager
def role_session(data: Path, role: str, *, armed: bool = True) -> Iterator[Session]:
    """The services of a child of `up`: never starts PostgreSQL. Raises StoreUnavailable when no `up` runs."""
    settings = reading.load(os.environ, data=data)
    if armed:
        arm_failpoint(settings, role)
    adapters = build(settings)
    running = adapters.folder.running()
    if running is None:
        raise StoreUnavailable(f"no touchfold up runs on {data}")
    with closing(_joined(settings, adapters, running, role)) as joined:
        yield joined


def _joined(settings: Settings, adapters: Adapters, running: Running, role: str) -> Session:
    take_share(role, running.dsn, running.vault_dsn)
    try:
        with closing(Database(running.dsn, "touchfold session")) as database:
            deployment = ensure_deployment(database, settings)
    except StoreUnavailable:
        adapters.disk.check(WORKER)  # raises the reason, where `up` waits for room to start PostgreSQL
        raise
    return Session(settings, adapters, running.dsn, running.vault_dsn, running.url, deployment, running)


def claim(adapters: Adapters, wait_s: float, say: Say = quiet) -> Running | None:
    """Lock the data folder and return None, or the `up` that has it. Raises FolderLocked after `wait_s`."""
    folder, server = adapters.folder, adapters.server
    folder.make()
    deadline = time.monotonic() + wait_s
    said = False
    while True:
        try:
            server.lock()
        except FolderLocked as err:
            running = folder.running()
            if running is not None:
                return running
            if time.monotonic() > deadline:
                raise
            if not said:
                say(f"waiting: {err.message}")
                said = True
            time.sleep(0.05)
        else:
            folder.clear_running()  # of an `up` that was killed
            folder.close_to_others()
            return None
