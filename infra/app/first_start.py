"""Brings databases up to this build, at the first start of a deployment and every later one."""

import json
from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import datetime
from typing import Final

from infra.adapters.ledger.copies import bring_ledger
from infra.adapters.ledger.erasures import LEDGER
from infra.adapters.postgres.control import PostgresControl
from infra.adapters.postgres.database import Database
from infra.adapters.postgres.deployment import (
    has_revision,
    insert_first_revision,
    is_folded_by,
    is_made,
    is_used,
    kafka_topic,
    layout_lock,
    note_once,
)
from infra.adapters.postgres.embedded import lost
from infra.adapters.postgres.erasure_upgrade import part_hashes_from_tokens
from infra.adapters.postgres.identity_rules import set_login_limit
from infra.adapters.postgres.migrate import migrate
from infra.adapters.postgres.own import OwnPostgres
from infra.adapters.postgres.record_gate import start_floor
from infra.adapters.vault.proof import vault_is_new
from infra.app import settings as reading
from infra.app.adapters import Adapters
from infra.app.forms import bring_rows
from infra.app.settings import Settings
from infra.app.vault import open_vault
from schemas.control import LAYOUT_VERSION, Layout
from schemas.errors import DatabaseLost, Problem, SettingsInvalid
from schemas.ports import Clock
from schemas.reads import Deployment
from schemas.record import VERSION

PACK: Final = "retail"
Say = Callable[[str], None]


def quiet(_line: str) -> None:
    """Progress output that is discarded."""


def prepare(settings: Settings, adapters: Adapters, say: Say = quiet) -> Deployment:
    """Bring a started server up to this build: migrations, master key, deployment facts, the log, first revision.

    Any number of roles may do it at the same time. Raises DatabaseLost, SchemaNewer, MasterKeyWrong, SettingsInvalid
    (a deployment fact was changed), ServiceFailed (the brokers' topics are not safe).
    """
    server = adapters.server
    if settings.ledger is not None:
        bring_ledger(settings.data / "ledger", settings.ledger)
    refuse_loss(adapters, server.dsn, server.vault_dsn)
    migrate(server.dsn, "main")
    migrate(server.vault_dsn, "vault")
    with closing(open_vault(settings, server.dsn, server.vault_dsn)) as vault:
        _ = vault.hash_key  # creates it, or proves that the master key is right
    part_hashes_from_tokens(server.dsn, server.vault_dsn, adapters.folder.ledger / LEDGER)
    with closing(Database(server.dsn, "touchfold start")) as database:
        deployment = ensure_deployment(database, settings)
        if "login_limit" in settings.model_fields_set and set_login_limit(database, settings.login_limit):
            say(f"logins and cards are shared above {settings.login_limit} addresses now: deciding them again")
        if adapters.kafka is None:
            check_log_is_postgres(database)
        else:
            from infra.app.cluster import ensure_kafka_log  # noqa: PLC0415  # importing Kafka's clients takes 0.5 s

            ensure_kafka_log(database, adapters.kafka, settings, say)
        if adapters.kafka is None or not has_revision(database):
            start_floor(database, VERSION)
        _first_revision(database, adapters.clock.now())
        fold_older_states(database, adapters.clock, say)
    with closing(open_vault(settings, server.dsn, server.vault_dsn)) as vault:
        bring_rows(vault, server.dsn, server.vault_dsn, deployment.region)
    return deployment


