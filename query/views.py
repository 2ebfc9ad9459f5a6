"""The live revision with its generated functions, kept until another one goes live."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import msgspec

from projections.decide.evaluator import Evaluator, compile_evaluator
from projections.definitions.files import from_json
from projections.fold.fold import Fold, compile_fold
from schemas.definitions import Definitions
from schemas.errors import RevisionReplaced
from schemas.reads import Deployment, Reads, RevisionRow

T = TypeVar("T")
_TRIES: Final = 4


@dataclass(frozen=True)
class View:
    """A revision, compiled."""

    revision: int
    definitions: Definitions
    fold: Fold
    evaluator: Evaluator


class Views:
    """Compiles a revision once (tens of milliseconds) and hands it to every thread."""

    def __init__(self, reads: Reads) -> None:
        self.reads = reads
        self._lock = threading.Lock()
        self._deployment: Deployment | None = None
        self._last: View | None = None

    @property
    def deployment(self) -> Deployment:
        if self._deployment is None:
            self._deployment = self.reads.deployment()
        return self._deployment

    def current(self) -> View:
        """The live revision, as just read from the database."""
        return self.of(self.reads.live())

    def recent(self) -> View:
        """The live revision as last seen, for callers that will notice if it has been replaced."""
        return self._last or self.current()

    def of(self, revision: int) -> View:
        """A revision by number; the last one requested is kept."""
        last = self._last
        if last is not None and last.revision == revision:
            return last
        with self._lock:
            if self._last is None or self._last.revision != revision:
                self._last = self._compile(self.reads.revision(revision))
            return self._last

    def read(self, question: Callable[[View], T]) -> T:
        """The answer to a question about the live revision, repeated if the revision was replaced in the meantime."""
        for _ in range(_TRIES - 1):
            try:
                return question(self.current())
            except RevisionReplaced:
                continue  # the swap is committed: the next look sees it
        return question(self.current())

    def _compile(self, row: RevisionRow) -> View:
        zone, currency = self.deployment.time_zone, self.deployment.currency
        definitions = parse(row)
        fold = compile_fold(definitions, time_zone=zone, currency=currency)
        return View(row.revision, definitions, fold, compile_evaluator(definitions, fold, time_zone=zone))


def parse(row: RevisionRow) -> Definitions:
    """The definitions of a revision."""
    return from_json(msgspec.json.encode(row.definitions))
