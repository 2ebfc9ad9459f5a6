"""Ranks, limits and sharing limits of identifier kinds (contracts, "Kinds"). Data and checks; decides nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from schemas.errors import DefinitionsInvalid, Problem

Rank = tuple[int, str]  # lower sorts first and ranks higher

_LIMITS: Final = {
    "user_id": 1,
    "loyalty_card": 5,
    "email": 5,
    "phone": 5,
    "device_id": 20,
    "anonymous_id": 100,
}
# anonymous_id ranks lowest, so its N is never asked for; it is there to keep N >= limit true of every kind.
_HUB_LIMITS: Final = {"user_id": 5, "loyalty_card": 5, "device_id": 20, "anonymous_id": 100}


@dataclass(frozen=True)
class IdentityRules:
    """How identifier kinds weigh. A kind named in neither `above` nor `below` is an external type.

    `above`, `below`: kinds ranking over and under the external types, highest first; external types rank between
    them in alphabetical order. `limits`: most tokens of a kind one profile may hold, ever. `sharing_limits`: N(k), see
    `sharing_limit`. Raises DefinitionsInvalid naming the kind when a kind is ranked twice, a limit is below 1, or
    N(k) < limit(k) (else a profile within its limits could be a shared identifier to its own identifiers).
    """

    above: tuple[str, ...] = ("user_id", "loyalty_card", "email", "phone")
    below: tuple[str, ...] = ("device_id", "anonymous_id")
    limits: Mapping[str, int] = field(default_factory=lambda: dict(_LIMITS))
    default_limit: int = 5
    sharing_limits: Mapping[str, int] = field(default_factory=lambda: dict(_HUB_LIMITS))
    default_sharing_limit: int = 10
    _ranks: Mapping[str, Rank] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        ranks = {kind: (place, "") for place, kind in enumerate(self.above)}
        ranks |= {kind: (len(self.above) + 1 + place, "") for place, kind in enumerate(self.below)}
        object.__setattr__(self, "_ranks", ranks)
        problems = [
            Problem(kind, "is ranked twice") for kind in sorted(ranks) if (*self.above, *self.below).count(kind) > 1
        ]
        for kind in sorted({*ranks, *self.limits, *self.sharing_limits}):
            problems += _limit_problems(kind, self.limit(kind), self.sharing_limit(kind))
        problems += _limit_problems("(other kinds)", self.default_limit, self.default_sharing_limit)
        if problems:
            raise DefinitionsInvalid("identity rules cannot be used", problems)

    def rank(self, kind: str) -> Rank:
        """Sortable; lower ranks higher."""
        return self._ranks.get(kind) or (len(self.above), kind)

    def limit(self, kind: str) -> int:
        """Most tokens of this kind in one profile."""
        return self.limits.get(kind, self.default_limit)

    def sharing_limit(self, higher_kind: str) -> int:
        """N(k): a token seen with more than this many distinct tokens of the higher-ranked kind k is shared."""
        return self.sharing_limits.get(higher_kind, self.default_sharing_limit)

    def smallest_sharing_limit(self) -> int:
        """A token with at most this many partners of all kinds together is not shared."""
        return min([*self.sharing_limits.values(), self.default_sharing_limit])


def _limit_problems(kind: str, limit: int, sharing_limit: int) -> list[Problem]:
    if limit < 1:
        return [Problem(kind, f"limit {limit} is below 1")]
    if sharing_limit < limit:
        return [Problem(kind, f"sharing limit {sharing_limit} is below limit {limit}")]
    return []


DEFAULT_RULES: Final = IdentityRules()
