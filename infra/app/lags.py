"""How far behind each role is, and which are missing: for `/metrics` and the doctor. Unknown values are None."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from datetime import datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from infra.adapters.postgres.applied import applied_offsets
from infra.adapters.postgres.database import Database
from infra.adapters.postgres.deployment import archived_offsets
from infra.adapters.postgres.roles import Role, Unpublished, roles, unpublished
from infra.app.checks import Finding
from infra.app.log import log_of
from schemas.ports import EventLog
from schemas.record import received_us, to_us

if TYPE_CHECKING:
    from infra.app.session import Session

ARCHIVE_LATE_S: Final = 300.0  # a file is normally written within a minute
PUBLISH_LATE_S: Final = 30.0  # a few always wait for a moment


class Lags(NamedTuple):
    """`inbox`: records; `archive_s`: age of the oldest record not in any file; `folded`: accepted, not applied."""

    roles: Mapping[str, Role]
    unpublished: Unpublished
    inbox: int | None
    archive_s: float | None
    folded: int | None


def oldest_unarchived_s(log: EventLog, archived: Sequence[int], now: datetime) -> float:
    """Age of the oldest record not in any file; 0 if there is none. Raises StoreUnavailable."""
    ages = [0.0]
    for partition in range(log.partitions):
        found = log.read(partition, archived[partition] if partition < len(archived) else 0, 1)
        received = received_us(found[0].value) if found else None
        if received is not None:
            ages.append((to_us(now) - received) / 1e6)
    return max(ages)


def lags_of(here: "Session", database: Database) -> Lags:
    """For a cluster, from a command: each question may take as long as it needs. Raises StoreUnavailable."""
    from infra.adapters.archive.reading_log import Tails, accepted_ends  # noqa: PLC0415
    from infra.adapters.kafka.inbox_lag import InboxLag  # noqa: PLC0415  # clusters only
    from infra.app.archive import archive_of  # noqa: PLC0415  # pyarrow's 60 MB

    assert here.adapters.kafka is not None, "clusters only"
    log = log_of(here)
    applied = applied_offsets(database)
    ends = Tails(log).cut(accepted_ends(log), applied)
    archived = archive_of(here).next_offsets() or [at for _, at in archived_offsets(database)]
    with closing(InboxLag(here.adapters.kafka)) as inbox:
        waiting = inbox()
    return Lags(
        roles(database),
        unpublished(database),
        waiting,
        oldest_unarchived_s(log, archived, here.door_clock.now()),
        max(0, sum(ends) - sum(applied)),
    )


def missing(lags: Lags) -> Iterator[Finding]:
    """A finding for each role that has work waiting but no process. A missing `serve` is fine: nothing waits for it."""
    alive = {name: each.alive for name, each in lags.roles.items()}
    wants = (
        ("inbox", "ingest", bool(lags.inbox), f"{lags.inbox or 0:,} records of the inbox topic are waiting"),
        ("worker", "worker", bool(lags.folded) or any(alive.values()), f"{lags.folded or 0:,} events are waiting"),
        (
            *("archive", "archive", (lags.archive_s or 0) > ARCHIVE_LATE_S),
            f"the oldest event not in any file is {lags.archive_s or 0:,.0f} s old",
        ),
        (
            *("publish", "publish", (lags.unpublished.oldest_s or 0) > PUBLISH_LATE_S),
            f"{lags.unpublished.changes:,} changes are waiting to be published",
        ),
    )
    for role, command, wanted, what in wants:
        if wanted and not alive.get(role):
            fix = f"start touchfold {command} on a machine, and read its log if it ends"
            yield Finding(f"role {role}", False, f"{what}, but no {role} process is running", fix)
    silent = {name: each.silent for name, each in lags.roles.items() if each.silent}
    told = ", ".join(f"{count} {name}" for name, count in alive.items() if count) or "none is running"
    if silent:
        names = ", ".join(f"{count} {name}" for name, count in silent.items())
        fix = "read the log of the machine it ran on; a process that is not restarted is forgotten after a day"
        yield Finding("roles", False, f"{told}; ended without notice and not restarted: {names}", fix)
    else:
        yield Finding("roles", True, told)
