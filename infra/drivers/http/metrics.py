"""`/metrics` in Prometheus' text format: request counters, lag, dead letters, sizes, erasures, worker heartbeat.

Readable with a token of any role: it names no person. PostgreSQL is queried at most once a second.
"""

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, nullcontext
from datetime import datetime
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from infra.adapters.backup.notes import BackupNotes
from infra.adapters.machine.deadline import Timely
from infra.adapters.machine.meter import BUCKETS, EDGES, Meter, Totals
from infra.adapters.postgres.connection_pool import pool_figures
from infra.adapters.postgres.database import Database
from infra.adapters.postgres.log import PostgresLog
from infra.adapters.postgres.roles import roles, unpublished
from infra.app.lags import oldest_unarchived_s
from infra.app.log import log_of
from infra.drivers.http.asgi import answer
from infra.drivers.http.exposition import CONTENT_TYPE, Labels, Told, counter, families, gauge, histogram, text_of
from schemas.errors import StoreUnavailable, TouchfoldError, Unauthorized
from schemas.waits import Waiting

if TYPE_CHECKING:
    from prometheus_client import Metric

    from infra.adapters.kafka.access import KafkaAccess
    from infra.drivers.http.api.core import Api


FRESH_S: Final = 1.0
DOOR_EDGE: Final = EDGES.index("door")
API_EDGE: Final = EDGES.index("api")
_WAITS: Final = "/api/v1/changes"  # last as long as the client asks; they say nothing about our speed
HELP: Final[Mapping[str, Told]] = {
    "events_accepted_total": counter("Records in the log: accepted and durable"),
    "events_applied_total": counter("Log records folded"),
    "events_decided_total": counter("Log records decided"),
    "events_archived_total": counter("Log records in the archive"),
    "lag_events": gauge("Records accepted but not yet decided"),
    "partition_lag_events": gauge("Records accepted but not yet applied, by partition", ("partition",)),
    "archive_lag_events": gauge("Records accepted but not yet archived; absent: unknown"),
    "archive_lag_seconds": gauge("Age of the oldest record not yet archived; absent: unknown"),
    "inbox_lag_records": gauge("Records of the inbox topic not yet consumed; absent: unknown, or no Kafka"),
    "unpublished_changes": gauge("Changes not yet published to a topic, counted up to 100,000; absent: no Kafka"),
    "unpublished_age_seconds": gauge("Age of the oldest change not yet published; absent: none is waiting"),
    "role_processes": gauge("Live processes of the cluster, by role", ("role",)),
    "role_processes_silent": gauge(
        "Processes that died without signing off and were not restarted, by role", ("role",)
    ),
    "role_heartbeat_age_seconds": gauge(
        "Age of the oldest heartbeat among processes that should be running, by role", ("role",)
    ),
    "watermark_age_seconds": gauge("How far the oldest partition's watermark is behind the clock"),
    "worker_heartbeat_age_seconds": gauge("Time since the worker last contacted PostgreSQL; absent: no worker"),
    "partition_waiting_offset": gauge(
        "Offset of the unreadable record at which a partition is stuck, by partition", ("partition", "reader")
    ),
    "partition_waiting_seconds": gauge("How long the partition has been stuck, by partition", ("partition", "reader")),
    "dead_letters_open": gauge("Open dead letters, by stage", ("stage",)),
    "orders_unmatched": gauge("Orders named by refunds, cancels or updates, which no customer has, or several"),
    "amounts_unreadable": gauge("Orders and refunds with an amount that could not be read, which no total includes"),
    "amounts_missing_rate": gauge("Amounts without an exchange rate, which no total includes", ("currency",)),
    "blocked_identifiers_total": counter("Ids received that name nobody, by kind and rule", ("kind", "rule")),
    "erasures_total": counter("Persons erased"),
    "erased_identifiers": gauge("Identifiers that are suppressed or erased"),
    "changes_total": counter("Numbered transactions of the change feed"),
    "audit_entries_total": counter("Entries of the audit log"),
    "sessions_open": gauge("Sessions of the pages that are not ended"),
    "profiles": gauge("Profiles, as PostgreSQL estimates them"),
    "timers_due": gauge("Profiles whose next decision is due within a day"),
    "search_waiting": gauge("Profiles not yet in the search index"),
    "revision_building_ratio": gauge("Share done of the revision being built; absent: none"),
    "database_backends": gauge("Connections to PostgreSQL in use, by anybody"),
    "database_backends_most": gauge("Most connections PostgreSQL accepts: max_connections"),
    "connections_in_use": gauge("Pool connections of the responding HTTP process in use, by database", ("database",)),
    "connections_most": gauge("Pool size of this process, by database", ("database",)),
    "connections_waiting": gauge("Threads of this process waiting for a connection, by database", ("database",)),
    "connections_refused_total": counter(
        "Times no connection became free within the deadline, by database", ("database",)
    ),
    "database_bytes": gauge("Size of the main database"),
    "archive_bytes": gauge("Size of the archive's Parquet files"),
    "archive_files": gauge("Parquet files in the archive; absent: it cannot be read"),
    "archive_merges_waiting": gauge("Archive files waiting to be merged"),
    "backup_age_seconds": gauge("Time since the newest complete backup was started; absent: none"),
    "backup_wal_age_seconds": gauge("Age of the newest WAL in the backup; absent: none"),
    "backup_oldest_age_seconds": gauge("Age of the oldest backup kept; absent: none"),
    "backup_last_seconds": gauge("How long the newest backup took; absent: none"),
    "backup_last_bytes": gauge("Size of the newest backup; absent: none"),
    "archive_rewrites_waiting": gauge("Archive files whose columns follow older field declarations"),
    "disk_free_ratio": gauge("Free share of the disk; the door refuses events below its reserve, 0.05 of most disks"),
    "vault_lease": gauge("1 when this process holds the vault's lease"),
    "up": gauge("1 when PostgreSQL and the log answer"),
    "door_requests_total": counter("Requests answered by the door"),
    "door_events_total": counter("Events received by the door, by outcome", ("result",)),
    "flagged_events_total": counter("Events accepted with a remark (`flags` of the record)", ("flag",)),
    "refused_requests_total": counter("Requests answered with an error, by edge and status", ("edge", "status")),
    "request_seconds": Told("histogram", "Response time, by edge; long polls for changes excluded", ("edge",)),
}


