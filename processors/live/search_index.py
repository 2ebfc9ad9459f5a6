"""Keeps the search index in the worker's pauses: opens profiles that DECIDE queued and stores their keyed terms."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from processors.live.personal_traits import open_personal
from projections.decide.evaluator import Evaluator
from projections.fold.fold import Fold
from projections.fold.state import State
from schemas.ports import EventLog, Sealer, Vault
from schemas.search_store import SearchStore
from schemas.search_words import UNSEARCHED, is_name, keyed, search_key, terms_of

SHARE: Final = 0.25
SLICE: Final = 40  # profiles per transaction: events wait 20 ms


@dataclass
class SearchIndexer:
    """The indexer of one worker loop."""

    store: SearchStore
    vault: Vault
    sealer: Sealer
    log: EventLog

    @cached_property
    def _key(self) -> bytes:
        return search_key(self.vault.hash_key)

    def keep_up(self, revision: int, fold: Fold, evaluator: Evaluator, worked_s: float) -> int:
        """Index a slice, or with a backlog several, for a share of the time spent on events; returns how many profiles.

        With only forty between batches of 20,000 events, new customers were not found until the last event was folded.
        """
        began, indexed = time.monotonic(), 0
        while (some := self.step(revision, fold, evaluator, SLICE)) > 0:
            indexed += some
            if time.monotonic() - began >= worked_s * SHARE:
                break
        return indexed

    def step(self, revision: int, fold: Fold, evaluator: Evaluator, limit: int) -> int:
        """Index some waiting profiles; returns how many."""
        with self.store.take(limit) as tx:
            if not tx.taken:
                return 0
            profiles = tx.profiles(revision)
            states: dict[bytes, State] = {each.profile_id: fold.unpack(each.state) for each in profiles}
            names = self._names(states, evaluator)
            wanted = {token for each in profiles for token, kind in each.tokens if kind not in UNSEARCHED}
            opened = self.vault.open(wanted) if wanted else {}
            rows: dict[bytes, Sequence[int]] = {}
            for each in profiles:
                known = [form for token, _ in each.tokens if token in opened for form in opened[token].forms]
                terms = terms_of(names[each.profile_id], known)
                if terms:
                    rows[each.profile_id] = sorted(keyed(self._key, term) for term in terms)
            tx.put(rows)
            return len(tx.taken)

    def _names(self, states: Mapping[bytes, State], evaluator: Evaluator) -> dict[bytes, list[Any]]:
        """The values of each profile's name traits, clear or sealed."""
        personal = open_personal(self.log, self.sealer, states, is_name)
        return {
            key: [
                *personal[key].values(),
                *(value for name, value in evaluator.attributes(state).items() if is_name(name)),
            ]
            for key, state in states.items()
        }
