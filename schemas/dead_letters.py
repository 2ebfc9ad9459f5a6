"""What is set aside whole: an item or record that cannot become or stay a fact, with where and why."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple


class DeadLetter(NamedTuple):
    """`sealed`: the item's or record's bytes under the key of `seal_key`, bound to `id`; never clear.

    `id` (16 bytes) is a hash of content or position, so that a repeat is one row. Stages: door, import, fold.
    """

    id: bytes
    stage: str
    rule: str  # stable code, such as "no_identifier"
    path: str  # dotted, "" for the whole
    reason: str  # in words, no personal data
    source: str
    received_at: datetime
    event_id: bytes | None
    tokens: Sequence[bytes]
    seal_key: bytes
    sealed: bytes
