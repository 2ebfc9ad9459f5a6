"""The operators' view: arriving events, lag, dead letters, timers, sizes. Small PostgreSQL queries; any thread."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from infra.adapters.archive.reading_log import PerThreadLog, TimelyEnds
from infra.adapters.archive.store import ParquetArchive, next_offsets_of
from infra.adapters.machine.data_folder import DataFolder
from infra.adapters.machine.processes import Process, processes_of
from infra.adapters.postgres.control import WAITING
from infra.adapters.postgres.database import Database
from infra.adapters.postgres.figures import amounts_left_out
from infra.adapters.postgres.statements import PerThread
from schemas.errors import ArchiveDamaged, StoreUnavailable, TouchfoldError
from schemas.merge_plan import waiting as waiting_files
from schemas.ports import EventLog
from schemas.record import decode, from_us, received_us, to_us
from schemas.store_rows import Verdict
from schemas.waits import Wait, Waiting, open_transaction

if TYPE_CHECKING:
    from infra.adapters.machine.disk import Disk
    from infra.adapters.vault.vault import PostgresVault

_STATE: Final = """
with live as (select revision from revisions where state = 'live')
select (select coalesce(array_agg(next_offset order by partition), '{}') from progress
        where revision = (select revision from live)),
    (select coalesce(sum(cardinality(signatures)), 0) from marks where revision = (select revision from live)),
    (select count(*) from dead_letters where state = 'open'),
    (select count(*) from erased_tokens),
    (select min(watermark_us) from progress where revision = (select revision from live)),
    (select array[revision::text, done::text] from revisions where state = 'building' order by revision limit 1),
    (select count(*) from search_due),
    pg_database_size(current_database()),
    (select revision from live),
    (select count(*) from order_sets where not matched)
"""
_COUNTS: Final = """
select (select count(*) from jobs where kind = 'erase' and finished_at is not null),
    (select coalesce(max(seq), 0) from audit_log),
    (select coalesce(max(seq), 0) from feed_batches),
    (select count(*) from sessions where ended_at is null and expires_at > now()),
    (select extract(epoch from clock_timestamp() - max(state_change)) from pg_stat_activity
        where datname = current_database() and application_name = 'touchfold worker'),
    (select count(*) from pg_stat_activity where backend_type = 'client backend'),
    current_setting('max_connections')::integer
"""
_BY_STAGE: Final = "select stage, count(*) from dead_letters where state = 'open' group by stage order by stage"
_BLOCKED: Final = "select kind, rule, sum(events) from blocked_identifiers group by kind, rule order by kind, rule"
_LETTERS: Final = """
select id, stage, rule, path, reason, source, received_at, state from dead_letters
where state = 'open' order by received_at desc limit %s
"""


class Arrived(NamedTuple):
    """An event as stored in the log, without personal data."""

    partition: int
    offset: int
    id: str
    message_id: str | None
    source: str
    type: str
    name: str | None
    received_at: datetime
    occurred_at: datetime
    applied: bool  # already folded
    sealed: Sequence[str]
    properties: Mapping[str, Any]
    context: Mapping[str, Any]
    verdict: int = 0  # of the fold, schemas/store.Verdict; also 0 if still to come


def _unread(partition: int, offset: int, value: bytes, err: TouchfoldError, *, applied: bool) -> Arrived:
    """A record that cannot be read, or not yet: its code is shown as its type."""
    at = from_us(received_us(value) or 0)
    verdict = Verdict.QUARANTINED if applied else Verdict.APPLIED
    return Arrived(partition, offset, "", None, "", err.code, None, at, at, applied, (), {}, {}, verdict)


DAY_US: Final = 86_400_000_000
EXACT_UP_TO: Final = 20_000  # profiles; above that, PostgreSQL's estimate is used, which reads none of them


class Counts(NamedTuple):
    """Counts from PostgreSQL other than projections. `worker_quiet_s`: since the worker's last query; None: never."""

    erasures: int
    audit_entries: int
    changes: int
    sessions: int
    worker_quiet_s: float | None
    backends: int
    most_backends: int


