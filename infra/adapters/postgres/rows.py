"""Rows of the projections in PostgreSQL's binary COPY format: packed for it, and read from it."""

import struct
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec

from infra.adapters.postgres.database import (
    COPY_END,
    COPY_HEADER,
    NULL,
    f_array,
    f_bool,
    f_bytes,
    f_int4,
    f_int8,
    f_json,
    f_text,
    int8,
    text_list,
    uuid_list,
)
from infra.adapters.postgres.staging import Staging
from schemas.stamps import key_of, n_of
from schemas.store_rows import NO_RECEIPT, Change, DedupRow, EvidenceRow, ProfileRow, TokenRow

_UUID, _TEXT = 2950, 25
_BEFORE_ALL_US: Final = NO_RECEIPT[2] + 1  # a row that exists only to be locked has NO_RECEIPT
_JSON: Final = msgspec.json.Encoder(order="deterministic")

DEDUP: Final = Staging(
    "new_register",
    {
        **{"event_key": "uuid", "digest": "uuid", "partition": "smallint", "offset": "bigint"},
        **{"signature": "uuid", "verdict": "smallint"},
    },
)
STATES: Final = Staging("new_states", {"signature": "uuid", "partition": "smallint", "state": "bytea"})
EVIDENCE: Final = Staging(
    "new_evidence",
    {
        **{"signature": "uuid", "tokens": "uuid[]", "kinds": "text[]"},
        **{"first_us": "bigint", "first_event": "uuid", "profile_id": "uuid"},
        **{"first_n": "integer"},
    },
)
TOKENS: Final = Staging(
    "new_tokens",
    {
        **{"token": "uuid", "kind": "text", "first_us": "bigint", "first_event": "uuid", "last_us": "bigint"},
        **{"last_event": "uuid", "hub": "boolean", "profile_id": "uuid"},
        **{"first_n": "integer", "last_n": "integer"},
    },
)
HOLDERS: Final = Staging("new_holders", {"order_key": "uuid", "source": "bigint", "signature": "uuid"})
ORDER_SETS: Final = Staging(
    "new_order_sets",
    {"signature": "uuid", "order_key": "uuid", "source": "bigint", "own": "uuid", "route": "uuid"},
)
ORDER_OWNERS: Final = Staging("new_order_owners", {"signature": "uuid", "profile_id": "uuid", "matched": "boolean"})
OWNERS: Final = Staging("new_owners", {"signature": "uuid", "profile_id": "uuid"})
PROFILES: Final = Staging(
    "new_profiles",
    {
        **{"profile_id": "uuid", "version": "bigint", "state": "bytea", "decided_us": "bigint", "due_us": "bigint"},
        **{"lagging": "boolean", "first_us": "bigint", "last_us": "bigint", "event_count": "bigint"},
        **{"segments": "bytea", "lifecycle": "text", "risk": "text", "points": "integer", "reasons": "jsonb"},
        **{"summed": "bigint"},
    },
)
LEFT: Final = Staging("old_memberships", {"segment": "smallint", "profile_id": "uuid"})
ALL: Final = (
    STATES,
    EVIDENCE,
    TOKENS,
    OWNERS,
    HOLDERS,
    ORDER_SETS,
    ORDER_OWNERS,
    PROFILES,
    LEFT,
)  # REGISTER is staged only while it has few rows

# Rows written by the thousand are packed by one Struct each, with field lengths as constants before the values.
STATE_ROW: Final = struct.Struct("!i16sihi").pack  # signature, partition, length of the state
_REGISTER_ROW: Final = struct.Struct("!i16si16sihiqi16sih").pack
_PROFILE_HEAD: Final = struct.Struct("!i16siqi").pack  # profile id, version, length of the state
MEMBER_ROW: Final = struct.Struct("!ihi16s").pack
_CHANGE_HEAD: Final = struct.Struct("!iqiii16s").pack  # batch, idx, id
_CHANGE_MIDDLE: Final = struct.Struct("!i16siq").pack  # profile id, version
_COUNT_AND_MASK: Final = struct.Struct("!iqi").pack  # event count, length of the segments
_INT8_FIELD: Final = struct.Struct("!iq").pack


_STATE_OUT: Final = struct.Struct("!hi16sihi")  # field count, signature, partition, length of the state


def read_states(data: bytes) -> Iterator[tuple[tuple[int, bytes], bytes]]:
    """((partition, signature), state) of a binary COPY of signature, partition, state."""
    at, end = len(COPY_HEADER), len(data) - len(COPY_END)
    row_at, head = _STATE_OUT.unpack_from, _STATE_OUT.size
    while at < end:
        _, _, identifier_set, _, partition, length = row_at(data, at)
        at += head + length
        yield (partition, identifier_set), data[at - length : at]


