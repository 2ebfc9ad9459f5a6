"""Turns public items into records (tokens, clear and sealed parts, keys, digests), and bad items into dead letters.

One vault look-up serves all items of all the requests. Nothing is stored here: the caller appends `pending` to the log
and `dead` to the dead letters before it answers, because only then is an item accepted.
"""

import re
import secrets
from binascii import b2a_base64
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from hashlib import blake2b
from typing import Any, Final
from uuid import UUID

import msgspec

from ingest.accept.aliases import name_previous
from ingest.accept.calls import ACCEPTED, DEAD_LETTER, OVER_32_KB, SUPPRESSED, Accepted, Call, ItemResult, SourceRules
from ingest.accept.canonical import (
    LARGE_EVENT_BYTES,
    Mended,
    Refused,
    Unreadable,
    canonical_parts,
)
from ingest.accept.dead import DeadLetters
from ingest.accept.draft import (
    Draft,
    IsCrawler,
    Known,
    Pair,
    by_our_error,
    surroundings,
    with_refs,
    without_identifier,
)
from ingest.accept.unnamed import MESSAGE_ID, DefinedBlocks, Normalise, Values, as_blocked, is_defined, no_message_id
from ingest.dialects.translate import merge_defaults, of_staff, translate, type_and_name
from ingest.requests.clock import flags_of, settle
from schemas.clear import split_around
from schemas.clear_rules import NOTHING_DECLARED, Clear, Declared, Own, clear_rules, own_identifiers
from schemas.errors import TouchfoldError
from schemas.identifiers import EVERY_EVENT, ORDER_KIND, extract
from schemas.identity_rules import DEFAULT_RULES, Rank
from schemas.normal_forms import as_sent
from schemas.ports import Sealer, Vault
from schemas.record import VERSION, Identifier, Pending, Record, Sealed, encode, uuid_text
from schemas.record_gate import FIRST
from schemas.sales import ORDER_IDS, first_id, unreadable
from schemas.touchpoints import FOLLOWING_TYPES

_RULES_CACHED: Final = 10_000
_KINDS_CACHED: Final = 1_000
_SOURCES_CACHED: Final = 1_000
_MESSAGE_ID: Final = re.compile(r"[A-Za-z0-9._:-]{0,100}")
_ENCODE: Final = msgspec.json.Encoder().encode


