"""What the processors work with; put together in `infra.drivers.process.worker_role`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from processors.live.applied import DeadLetterMaker
from projections.fold.state import ORDER_CAP
from schemas.control import Control
from schemas.ports import Clock, EventLog, Sealer
from schemas.record import CURRENT, Reader
from schemas.store import ProjectionStore

BATCH: Final = 5_000  # records of a partition in one FOLD; four partitions make 20,000 when behind


@dataclass(frozen=True)
class Services:
    """Ports and what a deployment was made with. Of one thread: `store` is one connection."""

    log: EventLog
    store: ProjectionStore
    control: Control
    sealer: Sealer
    letter: DeadLetterMaker
    clock: Clock
    time_zone: str
    currency: str
    order_cap: int | None = ORDER_CAP  # entries of a map that a state holds itself
    reader: Reader = CURRENT  # which records this build reads
    check_room: Callable[[], None] = lambda: None  # raises DiskFull where nothing may be written for now
    batch: int = BATCH  # less on a small disk, where a large transaction would take all that is kept free
