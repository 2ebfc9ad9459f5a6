"""A plain, slow fold of the log: which copies count, identity, and each customer's totals.

Written only from the design, to be obviously right rather than fast. No clock, no I/O.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from decimal import Decimal
from hashlib import blake2b
from typing import Any, NamedTuple

from tests.checker.order_life import SALES, Said, settle
from tests.checker.sources import Position

FOLLOWERS = ("purchase.refunded", "pos.return", "purchase.cancelled", "purchase.updated")
"""What belongs to whoever has its order, as does a sale below zero."""
NOBODY = ":order"  # the kind of an event that names an order and nobody
RANK_ABOVE = ("user_id", "loyalty_card", "email", "phone")
RANK_BELOW = ("device_id", "anonymous_id")
LIMITS = {"user_id": 1, "device_id": 20, "anonymous_id": 100}  # others 5
HUB_LIMITS = {"user_id": 5, "loyalty_card": 5, "device_id": 20}  # others 10
CROWD_LIMITS = {  # (kind, kind seen with it): most
    ("user_id", "user_id"): 5,
    **{("user_id", kind): 10 for kind in ("loyalty_card", "email", "phone")},
    **{("loyalty_card", kind): 10 for kind in ("email", "phone")},
}
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)  # noqa: UP017  # the checker spells it its own way


class Event(NamedTuple):
    """A record of the log, decoded with the standard library."""

    position: Position
    key: str
    digest: str
    signature: str
    tokens: tuple[tuple[str, str], ...]  # (kind, token)
    route_key: str
    received_us: int
    n: int  # place in its request
    occurred_us: int
    raw: dict[str, Any]


Receipt = tuple[int, int, str]  # (received at, place in the request, event key)


class Totals(NamedTuple):
    """Totals of a customer's events."""

    events: int
    first_us: int
    last_us: int
    orders: int
    revenue: Decimal


class People(NamedTuple):
    """Resolved identity."""

    owner: dict[str, str]  # identifier set -> profile id
    members: dict[str, frozenset[str]]  # profile id -> tokens
    hubs: frozenset[str]


def microseconds(text: str) -> int:
    """Exact microseconds since 1970 of an ISO time with a zone."""
    delta = datetime.fromisoformat(text.replace("Z", "+00:00")) - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


def signature_of(tokens: Iterable[str]) -> str:
    """The name of a set of tokens, as the log's contract defines it; needs no key."""
    joined = b"".join(sorted(bytes.fromhex(token) for token in tokens))
    return blake2b(joined, digest_size=16, person=b"tf-signature").hexdigest()


def decode(position: Position, value: bytes) -> Event:
    """Raises ValueError or KeyError for bytes that are not a record."""
    raw = json.loads(value, parse_float=Decimal)
    if raw["v"] not in (1, 2):  # of the same shape: version 2 added `n` and `flags`
        raise ValueError("a record of another version")
    tokens = tuple((each["kind"], each["token"]) for each in raw["ids"])
    for text in (raw["id"].replace("-", ""), raw["digest"], *(token for _, token in tokens)):
        bytes.fromhex(text)  # ValueError: a record that cannot be folded
    return Event(
        position,
        raw["id"].replace("-", ""),
        raw["digest"],
        signature_of(token for _, token in tokens),
        tokens,
        raw["route_key"],
        microseconds(raw["received_at"]),
        raw.get("n", 0),
        microseconds(raw["occurred_at"]),
        raw,
    )


# ---------------------------------------------------------------- which copies count (C3)


def choose(events: Iterable[Event]) -> dict[str, Event]:
    """Event key -> the copy that counts: lowest offset in each partition, and of these the first received."""
    copies: dict[str, dict[int, Event]] = defaultdict(dict)
    for event in sorted(events, key=lambda e: e.position):
        copies[event.key].setdefault(event.position[0], event)
    return {key: min(each.values(), key=lambda e: (e.received_us, e.position)) for key, each in copies.items()}


# ---------------------------------------------------------------- identity (C6)


