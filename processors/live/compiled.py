"""A revision's generated functions, and the FOLD and DECIDE that run them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from processors.erase.refold import uncapped_state
from processors.live.decide_batch import Decider, Sharing
from processors.live.delta_cache import DeltaCache
from processors.live.fold_batch import Folder
from processors.live.large_profiles import LargeProfiles
from processors.live.personal_traits import open_personal
from processors.live.resolve import Identity
from processors.live.services import Services
from projections.decide.evaluator import Evaluator, compile_evaluator
from projections.definitions.files import from_json
from projections.fold.fold import Fold, compile_fold
from projections.fold.state import ORDER_CAP, State
from schemas.control import Progress, Revision
from schemas.definitions import Definitions
from schemas.record import CURRENT, Reader
from schemas.store import DecideTx


@dataclass(frozen=True)
class Compiled:
    """A revision with its generated functions."""

    revision: Revision
    definitions: Definitions
    fold: Fold
    evaluator: Evaluator

    @classmethod
    def of(
        cls,
        revision: Revision,
        time_zone: str,
        currency: str,
        order_cap: int | None = ORDER_CAP,
        reader: Reader = CURRENT,
    ) -> "Compiled":
        definitions = from_json(msgspec.json.encode(revision.definitions))
        fold = compile_fold(definitions, time_zone=time_zone, currency=currency, order_cap=order_cap, reader=reader)
        return cls(revision, definitions, fold, compile_evaluator(definitions, fold, time_zone=time_zone))


def compiled_for(services: Services, revision: Revision) -> Compiled:
    """A revision as a worker with these services runs it."""
    return Compiled.of(revision, services.time_zone, services.currency, services.order_cap, services.reader)


def decider_of(
    services: Services,
    compiled: Compiled,
    *,
    silent: bool = False,
    shadows: Callable[[], Sequence[int]] = tuple,
    deltas: DeltaCache | None = None,
    sharing: Sharing | None = None,
    alive: Callable[[], None] = lambda: None,
) -> Decider:
    """The DECIDE of a revision."""

    def personal(states: Mapping[bytes, State], names: frozenset[str]) -> dict[bytes, dict[str, Any]]:
        return open_personal(services.log, services.sealer, states, names.__contains__)

    def from_log(tx: DecideTx, identifier_sets: Sequence[bytes]) -> State:
        return uncapped_state(folder_of(services, compiled, {}), tx, identifier_sets)

    number = compiled.revision.revision
    identity = Identity(services.rules, number, shadows, sharing is not None, alive)
    return Decider(
        *(services.store, compiled.fold, compiled.evaluator, identity, personal),
        LargeProfiles(compiled.fold, number, from_log),
        *(number, services.time_zone),
        silent=silent,
        deltas=deltas,
        sharing=sharing,
    )


def folder_of(
    services: Services,
    compiled: Compiled,
    epochs: Mapping[int, int],
    *,
    live: bool = True,
    adds_work: bool = True,
    sharded: bool = False,
    deltas: DeltaCache | None = None,
) -> Folder:
    """The FOLD of a revision."""
    return Folder(
        *(services.store, services.log, compiled.fold, services.sealer, services.letter),
        *(compiled.revision.revision, epochs),
        live=live,
        adds_work=adds_work,
        sharded=sharded,
        deltas=deltas,
    )


def epochs_of(progress: Sequence[Progress]) -> dict[int, int]:
    return {each.partition: each.epoch for each in progress}