def refuse_loss(adapters: Adapters, dsn: str, vault_dsn: str) -> None:
    """Raises DatabaseLost if a database is missing although the other, or the folder, shows a deployment in use.

    The first start creates the main tables, then the vault's with its keys, then writes down the deployment facts. So a
    deployment without keys, or keys without main tables, can only mean a loss.
    """
    with closing(Database(dsn, "touchfold start")) as main:
        # in this order: another role may be creating all of it in the meantime
        used = is_made(main) and is_used(main)
        new_vault = vault_is_new(vault_dsn)
        fresh = not is_made(main)
    if used and new_vault:
        raise DatabaseLost(
            "the vault is lost: its database is missing or empty, but the main database is in use, and only the "
            "vault's keys can open personal values. Restore the vault's database from a backup made together with the "
            "main one. Nothing was changed"
        )
    if fresh and not new_vault:
        raise DatabaseLost(
            "the main database is lost: it is missing or empty, but the vault beside it is in use. Restore the main "
            "database from a backup made together with the vault. Nothing was changed"
        )
    traces = adapters.folder.traces() if fresh and isinstance(adapters.server, OwnPostgres) else []
    if traces:
        raise DatabaseLost(lost(adapters.folder.path, "TOUCHFOLD_DATABASE is empty", traces))


def check_log_is_postgres(database: Database) -> None:
    """Raises SettingsInvalid if this data's log is in Kafka."""
    topic = kafka_topic(database)
    if topic is not None:
        raise SettingsInvalid(
            f"this data's log is the Kafka topic {topic}: set TOUCHFOLD_LOG=kafka and TOUCHFOLD_KAFKA_BOOTSTRAP, or "
            "start with a new data folder",
            [Problem("TOUCHFOLD_LOG", "must be kafka")],
        )


def ensure_deployment(database: Database, settings: Settings) -> Deployment:
    """Write down the deployment facts at the first start; from then on a setting that differs is an error."""
    wanted = settings.deployment._asdict()
    stored = Deployment(**note_once(database, wanted))
    for name, value in stored._asdict().items():
        if name in settings.model_fields_set and wanted[name] != value:
            raise SettingsInvalid(
                f"{reading.PREFIX}{name.upper()} is {wanted[name]}, but this data was created with {value}, and stored "
                f"results depend on it: set it back to {value} (or unset it), or start with a new data folder"
            )
    return stored


def _first_revision(database: Database, at: datetime) -> None:
    if has_revision(database):
        return
    # The pack is read and checked only once in a data folder's life: 0.2 s that no later start pays.
    from processors.rebuild.builder import segment_hashes  # noqa: PLC0415
    from projections.definitions.files import load_pack, parse_documents  # noqa: PLC0415
    from schemas.definitions import to_json  # noqa: PLC0415

    definitions = parse_documents(load_pack(PACK))
    ensure_first_revision(database, to_json(definitions), definitions.content_hash, at, segment_hashes(definitions))


def fold_older_states(database: Database, clock: Clock, say: Say = quiet) -> None:
    """If an earlier build folded the live states, this build's layout may give others: begin a rebuild.

    It is built beside the live revision like any other, by any worker; begun only once, whatever becomes of it.
    """
    if is_folded_by(database, LAYOUT_VERSION):
        return
    with closing(PostgresControl(database.dsn)) as control, layout_lock(database):
        if control.layout().version >= LAYOUT_VERSION:
            return
        live = control.live().revision
        empty = all(each.next_offset == 0 for each in control.progress(live))
        since = live if empty else _begin_rebuild(control, clock.now())
        control.note_layout(Layout(LAYOUT_VERSION, since))
    if not empty:
        say(f"an earlier build folded this data: revision {since} folds the log again in the background")


def _begin_rebuild(control: PostgresControl, at: datetime) -> int:
    from processors.rebuild.definitions import start_rebuild  # noqa: PLC0415  # 0.2 s that no later start pays

    return start_rebuild(control, at)


def ensure_first_revision(
    database: Database,
    definitions_json: bytes | str,
    content_hash: str,
    at: datetime,
    segment_hashes: Mapping[str, str] | None = None,
) -> bool:
    """Insert revision 1, live, with its tables and progress at 0; False if there already is a revision."""
    parsed = json.loads(definitions_json)
    return insert_first_revision(database, parsed, content_hash, at, segment_hashes or {})
