"""What one customer does, as the items that shop, tills, call centre, e-mail tool and loyalty app would send. Pure.

A journey only collects touches; `infra.demo.history` and `live` decide when and how often they happen.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import Any, Final, NamedTuple

from infra.demo.names import CATEGORIES, COMPLAINT_TEXTS, COMPLAINT_TOPICS, PRODUCTS, TILLS, Product
from infra.demo.people import CLERK_PHONE, KIOSK, Device, Person

WEB: Final = "web_shop"
TILL: Final = "tills"
CALLS: Final = "call_centre"
MAIL: Final = "email_tool"
CARD: Final = "loyalty_app"
SOURCES: Final = (WEB, TILL, CALLS, MAIL, CARD)

Ids = Mapping[str, str]
_LIBRARY: Final = {"name": "analytics.js", "version": "2.1.0"}
_SHARED: Final = ("device_id", "phone")  # kinds with values that many people may share


class Touch(NamedTuple):
    """One item for the door, without message id and time. `own`: done by the customer, not by the shop."""

    at_ms: int
    source: str
    item: dict[str, Any]
    own: bool


@dataclass
class Journey:
    """Collects the touches of one person. `orders`: prefix of order, complaint and call numbers."""

    person: Person
    rng: Random
    currency: str
    orders: str
    touches: list[Touch] = field(default_factory=list)
    signed_in: set[str] = field(default_factory=set)  # anonymous ids on which the person is signed in
    email: str = ""
    mailable: bool = True
    numbers: int = 0
    _seen: dict[tuple[str, str], None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.email = self.email or self.person.emails[0]

    # --- building blocks -------------------------------------------------------------------------------------------

    def track(
        self,
        at_ms: int,
        source: str,
        event: str,
        ids: Ids,
        properties: dict[str, Any] | None = None,
        *,
        own: bool = True,
    ) -> None:
        """A `track` call with identifiers where that source puts them."""
        item: dict[str, Any] = {"type": "track", "event": event}
        self._add(at_ms, source, item, ids, properties or {}, own)

    def page(self, at_ms: int, ids: Ids, path: str, title: str) -> None:
        """A page view in the web shop."""
        item: dict[str, Any] = {"type": "page", "name": title}
        self._add(at_ms, WEB, item, ids, {"path": path}, own=True)

    def identify(self, at_ms: int, source: str, ids: Ids) -> None:
        """Their details, as collected by a form."""
        person = self.person
        traits: dict[str, Any] = {"name": person.name, "first_name": person.given, "last_name": person.family}
        traits |= {"city": person.city, "country": person.country, "age_band": person.age_band}
        traits |= {kind: ids[kind] for kind in ("email", "phone", "loyalty_card") if kind in ids}
        item: dict[str, Any] = {"type": "identify", "traits": traits}
        top = {kind: value for kind, value in ids.items() if kind not in traits}
        self._note(ids)
        self._add(at_ms, source, item, top, None, own=True)

    def _add(
        self, at_ms: int, source: str, item: dict[str, Any], ids: Ids, properties: dict[str, Any] | None, own: bool
    ) -> None:
        context: dict[str, Any] = {"channel": source}
        if source == WEB:
            context["library"] = _LIBRARY
        for kind, value in ids.items():
            if kind == "user_id":
                item["userId"] = value
            elif kind == "anonymous_id":
                item["anonymousId"] = value
            elif kind == "device_id":
                context["device"] = {"id": value, "type": "kiosk" if value == KIOSK else "mobile"}
            elif properties is not None:
                properties[kind] = value
        if properties is not None:
            item["properties"] = properties
        item["context"] = context
        self._note(ids)
        self.touches.append(Touch(at_ms, source, item, own))

    def _note(self, ids: Ids) -> None:
        for kind, value in ids.items():
            if kind in _SHARED and value in {KIOSK, CLERK_PHONE, self.person.shared_device}:
                continue
            self._seen[kind, value] = None

    @property
    def identifiers(self) -> list[tuple[str, str]]:
        """Every (kind, value) that was sent and belongs only to this person, in order of first use."""
        return list(self._seen)

    def number(self, letter: str) -> str:
        """A new order, complaint or call number."""
        self.numbers += 1
        return f"{letter}{self.orders}-{self.numbers:03d}"

    def card_ids(self, at_till: bool = False) -> dict[str, str]:
        """The identifiers a till or the call centre has."""
        person = self.person
        ids: dict[str, str] = {}
        if person.card is not None:
            ids["loyalty_card"] = person.card
        else:
            ids["email"] = self.email
        if at_till and person.clerk_typed and self.rng.random() < 0.6:
            ids["phone"] = CLERK_PHONE
        elif person.phone is not None and self.rng.random() < 0.2:
            ids["phone"] = person.phone
        return ids

    def contact_ids(self) -> dict[str, str]:
        """A caller's identifiers: the number, plus e-mail or card if they are asked for it."""
        person = self.person
        if person.phone is None:
            return {"email": self.email}
        ids = {"phone": person.phone}
        if self.rng.random() < 0.35:
            ids["email"] = self.email
        return ids

    def web_ids(self, device: Device) -> dict[str, str]:
        """What a browser sends: the user id only while signed in."""
        ids = {"anonymous_id": device.anonymous_id}
        if device.app_id is not None:
            ids["device_id"] = device.app_id
        if device.anonymous_id in self.signed_in and self.person.user_id is not None:
            ids["user_id"] = self.person.user_id
        return ids

    # --- scenes ----------------------------------------------------------------------------------------------------

    def join(self, at_ms: int) -> None:
        """Sign up on the web, or take a card at the till, or both."""
        person, rng = self.person, self.rng
        contact = {"email": self.email} | ({} if person.phone is None else {"phone": person.phone})
        if person.user_id is not None:
            device = person.devices[0]
            self.page(at_ms, self.web_ids(device), "/", "Home")
            self.page(at_ms + 21_000, self.web_ids(device), "/join", "Become a member")
            self.signed_in.add(device.anonymous_id)
            ids = self.web_ids(device)
            self.track(at_ms + 95_000, WEB, "Signed Up", {**ids, "email": self.email}, {"method": "email"})
            self.identify(at_ms + 95_400, WEB, ids | contact)
        if person.card is not None:
            ids = {"loyalty_card": person.card, "email": self.email}
            if person.user_id is not None:
                ids["user_id"] = person.user_id
            self.track(at_ms + 240_000, CARD, "Loyalty Card Added", ids, {"tier": "standard"})
            if person.user_id is None:
                self.identify(at_ms + 241_000, CARD, {"loyalty_card": person.card} | contact)
        self.consent(at_ms + 300_000, granted=person.newsletter)
        self.mailable = person.newsletter
        if rng.random() < 0.03:
            self.mailable = False

    def consent(self, at_ms: int, *, granted: bool) -> None:
        """Their choice about marketing e-mails."""
        properties = {"purpose": "marketing", "granted": granted, "method": "form"}
        source, ids = (
            (CARD, self.card_ids()) if self.person.user_id is None else (WEB, {"user_id": self.person.user_id})
        )
        self.track(at_ms, source, "consent.updated", ids, properties)

    def new_email(self, at_ms: int) -> None:
        """They give another address; the old one stays theirs."""
        self.email = self.person.emails[-1]
        ids = self.card_ids() if self.person.user_id is None else {"user_id": self.person.user_id}
        self.identify(at_ms, WEB if "user_id" in ids else CARD, {**ids, "email": self.email})

    def visit(self, at_ms: int, device: Device, views: int, *, cart: bool = False) -> tuple[int, list[Product]]:
        """Browse the web shop; returns when the visit ends and what they viewed."""
        rng = self.rng
        self.page(at_ms, self.web_ids(device), "/", "Home")
        at_ms += rng.randrange(4_000, 40_000)
        if device.signed_in and device.anonymous_id not in self.signed_in:
            self.signed_in.add(device.anonymous_id)
            self.track(at_ms, WEB, "Signed In", self.web_ids(device), {"method": "password"})
            at_ms += 2_000
        ids = self.web_ids(device)
        looked = [rng.choice(PRODUCTS) for _ in range(views)]
        if looked and rng.random() < 0.35:
            category = looked[0].category
            self.page(at_ms, ids, f"/c/{category.lower()}", category)
            at_ms += rng.randrange(5_000, 60_000)
        for product in looked:
            self.track(at_ms, WEB, "Product Viewed", ids, line(product))
            at_ms += rng.randrange(6_000, 120_000)
        if cart and looked:
            self.track(at_ms, WEB, "Product Added", ids, line(looked[-1]) | {"quantity": 1})
            at_ms += rng.randrange(5_000, 40_000)
        return at_ms, looked

    def web_order(self, at_ms: int, device: Device, size: float, *, collected: bool) -> str:
        """Visit, cart, checkout, order; `collected`: picked up at a till, which records the same order."""
        rng = self.rng
        at_ms, looked = self.visit(at_ms, device, rng.choice((1, 1, 1, 2)), cart=True)
        ids: dict[str, str] = self.web_ids(device)
        if "user_id" not in ids:
            ids["email"] = self.email  # a guest's checkout asks for it
        if rng.random() < 0.5:
            self.track(at_ms, WEB, "Checkout Started", ids, {"currency": self.currency})
        order_id, amounts = self.number("W"), self.order(size, looked[-1:])
        self.track(at_ms + 61_000, WEB, "Order Completed", ids, {"order_id": order_id, **amounts})
        if collected:
            later = at_ms + rng.randrange(3, 27) * 3_600_000
            self.track(
                later,
                TILL,
                "pos.purchase",
                self.card_ids(),
                {"order_id": order_id, "till": rng.choice(TILLS), **amounts},
            )
        return order_id

    def till_order(self, at_ms: int, size: float) -> str:
        """A purchase in the shop."""
        order_id = self.number("T")
        properties = {"order_id": order_id, "till": self.rng.choice(TILLS), **self.order(size, [])}
        self.track(at_ms, TILL, "pos.purchase", self.card_ids(at_till=True), properties)
        return order_id

    def order(self, size: float, products: Sequence[Product]) -> dict[str, Any]:
        """Order lines and their total; `size` is about 1."""
        rng = self.rng
        count = 1 + min(6, int(rng.expovariate(0.7) * size))
        chosen = [*products, *(rng.choice(PRODUCTS) for _ in range(count - len(products)))]
        lines = [line(product) | {"quantity": 2 if rng.random() < 0.15 else 1} for product in chosen]
        cents = sum(round(each["price"] * 100) * each["quantity"] for each in lines)
        return {"revenue": cents / 100, "currency": self.currency, "products": lines}

    def give_back(self, at_ms: int, order_id: str, amount: float) -> None:
        """A return at the till, or a refund of a web order."""
        properties = {"order_id": order_id, "revenue": amount, "currency": self.currency, "reason": "did not suit"}
        if order_id.startswith("T"):
            self.track(at_ms, TILL, "pos.return", self.card_ids(), properties)
            return
        ids = {"email": self.email} if self.person.user_id is None else {"user_id": self.person.user_id}
        self.track(at_ms, WEB, "Order Refunded", ids, properties, own=False)

    def call(self, at_ms: int, topic: str, *, missed: bool = False) -> None:
        """They call; it may be answered or missed."""
        ids, call_id = self.contact_ids(), self.number("K")
        if missed:
            self.track(at_ms, CALLS, "call.missed", ids, {"call_id": call_id})
            return
        self.track(at_ms, CALLS, "call.received", ids, {"call_id": call_id, "topic": topic})
        seconds = 40 + int(self.rng.expovariate(1 / 200))
        done = {"call_id": call_id, "duration_s": seconds}
        self.track(at_ms + seconds * 1_000, CALLS, "call.completed", ids, done)

    def complain(self, at_ms: int, *, escalated: bool, resolved_after_days: float | None) -> None:
        """A complaint and its outcome."""
        topic, ids, complaint_id = self.rng.choice(COMPLAINT_TOPICS), self.contact_ids(), self.number("C")
        opened = {"complaint_id": complaint_id, "topic": topic, "text": COMPLAINT_TEXTS[topic]}
        self.track(at_ms, CALLS, "complaint.opened", ids, opened)
        if escalated:
            later = at_ms + self.rng.randrange(30, 130) * 3_600_000
            self.track(later, CALLS, "complaint.escalated", ids, {"complaint_id": complaint_id})
        if resolved_after_days is not None:
            later = at_ms + int(resolved_after_days * 86_400_000)
            self.track(later, CALLS, "complaint.resolved", ids, {"complaint_id": complaint_id}, own=False)

    def survey(self, at_ms: int, score: int) -> None:
        """An answer to "how likely are you to recommend us"."""
        properties: dict[str, Any] = {"survey_id": "nps", "score": score}
        self.track(at_ms, MAIL, "survey.answered", {"email": self.email}, properties)

    def mail(self, at_ms: int, campaign: str, name: str, *, result: str) -> None:
        """A campaign's e-mail. `result`: bounced, delivered, opened, clicked or unsubscribed."""
        ids = {"email": self.email}
        about = {"campaign_id": campaign, "campaign_name": name}
        self.track(at_ms, MAIL, "Email Sent", ids, dict(about), own=False)
        if result == "bounced":
            self.track(at_ms + 4_000, MAIL, "Email Bounced", ids, {**about, "bounce_type": "hard"}, own=False)
            return
        self.track(at_ms + 5_000, MAIL, "Email Delivered", ids, dict(about), own=False)
        if result == "delivered":
            return
        at_ms += int(self.rng.expovariate(1 / 9_000)) * 1_000 + 60_000
        self.track(at_ms, MAIL, "Email Opened", ids, dict(about))
        if result == "clicked":
            link = {**about, "link_id": self.rng.choice(CATEGORIES).lower()}
            self.track(at_ms + 15_000, MAIL, "Email Link Clicked", ids, link)
        elif result == "unsubscribed":
            self.track(at_ms + 20_000, MAIL, "Unsubscribed", ids, dict(about))
            self.mailable = False

    def kiosk(self, at_ms: int) -> None:
        """They sign in at the shop's kiosk, as many others do."""
        assert self.person.user_id is not None, "only members use the kiosk"
        ids = {"user_id": self.person.user_id, "device_id": KIOSK}
        self.track(at_ms, CARD, "Signed In", ids, {"method": "card"})
        self.track(at_ms + 30_000, CARD, "Product Viewed", ids, line(self.rng.choice(PRODUCTS)))

    def tablet(self, at_ms: int) -> None:
        """They sign in on a tablet shared by two people in a household."""
        assert self.person.user_id is not None, "only members share a tablet"
        assert self.person.shared_device is not None, "called only for people who have one"
        ids = {"user_id": self.person.user_id, "device_id": self.person.shared_device}
        self.track(at_ms, CARD, "Signed In", ids, {"method": "password"})
        self.track(at_ms + 45_000, CARD, "Product Viewed", ids, line(self.rng.choice(PRODUCTS)))


def line(product: Product) -> dict[str, Any]:
    """An article as events name it."""
    return {
        "product_id": product.id,
        "name": product.name,
        "category": product.category,
        "brand": product.brand,
        "price": product.price / 100,
    }


def stamp(at_ms: int) -> str:
    """ISO-8601 in UTC, to the millisecond."""
    second, millis = divmod(at_ms, 1_000)
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%S}.{millis:03d}Z"