def rank(kind: str) -> tuple[int, str]:
    """Lower ranks higher; external types between phone and device_id, alphabetically."""
    if kind in RANK_ABOVE:
        return RANK_ABOVE.index(kind), ""
    if kind in RANK_BELOW:
        return len(RANK_ABOVE) + 1 + RANK_BELOW.index(kind), ""
    return len(RANK_ABOVE), kind


def people(events: Iterable[Event], erased: frozenset[str] | set[str]) -> People:
    """Resolve all evidence of the applied events from scratch, without erased tokens."""
    first: dict[str, Receipt] = {}
    sets: dict[str, tuple[tuple[str, str], ...]] = {}
    for event in events:
        if event.route_key in erased or event.tokens[0][0] == NOBODY:
            continue
        sets[event.signature] = tuple(pair for pair in event.tokens if pair[1] not in erased)
        receipt = (event.received_us, event.n, event.key)
        first[event.signature] = min(first.get(event.signature, receipt), receipt)
    hubs = _hubs(sets.values())
    token_first: dict[str, tuple[Receipt, tuple[int, str], str]] = {}
    group: dict[str, set[str]] = {}
    kinds: dict[str, str] = {}
    base_of: dict[str, str] = {}
    for signature in sorted(sets, key=lambda s: first[s]):
        pairs = sorted(sets[signature], key=lambda pair: (rank(pair[0]), pair[1]))
        for kind, token in pairs:
            kinds[token] = kind
            token_first.setdefault(token, (first[signature], rank(kind), token))
        firm = [token for _, token in pairs if token not in hubs]
        if not firm:
            base_of[signature] = pairs[0][1]
            continue
        base_of[signature] = firm[0]
        for token in firm:
            group.setdefault(token, {token})
        for token in firm[1:]:
            _join(group, kinds, firm[0], token)
    names = {token: min(each, key=lambda t: token_first[t]) for token, each in group.items()}
    members = {names[token]: frozenset(each) for token, each in group.items()}
    members |= {token: frozenset({token}) for token in kinds if token in hubs}
    owner = {signature: names.get(base, base) for signature, base in base_of.items()}
    return People(owner, members, frozenset(hubs & kinds.keys()))


def _join(group: dict[str, set[str]], kinds: Mapping[str, str], base: str, token: str) -> None:
    """Merge two groups unless a limit forbids it. Two user_ids are linked only by an alias: no limit forbids that."""
    one, two = group[base], group[token]
    if one is two:
        return
    alias = kinds[base] == kinds[token] == "user_id"
    union = one | two
    for kind in {kinds[each] for each in one} & {kinds[each] for each in two}:
        count = sum(kinds[each] == kind for each in union)
        if count > LIMITS.get(kind, 5) and not (alias or _adds(one, two, kinds, kind) or _adds(two, one, kinds, kind)):
            return
    for each in union:
        group[each] = union


def _adds(group: set[str], other: set[str], kinds: Mapping[str, str], kind: str) -> bool:
    """Whether the other group brings one more identifier of a kind to a group that a higher-ranked one names."""
    brings = sorted(rank(kinds[each]) for each in other)
    return brings.count(rank(kind)) == 1 and brings[0] == rank(kind) > min(rank(kinds[each]) for each in group)


def _hubs(sets: Iterable[tuple[tuple[str, str], ...]]) -> set[str]:
    """Shared identifiers: tokens seen with more than N(k) distinct tokens of one higher-ranked kind k, and logins and
    cards seen with too many addresses.
    """
    partners: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for pairs in sets:
        for kind, token in pairs:
            for other_kind, other in pairs:
                if other != token:
                    partners[token, kind, other_kind].add(other)
    found = set()
    for (token, kind, other), others in partners.items():
        most = HUB_LIMITS.get(other, 10) if rank(other) < rank(kind) else CROWD_LIMITS.get((kind, other))
        if most is not None and len(others) > most:
            found.add(token)
    return found


# ---------------------------------------------------------------- totals (C5)


