"""A dead letter of the door sent through acceptance again, as if its request came now with the clock of then."""

from base64 import b64decode
from datetime import datetime

import msgspec

from ingest.accept.accept import Acceptor
from ingest.accept.calls import STAGE, Accepted, SourceRules
from ingest.accept.canonical import read_item
from schemas.clear_rules import Declared
from schemas.dead_letters import DeadLetter, remedy
from schemas.errors import BadRequest


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
    """One item, accepted or (again) a dead letter. `plain`: the letter's opened bytes.

    An item without a message id gets one made of the letter's id: sent again twice, it still counts once. The caller
    appends and commits before it marks the letter. Raises BadRequest for a letter of another stage.
    """
    if letter.stage != STAGE:
        raise BadRequest(f"sending this dead letter again cannot help; {remedy(letter.stage, letter.rule)}")
    body = msgspec.json.decode(plain, type=_Body)
    item = body.item if body.bytes is None else read_item(b64decode(body.bytes))
    if isinstance(item, dict) and item.get("messageId") in (None, ""):
        item["messageId"] = f"dead-letter-{letter.id.hex()}"
    return acceptor.accept(
        [item],
        SourceRules(letter.source, declared),
        received_at,
        sent_at=body.sent_at,
        historical=body.historical,
        trusted_clock=body.trusted_clock,
        clock_received_at=body.received_at,
    )
