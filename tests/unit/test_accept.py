"""Acceptance without a database: ranks, keys, digests, references, dead letters; and the golden records."""

import gzip
import json
from base64 import b64decode
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from infra.adapters.kafka.producing import MAX_RECORD_BYTES
from ingest.accept.accept import Acceptor
from ingest.accept.calls import Accepted, Call, SourceRules
from ingest.accept.canonical import MAX_BODY_BYTES, Refused, Unreadable
from ingest.accept.retry import accept_again
from ingest.requests.bodies import call_of, header_key, inflate, query_of, read_body
from schemas.clear_rules import NOTHING_DECLARED, Declared
from schemas.dead_letters import DeadLetter
from schemas.errors import BadRequest, InvalidJson, TooLarge
from schemas.identifiers import normalise
from schemas.ports import SENT_AS_THEY_ARE, OpenIdentifier
from schemas.record import VERSION, Reader, Record, decode, encode, event_key, uuid_text
from schemas.upcasters import UPCASTERS

GOLDEN = Path(__file__).parents[1] / "fixtures/records/touchpoint"
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
WEB = SourceRules("web")
SECRET = bytes(range(32))
PHONE = {"+1 415 555 2671": "+14155552671"}.get


class PlainVault:
    """Tokens that are hashes, seals that are copies: what acceptance asks for, visible to a test."""

    def __init__(self) -> None:
        self.asked: list[list[tuple[str, str]]] = []
        self.refused: set[bytes] = set()
        self.kept: dict[tuple[str, str], str] = {}

    @property
    def hash_key(self) -> bytes:
        return SECRET

    def tokens(
        self, identifiers: Sequence[tuple[str, str]], sent: Mapping[tuple[str, str], str] = SENT_AS_THEY_ARE
    ) -> list[bytes]:
        self.kept |= sent
        self.asked.append(list(identifiers))
        return [token(*pair) for pair in identifiers]

    def find(self, kind: str, value: str) -> bytes | None:
        return token(kind, value) if any((kind, value) in each for each in self.asked) else None

    def open(self, tokens: Iterable[bytes]) -> dict[bytes, OpenIdentifier]:
        return {}

    def suppressed(self, tokens: Iterable[bytes]) -> set[bytes]:
        return self.refused.intersection(tokens)

    def seal(self, token: bytes, plain: bytes, aad: bytes) -> bytes:
        return token + aad + plain

    def open_many(self, sealed: Sequence[tuple[bytes, bytes, bytes]]) -> list[bytes | None]:
        return [data[32:] for _, data, _ in sealed]


def token(kind: str, value: str) -> bytes:
    return blake2b(f"{kind}:{value}".encode(), digest_size=16).digest()


def daily(day: date) -> bytes:
    return token("day", day.isoformat())


@pytest.fixture
def vault() -> PlainVault:
    return PlainVault()


@pytest.fixture
def acceptor(vault: PlainVault) -> Acceptor:
    return Acceptor(vault, vault, partial(normalise, phone=PHONE), daily, random_bytes=lambda n: b"r" * n)


def one(accepted: Accepted) -> Record:
    [pending] = accepted.pending
    record = decode(pending.value)
    assert pending.key.hex() == record.route_key
    return record


def letter(accepted: Accepted) -> DeadLetter:
    [found] = accepted.dead
    return found


def opened(record: Record) -> dict[str, Any]:
    assert record.sealed is not None
    data = b64decode(record.sealed.data)
    assert data[:16].hex() == record.sealed.key == record.route_key
    assert uuid_text(data[16:32]) == record.id
    result: dict[str, Any] = json.loads(data[32:])
    return result


def track(**more: object) -> dict[str, Any]:
    return {"type": "track", "event": "Signed Up", "userId": "u-1", "messageId": "m-1", **more}


