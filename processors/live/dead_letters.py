"""Dead letters of records already in the log: the record's own bytes, sealed under the day's key."""

from collections.abc import Callable
from hashlib import blake2b

from processors.live.applied import Applied
from schemas.dead_letters import FOLD, DeadLetter
from schemas.ports import Clock, Sealer
from schemas.record import Stored, from_us


def dead_letter_key(partition: int, offset: int) -> bytes:
    """The id of the fold's dead letter of a record."""
    return blake2b(f"{partition}:{offset}".encode(), digest_size=16, person=b"tf-dead-letter").digest()


def dead_letter_maker(
    sealer: Sealer, daily_token: Callable[[], bytes], clock: Clock
) -> Callable[[Stored, str, str, Applied | None], DeadLetter]:
    """Makes the fold's dead letters. The id is a hash of the position, so repeating the batch adds no row."""

    def make(record: Stored, rule: str, reason: str, decoded: Applied | None) -> DeadLetter:
        key = dead_letter_key(record.partition, record.offset)
        token = daily_token()
        return DeadLetter(
            id=key,
            stage=FOLD,
            rule=rule,
            path="",
            reason=reason,
            source="" if decoded is None else decoded.event.source,
            received_at=clock.now() if decoded is None else from_us(decoded.received_us),
            event_id=None if decoded is None else decoded.key,
            tokens=() if decoded is None else tuple(token for _, token in decoded.tokens),
            seal_key=token,
            sealed=sealer.seal(token, record.value, key),
        )

    return make
