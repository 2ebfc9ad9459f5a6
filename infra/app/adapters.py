"""Which adapters the settings select. Opens nothing."""

from dataclasses import dataclass

from infra.adapters.kafka.access import KafkaAccess
from infra.adapters.machine.clock import SystemClock
from infra.adapters.machine.data_folder import DataFolder
from infra.adapters.machine.disk import Disk
from infra.adapters.postgres.embedded import EmbeddedPostgres
from infra.adapters.postgres.own import OwnPostgres
from infra.app.connections import embedded_connections
from infra.app.settings import Settings
from schemas.ports import Clock

Server = EmbeddedPostgres | OwnPostgres


@dataclass(frozen=True)
class Adapters:
    """The selected adapters. `server` is not started."""

    server: Server
    folder: DataFolder
    clock: Clock  # for decisions: shifted in tests
    door_clock: Clock  # for receipts: never shifted
    disk: Disk
    kafka: KafkaAccess | None = None  # where the log is Kafka


def build(settings: Settings) -> Adapters:
    """Select the adapters. Opens nothing."""
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
    """How to reach Kafka; None when the log is in PostgreSQL."""
    if settings.log != "kafka":
        return None
    assert settings.kafka_bootstrap is not None, "the settings require both together"
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
