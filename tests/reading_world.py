"""A deployment for tests of the reading side: real databases, vault and worker, but no door and no processes."""

import json
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count
from typing import Any

import msgspec

from infra.adapters.kafka.access import KafkaAccess
from infra.adapters.phones import Phones
from infra.adapters.postgres.control import PostgresControl, insert_revision
from infra.adapters.postgres.database import Database
from infra.adapters.postgres.erased_tokens import ErasedTokens
from infra.adapters.postgres.log import PostgresLog
from infra.adapters.postgres.rebuild import PostgresRebuild
from infra.adapters.postgres.search import PostgresSearch
from infra.adapters.postgres.store import PostgresStore
from infra.adapters.vault.vault import PostgresVault
from infra.app.reading import Reading, make_reading
from processors.live.dead_letters import dead_letter_maker
from processors.live.feeder import LogFeeder
from processors.live.figure_keeper import FigureKeeper
from processors.live.search_index import SearchIndexer
from processors.live.services import Services
from processors.live.worker import Worker
from processors.rebuild.builder import Builder, segment_hashes
from projections.definitions.files import load_pack, parse_documents
from projections.fold.state import ORDER_CAP
from schemas.clear import ref
from schemas.definitions import to_json
from schemas.identifiers import normalise
from schemas.identity_rules import DEFAULT_RULES
from schemas.ports import EventLog
from schemas.record import Identifier, Pending, Record, Sealed, encode, event_key, uuid_text
from tests.conftest import Databases
from tests.records import START

NOW = START + timedelta(days=30)
PHONES = Phones("US")
DEPLOYMENT = {"time_zone": "Europe/Vienna", "region": "US", "currency": "USD"}


@dataclass
class HandClock:
    at: datetime

    def now(self) -> datetime:
        return self.at


@dataclass
class ReadingWorld:
    databases: Databases
    clock: HandClock
    vault: PostgresVault
    services: Services
    feeder: LogFeeder
    reading: Reading
    numbers: Iterator[int] = field(default_factory=count)

    @property
    def worker(self) -> Worker:
        return self.feeder.worker

    def send(
        self,
        ids: Sequence[tuple[str, str]],
        *,
        type_: str = "web.page_viewed",
        at: datetime = NOW - timedelta(days=1),
        received_at: datetime | None = None,
        message_id: str | None = None,
        sealed: dict[str, Any] | None = None,
        properties: dict[str, Any] | None = None,
        traits: dict[str, Any] | None = None,
        source: str = "web",
        n: int = 0,
    ) -> str:
        """Append one event as the door would; returns its id. `sealed`: {"traits": {…}, …}; identifiers by `ref`."""
        normal = [(kind, normalise(kind, value, phone=PHONES) or "") for kind, value in ids]
        tokens = self.vault.tokens(normal)
        ranked = sorted(zip([kind for kind, _ in normal], tokens, strict=True), key=lambda e: DEFAULT_RULES.rank(e[0]))
        message_id = message_id or f"m-{next(self.numbers)}"
        key = event_key(self.vault.hash_key, "web", message_id)
        route = ranked[0][1]
        closed = None
        if sealed is not None:
            data = self.vault.seal(route, json.dumps(sealed).encode(), key)
            names = sorted(f"{part}.{name}" for part, values in sealed.items() for name in values)
            closed = Sealed(route.hex(), names, b64encode(data).decode())
        record = Record(
            v=2 if n else 1,
            id=uuid_text(key),
            message_id=message_id,
            type=type_,
            name=type_,
            source=source,
            ids=[Identifier(kind, token.hex()) for kind, token in ranked],
            route_key=route.hex(),
            occurred_at=at,
            received_at=received_at or at + timedelta(seconds=1),
            known_at=received_at or at + timedelta(seconds=1),
            digest=event_key(self.vault.hash_key, "digest", repr((type_, properties, traits, sealed))).hex(),
            sealed=closed,
            properties=properties or {},
            traits=traits or {},
            n=n,
        )
        self.services.log.append([Pending(route, encode(record))])
        return record.id

    def purchase(self, ids: Sequence[tuple[str, str]], order: str, revenue: str, days_ago: float = 1) -> str:
        properties = {"order_id": order, "revenue": revenue, "currency": "USD"}
        at = NOW - timedelta(days=days_ago)
        return self.send(ids, type_="purchase.completed", at=at, properties=properties)

    def ref(self, kind: str, value: str) -> dict[str, str]:
        """What replaces an identifier's value in `sealed`."""
        return ref(self.vault.tokens([(kind, value)])[0], kind)

    def settle(self) -> None:
        while self.feeder.step():
            pass
        self.services.store.number_feed()

    def settle_without_index(self) -> None:
        """Process everything new, but leave the search index alone."""
        index, self.worker.upkeep.index = self.worker.upkeep.index, None
        self.settle()
        self.worker.upkeep.index = index

    def execute(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        database = Database(self.databases.main)
        try:
            with database.transaction() as cursor:
                cursor.execute(sql, parameters)
                return cursor.fetchall() if cursor.description else []
        finally:
            database.close()


@contextmanager
def reading_world(
    databases: Databases, kafka: KafkaAccess | None = None, *, remote: bool = False, order_cap: int | None = ORDER_CAP
) -> Iterator[ReadingWorld]:
    """The retail pack live, nothing sent yet. `kafka`: where the log is, with existing topics; None: in PostgreSQL.

    `remote`: read as if the log and the tables were in different places.
    """
    definitions = parse_documents(load_pack("retail"))
    database = Database(databases.main)
    with database.transaction() as cursor:
        content = msgspec.json.decode(to_json(definitions))
        insert_revision(cursor, 1, "live", "initial", content, definitions.content_hash, START)
        cursor.execute("insert into meta values ('deployment', %s)", (json.dumps(DEPLOYMENT),))
        cursor.execute("insert into sources (name, created_at) values ('shop', now()), ('web', now())")
        for name, content_hash in segment_hashes(definitions).items():
            cursor.execute("insert into segment_versions values (%s, 1, %s)", (name, content_hash))
    database.close()
    erased = ErasedTokens(databases.main)
    vault = PostgresVault(databases.vault, bytes(32), erased=erased)
    vault.hold_lease()
    clock = HandClock(NOW)
    logs = ExitStack()

    def new_log() -> EventLog:
        if kafka is None:
            return logs.enter_context(closing(PostgresLog(databases.main)))
        from infra.adapters.kafka.log import KafkaLog  # noqa: PLC0415  # 0.1 s that most tests need not pay

        return logs.enter_context(closing(KafkaLog(kafka)))

    log, store, control = new_log(), PostgresStore(databases.main), PostgresControl(databases.main)
    rebuild = PostgresRebuild(databases.main)
    services = Services(
        log=log,
        store=store,
        control=control,
        sealer=vault,
        letter=dead_letter_maker(vault, lambda: vault.daily_token(clock.at.date()), clock),
        clock=clock,
        time_zone=DEPLOYMENT["time_zone"],
        currency=DEPLOYMENT["currency"],
        order_cap=order_cap,
    )
    search = PostgresSearch(databases.main)
    index, figures = SearchIndexer(search, vault, vault, log), FigureKeeper(services)
    worker = Worker(services, Builder(services, rebuild), index, figures)
    reading = make_reading(databases.main, vault, vault, clock, PHONES, new_log, remote=remote or kafka is not None)
    try:
        yield ReadingWorld(databases, clock, vault, services, LogFeeder(worker), reading)
    finally:
        reading.close()
        for each in (store, control, rebuild, search, erased, vault, logs):
            each.close()
