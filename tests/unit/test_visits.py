"""Campaigns, referrers and crawlers: what an address says, and what of a crawler's visit counts."""

from functools import partial
from typing import Any

import msgspec
import pytest

from infra.adapters.crawlers import is_crawler
from ingest.accept.accept import Acceptor
from ingest.dialects.visits import derived
from projections.decide.evaluator import compile_evaluator
from projections.definitions.files import parse_documents
from projections.fold.fold import compile_fold
from schemas.identifiers import normalise
from schemas.record import Record, decode, encode, to_us
from tests.records import START, record
from tests.unit.test_accept import NOW, WEB, PlainVault, daily, opened

CHROME = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 Safari/537.36"
GOOGLEBOT = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"


def at(url: str, came_from: str | None = None, **context: Any) -> dict[str, Any]:
    page = {"url": url} | ({} if came_from is None else {"referrer": came_from})
    return dict(derived({"page": page, **context}, {}).context)


@pytest.mark.parametrize(
    ("url", "campaign"),
    [
        (
            "https://shop.example/?utm_source=news&utm_medium=email&utm_campaign=Spring%20Sale&utm_term=tea&utm_content=a+b",
            {"source": "news", "medium": "email", "name": "Spring Sale", "term": "tea", "content": "a b"},
        ),
        ("https://shop.example/p?a=1&UTM_Source=x#top", {"source": "x"}),
        ("https://shop.example/#utm_source=x", {"source": "x"}),
        ("https://shop.example/?gclid=Cj0KCQ", {"source": "google", "medium": "cpc", "click": "gclid"}),
        ("https://shop.example/?fbclid=IwAR", {"source": "facebook", "medium": "social", "click": "fbclid"}),
        ("https://shop.example/?msclkid=1", {"source": "bing", "medium": "cpc", "click": "msclkid"}),
        ("https://shop.example/?ttclid=1", {"source": "tiktok", "medium": "cpc", "click": "ttclid"}),
        (
            "https://shop.example/?utm_source=meta&utm_medium=paid&fbclid=1",
            {"source": "meta", "medium": "paid", "click": "fbclid"},
        ),
        ("https://shop.example/?mtm_campaign=c&mtm_kwd=k", {"name": "c", "term": "k"}),
        ("https://shop.example/?utm_source=&gclid=", None),
        ("https://shop.example/?myutm_source=x&page=2", None),
        ("https://shop.example/", None),
    ],
)
def test_the_campaign_is_read_from_the_address(url: str, campaign: dict[str, str] | None) -> None:
    assert at(url).get("campaign") == campaign


def test_a_campaign_that_the_sender_names_is_left_alone() -> None:
    own = {"name": "own"}
    url = "https://shop.example/?utm_campaign=other"
    assert at(url, campaign=own)["campaign"] == own
    assert at(url, campaign={"name": ""})["campaign"] == {"name": "other"}
    assert derived({"page": {"search": "?utm_campaign=s"}}, {}).context["campaign"] == {"name": "s"}
    assert derived({"locale": "de"}, {"url": url, "title": "T"}).context["campaign"] == {"name": "other"}
    assert derived({"locale": "de"}, {}).context == {"locale": "de"}


@pytest.mark.parametrize(
    ("referrer", "kind"),
    [
        ("https://www.google.de/", "search"),
        ("https://google.co.uk/search?q=x", "search"),
        ("https://www.bing.com/search?q=x", "search"),
        ("https://duckduckgo.com/", "search"),
        ("android-app://com.google.android.googlequicksearchbox/", "search"),
        ("https://l.facebook.com/l.php", "social"),
        ("https://t.co/abc", "social"),
        ("https://www.pinterest.fr/pin/1", "social"),
        ("https://mail.google.com/mail/u/0/", "email"),
        ("https://outlook.live.com/", "email"),
        ("https://webmail.example.org/", "email"),
        ("https://shop.example/cart", "internal"),
        ("https://checkout.shop.example:8443/pay", "internal"),
        ("https://www.shop.example", "internal"),
        ("https://blog.other.example/post", "other"),
        ("https://notgoogle.example/", "other"),
        ("https://google.evil.example.com/", "other"),
        ("https://docs.google.com/x", "other"),
        ("", "direct"),
        ("$direct", "direct"),
        ("nonsense", None),
    ],
)
def test_a_referrer_has_its_class(referrer: str, kind: str | None) -> None:
    assert at("https://www.shop.example/p", referrer).get("referrer", {}).get("type") == kind


def test_without_a_referrer_nothing_is_said_and_a_senders_type_stays() -> None:
    assert "referrer" not in at("https://shop.example/")
    own = {"type": "partner", "id": "7"}
    assert at("https://shop.example/", "https://google.com/", referrer=own)["referrer"] == own
    assert at("https://shop.example/", "https://google.com/", referrer={"id": "7"})["referrer"] == {
        "id": "7", "type": "search",
    }  # fmt: skip


