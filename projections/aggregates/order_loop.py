"""The pass over a state's orders: accumulators that traits add to, visiting each order once. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from projections.days import NEVER
from projections.generated import Source
from projections.orders.counting import BASE, EXTRA, OWN
from projections.slots.values import kept_number
from schemas.definitions import ComputedTrait
from schemas.touchpoints import REFUND_TYPES

Steps = dict[tuple[int, int], dict[str, None]]
"""(bit, window) → statements, each once"""


@dataclass(slots=True)
class OrderLoop:
    """What a function's traits need from the pass. `inits`: accumulators with their initial values."""

    inits: dict[str, str] = field(default_factory=dict)
    bases: Steps = field(default_factory=dict)
    refunds: Steps = field(default_factory=dict)
    after: list[str] = field(default_factory=list)


class OrderTrait:
    """One trait's part of the pass. In its statements `o` is the order's entry and `us` its stamp."""

    def __init__(
        self, loop: OrderLoop, src: Source, spec: ComputedTrait, *, bit: int, pinned: bool, extras: Sequence[str],
        due: bool, marks: tuple[int, ...] = (),
    ) -> None:  # fmt: skip
        self.src, self.spec, self.pinned, self.due, self.marks = src, spec, pinned, due, marks
        self._loop, self._extras = loop, extras
        self._key = bit, spec.window_days or 0
        self.tag = f"{bit}_{spec.window_days or 0}"
        self._steps = loop.bases.setdefault(self._key, {})
        self._leaving(self._steps)

    def start(self, name: str, empty: str) -> str:
        """An accumulator; traits that use the same name share it."""
        self._loop.inits[name] = empty
        return name

    def each(self, *lines: str) -> None:
        """Statements for each order inside the trait's window."""
        self._steps.update(dict.fromkeys(lines))

    def each_refund(self, *lines: str) -> None:
        """Statements for each refund inside the trait's window."""
        steps = self._loop.refunds.setdefault(self._key, {})
        self._leaving(steps)
        steps.update(dict.fromkeys(lines))

    def after(self, *lines: str) -> None:
        """Statements after the pass."""
        self._loop.after += lines

    @property
    def refunds(self) -> bool:
        """Whether the trait names refunds."""
        return not set(self.spec.events).isdisjoint(REFUND_TYPES)

    @property
    def money(self) -> bool:
        """Whether the value is the amount of the order."""
        return self.spec.of == "revenue"

    def amount_of_refund(self) -> str:
        """The expression of a refund's amount."""
        return f"o[{OWN if self.pinned else BASE}]"

    def value(self, *, numeric: bool) -> tuple[str, str]:
        """The expression of the order's value, and a tag for it."""
        if self.money:
            return (f"o[{OWN}]", "own") if self.pinned else (f"o[{BASE}]", "amt")
        j = self._extras.index(self.spec.of or "")
        kept = f"o[{EXTRA + j}]"
        return (f"{self.src.use(kept_number)}({kept})" if numeric else kept), f"e{j}"

    def _leaving(self, steps: dict[str, None]) -> None:
        """The oldest stamp inside a window; when its day leaves, values may change."""
        window = self.spec.window_days
        if not window or not self.due:
            return
        old = f"o{self.tag}"
        if old not in self._loop.inits:
            self.start(old, str(NEVER))
            leaves = f"day_of({old}) + {window}"
            self.after(f"if {old} < {NEVER} and {leaves} < due_day: due_day = {leaves}")
        steps[f"if us < {old}: {old} = us"] = None