def by_identifier_set(item: tuple[tuple[int, bytes], bytes]) -> tuple[bytes, int]:
    (partition, identifier_set), _ = item
    return identifier_set, partition


def dedup_row(row: tuple[bytes | None, ...]) -> DedupRow:
    return DedupRow(row[0] or b"", row[1] or b"", int8(row[2]), int8(row[3]), row[4] or b"", int8(row[5]))


def pack_dedup(row: DedupRow) -> bytes:
    key, digest, partition, offset, identifier_set, verdict = row
    return _REGISTER_ROW(16, key, 16, digest, 2, partition, 8, offset, 16, identifier_set, 2, verdict)


def pack_token(row: TokenRow) -> bytes:
    token, kind, first_us, first_place, last_us, last_place, is_shared, profile_id = row
    return b"".join(
        (
            *(f_bytes(token), f_text(kind), f_int8(first_us), f_bytes(key_of(first_place))),
            *(f_int8(last_us), f_bytes(key_of(last_place)), f_bool(is_shared), f_bytes(profile_id)),
            *(f_int4(n_of(first_place)), f_int4(n_of(last_place))),
        )
    )


def with_unnamed(rows: Sequence[TokenRow], kinds: Mapping[bytes, str]) -> list[TokenRow]:
    """Rows in which tokens that name nobody are shared identifiers, with a row for those that have none yet."""
    if not kinds:
        return list(rows)
    found = [row._replace(is_shared=True) if row.token in kinds else row for row in rows]
    first_us, first_event, _, last_event = NO_RECEIPT
    absent = kinds.keys() - {row.token for row in rows if row.last_us != NO_RECEIPT[2]}
    kept = [row for row in found if row.token not in absent]
    return kept + [TokenRow(t, kinds[t], first_us, first_event, _BEFORE_ALL_US, last_event, True, t) for t in absent]


def token_row(row: tuple[bytes | None, ...]) -> TokenRow:
    """A row of tokens read by COPY, columns as in `TOKENS`."""
    token, kind, first_us, first_event, last_us, last_event, is_shared, profile_id, first_n, last_n = row
    return TokenRow(
        *(token or b"", (kind or b"").decode(), int8(first_us), _place(first_n, first_event), int8(last_us)),
        *(_place(last_n, last_event), is_shared == b"\x01", profile_id),
    )


def _place(n: bytes | None, event: bytes | None) -> bytes:
    """A place from its columns: an integer in four bytes, big-endian, and the event."""
    return (n or b"") + (event or b"")


def pack_evidence(row: EvidenceRow) -> bytes:
    return (
        f_bytes(row.identifier_set)
        + f_array(_UUID, [f_bytes(token) for _, token in row.tokens])
        + f_array(_TEXT, [f_text(kind) for kind, _ in row.tokens])
        + f_int8(row.first_us)
        + f_bytes(key_of(row.first_place))
        + f_bytes(row.profile_id)
        + f_int4(n_of(row.first_place))
    )


