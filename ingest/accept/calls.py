"""The input and the result of accepting: the items of a request, and the outcome of each."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from schemas.clear_rules import NOTHING_DECLARED, Declared
from schemas.dead_letters import DeadLetter
from schemas.placeholders import Blocked
from schemas.record import Pending

ACCEPTED: Final = "accepted"
DEAD_LETTER: Final = "dead_letter"
SUPPRESSED: Final = "suppressed"
OVER_32_KB: Final = "over_32_kb"  # code of an accepted item above Segment's limit
STAGE: Final = "door"


class SourceRules(NamedTuple):
    """What accepting needs to know about a source: its name and what the definitions declare clear."""

    name: str
    declared: Declared = NOTHING_DECLARED


class ItemResult(NamedTuple):
    """The outcome of one item. `id`: the record's id, or the dead letter's if the sender gave no message id.

    `code`: the rule of a dead letter, `over_32_kb`, or "".
    """

    id: str
    status: str  # accepted | dead_letter | suppressed
    code: str


class Accepted(NamedTuple):
    """The outcome of one request. `results` has one entry per item, in order; the rest is for the caller to store."""

    pending: list[Pending]
    results: list[ItemResult]
    dead: list[DeadLetter]
    suppressed: list[bytes]  # event keys
    flagged: list[str]  # the flags of all accepted items, for counters
    blocked: list[Blocked]  # ids that named nobody


class Call(NamedTuple):
    """The items of one request, with what applies to all of them; see `Acceptor.accept`."""

    items: Sequence[object]
    source: SourceRules
    received_at: datetime
    sent_at: datetime | None = None
    defaults: Mapping[str, Any] | None = None
    historical: bool = False
    trusted_clock: bool = False
    clock_received_at: datetime | None = None
    staff: bool = False  # whether staff-only types are accepted
    first_n: int = 0  # place of the first item in what arrived together: the request, the file, the inbox fetch
