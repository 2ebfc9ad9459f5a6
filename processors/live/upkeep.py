"""What a worker does in its pauses besides deciding: building a revision, the search index, the overview's figures."""

from dataclasses import dataclass
from typing import Protocol

from processors.live.compiled import Compiled
from processors.live.search_index import SearchIndexer
from processors.rebuild.builder import Builder, LiveView
from schemas.control import Beat


class KeepsFigures(Protocol):
    """See `processors.live.figure_keeper`."""

    def step(self, compiled: Compiled) -> bool:
        """Count a slice of what waits; True if there was any."""

    def compact(self, compiled: Compiled) -> bool:
        """Add up deltas; True if there are more."""


@dataclass
class Upkeep:
    """Does a slice of each at a time."""

    builder: Builder
    index: SearchIndexer | None = None
    figures: KeepsFigures | None = None
    worked_s: float = 0.0  # on events, since the search index last had its share

    def keep_up(self, live: LiveView, beat: Beat) -> bool:
        """True if there was work."""
        built = beat.building is not None and self.builder(live)
        indexed = self._index_some(live.compiled, beat)
        counted = self._keep_figures(live.compiled, beat)
        return built or indexed or counted

    def _index_some(self, compiled: Compiled, beat: Beat) -> bool:
        worked_s, self.worked_s = self.worked_s, 0.0
        if self.index is None or not beat.search:
            return False
        return self.index.keep_up(compiled.revision.revision, compiled.fold, compiled.evaluator, worked_s) > 0

    def _keep_figures(self, compiled: Compiled, beat: Beat) -> bool:
        if self.figures is None:
            return False
        counted = beat.figures and self.figures.step(compiled)
        return self.figures.compact(compiled) or counted
