"""Opens what records seal, and replaces tokens with identifiers' values. Keeps nothing."""

from binascii import a2b_base64
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from schemas.clear import joined
from schemas.paths import nested_trait
from schemas.ports import EventLog, OpenIdentifier, Sealer, Vault
from schemas.record import Record, Stored, decode
from schemas.token_refs import tokens_in, with_values

__all__ = ["joined", "key_of", "open_records", "open_tokens", "personal_values", "tokens_in", "with_values"]


def open_records(sealer: Sealer, stored: Sequence[Stored]) -> list[tuple[Record, dict[str, Any]]]:
    """Each record with its opened sealed object; {} if it seals nothing or its key was erased."""
    records = [decode(each.value) for each in stored]
    triples = [
        (bytes.fromhex(record.sealed.key), a2b_base64(record.sealed.data), key_of(record))
        for record in records
        if record.sealed is not None
    ]
    opened = iter(sealer.open_many(triples) if triples else ())
    pairs: list[tuple[Record, dict[str, Any]]] = []
    for record in records:
        plain = None if record.sealed is None else next(opened)
        pairs.append((record, {} if plain is None else msgspec.json.decode(plain)))
    return pairs


def personal_values(
    log: EventLog, sealer: Sealer, places: Sequence[Mapping[str, tuple[int, int]]]
) -> list[dict[str, Any]]:
    """Direct traits by name, for each mapping of names to the positions that hold them; erased ones are left out.

    One read of the log for all. Identifiers remain as tokens: see `with_values`.
    """
    wanted = {place for each in places for place in each.values()}
    stored = log.fetch(wanted) if wanted else []
    traits = {
        (each.partition, each.offset): {**record.traits, **plain.get("traits", {})}
        for each, (record, plain) in zip(stored, open_records(sealer, stored), strict=True)
    }
    return [
        {
            name: nested_trait(traits[place], name)
            for name, place in each.items()
            if name in (set_there := traits.get(place, {})) or nested_trait(set_there, name) is not None
        }
        for each in places
    ]


def key_of(record: Record) -> bytes:
    """The 16-byte event key."""
    return bytes.fromhex(record.id.replace("-", ""))


def open_tokens(vault: Vault, tokens: Iterable[bytes]) -> Mapping[bytes, OpenIdentifier]:
    """One look-up for all of them."""
    wanted = set(tokens)
    return vault.open(wanted) if wanted else {}