class Metrics:
    """`handle` is an ASGI application; `timed` wraps another to count its requests."""

    def __init__(self, api: "Api", meter: Meter, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._api = api
        self._meter = meter
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._seen: tuple[float, dict[str, Any]] | None = None
        self._archived: list[int] = []
        self._archive_s = Timely(self._oldest_unarchived_s)
        kafka = api.session.adapters.kafka
        self._inbox = None if kafka is None else Timely(_inbox_lag(kafka))

    # --- counting --------------------------------------------------------------------------------------------------

    def timed_door(self, door: ASGIApp) -> ASGIApp:
        """The door, timed; it counts its refusals itself."""
        observe, clock = self._meter.observe, time.perf_counter

        async def timed(scope: Scope, receive: Receive, send: Send) -> None:
            started = clock()
            try:
                await door(scope, receive, send)
            finally:
                observe(DOOR_EDGE, clock() - started)

        return timed

    def timed_api(self, api: ASGIApp) -> ASGIApp:
        """The API, timed, with its refusals counted."""
        meter, clock = self._meter, time.perf_counter

        async def timed(scope: Scope, receive: Receive, send: Send) -> None:
            started = clock()

            async def counted(message: Message) -> None:
                if message["type"] == "http.response.start" and message["status"] >= 400:
                    meter.refuse(API_EDGE, message["status"])
                await send(message)

            try:
                await api(scope, receive, counted)
            finally:
                if not scope["path"].startswith(_WAITS):
                    meter.observe(API_EDGE, clock() - started)

        return timed

    # --- telling ---------------------------------------------------------------------------------------------------

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a GET of /metrics."""
        del receive
        try:
            await self._check(scope)
            text = await self._api.run(self.text)
        except TouchfoldError as err:
            headers = [(b"www-authenticate", b"Bearer")] if err.status == 401 else []
            if err.retry_after_s is not None:
                headers.append((b"retry-after", str(err.retry_after_s).encode()))
            await answer(send, err.status, json.dumps(err.body()).encode(), b"application/json", *headers)
            return
        await answer(send, 200, text, CONTENT_TYPE.encode())

    async def _check(self, scope: Scope) -> None:
        """Raises Unauthorized, TooMany."""
        given = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
        kind, _, token = given.partition(" ")
        shown = token.strip() if kind.lower() == "bearer" else ""
        if await self._api.known(shown, by_cookie=False, scope=scope) is None:
            raise Unauthorized("send the header Authorization: Bearer TOKEN (`touchfold token create --role service`)")

    def text(self) -> bytes:
        """All metrics as text."""
        return text_of((*families(HELP, self._look()), *_counted(self._meter.totals())))

    def _look(self) -> dict[str, Any]:
        with self._lock:
            if self._seen is None or self._monotonic() - self._seen[0] > FRESH_S:
                self._seen = (self._monotonic(), self._ask())
            return self._seen[1]

    def _ask(self) -> dict[str, Any]:
        operations = self._api.operations
        try:
            state = operations.state(self._api.session.clock.now())
            counts, letters = operations.counts(), operations.open_dead_letters()
        except StoreUnavailable:
            return {"up": 0, **_pools()}
        decided = max(0, state["applied"] - state["waiting"])
        now, waits = self._api.session.clock.now(), operations.waiting()
        return {
            "up": 1,
            "events_accepted_total": state["accepted"],
            "events_applied_total": state["applied"],
            "events_decided_total": decided,
            "events_archived_total": state["archived"],
            "lag_events": state["accepted"] - decided,
            "partition_lag_events": {(str(number),): lag for number, lag in enumerate(state["partition_lags"])},
            **self._archive_lag(state),
            **self._of_cluster(),
            **self._of_backups(),
            "watermark_age_seconds": state["watermark_age_s"],
            "worker_heartbeat_age_seconds": counts.worker_quiet_s,
            "partition_waiting_offset": {_labelled(each): each.wait.offset for each in waits},
            "partition_waiting_seconds": {
                _labelled(each): round(max(0.0, (now - each.since).total_seconds()), 1)
                for each in waits
                if each.since is not None
            },
            "dead_letters_open": {(stage,): count for stage, count in letters.items()} or 0,
            "orders_unmatched": state["unmatched"],
            "amounts_unreadable": state["unreadable_amounts"],
            "amounts_missing_rate": {(currency,): n for currency, n in state["missing_rates"].items()} or None,
            "blocked_identifiers_total": operations.blocked_identifiers(),
            "erasures_total": counts.erasures,
            "erased_identifiers": state["erased"],
            "changes_total": counts.changes,
            "audit_entries_total": counts.audit_entries,
            "sessions_open": counts.sessions,
            "profiles": state["profiles"],
            "timers_due": state["due"],
            "search_waiting": state["unindexed"],
            "revision_building_ratio": state["building"]["done"] if state["building"] else None,
            "database_backends": counts.backends,
            "database_backends_most": counts.most_backends,
            **_pools(),
            "database_bytes": state["database_bytes"],
            "archive_bytes": state["archive_bytes"],
            "archive_files": state["archive_files"],
            "archive_merges_waiting": state["archive_merging"],
            "archive_rewrites_waiting": state["archive_rewriting"],
            "disk_free_ratio": state["disk_free"],
            "vault_lease": int(state["vault_lease"]),
        }

    def _archive_lag(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Absent if the archive or the log does not answer."""
        if state["archived"] is None:
            return {}
        self._archived = state["archived_offsets"]
        events = max(0, state["accepted"] - state["archived"])
        return {"archive_lag_events": events, "archive_lag_seconds": self._archive_s.get() if events else 0.0}

    def _oldest_unarchived_s(self) -> float:
        with (
            closing(PostgresLog(self._api.session.dsn))
            if self._inbox is None
            else nullcontext(log_of(self._api.session)) as log
        ):
            return round(oldest_unarchived_s(log, self._archived, self._api.session.door_clock.now()), 1)

    def _of_backups(self) -> dict[str, Any]:
        """Backups of the server in the data folder; ages by the real clock."""
        if self._api.session.settings.database is not None:
            return {}
        with closing(Database(self._api.session.vault_dsn, "touchfold metrics")) as database:
            notes = BackupNotes(database).read()
        now = self._api.session.door_clock.now()

        def age(times: Iterable[datetime | None], pick: Callable[[list[datetime]], datetime]) -> float | None:
            known = [each for each in times if each is not None]
            return round(max(0.0, (now - pick(known)).total_seconds()), 1) if known else None

        return {
            "backup_age_seconds": age((note.last_at for note in notes), max),
            "backup_wal_age_seconds": age((note.until_at for note in notes), max),
            "backup_oldest_age_seconds": age((note.oldest_at for note in notes), min),
            "backup_last_seconds": notes[0].took_s if notes else None,
            "backup_last_bytes": notes[0].bytes if notes else None,
        }

    def _of_cluster(self) -> dict[str, Any]:
        """The roles on all machines. The newest heartbeat alone would hide dead processes."""
        if self._inbox is None:
            return {}
        with closing(Database(self._api.session.dsn, "touchfold metrics")) as database:
            found, waiting = roles(database), unpublished(database)
        ages = {(role,): each.oldest_s for role, each in found.items() if each.oldest_s is not None}
        return {
            "inbox_lag_records": self._inbox.get(),
            "unpublished_changes": waiting.changes,
            "unpublished_age_seconds": waiting.oldest_s,
            "role_processes": {(role,): each.alive for role, each in found.items()},
            "role_processes_silent": {(role,): each.silent for role, each in found.items()},
            "role_heartbeat_age_seconds": {label: round(age, 1) for label, age in ages.items()},
        }


def _inbox_lag(access: "KafkaAccess") -> Callable[[], int]:
    from infra.adapters.kafka.inbox_lag import InboxLag  # noqa: PLC0415  # of a cluster alone

    return InboxLag(access)


def _pools() -> dict[str, Any]:
    """The pools of this process; reported even if PostgreSQL does not answer."""
    pools = pool_figures()
    told = {
        "connections_in_use": [each.in_use for each in pools],
        "connections_most": [each.size for each in pools],
        "connections_waiting": [each.waiting for each in pools],
        "connections_refused_total": [each.refused for each in pools],
    }
    return {
        name: {(pool.database,): value for pool, value in zip(pools, values, strict=True)}
        for name, values in told.items()
    }


def _labelled(each: Waiting) -> tuple[str, str]:
    return str(each.wait.partition), each.reader


def _counted(totals: Totals) -> Iterator["Metric"]:
    yield from families(
        HELP,
        {
            "door_requests_total": totals.door["requests"],
            "door_events_total": {(each,): totals.door[each] for each in ("accepted", "dead_letters", "suppressed")},
            "flagged_events_total": {(flag,): count for flag, count in totals.flagged.items()},
            "refused_requests_total": {(edge, str(status)): count for (edge, status), count in totals.refused.items()},
        },
    )
    bounds = (*map(str, BUCKETS), "+Inf")
    taken: dict[Labels, tuple[dict[str, int], float]] = {
        (edge,): (dict(zip(bounds, accumulate(latency.counts), strict=True)), latency.seconds)
        for edge, latency in totals.latency.items()
    }
    yield histogram("request_seconds", HELP["request_seconds"], taken)