def test_identifiers_are_tokens_in_the_order_of_their_rank(acceptor: Acceptor) -> None:
    item = {
        "type": "identify", "anonymousId": "a-1", "userId": 7.0,
        "traits": {"phone": "+1 415 555 2671", "email": "Ada@Example.com", "loyaltyCard": 123},
        "context": {"device": {"id": "d-1", "type": "ios"}, "externalIds": [{"type": "crm", "id": "c-1"}]},
    }  # fmt: skip
    record = one(acceptor.accept([item], WEB, NOW))
    values = {
        "user_id": "7", "loyalty_card": "123", "email": "ada@example.com", "phone": "+14155552671", "crm": "c-1",
        "device_id": "d-1", "anonymous_id": "a-1",
    }  # fmt: skip
    assert [(each.kind, each.token) for each in record.ids] == [(k, token(k, v).hex()) for k, v in values.items()]
    assert record.route_key == token("user_id", "7").hex()
    sealed = opened(record)
    assert sealed["traits"]["loyaltyCard"] == {"$token": token("loyalty_card", "123").hex(), "$kind": "loyalty_card"}
    assert sealed["context"]["externalIds"] == [
        {"type": "crm", "id": {"$token": token("crm", "c-1").hex(), "$kind": "crm"}}
    ]
    assert record.context == {"device": {"type": "ios"}}
    assert item["traits"] == {"phone": "+1 415 555 2671", "email": "Ada@Example.com", "loyaltyCard": 123}


def test_one_vault_look_up_serves_all_items_of_all_requests(acceptor: Acceptor, vault: PlainVault) -> None:
    calls = [Call([track(userId=f"u-{n}"), track(userId="same")], WEB, NOW) for n in range(3)]
    assert [len(each.pending) for each in acceptor.accept_many(calls)] == [2, 2, 2]
    assert vault.asked == [[("user_id", "u-0"), ("user_id", "same"), ("user_id", "u-1"), ("user_id", "u-2")]]


def test_the_key_is_of_source_and_message_id_and_a_missing_one_is_made(acceptor: Acceptor) -> None:
    record = one(acceptor.accept([track()], WEB, NOW))
    assert record.id == str(UUID(bytes=event_key(SECRET, "web", "m-1"))) == uuid_text(event_key(SECRET, "web", "m-1"))
    assert one(acceptor.accept([track()], SourceRules("app"), NOW)).id != record.id
    made = one(acceptor.accept([track(messageId=None)], WEB, NOW))
    assert (made.message_id, made.digest) == (None, record.digest)
    assert made.id != record.id


@pytest.mark.parametrize(
    ("sent", "kept"),
    [("node-next-1-a.b:C_9", "node-next-1-a.b:C_9"), ("x" * 100, "x" * 100), ("x" * 101, None), ("ada@x.example", None),
     ("a b", None), ("ä", None), (12345, "12345")],
)  # fmt: skip
def test_a_message_id_is_kept_where_it_can_be_nothing_else(acceptor: Acceptor, sent: object, kept: str | None) -> None:
    record = one(acceptor.accept([track(messageId=sent)], WEB, NOW))
    assert record.message_id == kept
    assert record.id == uuid_text(event_key(SECRET, "web", str(sent)))


def test_an_honest_retry_has_the_same_digest_and_another_content_another(acceptor: Acceptor) -> None:
    first = one(acceptor.accept([track(sentAt="2026-11-24T11:59:59Z", writeKey="k", integrations={})], WEB, NOW))
    later = NOW + timedelta(hours=3)
    retry = one(acceptor.accept([track(sentAt="2026-11-24T14:59:59Z", _metadata={"x": 1})], WEB, later))
    assert (retry.id, retry.digest) == (first.id, first.digest)
    assert one(acceptor.accept([track(userId="u-2")], WEB, NOW)).digest != first.digest
    batch = acceptor.accept([track()], WEB, NOW, defaults={"context": {"locale": "de"}})
    assert one(batch).digest == one(acceptor.accept([track(context={"locale": "de"})], WEB, NOW)).digest


def test_rudders_traits_in_the_context_are_the_persons(acceptor: Acceptor) -> None:
    item = {"type": "identify", "userId": "u-1", "context": {"traits": {"email": "ada@example.com", "city": "Wien"}}}
    rules = SourceRules("web", Declared({}, frozenset({"city"})))
    record = one(acceptor.accept([item], rules, NOW))
    assert record.traits == {"city": "Wien"}
    assert opened(record) == {
        "traits": {"email": {"$token": token("email", "ada@example.com").hex(), "$kind": "email"}}
    }


