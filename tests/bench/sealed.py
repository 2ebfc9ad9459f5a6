"""`python -m tests.bench.sealed`: CPU cost of a decision on a sealed field, compared with a clear one."""

import json
import os
import time
from base64 import b64encode
from binascii import a2b_base64
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from infra.adapters.vault.sealing import open_sealed
from projections.definitions.files import parse_documents
from projections.fold.fold import compile_fold
from schemas.record import Identifier, Record, Sealed, encode

EVENTS: Final = 20_000
PEOPLE: Final = 500
_AT: Final = datetime(2026, 1, 1, tzinfo=UTC)
_DEFINITIONS: Final = """
computed_traits:
  far: {aggregate: count, events: [Clicked], where: {property: x, op: gte, value: 400}}
  down: {aggregate: sum, of: y, events: [Clicked]}
"""


def records(keys: Sequence[AESGCM], *, sealed: bool) -> list[bytes]:
    """Events with four properties, two of which are used by definitions."""
    made = []
    for number in range(EVENTS):
        token, id_ = f"{number % PEOPLE:032x}", UUID(int=number + 1)
        properties = {"x": number % 900, "y": number % 700, "label": "Buy", "visible": True}
        part = None
        if sealed:
            nonce = os.urandom(12)
            plain = json.dumps({"properties": properties}).encode()
            data = nonce + keys[number % PEOPLE].encrypt(nonce, plain, id_.bytes)
            part = Sealed(token, [f"properties.{name}" for name in sorted(properties)], b64encode(data).decode())
        record = Record(
            v=1, id=str(id_), type="custom", name="Clicked", source="web", ids=[Identifier("user_id", token)],
            route_key=token, occurred_at=_AT, received_at=_AT, known_at=_AT, digest="00" * 16,
            properties={} if sealed else properties, sealed=part,
        )  # fmt: skip
        made.append(encode(record))
    return made


def cost_us(*, sealed: bool) -> float:
    """CPU microseconds of decoding, opening and folding one event; the best of five rounds."""
    keys = [AESGCM(os.urandom(32)) for _ in range(PEOPLE)]
    fold = compile_fold(parse_documents([("bench.yaml", _DEFINITIONS)]), time_zone="UTC", currency="USD")
    values = records(keys, sealed=sealed)
    best = float("inf")
    for _ in range(5):
        states = [fold.new_state() for _ in range(PEOPLE)]
        begun = time.process_time()
        for number, value in enumerate(values):
            event, opened = fold.decode(value), None
            if fold.needs_sealed(event) and event.sealed is not None:
                data = a2b_base64(event.sealed.data)
                opened = msgspec.json.decode(open_sealed(keys[number % PEOPLE], data, event.key))
            fold.apply(event, states[number % PEOPLE], opened)
        best = min(best, time.process_time() - begun)
    return best / EVENTS * 1e6


if __name__ == "__main__":
    clear, closed = cost_us(sealed=False), cost_us(sealed=True)
    print(f"clear {clear:.1f} µs an event, sealed {closed:.1f}: {closed / clear:.1f} times")
