"""How well the platform knows the demo's customers: identity and the churn flag against the truth.

Pure: the truth and the platform's data (`Platform`) are arguments.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from statistics import median
from typing import Any, Final, Protocol

from infra.demo.history import Truth

RISKS: Final = ("medium", "high")
STAGES: Final = ("at_risk", "lapsed")
_DAY_US: Final = 86_400_000_000
Identifier = tuple[str, str]


class Platform(Protocol):
    """What the platform knows about all customers; profiles are represented by their ids."""

    def normal(self, kind: str, value: str) -> str: ...
    def owners(self) -> Mapping[Identifier, bytes]: ...
    def standings(self) -> Mapping[bytes, tuple[str, str]]: ...
    def held_since(
        self, profiles: Collection[bytes], flag: Callable[[str, str], bool]
    ) -> Iterable[tuple[bytes, int | None]]: ...


def is_flagged(stage: str, risk: str) -> bool:
    """Whether a customer of this stage and risk counts as about to leave."""
    return risk in RISKS or stage in STAGES


def pairs(count: int) -> int:
    """The number of pairs among `n` things."""
    return count * (count - 1) // 2


def ratio(part: int, whole: int) -> float | None:
    """The ratio to four decimal places; None if the denominator is 0."""
    return None if whole == 0 else round(part / whole, 4)


def identity_score(owner: Mapping[Identifier, bytes], truths: Sequence[Truth]) -> dict[str, Any]:
    """Compare identifier pairs within a profile with pairs of the same person; shared identifiers are excluded."""
    together: Counter[tuple[bytes, int]] = Counter()
    profiles: Counter[bytes] = Counter()
    right = 0
    for number, truth in enumerate(truths):
        right += pairs(len(truth.identifiers))
        for identifier in truth.identifiers:
            profile = owner.get(identifier)
            if profile is not None:
                together[profile, number] += 1
                profiles[profile] += 1
    both, found = sum(map(pairs, together.values())), sum(map(pairs, profiles.values()))
    return {
        "precision": ratio(both, found),
        "recall": ratio(both, right),
        "pairs_found": found,
        "pairs_right": right,
        "identifiers": sum(len(truth.identifiers) for truth in truths),
        "unknown_identifiers": sum(each not in owner for truth in truths for each in truth.identifiers),
        "people": len(truths),
        "profiles": len(profiles),
    }


def profile_of(truth: Truth, owner: Mapping[Identifier, bytes]) -> bytes | None:
    """The profile with most of a person's identifiers."""
    votes = Counter(owner[each] for each in truth.identifiers if each in owner)
    return min(votes, key=lambda profile: (-votes[profile], profile)) if votes else None


def churn_score(flags: Iterable[tuple[bool, bool]]) -> dict[str, Any]:
    """Precision and recall from (flagged, left) for each customer who ever ordered."""
    count = Counter(flags)
    right = count[True, True]
    flagged, left = right + count[True, False], right + count[False, True]
    return {
        "precision": ratio(right, flagged),
        "recall": ratio(right, left),
        "customers": count.total(),
        "flagged": flagged,
        "left": left,
    }


def lead_score(leads: Sequence[float]) -> dict[str, Any]:
    """Days from the flag, as it would have been raised day by day, to the last own touch; negative: after it."""
    return {
        "flagged": len(leads),
        "median": round(median(leads), 1) if leads else None,
        "before_leaving": ratio(sum(lead >= 0 for lead in leads), len(leads)),
    }


def score(platform: Platform, truths: Sequence[Truth]) -> dict[str, Any]:
    """The JSON of `demo-score`."""
    known = [_normal(truth, platform) for truth in truths]
    owner = platform.owners()
    flagged = {profile for profile, standing in platform.standings().items() if is_flagged(*standing)}
    bought = [(truth, profile_of(truth, owner)) for truth in known if truth.orders]
    flags = [(profile in flagged, truth.left_at is not None) for truth, profile in bought]
    left = {profile: truth.left_at for truth, profile in bought if profile is not None and truth.left_at is not None}
    leads = list(_leads(platform, {profile: at for profile, at in left.items() if profile in flagged}))
    return {
        "identity": identity_score(owner, known),
        "churn": churn_score(flags) | {"lead_days": lead_score(leads)},
    }


def _normal(truth: Truth, platform: Platform) -> Truth:
    """A truth with its identifiers normalised as the door does."""
    normal = [(kind, platform.normal(kind, value)) for kind, value in truth.identifiers]
    return truth._replace(identifiers=list(dict.fromkeys(normal)))


def _leads(platform: Platform, left: Mapping[bytes, str]) -> Iterator[float]:
    """For each customer who left and is flagged: days from the start of the current flag to their last own touch."""
    for profile, since_us in platform.held_since(left.keys(), is_flagged):
        if since_us is not None:
            left_us = round(datetime.fromisoformat(left[profile]).timestamp() * 1e6)
            yield (left_us - since_us) / _DAY_US