def test_identifiers_in_properties_and_in_the_traits_of_a_track_are_references(acceptor: Acceptor) -> None:
    item = track(
        event="Order Completed",
        properties={"email": "ada@example.com", "loyalty_card": 55},
        context={"traits": {"phone": "+1 415 555 2671"}},
    )
    record = one(acceptor.accept([item], WEB, NOW))
    assert [each.kind for each in record.ids] == ["user_id", "loyalty_card", "email", "phone"]
    sealed = opened(record)
    assert record.properties == {}
    assert sealed["properties"]["loyalty_card"]["$kind"] == "loyalty_card"
    assert sealed["context"]["traits"]["phone"]["$token"] == token("phone", "+14155552671").hex()


def test_the_traits_of_a_group_do_not_become_the_persons(acceptor: Acceptor) -> None:
    item = {"type": "group", "userId": "u-1", "groupId": "acme", "traits": {"email": "info@acme.example", "size": 9}}
    record = one(acceptor.accept([item], WEB, NOW))
    assert [each.kind for each in record.ids] == ["user_id"]
    assert record.traits == {}
    assert record.properties == {}
    assert opened(record)["properties"] == {
        "group_id": "acme", "traits": {"email": "info@acme.example", "size": 9}
    }  # fmt: skip


def test_an_event_without_anything_personal_has_no_seal(acceptor: Acceptor) -> None:
    record = one(acceptor.accept([track(properties={"quantity": 1})], WEB, NOW))
    assert record.sealed is None


def test_times_follow_item_then_request(acceptor: Acceptor) -> None:
    item = track(timestamp="2026-11-24T08:00:00Z")
    sent = NOW - timedelta(hours=2)
    assert one(acceptor.accept([item], WEB, NOW, sent_at=sent)).occurred_at == NOW - timedelta(hours=2)
    own = {**item, "sentAt": "2026-11-24T09:00:00Z"}
    assert one(acceptor.accept([own], WEB, NOW, sent_at=sent)).occurred_at == NOW - timedelta(hours=1)
    trusted = one(acceptor.accept([item], WEB, NOW, sent_at=sent, trusted_clock=True))
    assert (trusted.occurred_at, trusted.clock_rule) == (NOW - timedelta(hours=4), "trusted")
    past = one(acceptor.accept([track(timestamp="1997-01-01")], WEB, NOW, historical=True))
    assert past.known_at == past.occurred_at == datetime(1997, 1, 1, tzinfo=UTC)
    assert past.received_at == NOW


LINE = {
    "product_id": "P1234", "sku": "S1234", "category": "Grocery", "name": "Item 1234", "brand": "B", "variant": "v",
    "price": 1.5, "quantity": 1, "coupon": "", "position": 1234, "url": "https://x.example/1234",
    "image_url": "https://x.example/1234.jpg",
}  # fmt: skip


def test_the_largest_orders_of_a_wholesaler_are_taken(acceptor: Acceptor) -> None:
    """2,000 lines of twelve fields; Online Retail's largest invoice has 1,114."""
    order = track(event="Order Completed", properties={"order_id": "o", "revenue": 3_000, "products": [LINE] * 2_000})
    gift = track(messageId="m-2", properties={"gift_message": "x" * 32_000})
    accepted = acceptor.accept([order, gift], WEB, NOW)
    assert [each[1:] for each in accepted.results] == [("accepted", "over_32_kb"), ("accepted", "")]
    record = decode(accepted.pending[0].value)
    assert len(record.properties["products"]) == 2_000
    assert record.flags == ["large"]