def pack_profile(row: ProfileRow) -> bytes:
    """A row of profiles_rN for COPY, fields in the order of `PROFILES`."""
    profile_id, version, state, decided_us, due_us, lagging, first_us, last_us, count = row[:9]
    segments, lifecycle, risk, points, reasons, summed = row[9:]
    mask = segments.to_bytes((segments.bit_length() + 7) // 8, "little")
    return b"".join(
        (
            _PROFILE_HEAD(16, profile_id, 8, version, len(state)),
            state,
            _INT8_FIELD(8, decided_us),
            f_int8(due_us),
            b"\0\0\0\1\1" if lagging else b"\0\0\0\1\0",
            f_int8(first_us),
            f_int8(last_us),
            _COUNT_AND_MASK(8, count, len(mask)),
            mask,
            _word(lifecycle),
            _word(risk),
            f_int4(points),
            _reasons(reasons),
            _INT8_FIELD(8, summed),
        )
    )


@lru_cache(maxsize=10_000)
def _word(word: str | None) -> bytes:
    """The field for a word from a small vocabulary."""
    return f_text(word)


@lru_cache(maxsize=10_000)
def _reasons(reasons: tuple[tuple[str, int], ...]) -> bytes:
    return f_json(_JSON.encode(reasons))


def evidence_row(row: tuple[bytes | None, ...]) -> EvidenceRow:
    """A row of evidence read by COPY, columns as in `EVIDENCE`."""
    tokens = tuple(zip(text_list(row[2]), uuid_list(row[1]), strict=True))
    return EvidenceRow(row[0] or b"", tokens, int8(row[3]), _place(row[6], row[4]), row[5])


_NO_TIME: Final = -(2**63)
LOCKED_PROFILE: Final = (  # no fixed-size field is NULL, so two Structs can read a row
    f"profile_id, version, state, decided_us, coalesce(due_us, {_NO_TIME}), lagging, coalesce(first_us, {_NO_TIME}),"
    f" coalesce(last_us, {_NO_TIME}), event_count, segments, lifecycle, risk, points, reasons, summed"
)
_PROFILE_START: Final = struct.Struct("!hi16siqi")  # field count, profile id, version, length of the state
_PROFILE_TIMES: Final = struct.Struct("!iqiqi?iqiqiqi")  # decided to event_count, length of the segments
_PROFILE_REST: Final = struct.Struct("!iii")  # points, length of the reasons
_PROFILE_END: Final = struct.Struct("!iq")  # summed
_FIELD_LENGTH: Final = struct.Struct("!i")


def read_profiles(data: bytes) -> dict[bytes, ProfileRow]:
    """Rows of `LOCKED_PROFILE` from their binary COPY: a third of the cost of `copy_out` and `profile_row`."""
    found: dict[bytes, ProfileRow] = {}
    at, end = len(COPY_HEADER), len(data) - len(COPY_END)
    while at < end:
        _, _, profile_id, _, version, size = _PROFILE_START.unpack_from(data, at)
        at += _PROFILE_START.size
        state = data[at : at + size]
        at += size
        times = _PROFILE_TIMES.unpack_from(data, at)
        _, decided_us, _, due_us, _, lagging, _, first_us, _, last_us, _, count, size = times
        at += _PROFILE_TIMES.size
        segments = int.from_bytes(data[at : at + size], "little")
        at += size
        (size,) = _FIELD_LENGTH.unpack_from(data, at)
        lifecycle = _decoded(data[at + 4 : at + 4 + size])
        at += 4 + size
        (size,) = _FIELD_LENGTH.unpack_from(data, at)
        risk = _decoded(data[at + 4 : at + 4 + size])
        at += 4 + size
        _, points, size = _PROFILE_REST.unpack_from(data, at)
        at += _PROFILE_REST.size + size
        _, summed = _PROFILE_END.unpack_from(data, at)
        found[profile_id] = ProfileRow(
            profile_id,
            version,
            state,
            decided_us,
            None if due_us == _NO_TIME else due_us,
            lagging,
            None if first_us == _NO_TIME else first_us,
            None if last_us == _NO_TIME else last_us,
            count,
            segments,
            lifecycle,
            risk,
            points,
            _read_reasons(data[at - size : at]),
            summed,
        )
        at += _PROFILE_END.size
    return found


@lru_cache(maxsize=10_000)
def _decoded(word: bytes) -> str:
    """A word from a small vocabulary."""
    return word.decode()


@lru_cache(maxsize=10_000)
def _read_reasons(field: bytes) -> tuple[tuple[str, int], ...]:
    """The reasons from their jsonb field."""
    return msgspec.json.decode(field[1:], type=tuple[tuple[str, int], ...])


def profile_row(row: tuple[bytes | None, ...]) -> ProfileRow:
    reasons = _read_reasons(row[13] or b"\x01[]")
    return ProfileRow(
        *(row[0] or b"", int8(row[1]), row[2] or b"", int8(row[3])),
        None if row[4] is None else int8(row[4]),
        row[5] == b"\x01",
        None if row[6] is None else int8(row[6]),
        None if row[7] is None else int8(row[7]),
        int8(row[8]),
        int.from_bytes(row[9] or b"", "little"),
        (row[10] or b"").decode(),
        (row[11] or b"").decode(),
        int8(row[12]),
        reasons,
        int8(row[14]),
    )


def pack_change(batch: int, index: int, change: Change) -> bytes:
    id_, type_, profile_id, version, name, old, new, at_us, cause, event, definition = change
    return b"".join(
        (
            _CHANGE_HEAD(8, batch, 4, index, 16, id_),
            _word(type_),
            _CHANGE_MIDDLE(16, profile_id, 8, version),
            _word(name),
            _value(old),
            _value(new),
            _INT8_FIELD(8, at_us),
            _word(cause),
            NULL if event is None else b"\0\0\0\x10" + event,
            _word(definition),
        )
    )


_TRUE: Final = f_json(b"true")
_FALSE: Final = f_json(b"false")


def _value(value: Any) -> bytes:
    if value is None:
        return NULL
    if value is True:
        return _TRUE
    return _FALSE if value is False else f_json(_JSON.encode(value))
