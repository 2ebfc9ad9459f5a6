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
# A shop assistant's login is seen with twelve customers in a day; people rarely have ten addresses in their life.
# Two user_ids are seen together only in an alias: a chain of them names two of each, a login aliased to all many.
LOGIN_LIMIT: Final = 10
_USERS_ALIASED: Final = 5


def crowd_limits(login_limit: int) -> dict[str, dict[str, int]]:
    """For logins and cards: with how many identifiers of the other kinds one may be seen before it is shared."""
    return {
        "user_id": {"user_id": _USERS_ALIASED, **dict.fromkeys(("loyalty_card", "email", "phone"), login_limit)},
        "loyalty_card": dict.fromkeys(("email", "phone"), login_limit),
    }


@dataclass(frozen=True)
class IdentityRules:
    """How identifier kinds weigh. A kind named in neither `above` nor `below` is an external type.

    `above`, `below`: kinds ranking over and under the external types, highest first; external types rank between
    them in alphabetical order. `limits`: most tokens of a kind that one profile may hold when two profiles are joined;
    only a single identifier of the kind may come on top (`Board`). `sharing_limits`: N(k); `crowd_limits`: the same for
    the lower-ranked kinds that count for a kind; see `sharing_limit`. Raises DefinitionsInvalid naming the kind when a
    kind is ranked twice, a limit is below 1, or N(k) < limit(k) (else a profile within its limits could be a shared
    identifier to its own identifiers).
    """

    above: tuple[str, ...] = ("user_id", "loyalty_card", "email", "phone")
    below: tuple[str, ...] = ("device_id", "anonymous_id")
    limits: Mapping[str, int] = field(default_factory=lambda: dict(_LIMITS))
    default_limit: int = 5
    sharing_limits: Mapping[str, int] = field(default_factory=lambda: dict(_HUB_LIMITS))
    default_sharing_limit: int = 10
    crowd_limits: Mapping[str, Mapping[str, int]] = field(default_factory=lambda: crowd_limits(LOGIN_LIMIT))
    _ranks: Mapping[str, Rank] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        ranks = {kind: (place, "") for place, kind in enumerate(self.above)}
        ranks |= {kind: (len(self.above) + 1 + place, "") for place, kind in enumerate(self.below)}
        object.__setattr__(self, "_ranks", ranks)
        problems = [
            Problem(kind, "is ranked twice") for kind in sorted(ranks) if (*self.above, *self.below).count(kind) > 1
        ]
        for kind in sorted({*ranks, *self.limits, *self.sharing_limits}):
            problems += _limit_problems(kind, self.limit(kind), self._above(kind))
        for kind, most in self._crowds():
            problems += _limit_problems(kind, self.limit(kind), most)
        problems += _limit_problems("(other kinds)", self.default_limit, self.default_sharing_limit)
        if problems:
            raise DefinitionsInvalid("identity rules cannot be used", problems)

    def rank(self, kind: str) -> Rank:
        """Sortable; lower ranks higher."""
        return self._ranks.get(kind) or (len(self.above), kind)

    def limit(self, kind: str) -> int:
        """Most tokens of this kind in a profile that two are joined to."""
        return self.limits.get(kind, self.default_limit)

    def sharing_limit(self, kind: str, other: str) -> int | None:
        """A token of `kind` seen with more than this many distinct tokens of the kind `other` is shared.

        None if `other` does not count: it ranks no higher and is not among the crowd limits of `kind`.
        """
        if self.rank(other) < self.rank(kind):
            return self._above(other)
        crowd = self.crowd_limits.get(kind)
        return None if crowd is None else crowd.get(other)

    def smallest_sharing_limit(self) -> int:
        """A token with at most this many partners of all kinds together is not shared."""
        return min([*self.sharing_limits.values(), self.default_sharing_limit, *(most for _, most in self._crowds())])

    def names_a_person(self, kind: str) -> bool:
        """Whether two identifiers of this kind in one event say that they are one person: the highest-ranked kind."""
        return self.rank(kind) == (0, "")

    def _above(self, higher_kind: str) -> int:
        """N(k)."""
        return self.sharing_limits.get(higher_kind, self.default_sharing_limit)

    def _crowds(self) -> list[tuple[str, int]]:
        return [pair for most in self.crowd_limits.values() for pair in most.items()]


def _limit_problems(kind: str, limit: int, sharing_limit: int) -> list[Problem]:
    if limit < 1:
        return [Problem(kind, f"limit {limit} is below 1")]
    if sharing_limit < limit:
        return [Problem(kind, f"sharing limit {sharing_limit} is below limit {limit}")]
    return []


DEFAULT_RULES: Final = IdentityRules()


def rules_with(login_limit: int) -> IdentityRules:
    """The rules of a deployment. Raises DefinitionsInvalid for a limit below 5."""
    return IdentityRules(crowd_limits=crowd_limits(login_limit))
