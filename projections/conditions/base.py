"""Defines a kind of condition: its generated test, the check of its definition, and its wording. Pure.

One module per kind; `registry` finds it by the model of its leaf (`schemas.conditions`).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from projections.generated import Source
from schemas.conditions import Kind
from schemas.definitions import Definitions
from schemas.errors import Problem
from schemas.hints import did_you_mean

Leaf = TypeVar("Leaf")


@dataclass(frozen=True, slots=True)
class Defined:
    """The names that conditions may refer to.

    `kind`: of a trait's values. `gone`: names just removed. `broken`: undefined names not to report as missing.
    """

    defs: Definitions
    kind: Callable[[str], Kind]
    gone: Collection[str] = ()
    broken: Collection[str] = ()

    def unknown(self, path: str, what: str, name: str, known: Iterable[str]) -> Iterator[Problem]:
        """The problem with an undefined name; none if it is `broken`."""
        if name in known or name in self.broken:
            return
        if name in self.gone:
            yield Problem(path, f"uses the {what} {name}, which `delete` removes; change this first")
        else:
            hint = did_you_mean(name, known)
            yield Problem(path, f"there is no {what} {name}{hint or '; define it, or correct the name'}")


class DecisionCode(Protocol):
    """The code of a decision, as a condition on a customer sees it."""

    src: Source

    def trait(self, name: str) -> tuple[str, str]:
        """The local variable of a trait, and the kind of its value (`predicates`)."""

    def segment(self, name: str) -> int:
        """The bit of a segment that is decided earlier."""


class EventCode(Protocol):
    """The handler of an event, as a condition on an event sees it."""

    src: Source

    def number(self, of: str, pinned: bool) -> str: ...

    def currency(self) -> str: ...

    def opened(self, prop: str) -> str: ...

    def nested(self, prop: str) -> str:
        """A local holding the values at a path (`schemas.paths`)."""


class ConditionKind(ABC, Generic[Leaf]):
    """A kind of condition. `model`: of its leaf."""

    model: ClassVar[type[Any]]

    @abstractmethod
    def words(self, leaf: Leaf) -> str:
        """`whose revenue is at least 500`"""

    def words_not(self, leaf: Leaf) -> str | None:
        """The same negated; None: `not (…)`."""
        return None

    @abstractmethod
    def check(self, path: str, leaf: Leaf, defined: Defined) -> Iterator[Problem]:
        """Problems with it."""


class OfCustomer(ConditionKind[Leaf]):
    """A condition on a customer: in `when`."""

    @abstractmethod
    def test(self, leaf: Leaf, code: DecisionCode) -> str:
        """An expression that is true when it holds."""

    def needs(self, leaf: Leaf) -> str | None:
        """What must be decided before it: `segments.NAME`, `lifecycle`, or nothing."""
        return None


class OfEvent(ConditionKind[Leaf]):
    """A condition on an event: in `where`."""

    @abstractmethod
    def test(self, leaf: Leaf, code: EventCode, pinned: bool) -> str:
        """An expression that is true when it holds. `pinned`: money in the single currency of the stream."""