class Acceptor:
    """Usable from any thread, one at a time. `normalise(kind, value)`: the normal form or None (`schemas.identifiers`).

    `daily_token(day)`: the token whose key seals that day's dead letters without identifiers. `random_bytes(n)`: makes
    ids for items without a message id. `version()`: the version of the records to write. `is_crawler(user_agent)`:
    flags what a crawler sends. Raises what the vault raises: StoreUnavailable, KeyMissing.
    """

    def __init__(
        self,
        vault: Vault,
        sealer: Sealer,
        normalise: Normalise,
        daily_token: Callable[[date], bytes],
        *,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
        version: Callable[[], int] = lambda: VERSION,
        is_crawler: IsCrawler = lambda _agent: False,
    ) -> None:
        self._is_crawler = is_crawler
        self._version = version
        self._writes = FIRST  # what `version` said for the requests at hand
        self._vault = vault
        self._sealer = sealer
        self._normalise = normalise
        self._blocks = DefinedBlocks(normalise)
        self._dead = DeadLetters(vault, sealer, daily_token)
        self._random_bytes = random_bytes
        self._declared: Declared = NOTHING_DECLARED
        self._rules: dict[tuple[str, str | None, bool], Clear] = {}
        self._own: dict[tuple[str, str | None], Own] = {}
        self._ranks: dict[str, Rank] = {}
        self._digester: Any = None
        self._keyers: dict[str, Any] = {}

    def accept(
        self,
        items: Sequence[object],
        source: SourceRules,
        received_at: datetime,
        *,
        sent_at: datetime | None = None,
        defaults: Mapping[str, Any] | None = None,
        historical: bool = False,
        trusted_clock: bool = False,
        clock_received_at: datetime | None = None,
        first_n: int = 0,
    ) -> Accepted:
        """Accept the Segment-shaped (or Unreadable) items of one request; each becomes a record or a dead letter.

        `sent_at`: the request's, for items without their own. `defaults`: fill in what an item lacks; the contexts are
        merged. `historical`: known_at = occurred_at. `trusted_clock`: no correction.
        `clock_received_at`: when the request first arrived, if that is not `received_at`. `first_n`: see `Call`.
        """
        call = Call(
            items, source, received_at, sent_at, defaults, historical, trusted_clock, clock_received_at, first_n=first_n
        )
        return self.accept_many((call,))[0]

    def accept_many(self, calls: Sequence[Call]) -> list[Accepted]:
        """As `accept`, for several requests with one vault look-up."""
        self._writes = self._version()
        wanted: dict[Pair, None] = {}
        sent: dict[Pair, str] = {}
        drafts = [self._drafts(call, wanted, sent) for call in calls]
        aliases = [draft for own in drafts for draft in own if draft.previous is not None]
        if aliases:
            name_previous(aliases, wanted, self._normalise, lambda *pair: self._vault.find(*pair) is not None)
        tokens: dict[Pair, bytes] = {}
        suppressed: set[bytes] = set()
        if wanted:
            pairs = list(wanted)
            found = self._vault.tokens(pairs, sent)
            tokens = dict(zip(pairs, found, strict=True))
            suppressed = self._vault.suppressed(found)
        if self._digester is None:
            self._digester = blake2b(digest_size=16, key=self._vault.hash_key, person=b"tf-digest")
        contexts: Known = {}  # for these requests only: clear values are kept no longer
        return [self._finish(call, own, tokens, suppressed, contexts) for call, own in zip(calls, drafts, strict=True)]

    # ---------------------------------------------------------------- first pass: no I/O

    def _drafts(self, call: Call, wanted: dict[Pair, None], sent: dict[Pair, str]) -> list[Draft]:
        blocked = self._blocks.of(call.source.declared)
        drafts = [self._draft(item, call, n, blocked) for n, item in enumerate(call.items, call.first_n)]
        for draft in drafts:
            if draft.previous is None:
                for pair in draft.pairs:
                    wanted[pair] = None
            for pair, value in draft.sent:
                sent.setdefault(pair, as_sent(value))
        return drafts

    def _draft(self, item: object, call: Call, n: int, blocked: Values) -> Draft:
        draft = Draft(item, n)
        try:
            if type(item) is not dict:
                item = draft.item = _mended(item)
                draft.flags.append("mended")
            if call.defaults:
                draft.item = item = merge_defaults(item, call.defaults)
            self._identify(draft, item, self._own_of(item, call), blocked)
            draft.item, draft.encoded, draft.context = canonical_parts(item)
            if draft.item is not item and "mended" not in draft.flags:
                draft.flags.append("mended")
            if len(draft.encoded) > LARGE_EVENT_BYTES:
                draft.flags.append("large")
            draft.fields = translate(draft.item)
            message_id = draft.fields.message_id
            if message_id is not None and no_message_id(message_id, blocked):
                draft.fields = draft.fields._replace(message_id=None)
                draft.blocked.append((MESSAGE_ID, message_id, True))
            if call.staff:
                draft.fields = of_staff(draft.item, draft.fields)
            if not draft.pairs and draft.previous is None:
                draft.pairs.append(self._its_order(call, draft))
        except Refused as refused:
            draft.refused = refused
        except TouchfoldError:
            raise
        except Exception as err:
            draft.refused = by_our_error(err)
        return draft

    def _its_order(self, call: Call, draft: Draft) -> Pair:
        """What stands for a sender: the order that a refund, cancel or update names. Raises Refused without one."""
        fields = draft.fields
        assert fields is not None, "it was translated"
        if fields.type in FOLLOWING_TYPES:
            order = first_id(fields.properties.get(name) for name in ORDER_IDS)
            if order is not None:
                return ORDER_KIND, f"{call.source.name}/{order}"
        raise Refused("no_identifier", "", without_identifier(draft.item))

    def _own_of(self, item: Mapping[str, Any], call: Call) -> Own:
        """Which properties of the item are the customer's own identifiers."""
        properties = item.get("properties")
        declared = call.source.declared
        if not properties or type(properties) is not dict or declared.contacts.isdisjoint(properties):
            return EVERY_EVENT  # nearly all items: 0.3 µs
        self._clear_if_new(declared)
        event = type_and_name(item)
        own = self._own.get(event)
        if own is None:
            if len(self._own) >= _RULES_CACHED:
                self._own.clear()
            own = self._own[event] = own_identifiers(declared, *event)
        return own

    def _identify(self, draft: Draft, item: Mapping[str, Any], own: Own, blocked: Values) -> None:
        """The item's identifiers in rank order, and the paths of their values in its open sections."""
        pairs = draft.pairs
        normalise = self._normalise
        for kind, value, path in extract(item, own):
            normal = normalise(kind, value)
            if normal is None or (blocked and is_defined(blocked, kind, value, normal)):
                draft.blocked.append((kind, value, normal is not None))
            elif path[0] == "previousId":
                draft.previous = value
            else:
                pair = (kind, normal)
                if pair not in pairs:
                    pairs.append(pair)
                if normal is not value and normal != value:
                    draft.sent.append((pair, value))
                if len(path) > 1 and (path[0] != "traits" or item.get("type") == "identify"):  # others keep none
                    draft.spots.append((path, pair))
        if len(pairs) == 2:
            if self._rank(pairs[1]) < self._rank(pairs[0]):
                pairs.reverse()
        elif pairs:
            pairs.sort(key=self._rank)

    def _rank(self, pair: Pair) -> Rank:
        rank = self._ranks.get(pair[0])
        if rank is None:
            if len(self._ranks) >= _KINDS_CACHED:
                self._ranks.clear()
            rank = self._ranks[pair[0]] = DEFAULT_RULES.rank(pair[0])
        return rank

    # ---------------------------------------------------------------- second pass

    def _finish(
        self,
        call: Call,
        drafts: Sequence[Draft],
        tokens: Mapping[Pair, bytes],
        suppressed: set[bytes],
        contexts: Known,
    ) -> Accepted:
        accepted = Accepted([], [], [], [], [], [])
        for draft in drafts:
            for kind, value, defined in draft.blocked:
                seen = as_blocked(call.source.name, kind, value, defined=defined)
                if seen is not None:
                    accepted.blocked.append(seen)
            own = self._ordered(draft, tokens)
            message_id = None if draft.fields is None else draft.fields.message_id
            if draft.fields is None and isinstance(draft.item, Mapping):
                value = draft.item.get("messageId")
                message_id = value if isinstance(value, str) and value.isprintable() else None
            if suppressed and not suppressed.isdisjoint(own):
                key = self._key(call.source.name, message_id)
                accepted.suppressed.append(key)
                accepted.results.append(ItemResult(uuid_text(key), SUPPRESSED, ""))
                continue
            if draft.refused is None:
                key = self._key(call.source.name, message_id)
                id_ = uuid_text(key)
                try:
                    accepted.pending.append(self._record(call, draft, own, tokens, contexts, key, id_))
                except TouchfoldError:  # from the vault: the whole request is tried again
                    raise
                except Exception as err:
                    draft.refused = by_our_error(err)
                else:
                    code = OVER_32_KB if "large" in draft.flags else ""
                    accepted.results.append(ItemResult(id_, ACCEPTED, code))
                    if draft.flags:
                        accepted.flagged.extend(draft.flags)
            if draft.refused is not None:
                letter = self._dead.of(call, draft, own, message_id)
                accepted.dead.append(letter)
                accepted.results.append(ItemResult(uuid_text(letter.event_id or letter.id), DEAD_LETTER, letter.rule))
        return accepted

    def _ordered(self, draft: Draft, tokens: Mapping[Pair, bytes]) -> list[bytes]:
        """The tokens of an item. The first is its route: of several of the highest rank, the smallest token."""
        pairs = draft.pairs
        if len(pairs) > 1 and (draft.previous is not None or pairs[0][0] == pairs[1][0]):
            pairs.sort(key=lambda pair: (self._rank(pair), tokens[pair]))
        return [tokens[pair] for pair in pairs]

    def _key(self, source: str, message_id: str | None) -> bytes:
        """`schemas.record.event_key`, with the hash of the source computed once."""
        if message_id is None:
            message_id = str(UUID(bytes=self._random_bytes(16), version=4))
        keyer = self._keyers.get(source)
        if keyer is None:
            if len(self._keyers) >= _SOURCES_CACHED:
                self._keyers.clear()
            keyer = self._keyers[source] = blake2b(
                f"{source}\0".encode(), digest_size=16, key=self._vault.hash_key, person=b"tf-event-key"
            )
        keyer = keyer.copy()
        keyer.update(message_id.encode())
        key: bytes = keyer.digest()
        return key

    def _record(
        self,
        call: Call,
        draft: Draft,
        own: Sequence[bytes],
        tokens: Mapping[Pair, bytes],
        contexts: Known,
        key: bytes,
        id_: str,
    ) -> Pending:
        fields = draft.fields
        assert fields is not None, "a draft that is not refused has fields"
        type_, name, properties, context, traits, message_id, stamps, mapped = fields
        if draft.spots:
            properties, context, traits = with_refs(draft, properties, context, traits, tokens)
        times = settle(
            stamps.original_at,
            stamps.sent_at or call.sent_at,
            call.received_at,
            trusted=call.trusted_clock,
            historical=call.historical,
            clock_received_at=call.clock_received_at,
            given=stamps.given,
        )
        if unreadable(type_, properties, call.source.declared.decimals.get(call.source.name)):
            draft.flags.append("amount_unreadable")
        if times.flag is not None or stamps.unread:
            draft.flags += flags_of(times, stamps)
        rules = self._rules_of(call.source.declared, type_, name, call.staff)
        parted, derived, is_bot = surroundings(draft, context, rules, contexts, self._is_crawler)
        if is_bot:
            draft.flags.append("bot")
        clear_properties, clear_context, clear_traits, parts, names = split_around(
            properties, parted, traits, rules, call.source.declared.attributes
        )
        route = own[0]
        route_key = route.hex()
        sealed = None
        if parts:
            data = b2a_base64(self._sealer.seal(route, _ENCODE(parts), key), newline=False)
            sealed = Sealed(route_key, names, data.decode())
        version = self._writes
        digester = self._digester.copy()
        digester.update(draft.encoded)
        record = Record(
            v=version,
            id=id_,
            message_id=_kept(message_id),
            type=type_,
            name=name,
            source=call.source.name,
            ids=[Identifier(pair[0], token.hex()) for pair, token in zip(draft.pairs, own, strict=True)],
            route_key=route_key,
            occurred_at=times.occurred_at,
            received_at=call.received_at,
            known_at=times.known_at,
            original_at=times.original_at,
            sent_at=times.sent_at,
            clock_rule=times.rule,
            n=draft.n if version > FIRST else 0,
            flags=draft.flags if version > FIRST else [],
            mapped=[*mapped, *derived] if version > FIRST else [],
            digest=digester.hexdigest(),
            properties=clear_properties,
            context=clear_context,
            traits=clear_traits,
            sealed=sealed,
        )
        return Pending(route, encode(record))

    def _rules_of(self, declared: Declared, type_: str, name: str | None, staff: bool) -> Clear:
        self._clear_if_new(declared)
        if len(self._rules) >= _RULES_CACHED:
            self._rules.clear()
        rules = self._rules.get((type_, name, staff))
        if rules is None:
            rules = self._rules[type_, name, staff] = clear_rules(declared, type_, name, staff=staff)
        return rules

    def _clear_if_new(self, declared: Declared) -> None:
        if declared is not self._declared:
            self._rules.clear()
            self._own.clear()
            self._declared = declared


def _mended(item: object) -> dict[str, Any]:
    """The event of an item that is not one as it stands. Raises Refused."""
    if isinstance(item, Mended) and type(item.item) is dict:
        return item.item
    raise item.refused if isinstance(item, Unreadable) else Refused("wrong_type", "", "an item must be an object")


def _kept(message_id: str | None) -> str | None:
    """The message id, if it cannot hold anything but an id."""
    return message_id if message_id is not None and _MESSAGE_ID.fullmatch(message_id) else None
