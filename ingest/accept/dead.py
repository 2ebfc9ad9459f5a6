"""Items that were refused, as dead letters under a seal."""

from collections.abc import Callable, Sequence
from datetime import date
from typing import Final

import msgspec

from ingest.accept.calls import STAGE, Call
from ingest.accept.draft import Draft, bodies_of
from schemas.dead_letters import DeadLetter, dead_letter_id, seal_dead_letter
from schemas.ports import Sealer, Vault
from schemas.record import event_key

_ENCODE: Final = msgspec.json.Encoder().encode


class DeadLetters:
    """Makes the dead letters; one thread at a time. `daily_token(day)`: its key seals those without identifiers."""

    def __init__(self, vault: Vault, sealer: Sealer, daily_token: Callable[[date], bytes]) -> None:
        self._vault = vault
        self._sealer = sealer
        self._daily_token = daily_token

    def of(self, call: Call, draft: Draft, own: Sequence[bytes], message_id: str | None) -> DeadLetter:
        refused = draft.refused
        assert refused is not None, "only a refused draft becomes a dead letter"
        body, stable = bodies_of(draft)
        secret, source = self._vault.hash_key, call.source.name
        id_ = dead_letter_id(secret, STAGE, source, f"{message_id or ''}\0".encode() + stable)
        plain = _ENCODE(
            {
                **body,
                "sent_at": call.sent_at,
                "received_at": call.clock_received_at or call.received_at,
                "historical": call.historical,
                "trusted_clock": call.trusted_clock,
            }
        )
        return seal_dead_letter(
            self._sealer,
            id_,
            STAGE,
            refused.rule,
            refused.path[:200].replace("\0", "\ufffd"),  # a sender's key, and PostgreSQL's text holds no NUL
            refused.reason,
            source,
            call.received_at,
            None if message_id is None else event_key(secret, source, message_id),
            tuple(own),
            own[0] if own else self._daily_token(call.received_at.date()),
            plain,
        )
