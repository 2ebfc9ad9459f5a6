"""How well the platform knows the demo's customers: identity and the churn flag against the truth.

The pure part scores; `score` reads what the platform holds and, for the lead time, decides every past day again.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import datetime
from statistics import median
from typing import Any, Final, NamedTuple

from infra.adapters.phones import Phones
from infra.adapters.postgres.reads import PostgresReads
from infra.app.bootstrap import Session
from infra.demo.folder import DemoFolder
from infra.demo.history import Truth
from projections.fold.event import FoldEvent
from query.views import View, Views
from schemas.identifiers import normalise
from schemas.record import to_us

RISKS: Final = ("medium", "high")
STAGES: Final = ("at_risk", "lapsed")
_DAY_US: Final = 86_400_000_000
_CHUNK: Final = 10_000
Identifier = tuple[str, str]


class Standing(NamedTuple):
    """What the platform says of a profile now."""

    stage: str
    risk: str

    @property
    def flagged(self) -> bool:
        return self.risk in RISKS or self.stage in STAGES


def pairs(count: int) -> int:
    """How many pairs so many things make."""
    return count * (count - 1) // 2


def ratio(part: int, whole: int) -> float | None:
    """Four places; None of nothing."""
    return None if whole == 0 else round(part / whole, 4)


def identity_score(owner: Mapping[Identifier, bytes], truths: Sequence[Truth]) -> dict[str, Any]:
    """Pairs of identifiers in one profile against pairs of one person; shared identifiers are in neither."""
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
    """The profile that holds most of a person's identifiers."""
    votes = Counter(owner[each] for each in truth.identifiers if each in owner)
    return min(votes, key=lambda profile: (-votes[profile], profile)) if votes else None


def churn_score(flags: Iterable[tuple[bool, bool]]) -> dict[str, Any]:
    """Of (flagged, left) for each customer who ever ordered."""
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


# --- reading -------------------------------------------------------------------------------------------------------


def score(session: Session, folder: DemoFolder) -> dict[str, Any]:
    """The JSON of `demo-score`. Raises NotFound without a demo."""
    truths, _shared = folder.truth()
    phones = Phones(session.region)
    known = [_normal(truth, phones) for truth in truths]
    owner = _owners(session)
    with closing(PostgresReads(session.dsn)) as reads:
        view = Views(reads).current()
    standings = _standings(session, view.revision)
    bought = [(truth, profile_of(truth, owner)) for truth in known if truth.orders]
    flags = [
        (profile in standings and standings[profile].flagged, truth.left_at is not None) for truth, profile in bought
    ]
    left = {profile: truth.left_at for truth, profile in bought if profile is not None and truth.left_at is not None}
    leads = list(_leads(session, view, left, standings))
    return {
        "identity": identity_score(owner, known),
        "churn": churn_score(flags) | {"lead_days": lead_score(leads)},
    }


def _normal(truth: Truth, phones: Phones) -> Truth:
    """A truth with its identifiers in the form the door keeps."""
    normal = [(kind, normalise(kind, value, phone=phones) or value) for kind, value in truth.identifiers]
    return truth._replace(identifiers=list(dict.fromkeys(normal)))


def _owners(session: Session) -> dict[Identifier, bytes]:
    """The profile of every identifier that is no hub."""
    with session.database("touchfold demo-score").transaction() as cursor:
        cursor.execute("select token, profile_id from tokens where profile_id is not null and not hub")
        rows = {bytes(token): bytes(profile) for token, profile in cursor.fetchall()}
    opened = session.vault().open(rows)
    return {(each.kind, each.value): rows[token] for token, each in opened.items()}


def _standings(session: Session, revision: int) -> dict[bytes | None, Standing]:
    with session.database("touchfold demo-score").transaction() as cursor:
        cursor.execute(f"select profile_id, lifecycle, risk from profiles_r{int(revision)}")
        return {bytes(profile): Standing(stage, risk) for profile, stage, risk in cursor.fetchall()}


def _leads(
    session: Session, view: View, left: Mapping[bytes, str], standings: Mapping[bytes | None, Standing]
) -> Iterator[float]:
    """For each of those who left and are flagged: days from the start of the present flag to their last own touch."""
    flagged = {profile: at for profile, at in left.items() if profile in standings and standings[profile].flagged}
    now_us = to_us(session.clock.now())
    for profile, events in _events(session, view, flagged.keys()).items():
        since_us = flagged_since(view, events, now_us)
        if since_us is not None:
            left_us = to_us(datetime.fromisoformat(flagged[profile]))
            yield (left_us - since_us) / _DAY_US


def flagged_since(view: View, events: Sequence[FoldEvent], now_us: int) -> int | None:
    """Since when a profile is flagged without a break, deciding once a day as its events come; None when it is not."""
    fold, evaluator = view.fold, view.evaluator
    waiting = sorted(events, key=lambda event: (event.occurred_us, event.key))
    state, place, since = fold.new_state(), 0, None
    at_us = waiting[0].occurred_us
    while True:
        at_us = min(at_us + _DAY_US, now_us)
        while place < len(waiting) and waiting[place].occurred_us <= at_us:
            fold.apply(waiting[place], state, None)
            place += 1
        decision = evaluator.decide(state, at_us, None)
        if not Standing(decision.stage, decision.risk).flagged:
            since = None
        elif since is None:
            since = at_us
        if at_us >= now_us:
            return since


def _events(session: Session, view: View, profiles: Iterable[bytes]) -> dict[bytes, list[FoldEvent]]:
    """The applied events of some profiles, decoded; sealed parts stay closed, the retail pack needs none."""
    wanted = list(profiles)
    where: dict[tuple[int, int], bytes] = {}
    with session.database("touchfold demo-score").transaction() as cursor:
        cursor.execute(
            'select r.partition, r."offset", e.profile_id from register r join evidence e using (signature)'
            " where r.verdict = 0"
        )
        chosen = set(wanted)
        for partition, offset, profile in cursor.fetchall():
            if profile is not None and bytes(profile) in chosen:
                where[partition, offset] = bytes(profile)
    found: dict[bytes, list[FoldEvent]] = {}
    log, places = session.log(), sorted(where)
    for start in range(0, len(places), _CHUNK):
        for record in log.fetch(places[start : start + _CHUNK]):
            found.setdefault(where[record.partition, record.offset], []).append(view.fold.decode(record.value))
    return found
