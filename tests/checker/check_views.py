"""What the product derives from the log, against the slow fold: profiles, segments, and what is left after erasure.

Each check yields violations and changes nothing; `check_log` explains the rules' names.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal
from typing import NamedTuple

from tests.checker import reference
from tests.checker.check_log import Facts, Violation
from tests.checker.reference import Totals


class Shown(NamedTuple):
    """A profile as shown by the product's own SQL; `orders` None if the table has no such column."""

    event_count: int
    orders: int | None
    revenue: Decimal | None


# ---------------------------------------------------------------- I3: what is shown equals the fold


def check_profiles(facts: Facts) -> Iterator[Violation]:
    """Identity and each profile's counts, against the slow fold."""
    tables, people = facts.tables, facts.people
    grouped, totals = facts.by_profile(), facts.totals()
    for signature, owner in people.owner.items():
        found = tables.evidence.get(signature, (frozenset(), None))[1]
        if found != owner:
            yield Violation("I3.identity", f"signature {signature} belongs to {owner}, not {found}")
    home = {token: profile for profile, tokens in people.members.items() for token in tokens}
    for token, profile in home.items():
        row = tables.tokens.get(token)
        if row is None or row[1] != (token in people.hubs) or (row[2] != profile and token not in people.hubs):
            yield Violation("I3.identity", f"token {token} is {row}, expected in {profile}")
    for profile, events in grouped.items():
        shown = tables.profiles.get(profile)
        if shown is None:
            yield Violation("I3.missing", f"profile {profile} with {len(events)} events is missing")
            continue
        expected = totals[profile]
        if (shown.event_count, shown.first_us, shown.last_us) != expected[:3]:
            yield Violation("I3.count", f"profile {profile} counts {shown.event_count} of {expected.events} events")
    for profile in tables.profiles.keys() - grouped.keys():
        yield Violation("I3.ghost", f"profile {profile} has no event")
    known = {(event.signature, event.position[0]) for event in facts.applied if event.signature in facts.people.owner}
    known |= {(reference.order_set_of(event), event.position[0]) for event in facts.applied if reference.follows(event)}
    for signature, partition in tables.states - known:
        yield Violation("I3.ghost", f"state of {signature} in partition {partition} has no event")
    for signature, partition in known - tables.states:
        yield Violation("I3.missing", f"state of {signature} in partition {partition} is missing")


def check_shown(facts: Facts, shown: Mapping[str, Shown]) -> Iterator[Violation]:
    """The product's own table of profiles (through its SQL) against the slow fold, to the cent."""
    grouped = facts.totals()
    for profile, expected in grouped.items():
        row = shown.get(profile)
        if row is None:
            yield Violation("I3.missing", f"profile {profile} is not shown")
        elif row.event_count != expected.events:
            yield Violation("I3.count", f"profile {profile} shows {row.event_count} of {expected.events} events")
        elif row.orders is not None and (row.orders or 0) != expected.orders:
            yield Violation("I3.orders", f"profile {profile} shows {row.orders} of {expected.orders} orders")
        elif (row.orders is not None) and (row.revenue or Decimal(0)) != expected.revenue:
            yield Violation("I3.revenue", f"profile {profile} shows {row.revenue}, not {expected.revenue}")
    for profile in shown.keys() - grouped.keys():
        yield Violation("I3.ghost", f"profile {profile} is shown and has no event")


def check_members(facts: Facts, segments: Mapping[str, Callable[[Totals], bool]]) -> Iterator[Violation]:
    """Membership of the checker's own segments: name -> a function of Totals."""
    names = sorted(facts.tables.definitions.get("segments", {}))
    members: dict[str, set[str]] = defaultdict(set)
    for index, profile in facts.tables.memberships:
        members[names[index]].add(profile)
    grouped = facts.totals()
    for name, belongs in segments.items():
        if name not in names:
            yield Violation("I3.segment", f"segment {name} is not defined")
            continue
        expected = {profile for profile, each in grouped.items() if belongs(each)}
        for profile in expected ^ members[name]:
            state = "missing from" if profile in expected else "wrongly in"
            yield Violation("I3.segment", f"profile {profile} is {state} {name}")


# ---------------------------------------------------------------- E: erasure


def check_erased(facts: Facts, vault: Iterable[str] | None = None) -> Iterator[Violation]:
    """Nothing of an erased token is applied or can be opened; every other token in the log still can."""
    tables, erased = facts.tables, facts.tables.erased
    for signature, (tokens, profile) in tables.evidence.items():
        if tokens & erased or profile in erased:
            yield Violation("E.evidence", f"signature {signature} still holds an erased token")
    gone = {event.signature for event in facts.events.values() if event.route_key in erased}
    for signature, partition in tables.states:
        if signature in gone:
            yield Violation("E.state", f"state of {signature} in partition {partition} outlives its person")
    for token in erased & tables.profiles.keys():
        yield Violation("E.profile", f"profile {token} outlives its person")
    for token, (_, _, profile) in tables.tokens.items():
        if token in erased or profile in erased:
            yield Violation("E.token", f"token {token} outlives its person")
    for letter in tables.dead_letters:
        if letter.tokens & erased and letter.state != "erased":
            yield Violation("E.dead_letter", f"dead letter {letter.id} outlives its person")
    if vault is None:
        return
    openable = set(vault)
    for token in erased & openable:
        yield Violation("E.vault", f"the vault still opens token {token}")
    living = {token for event in facts.events.values() for _, token in event.tokens} - erased
    for token in living - openable:
        yield Violation("I1.vault", f"token {token} was not erased and cannot be opened")