def test_no_item_makes_a_record_larger_than_a_topic_takes(acceptor: Acceptor) -> None:
    """Fields that nothing names are sealed one by one, and each name is listed: the worst is many of them."""
    lines = [{"sku": "s"} | {f"k{n}": "\u2028" * 2 for n in range(13)} for _ in range(2_000)]
    accepted = acceptor.accept([track(properties={"products": lines})], WEB, NOW)
    assert len(accepted.results[0].id) == 36
    assert accepted.results[0].status == "accepted"
    assert 1_000_000 < len(accepted.pending[0].value) < MAX_RECORD_BYTES
    mended = read_body(b'{"batch":[{"type":"page","userId":"u","x":"' + b"\x01" * 32_000 + b'"}]}', "batch", gzip=False)
    assert len(acceptor.accept(mended.items, WEB, NOW).pending[0].value) < MAX_RECORD_BYTES


def test_a_large_event_is_taken_and_flagged(acceptor: Acceptor) -> None:
    accepted = acceptor.accept([track(properties={"notes": ["x" * 8_000] * 5})], WEB, NOW)
    assert accepted.results[0][1:] == ("accepted", "over_32_kb")


@pytest.mark.parametrize(
    ("item", "rule"),
    [
        (5, "wrong_type"),
        (None, "wrong_type"),
        ([track()], "wrong_type"),
        ({}, "unknown_type"),
        (track(userId=None), "no_identifier"),
        (track(userId="null"), "no_identifier"),
        (track(userId=[]), "no_identifier"),
        (track(event=None), "missing_field"),
        (track(context=["x"]), "wrong_type"),
        (track(properties={"a": object()}), "wrong_type"),
        (Unreadable(b"{", Refused("invalid_json", "", "no")), "invalid_json"),
    ],
)
def test_a_bad_item_becomes_a_dead_letter_and_the_next_goes_on(acceptor: Acceptor, item: object, rule: str) -> None:
    accepted = acceptor.accept([item, track(messageId="m-2")], WEB, NOW)
    assert [result.status for result in accepted.results] == ["dead_letter", "accepted"]
    found = letter(accepted)
    assert (found.stage, found.rule, found.source, found.received_at) == ("door", rule, "web", NOW)
    assert accepted.results[0].code == rule
    assert found.reason
    assert found.sealed[:32] == found.seal_key + found.id
    assert found.seal_key == (found.tokens[0] if found.tokens else daily(NOW.date()))


@pytest.mark.parametrize(
    ("name", "type_"),
    [
        ("Order Refunded", "purchase.refunded"),
        ("order_cancelled", "purchase.cancelled"),
        ("Order Updated", "purchase.updated"),
        ("pos.return", "pos.return"),
    ],
)
def test_what_follows_an_order_needs_nobodys_identifier(acceptor: Acceptor, name: str, type_: str) -> None:
    refund = track(event=name, userId=None, properties={"order_id": " 1001 ", "revenue": 5, "gift_note": "to Ann"})
    record = one(acceptor.accept([refund], WEB, NOW))
    [identifier] = record.ids
    assert (record.type, identifier.kind, identifier.token) == (type_, ":order", token(":order", "web/1001").hex())
    assert opened(record)["properties"] == {"gift_note": "to Ann"}  # under a key of its own
    named = one(acceptor.accept([{**refund, "userId": "u-1"}], WEB, NOW))
    assert [each.kind for each in named.ids] == ["user_id"]
    till = one(acceptor.accept([refund], SourceRules("till"), NOW))
    assert till.route_key != record.route_key


@pytest.mark.parametrize(
    ("name", "order"),
    [
        *[("Order Refunded", order) for order in (None, "", "null", "000", "  ", True)],
        ("Order Completed", "1001"),
        ("Pos Purchase", "1001"),
        ("Product Viewed", "1001"),
    ],
)
def test_without_an_order_or_of_an_order_itself_somebody_must_be_named(
    acceptor: Acceptor, name: str, order: object
) -> None:
    item = track(event=name, userId=None, properties={"order_id": order, "revenue": 5})
    assert letter(acceptor.accept([item], WEB, NOW)).rule == "no_identifier"


