"""Sends a dead letter of the door through acceptance again: received now, but with the original clock correction."""

from base64 import b64decode
from datetime import datetime

import msgspec

from ingest.accept.accept import Acceptor
from ingest.accept.calls import STAGE, Accepted, SourceRules
from ingest.accept.canonical import Mended
from ingest.requests.broken_json import read_item
from schemas.clear_rules import Declared
from schemas.dead_letters import DeadLetter, remedy
from schemas.errors import BadRequest
from schemas.placeholders import is_no_id


class _Body(msgspec.Struct):
    received_at: datetime
    item: object = None
    bytes: str | None = None
    sent_at: datetime | None = None
    historical: bool = False
    trusted_clock: bool = False


def accept_again(
    letter: DeadLetter, plain: bytes, acceptor: Acceptor, declared: Declared, received_at: datetime
) -> Accepted:
    """One item, either accepted or a dead letter again. `plain`: the dead letter's opened bytes.

    An item without a message id gets one derived from the dead letter's id, so that two retries still count once. The
    caller appends and commits before it marks the dead letter. Raises BadRequest for a dead letter of another stage.
    """
    if letter.stage != STAGE:
        raise BadRequest(f"retrying this dead letter cannot help; {remedy(letter.stage, letter.rule)}")
    body = msgspec.json.decode(plain, type=_Body)
    item = body.item if body.bytes is None else read_item(b64decode(body.bytes))
    event = item.item if isinstance(item, Mended) else item
    if isinstance(event, dict) and is_no_id(event.get("messageId")):
        event["messageId"] = f"dead-letter-{letter.id.hex()}"
    return acceptor.accept(
        [item],
        SourceRules(letter.source, declared),
        received_at,
        sent_at=body.sent_at,
        historical=body.historical,
        trusted_clock=body.trusted_clock,
        clock_received_at=body.received_at,
    )
