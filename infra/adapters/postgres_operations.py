"""What operators look at: arriving events, lag, letters, timers, sizes. Small questions to PostgreSQL; any thread."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from infra.adapters.data_folder import DataFolder
from infra.adapters.parquet_archive import ParquetArchive
from infra.adapters.postgres import Database
from infra.adapters.postgres_reads import PerThread
from infra.adapters.processes import Process, processes_of
from infra.adapters.reading_log import ENDS_S, PerThreadLog, TimelyEnds
from schemas.errors import ArchiveDamaged, StoreUnavailable
from schemas.ports import EventLog
from schemas.record import decode

if TYPE_CHECKING:
    from infra.adapters.disk import Disk
    from infra.adapters.vault import PostgresVault

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
    (select revision from live)
"""
_LETTERS: Final = """
select id, stage, rule, path, reason, source, received_at, state from dead_letters
where state = 'open' order by received_at desc limit %s
"""


class Arrived(NamedTuple):
    """An event as it lies in the log, without what is personal."""

    partition: int
    offset: int
    id: str
    message_id: str | None
    source: str
    type: str
    name: str | None
    received_at: datetime
    occurred_at: datetime
    applied: bool  # folded already
    sealed: Sequence[str]
    properties: Mapping[str, Any]
    context: Mapping[str, Any]
    verdict: int = 0  # of the fold, schemas/store.Verdict; 0 too where it is still to come


EXACT_UP_TO: Final = 20_000  # profiles; beyond, PostgreSQL's estimate says it without reading them


class Chosen(Protocol):
    """What was chosen for a deployment."""

    @property
    def kafka(self) -> object | None: ...


class Deployed(Protocol):
    """Where a deployment lies; a session is one."""

    @property
    def adapters(self) -> Chosen: ...
    @property
    def dsn(self) -> str: ...
    @property
    def data(self) -> Path: ...
    @property
    def disk(self) -> "Disk": ...
    def log(self) -> EventLog: ...
    def vault(self) -> "PostgresVault": ...


class Operations:
    """Any thread may call. `ends_s`: how long the ends of a log in Kafka are waited for."""

    def __init__(self, session: Deployed, archive: ParquetArchive, ends_s: float = ENDS_S) -> None:
        self._connections = PerThread(lambda: Database(session.dsn, "touchfold operations"))
        self._rows = self._connections.rows
        self._log = PerThreadLog(session.log)
        self._timely = None if session.adapters.kafka is None else TimelyEnds(session.log, ends_s)
        self._archive = archive
        self._disk = session.disk
        self._vault = session.vault()
        self._folder = DataFolder(session.data)

    def ends(self) -> list[int]:
        """The offset after the last record of each partition. Raises StoreUnavailable, soon where it is Kafka."""
        return self._ends()

    def _ends(self, applied: Sequence[int] = ()) -> list[int]:
        return self._log.ends() if self._timely is None else self._timely.ends(applied)

    def arrived(self, starts: Sequence[int], limit: int = 100) -> list[Arrived]:
        """Events at or after these offsets, about `limit` a partition (the newest), newest receipt first."""
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
                record = decode(value)
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
        """Open dead letters, the newest first."""
        names = ("id", "stage", "rule", "path", "reason", "source", "received_at", "state")
        return [{**dict(zip(names, row, strict=True)), "id": row[0].hex()} for row in self._rows(_LETTERS, (limit,))]

    def refused_since(self, at: datetime) -> dict[str, int]:
        """source -> dead letters since then, whatever became of them."""
        rows = self._rows("select source, count(*) from dead_letters where received_at >= %s group by 1", (at,))
        return {source: int(number) for source, number in rows}

    def processes(self) -> list[Process]:
        """The processes of the running `up`; none where there is none, or where the system has no /proc."""
        owner = self._folder.owner()
        return [] if owner is None else processes_of(owner)

    def state(self, now: datetime) -> dict[str, Any]:
        """{"accepted", "applied", "waiting", "dead_letters", "erased", "watermark_age_s", "building", …}.

        "archived" and "archive_bytes" are None where the archive cannot be read; "archive_trouble" says why.
        """
        row = self._rows(_STATE)[0]
        progress, waiting, dead, erased, watermark_us, building, unindexed, size, live = row
        applied, accepted = sum(progress), sum(self._ends(progress))
        due, profiles = self._of_revision(live)
        archived, archive_bytes, trouble = self._archived()
        return {
            "accepted": max(accepted, applied),
            "applied": applied,
            "waiting": int(waiting),
            "dead_letters": int(dead),
            "erased": int(erased),
            "watermark_age_s": None if not watermark_us else max(0.0, now.timestamp() - watermark_us / 1e6),
            "building": None if building is None else {"revision": int(building[0]), "done": float(building[1])},
            "unindexed": int(unindexed),
            "database_bytes": int(size),
            "revision": live,
            "due": due,
            "profiles": profiles,
            "archived": archived,
            "archive_bytes": archive_bytes,
            "archive_trouble": trouble,
            "disk_free": self._disk.free(),
            "vault_lease": self._vault.has_lease(),
        }

    def _archived(self) -> tuple[int | None, int | None, str | None]:
        """How many records the archive holds, its size, and why neither is known."""
        try:
            return sum(self._archive.next_offsets()), self._archive.size_bytes(), None
        except (ArchiveDamaged, StoreUnavailable) as err:
            return None, None, err.message

    def _of_revision(self, live: int | None) -> tuple[int, int]:
        """(timers due within a day, profiles)."""
        if live is None:
            return 0, 0
        rows = self._rows(
            f"select (select count(*) from profiles_r{int(live)} where due_us <="
            " (extract(epoch from now()) + 86400) * 1000000),"
            f" (select greatest(reltuples, 0)::bigint from pg_class where relname = 'profiles_r{int(live)}')"
        )
        due, estimate = int(rows[0][0]), int(rows[0][1])
        return due, estimate if estimate > EXACT_UP_TO else self.profiles()

    def profiles(self) -> int:
        """How many profiles there are now."""
        live = self._rows("select revision from revisions where state = 'live'")
        return int(self._rows(f"select count(*) from profiles_r{int(live[0][0])}")[0][0]) if live else 0

    def close(self) -> None:
        self._connections.close()