def test_a_dead_letter_is_the_same_row_when_the_item_comes_again(acceptor: Acceptor) -> None:
    first = letter(acceptor.accept([track(event=None)], WEB, NOW))
    again = letter(acceptor.accept([track(event=None, sentAt="2026-11-24T11:00:00Z")], WEB, NOW + timedelta(days=1)))
    assert again.id == first.id
    assert first.event_id == event_key(SECRET, "web", "m-1")
    others = (track(event=None, messageId="m-2"), track(event=None, userId="u-2"), track(event=""))
    assert len({letter(acceptor.accept([each], WEB, NOW)).id for each in others} | {first.id}) == 4


def test_a_suppressed_person_leaves_no_record_and_no_letter(acceptor: Acceptor, vault: PlainVault) -> None:
    vault.refused = {token("user_id", "u-1")}
    accepted = acceptor.accept([track(), track(event=None, messageId="m-2"), track(userId="u-2")], WEB, NOW)
    assert [result.status for result in accepted.results] == ["suppressed", "suppressed", "accepted"]
    assert accepted.suppressed == [event_key(SECRET, "web", "m-1"), event_key(SECRET, "web", "m-2")]
    assert accepted.dead == []


def test_a_letter_sent_again_twice_counts_once(acceptor: Acceptor, vault: PlainVault) -> None:
    bad = {"type": "track", "event": "E", "timestamp": "2026-11-24T11:00:00Z"}
    found = letter(acceptor.accept([bad], WEB, NOW, sent_at=NOW + timedelta(hours=1)))
    [plain] = vault.open_many([(found.seal_key, found.sealed, found.id)])
    body = json.loads(plain or b"")
    assert body["item"] == bad
    body["item"]["userId"] = "u-1"
    repaired = json.dumps(body).encode()
    later = NOW + timedelta(days=3)
    first, second = (one(accept_again(found, repaired, acceptor, NOTHING_DECLARED, later)) for _ in range(2))
    assert (first.id, first.digest) == (second.id, second.digest)
    assert first.occurred_at == NOW - timedelta(hours=2)
    assert first.received_at == later
    with pytest.raises(BadRequest):
        accept_again(found._replace(stage="fold"), plain or b"", acceptor, NOTHING_DECLARED, later)


# ---------------------------------------------------------------- bodies


def test_paths_and_keys_are_found_where_sdks_put_them() -> None:
    assert call_of("/v1/t") == call_of("/v1/track/") == "track"
    assert call_of("/v1/batch") == call_of("/b") == "batch"
    assert call_of("/v1/nothing") is None
    assert header_key({"authorization": "Basic d2tfMTo="}) == "wk_1"
    assert header_key({"authorization": "basic d2tfMQ"}) == "wk_1"
    assert header_key({"authorization": "Bearer x"}) is None
    assert header_key({"authorization": "Basic \xff"}) is None
    assert query_of("a=1&a=2&b=%20") == {"a": "1", "b": " "}
    assert query_of("&".join(f"x{n}=1" for n in range(100))) == {}


def test_a_body_is_read_with_its_defaults() -> None:
    raw = b'{"batch":[{"event":"E"},{"type":"page"}],"context":{"ip":"1"},"sentAt":"2026-01-01","writeKey":" k "}'
    body = read_body(raw, "batch", gzip=False)
    assert body.items == [{"event": "E"}, {"type": "page"}]
    assert body.defaults == {"context": {"ip": "1"}}
    assert (body.write_key, body.sent_at) == ("k", datetime(2026, 1, 1, tzinfo=UTC))
    single = read_body(b'{"event":"E","sentAt":"nonsense"}', "track", gzip=False)
    assert single.items == [{"event": "E", "sentAt": "nonsense", "type": "track"}]
    assert single.sent_at is None


def test_an_untyped_item_is_set_aside_alone(acceptor: Acceptor) -> None:
    untyped = {"event": "E", "userId": "u", "traits": {"email": "ada@example.com"}}
    accepted = acceptor.accept([track(), untyped, track(messageId="m-2")], WEB, NOW)
    assert [result.status for result in accepted.results] == ["accepted", "dead_letter", "accepted"]
    assert letter(accepted).rule == "unknown_type"


class Unforeseen(Exception):
    pass


class BrokenForm:
    """A normal form that fails on one value, as a mistake of ours would."""

    def __call__(self, kind: str, value: object) -> str | None:
        if value == "unforeseen":
            raise Unforeseen
        return normalise(kind, value, phone=PHONE)


