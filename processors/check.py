"""`rebuild --check`: everything folded and decided anew from the log, compared with the live tables (design C9).

Shares the generated fold and evaluator with the live path, and nothing of its bookkeeping: identity is resolved
from all evidence at once, states are not read but made.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, NamedTuple

import msgspec

from processors.direct_traits import open_direct
from processors.fold_batch import Applied, Folder, not_folded
from processors.worker import Compiled, Services, folder_of
from projections.identity import Evidence, resolve
from projections.order_tree import joined
from projections.state import State
from schemas.identity_rules import DEFAULT_RULES
from schemas.log_range import records_between
from schemas.record import uuid_text
from schemas.store import EvidenceRow, ProfileRow, Snapshot

CHUNK: Final = 10_000
SHOWN: Final = 20  # differences listed; all are counted
_ENCODER: Final = msgspec.json.Encoder()


class Difference(NamedTuple):
    """One thing that is not as the log says: `what` names it, `live` and `log` are the two readings."""

    what: str
    id: str
    live: str
    log: str


@dataclass
class Verdict:
    """The result of a check. `hash`: of the rebuilt side; equal runs over equal logs print the same."""

    equal: bool
    profiles: int
    hash: str
    as_of_us: int
    differences: list[Difference]


@dataclass
class _Rebuilt:
    """What the log says: packed states, evidence by first receipt."""

    states: dict[tuple[bytes, int], bytes] = field(default_factory=dict)
    laid_off: dict[tuple[bytes, int], list[bytes]] = field(default_factory=dict)  # entries of maps over the cap
    evidence: dict[bytes, Evidence] = field(default_factory=dict)


def check(
    services: Services,
    compiled: Compiled,
    snapshot: Snapshot,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Verdict:
    """Compare the live tables of a snapshot with a rebuild of the log up to it. `progress(done, total)` in records."""
    fold = compiled.fold
    rebuilt = _fold_all(services, folder_of(services, compiled, {}, live=False), snapshot, progress)
    at_us = snapshot.watermark_us
    differences: list[Difference] = []
    digest = sha256()
    live_states = {(signature, partition): state for signature, partition, state in snapshot.states()}
    for key in sorted(rebuilt.states.keys() | live_states.keys()):
        mine, theirs = (
            fold.canonical(fold.unpack(packed), at_us) if (packed := side.get(key)) is not None else b""
            for side in (rebuilt.states, live_states)
        )
        digest.update(key[0] + bytes([key[1]]) + mine)
        if mine != theirs:
            differences.append(Difference("state", key[0].hex(), theirs.hex()[:400], mine.hex()[:400]))
    live_states.clear()
    evidence = list(snapshot.evidence())
    for row in evidence:
        if not row.tokens:  # all its tokens are erased, or its route was a hub that stayed: it is nobody's
            rebuilt.evidence.pop(row.signature, None)
    owners = resolve(rebuilt.evidence.values(), DEFAULT_RULES).owner
    _compare_owners(owners, evidence, differences)
    count = _compare_profiles(services, compiled, rebuilt, owners, snapshot.profiles(), differences, digest.update)
    return Verdict(not differences, count, digest.hexdigest(), at_us, differences)


def _fold_all(services: Services, folder: Folder, snapshot: Snapshot, progress: Callable[[int, int], None]) -> _Rebuilt:
    skipped, erased = snapshot.skipped(), snapshot.erased()
    ends = list(snapshot.next_offsets)
    rebuilt, done = _Rebuilt(), 0
    for partition, end in enumerate(ends):
        for records in records_between(services.log, partition, 0, end, CHUNK):
            chosen = folder.again([r for r in records if (r.partition, r.offset) not in skipped])
            kept = [each for each in chosen if bytes.fromhex(each.event.route_key) not in erased]
            _fold_chunk(folder, rebuilt, kept, erased)
            done += len(records)
            progress(done, sum(ends))
    return rebuilt


def _fold_chunk(folder: Folder, rebuilt: _Rebuilt, chosen: Sequence[Applied], erased: set[bytes]) -> None:
    """States are kept packed between chunks: 300,000 of them are 60 MB, unpacked they would be 500."""
    fold, opened = folder.fold, folder.opened(chosen)
    touched: dict[tuple[bytes, int], State] = {}
    lifted: dict[tuple[bytes, int], tuple[int, ...]] = {}
    for each in chosen:
        key = (each.signature, each.partition)
        state = touched.get(key)
        if state is None:
            packed = rebuilt.states.get(key)
            state = touched[key] = fold.new_state() if packed is None else fold.unpack(packed)
            lifted[key] = fold.lift(state)
        try:
            fold.apply(each.event, state, opened.get(each.key))
        except Exception as err:
            raise not_folded(each, err) from err
        known = rebuilt.evidence.get(each.signature)
        if known is None or (each.received_us, each.key) < known.receipt:
            tokens = tuple(pair for pair in each.tokens if pair[1] not in erased)
            rebuilt.evidence[each.signature] = Evidence(each.signature, tokens, each.received_us, each.key)
    for key, state in touched.items():
        maps = fold.lay_off(state, lifted[key])
        if maps is not None:
            rebuilt.laid_off.setdefault(key, []).append(fold.pack(maps))
        rebuilt.states[key] = fold.pack(state)


def _compare_owners(owners: Mapping[bytes, bytes], live: Iterable[EvidenceRow], differences: list[Difference]) -> None:
    seen = set()
    for row in live:
        if row.tokens:
            seen.add(row.signature)
            mine = owners.get(row.signature, b"")
            if mine != row.profile_id:
                differences.append(Difference("owner", row.signature.hex(), (row.profile_id or b"").hex(), mine.hex()))
    for signature in owners.keys() - seen:
        differences.append(Difference("evidence", signature.hex(), "", owners[signature].hex()))


def _compare_profiles(
    services: Services,
    compiled: Compiled,
    rebuilt: _Rebuilt,
    owners: Mapping[bytes, bytes],
    live: Iterable[ProfileRow],
    differences: list[Difference],
    digest: Callable[[bytes], None],
) -> int:
    parts: dict[bytes, list[tuple[bytes, int]]] = {}
    for key in rebuilt.states:
        if key[0] in owners:
            parts.setdefault(owners[key[0]], []).append(key)
    tokens: dict[bytes, set[bytes]] = {}
    for signature, owner in owners.items():
        tokens.setdefault(owner, set()).update(token for _, token in rebuilt.evidence[signature].tokens)
    count = 0
    for row in live:
        count += 1
        mine = _decided(services, compiled, rebuilt, parts.pop(row.profile_id, []), row)
        theirs = _line(row)
        digest(row.profile_id + _ENCODER.encode(sorted(token.hex() for token in tokens.get(row.profile_id, ()))))
        digest(mine)
        if mine != theirs:
            differences.append(
                Difference("profile", uuid_text(row.profile_id), theirs.decode()[:400], mine.decode()[:400])
            )
    differences += [Difference("profile", uuid_text(missing), "", "not in the live tables") for missing in parts]
    return count


def _decided(
    services: Services, compiled: Compiled, rebuilt: _Rebuilt, keys: Sequence[tuple[bytes, int]], row: ProfileRow
) -> bytes:
    """The line of a profile as the log says, decided at the instant the live one was."""
    fold, evaluator = compiled.fold, compiled.evaluator
    if not keys:
        return b"not in the log"
    parts = [fold.unpack(rebuilt.states[key]) for key in keys]
    state = fold.merge(parts)
    if fold.overflowed(state):  # decided over the orders themselves, not over what the live side sums them up to
        laid = [fold.unpack(maps) for key in keys for maps in rebuilt.laid_off.get(key, ())]
        state = list(state)
        fold.fill(state, joined([*map(fold.maps, parts), *laid], len(fold.maps(state))))
    direct = None
    if evaluator.needs_direct:
        opened = open_direct(
            services.log, services.sealer, {row.profile_id: state}, evaluator.needs_direct.__contains__
        )
        direct = opened[row.profile_id]
    decision = evaluator.decide(state, row.decided_us, direct)
    return _line(
        row._replace(
            event_count=evaluator.event_count(state),
            segments=decision.segments,
            lifecycle=decision.stage,
            risk=decision.risk,
            points=decision.points,
            reasons=decision.reasons,
            due_us=decision.due_at_us,
        )
    )


def _line(row: ProfileRow) -> bytes:
    return _ENCODER.encode(
        [
            *(row.decided_us, row.event_count, str(row.segments), row.lifecycle, row.risk, row.points),
            *(row.reasons, row.due_us),
        ]
    )
