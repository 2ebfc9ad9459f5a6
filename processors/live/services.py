"""What the processors work with; assembled in `infra.app.worker`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from processors.live.applied import DeadLetterMaker
from projections.fold.state import ORDER_CAP
from schemas.control import Control
from schemas.identity_rules import DEFAULT_RULES, IdentityRules
from schemas.ports import Clock, EventLog, Sealer
from schemas.record import CURRENT, Reader
from schemas.store import ProjectionStore

BATCH: Final = 5_000  # records per partition in one FOLD; with four partitions up to 20,000


@dataclass(frozen=True)
class Services:
    """Ports and deployment settings. For one thread: `store` is one connection."""

    log: EventLog
    store: ProjectionStore
    control: Control
    sealer: Sealer
    letter: DeadLetterMaker
    clock: Clock
    time_zone: str
    currency: str
    order_cap: int | None = ORDER_CAP  # most entries of a map inside a state
    rules: IdentityRules = DEFAULT_RULES
    reader: Reader = CURRENT  # which records this build reads
    check_room: Callable[[], None] = lambda: None  # raises DiskFull while nothing may be written
    batch: int = BATCH  # less on a small disk, where a large transaction would use up the reserve