def test_an_item_that_we_fail_on_is_set_aside_alone_and_whole(vault: PlainVault) -> None:
    acceptor = Acceptor(vault, vault, BrokenForm(), daily)
    bad = track(userId="unforeseen", messageId="m-2", properties={"n": 1})
    accepted = acceptor.accept([track(), bad, track(messageId="m-3")], WEB, NOW)
    assert [result.status for result in accepted.results] == ["accepted", "dead_letter", "accepted"]
    found = letter(accepted)
    assert (found.rule, found.event_id) == ("internal", event_key(SECRET, "web", "m-2"))
    assert json.loads(found.sealed[32:])["item"] == bad


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b"", InvalidJson),
        (b"[" * 100_000, BadRequest),
        (b'{"batch":' + b"[" * 100_000, InvalidJson),
        (b'{"batch":[{"a":1}', InvalidJson),
        (b'{"batch":[{"a":[1}]}', InvalidJson),
        (b'{"batch":[{"a":1}]', InvalidJson),
        (b'{"batch":5}', BadRequest),
        (b"[]", BadRequest),
        (b"{}", BadRequest),
        (b'{"batch":[' + b"1," * 2_500 + b"1]}", TooLarge),
        (b" " * (MAX_BODY_BYTES + 1), TooLarge),
        (b"\x1f\x8bno gzip", InvalidJson),
    ],
)
def test_a_body_that_is_no_request_is_refused_whole(raw: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        read_body(raw, "batch", gzip=False)


def test_gzip_members_may_follow_each_other() -> None:

    assert inflate(gzip.compress(b'{"a"') + gzip.compress(b":1}")) == b'{"a":1}'


# ---------------------------------------------------------------- golden records


@pytest.mark.parametrize(("name", "version"), [("v1", 1), ("v1_minimal", 1), ("v2", 2)])
def test_a_record_ever_written_is_read_for_ever(name: str, version: int) -> None:
    stored = (GOLDEN / f"{name}.json").read_bytes()
    record = decode(stored)
    assert encode(record) == stored
    assert record.v == version


def test_version_2_added_the_place_and_the_flags_whose_absence_means_none() -> None:
    old, new = (decode((GOLDEN / f"{name}.json").read_bytes()) for name in ("v1", "v2"))
    assert (old.n, old.flags) == (0, [])
    assert (new.n, new.flags) == (3, ["large"])
    steps = {**UPCASTERS, ("touchpoint", 2): lambda payload: payload | {"n": payload.get("n", 0) + 10}}
    tomorrow = Reader(3, steps)
    lifted = [decode((GOLDEN / f"{name}.json").read_bytes(), tomorrow) for name in ("v1", "v2")]
    assert [(record.v, record.n) for record in lifted] == [(3, 10), (3, 13)]


def test_the_golden_record_means_what_it_meant() -> None:
    record = decode((GOLDEN / "v1.json").read_bytes())
    assert (record.type, record.name, record.source) == ("purchase.completed", "Order Completed", "web")
    assert record.occurred_at == datetime(2026, 11, 24, 6, 0, 0, 123_000, tzinfo=UTC)
    assert record.known_at == record.received_at
    assert record.clock_rule == "corrected"
    assert record.properties["revenue"] == "25.0"
    assert record.traits == {"city": "São Paulo", "plan": None}
    assert record.sealed is not None
    data = b64decode(record.sealed.data)
    key = bytes.fromhex(record.id.replace("-", ""))
    plain = json.loads(AESGCM(SECRET).decrypt(data[:12], data[12:], key))
    assert plain["context"]["traits"]["email"] == {"$token": record.ids[1].token, "$kind": "email"}
    assert plain["properties"]["products"] == {"0": {"engraving": "Z.M."}}


def test_every_version_has_its_sample_and_the_upcasters_have_no_hole() -> None:
    for version in range(1, VERSION + 1):
        assert (GOLDEN / f"v{version}.json").exists()
    for version in range(1, VERSION):
        assert ("touchpoint", version) in UPCASTERS