class Operations:
    """Any thread may call. `ends`: for a log that may be slow to answer; else `open_log`'s are used."""

    def __init__(
        self,
        dsn: str,
        folder: DataFolder,
        disk: "Disk",
        vault: "PostgresVault",
        archive: ParquetArchive,
        open_log: Callable[[], EventLog],
        ends: TimelyEnds | None = None,
    ) -> None:
        self._connections = PerThread(lambda: Database(dsn, "touchfold operations"))
        self._rows = self._connections.rows
        self._log = PerThreadLog(open_log)
        self._timely = ends
        self._archive = archive
        self._disk = disk
        self._vault = vault
        self._folder = folder

    def ends(self) -> list[int]:
        """The offset after the last record of each partition. Raises StoreUnavailable, quickly if the log is Kafka."""
        return self._ends()

    def _ends(self, applied: Sequence[int] = ()) -> list[int]:
        return self._log.ends() if self._timely is None else self._timely.ends(applied)

    def arrived(self, starts: Sequence[int], limit: int = 100) -> list[Arrived]:
        """Events at or after these offsets, about `limit` per partition (the newest), newest receipt first."""
        folded = self._rows(
            "select next_offset from progress where revision = (select revision from revisions where state = 'live')"
            " order by partition"
        )
        found: list[Arrived] = []
        for partition, (asked, end) in enumerate(zip(starts, self._ends(), strict=False)):
            start = max(asked, end - limit)
            if start >= end:
                continue
            applied = int(folded[partition][0]) if partition < len(folded) else 0
            verdicts: dict[int, int] = dict(
                self._rows(
                    'select "offset", verdict from not_applied where partition = %s and "offset" >= %s',
                    (partition, start),
                )
            )
            for _, offset, value in self._log.read(partition, start, limit):
                try:
                    record = decode(value)
                except TouchfoldError as err:
                    found.append(_unread(partition, offset, value, err, applied=offset < applied))
                    continue
                found.append(
                    Arrived(
                        *(partition, offset, record.id, record.message_id, record.source, record.type, record.name),
                        *(record.received_at, record.occurred_at, offset < applied),
                        record.sealed.names if record.sealed else (),
                        record.properties,
                        record.context,
                        int(verdicts.get(offset, 0)),
                    )
                )
        return sorted(found, key=lambda each: each.received_at, reverse=True)

    def letters(self, limit: int = 50) -> list[dict[str, Any]]:
        """Open dead letters, newest first."""
        names = ("id", "stage", "rule", "path", "reason", "source", "received_at", "state")
        return [{**dict(zip(names, row, strict=True)), "id": row[0].hex()} for row in self._rows(_LETTERS, (limit,))]

    def refused_since(self, at: datetime) -> dict[str, int]:
        """source -> dead letters since then, whatever became of them."""
        rows = self._rows("select source, count(*) from dead_letters where received_at >= %s group by 1", (at,))
        return {source: int(number) for source, number in rows}

    def processes(self) -> list[Process]:
        """The processes of the running `up`; none if none is running or the system has no /proc."""
        owner = self._folder.owner()
        return [] if owner is None else processes_of(owner)

    def state(self, now: datetime) -> dict[str, Any]:
        """{"accepted", "applied", "waiting", "dead_letters", "erased", "watermark_age_s", "building", …}.

        "archived" and "archive_…" are None if the archive cannot be read; "archive_trouble" says why, or names its
        damaged file.
        """
        row = self._rows(_STATE)[0]
        progress, waiting, dead, erased, watermark_us, building, unindexed, size, live, unmatched = row
        ends = self._ends(progress)
        applied, accepted = sum(progress), sum(ends)
        due, profiles = self._of_revision(live, now)
        archive = self._archived()
        unreadable, unrated = (0, {}) if live is None else amounts_left_out(self._rows, live)
        return {
            "accepted": max(accepted, applied),
            "applied": applied,
            "partition_lags": [max(0, end - at) for end, at in zip_longest(ends, progress, fillvalue=0)],
            "waiting": int(waiting),
            "dead_letters": int(dead),
            "unmatched": int(unmatched),
            "erased": int(erased),
            "watermark_age_s": None if not watermark_us else max(0.0, now.timestamp() - watermark_us / 1e6),
            "building": None if building is None else {"revision": int(building[0]), "done": float(building[1])},
            "unindexed": int(unindexed),
            "database_bytes": int(size),
            "revision": live,
            "due": due,
            "profiles": profiles,
            "unreadable_amounts": unreadable,
            "missing_rates": unrated,
            **archive,
            "disk_free": self._disk.free(),
            "vault_lease": self._vault.has_lease(),
            "partitions_waiting": [each.answer() for each in self.waiting()],
        }

    def waiting(self) -> list[Waiting]:
        """Partitions blocked by a record that cannot be read yet or, when last checked, by another producer."""
        waits = [Waiting(reader, Wait(*wait), since) for reader, since, *wait in self._rows(WAITING)]
        held = {} if self._timely is None else self._timely.held
        return waits + [open_transaction(partition, *place) for partition, place in sorted(held.items())]

    def counts(self) -> Counts:
        """One statement."""
        erasures, entries, feed, sessions, quiet_s, backends, most = self._rows(_COUNTS)[0]
        quiet = None if quiet_s is None else max(0.0, float(quiet_s))
        return Counts(int(erasures), int(entries), int(feed), int(sessions), quiet, int(backends), int(most))

    def open_dead_letters(self) -> dict[str, int]:
        """By stage."""
        return {stage: int(count) for stage, count in self._rows(_BY_STAGE)}

    def blocked_identifiers(self) -> dict[tuple[str, str], int]:
        """Ids that named nobody, by kind and rule."""
        return {(kind, rule): int(count) for kind, rule, count in self._rows(_BLOCKED)}

    def _archived(self) -> dict[str, Any]:
        """Records, bytes and files of the archive, how many files are waiting for a merge, and what is wrong."""
        found: dict[str, Any] = dict.fromkeys(
            ("archived", "archived_offsets", "archive_bytes", "archive_files", "archive_merging", "archive_rewriting")
        )
        try:
            entries = self._archive.files()
        except (ArchiveDamaged, StoreUnavailable) as err:
            return {**found, "archive_trouble": err.message}
        proofs = self._archive.proofs()
        clear = (self._rows("select hash from clear_rules order by since desc limit 1") or [("",)])[0][0]
        damaged = proofs.problems() if proofs is not None else []
        return {
            "archived": sum(next_offsets_of(entries)),
            "archived_offsets": next_offsets_of(entries),
            "archive_bytes": sum(entry.bytes for entry in entries),
            "archive_files": len(entries),
            "archive_merging": waiting_files(entries),
            "archive_rewriting": sum(entry.clear != clear for entry in entries) if clear else 0,
            "archive_trouble": damaged[0].reason if damaged else None,
        }

    def _of_revision(self, live: int | None, now: datetime) -> tuple[int, int]:
        """(timers due within a day, profiles)."""
        if live is None:
            return 0, 0
        rows = self._rows(
            f"select (select count(*) from profiles_r{int(live)} where due_us <= %s),"
            f" (select greatest(reltuples, 0)::bigint from pg_class where relname = 'profiles_r{int(live)}')",
            (to_us(now) + DAY_US,),
        )
        due, estimate = int(rows[0][0]), int(rows[0][1])
        return due, estimate if estimate > EXACT_UP_TO else self.profiles()

    def profiles(self) -> int:
        """The current number of profiles."""
        live = self._rows("select revision from revisions where state = 'live'")
        return int(self._rows(f"select count(*) from profiles_r{int(live[0][0])}")[0][0]) if live else 0

    def close(self) -> None:
        self._connections.close()