def follows(event: Event) -> bool:
    props, type_ = event.raw.get("properties", {}), event.raw["type"]
    back = type_ in SALES and (revenue(props) or 0) < 0
    return (type_ in FOLLOWERS or back) and bool(props.get("order_id"))


def has_order(event: Event) -> bool:
    """Whether it is a sale: of something, or of an amount that nobody says."""
    props = event.raw.get("properties", {})
    own = revenue(props)
    sold = own is None or own > 0 or (own == 0 and bool(props.get("products")))
    return event.raw["type"] in SALES and sold and bool(props.get("order_id"))


def payers(
    events: Iterable[Event], owner: Mapping[str, str], erased: frozenset[str] | set[str]
) -> dict[str, str | None]:
    """Event key -> the profile whose orders each event of an order changes; None: nobody's, as all that is erased.

    What follows an order is its sender's, if they have it; else of the only one who has it in the same source; else of
    the only one in any. An erased person who has it is somebody, too.
    """
    events = list(events)
    has: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for event in events:
        if has_order(event):
            order = str(event.raw["properties"]["order_id"])
            has[order].append((event.raw["source"], owner.get(event.signature, "erased")))
    found: dict[str, str | None] = {}
    for event in events:
        sender = owner.get(event.signature)
        found[event.key] = sender
        if not follows(event) or event.route_key in erased:
            continue
        places = has.get(str(event.raw["properties"]["order_id"]), [])
        anywhere = {who for _, who in places}
        here = {who for source, who in places if source == event.raw["source"]}
        if sender in anywhere:
            continue
        for ones in (here, anywhere):
            if len(ones) == 1 and ones != {"erased"}:
                (found[event.key],) = ones
                break
    return found


def order_set_of(event: Event) -> str:
    """The name of the state that has what an event does to the order it follows."""

    def hashed(text: str, size: int, person: bytes) -> bytes:
        return blake2b(text.encode(), digest_size=size, person=person).digest()

    source = int.from_bytes(hashed(event.raw["source"], 8, b"tf-source"), "big") >> 1
    order = hashed(str(event.raw["properties"]["order_id"]), 16, b"tf-order")
    content = bytes.fromhex(event.signature) + source.to_bytes(8, "big") + order
    return blake2b(content, digest_size=16, person=b"tf-order-set").hexdigest()


def totals(theirs: Iterable[Event], events: Iterable[Event], currency: str = "USD") -> Totals:
    """Totals of one customer: `theirs` came from them, `events` change their orders.

    Amounts in other currencies are not converted: do not send any.
    """
    theirs, events, said = list(theirs), list(events), []
    first_us = min(event.occurred_us for event in theirs)
    last_us = max(event.occurred_us for event in [*theirs, *events])
    for event in events:
        props = event.raw.get("properties", {})
        assert props.get("currency", currency) == currency, "the reference fold converts no currencies"
        order, refund = (str(props[name]) if props.get(name) else None for name in ("order_id", "refund_id"))
        lines, own = bool(props.get("products")), revenue(props)
        place = (event.occurred_us, event.received_us, event.n)
        said.append(Said(event.raw["type"], event.key, order, refund, *place, 0, own, None, lines))
    orders, refunds = settle(said, currency, lambda own, _currency, _at: own)
    net = sum((each.own or Decimal(0) for each in orders), Decimal(0))
    net -= sum((each.own or Decimal(0) for each in refunds), Decimal(0))
    return Totals(len(theirs), first_us, last_us, len(orders), net)


def revenue(props: Mapping[str, Any]) -> Decimal | None:
    """`revenue`, else `total`, else the sum over the lines of the amount, else of price times quantity."""
    for name in ("revenue", "total"):
        if props.get(name) is not None:
            return Decimal(str(props[name]))
    worth: list[Decimal] = []
    for line in props.get("products") or []:
        if isinstance(line, Mapping) and line.get("amount") is not None:
            worth.append(Decimal(str(line["amount"])))
        elif isinstance(line, Mapping) and line.get("price") is not None:
            worth.append(Decimal(str(line["price"])) * Decimal(str(line.get("quantity", 1))))
    return sum(worth, Decimal(0)) if worth else None