# ---------------------------------------------------------------- at the door


@pytest.fixture
def acceptor() -> Acceptor:
    vault = PlainVault()
    return Acceptor(vault, vault, partial(normalise, phone=lambda _text: None), daily, is_crawler=is_crawler)


def page(**context: Any) -> dict[str, Any]:
    return {"type": "page", "anonymousId": "a", "context": context}


def test_what_is_derived_is_clear_and_said_and_the_address_is_sealed(acceptor: Acceptor) -> None:
    url = "https://shop.example/?utm_source=news&gclid=secret"
    sent = page(page={"url": url, "path": "/", "referrer": "https://www.google.com/"}, userAgent=CHROME)
    accepted = acceptor.accept([sent, page(locale="de")], WEB, NOW)
    first, second = (decode(each.value) for each in accepted.pending)
    assert first.context["campaign"] == {"source": "news", "click": "gclid"}
    assert first.context["referrer"] == {"type": "search"}
    assert first.context["page"] == {"path": "/"}
    assert first.mapped == ["context.campaign", "context.referrer.type"]
    assert opened(first)["context"]["page"] == {"url": url, "referrer": "https://www.google.com/"}
    assert (second.mapped, second.flags) == ([], [])
    assert first.digest == decode(acceptor.accept([sent], WEB, NOW).pending[0].value).digest


@pytest.mark.parametrize(
    ("agent", "context", "flags"),
    [
        (GOOGLEBOT, {}, ["bot"]),
        (CHROME.replace("Chrome", "HeadlessChrome"), {}, ["bot"]),
        ("facebookexternalhit/1.1", {}, ["bot"]),
        ("python-requests/2.31", {}, ["bot"]),
        (CHROME, {}, []),
        ("Mozilla/5.0 (Linux; Android 10; CUBOT P30) AppleWebKit/537.36 Chrome/88 Mobile Safari/537.36", {}, []),
        ("okhttp/4.9.3", {"app": {"name": "Shop"}}, []),
        ("", {}, []),
        (5, {}, []),
    ],
)
def test_crawlers_are_flagged_and_counted(
    acceptor: Acceptor, agent: object, context: dict[str, Any], flags: list[str]
) -> None:
    accepted = acceptor.accept([page(userAgent=agent, **context)] * 2, WEB, NOW)
    assert [decode(each.value).flags for each in accepted.pending] == [flags, flags]
    assert list(accepted.flagged) == flags * 2


# ---------------------------------------------------------------- in the fold

TRAITS = """
computed_traits:
  pages: {aggregate: count, events: [page]}
  all: {aggregate: count, events: ["*"]}
  bots: {aggregate: count, events: [page], where: {property: event.flags, op: contains, value: bot}}
  last: {aggregate: last, of: occurred_at, events: ["*"]}
"""


def of_bot(found: Record) -> Record:
    return msgspec.structs.replace(found, flags=["bot"])


def test_a_crawlers_visits_count_nowhere_unless_a_definition_says_so() -> None:
    fold = compile_fold(parse_documents([("d.yaml", TRAITS)]), time_zone="UTC", currency="USD")
    evaluator = compile_evaluator(fold.layout.definitions, fold, time_zone="UTC")
    person = [("anonymous_id", "a")]
    late = START.replace(day=9)
    records = [
        record(person, "1"),
        of_bot(record(person, "2", at=late)),
        of_bot(record(person, "3", type_="product.viewed", at=late)),
        of_bot(record(person, "4", type_="purchase.completed", properties={"order_id": "o"}, at=START.replace(day=2))),
    ]
    for order in (records, records[::-1]):
        state = fold.new_state()
        for each in order:
            event = fold.decode(encode(each))
            event.partition, event.offset = 0, 0
            fold.apply(event, state, None)
        found = evaluator.values(state, to_us(late))
        assert (found["pages"], found["all"], found["bots"]) == (1, 2, 1)
        assert found["last"] == evaluator.last_seen(state) == START.replace(day=2)
        assert evaluator.event_count(state) == 4


def test_who_only_crawls_was_seen_never_and_merges_with_whom_it_must() -> None:
    fold = compile_fold(parse_documents([("d.yaml", TRAITS)]), time_zone="UTC", currency="USD")
    evaluator = compile_evaluator(fold.layout.definitions, fold, time_zone="UTC")
    states = []
    for each in (of_bot(record([("anonymous_id", "a")], "1")), record([("anonymous_id", "a")], "2")):
        state = fold.new_state()
        event = fold.decode(encode(each))
        event.partition, event.offset = 0, 0
        fold.apply(event, state, None)
        states.append(state)
    assert (evaluator.first_seen(states[0]), evaluator.last_seen(states[0])) == (START, None)
    evaluator.decide(states[0], to_us(START), None)
    assert evaluator.last_seen(fold.merge([fold.unpack(fold.pack(each)) for each in states])) == START
