"""An event of the timeline in plain words: "Bought 3 items, €42.10, till 2". Pure; senders' texts stay as written."""

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from query.people.amount_words import Item, amount_of, items_of, money
from schemas.sales import ORDER_IDS

Words = Callable[[Item, Item, str], str]  # (properties, item, currency)
MOST: Final = 160  # characters of somebody's text
# Characters that change the direction of all text that follows: they would also reverse our words.
_TURNING: Final = dict.fromkeys((*range(0x202A, 0x202F), *range(0x2066, 0x206A)))


class Told(NamedTuple):
    """An event in words. `icon`: a Material icon; `channel`: used by filters."""

    words: str
    icon: str
    channel: str


CHANNELS: Final = ("shopping", "web", "e-mail", "phone and chat", "complaints", "account", "staff", "other")
_BY_FAMILY: Final[Mapping[str, tuple[str, str]]] = {
    "purchase": ("shopping_bag", "shopping"),
    "pos": ("point_of_sale", "shopping"),
    "cart": ("shopping_cart", "shopping"),
    "checkout": ("shopping_cart_checkout", "shopping"),
    "coupon": ("sell", "shopping"),
    "delivery": ("local_shipping", "shopping"),
    "wishlist": ("favorite", "shopping"),
    "web": ("language", "web"),
    "session": ("login", "web"),
    "app": ("smartphone", "web"),
    "search": ("search", "web"),
    "product": ("inventory_2", "web"),
    "promo": ("campaign", "web"),
    "experiment": ("science", "web"),
    "email": ("mail", "e-mail"),
    "push": ("notifications", "e-mail"),
    "call": ("call", "phone and chat"),
    "chat": ("chat", "phone and chat"),
    "complaint": ("report", "complaints"),
    "survey": ("rate_review", "complaints"),
    "account": ("person", "account"),
    "lead": ("contact_mail", "account"),
    "profile": ("badge", "account"),
    "identity": ("link", "account"),
    "group": ("groups", "account"),
    "consent": ("verified_user", "account"),
    "loyalty": ("card_membership", "account"),
    "trial": ("hourglass_top", "account"),
    "note": ("sticky_note_2", "staff"),
    "trait": ("edit", "staff"),
}


def in_words(item: Item, *, currency: str = "USD") -> Told:
    """What happened, for people. `item`: as `Timeline.page` returns it; sealed values may be missing."""
    type_ = str(item.get("type") or "custom")
    icon, channel = _BY_FAMILY.get(type_.partition(".")[0], ("radio_button_checked", "other"))
    properties = item.get("properties") or {}
    maker = _WORDS.get(type_)
    words = maker(properties, item, currency) if maker else _fallback(type_, properties, item)
    return Told(words.rstrip(": "), icon, channel)


def types_of(channel: str, types: frozenset[str]) -> frozenset[str]:
    """The event types of a channel."""
    return frozenset(each for each in types if _BY_FAMILY.get(each.split(".")[0], ("", "other"))[1] == channel)


# --- pieces ----------------------------------------------------------------------------------------------------------


def _text(value: Any, most: int = MOST) -> str:
    if value is None or isinstance(value, dict | list):
        return ""
    text = " ".join(str(value).translate(_TURNING).split())
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _quoted(value: Any) -> str:
    text = _text(value)
    return f" “{text}”" if text else ""


def _colon(value: Any) -> str:
    text = _text(value)
    return f": {text}" if text else ""


def _place(properties: Item) -> str:
    """Where: a till or a shop."""
    for name, word in (("till", "till "), ("register", "till "), ("store", ""), ("store_name", ""), ("shop", "")):
        text = _text(properties.get(name), 40)
        if text:
            return text if not word or text.lower().startswith(word.strip()) else f"{word}{text}"
    return ""


def _listed(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


def _product(properties: Item) -> str:
    for name in ("name", "product_name", "title", "sku", "product_id"):
        text = _text(properties.get(name), 60)
        if text:
            return text
    return "a product"


def _code(value: Any) -> str:
    """A value written by a system: late_delivery as late delivery. What people wrote stays as it is."""
    text = _text(value)
    return text.replace("_", " ") if text and " " not in text else text


def _first(properties: Item, *names: str) -> Any:
    return next((properties[name] for name in names if properties.get(name) not in (None, "")), None)


def _about_topic(properties: Item) -> str:
    topic = _code(_first(properties, "topic", "subject"))
    return (
        f" about {topic[:1].lower()}{topic[1:]}" if topic and not topic[:2].isupper() else topic and f" about {topic}"
    )


def _bought(verb: str) -> Words:
    def words(properties: Item, _item: Item, currency: str) -> str:
        count = items_of(properties)
        what = f"{verb} {count} item{'s' if count != 1 else ''}" if count else f"{verb} something"
        return _listed(what, amount_of(properties, currency), _place(properties))

    return words


def _order(words: str, unnumbered: str) -> Words:
    """About an existing order."""

    def told(properties: Item, _item: Item, currency: str) -> str:
        number, reason = _text(_first(properties, *ORDER_IDS), 40), _code(_first(properties, "reason", "status"))
        named = f"{words} {number}" if number else unnumbered
        return _listed(named, amount_of(properties, currency), _place(properties), reason)

    return told


def _mail(verb: str, unnamed: str) -> Words:
    def words(properties: Item, _item: Item, _currency: str) -> str:
        subject = _first(properties, "subject", "campaign_name", "email_subject", "name", "campaign_id", "email_id")
        more = _code(_first(properties, "bounce_type", "bounce_reason")) or _code(properties.get("link_id"))
        return _listed(f"{verb}{_quoted(subject)}" if _quoted(subject) else unnamed, more)

    return words


def _plain(words: str, *names: str) -> Words:
    """Fixed words; the first of these properties that is present follows after a comma."""

    def told(properties: Item, _item: Item, _currency: str) -> str:
        return _listed(words, _code(_first(properties, *names)) if names else "")

    return told


def _named(words: str, unnamed: str, *names: str) -> Words:
    """Words with a quoted name, or other words if there is none."""

    def told(properties: Item, _item: Item, _currency: str) -> str:
        name = _quoted(_first(properties, *names))
        return f"{words}{name}" if name else unnamed

    return told


def _about(words: str) -> Words:
    def told(properties: Item, _item: Item, currency: str) -> str:
        amount = money(properties["price"], properties.get("currency") or currency) if "price" in properties else ""
        quantity = properties.get("quantity")
        several = f"{quantity} × " if type(quantity) is int and 1 < quantity < 10_000 else ""
        return _listed(words.replace("{}", several + _product(properties)), amount)

    return told


def _reviewed(properties: Item, _item: Item, _currency: str) -> str:
    rating = _text(_first(properties, "rating", "score"), 10)
    said = _said({"text": _first(properties, "review_body", "text", "comment")})
    return _listed(f"Reviewed {_product(properties)}", f"rated {rating}" if rating else "", said)


def _topic(words: str) -> Words:
    def told(properties: Item, _item: Item, _currency: str) -> str:
        topic = _code(_first(properties, "topic", "reason", "subject", "status"))
        return _listed(f"{words}{_colon(topic)}", _minutes(properties), _by(properties), _said(properties))

    return told


def _call(words: str) -> Words:
    def told(properties: Item, _item: Item, _currency: str) -> str:
        about = _about_topic(properties)
        told = f"We called{about}" if properties.get("direction") == "out" else f"{words}{about}"
        return _listed(told, _minutes(properties), _by(properties), _said(properties))

    return told


def _minutes(properties: Item) -> str:
    for name, size in (("duration_min", 1), ("duration_s", 60), ("duration", 60)):
        value = properties.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 10**6:
            minutes = value / size
            return f"{minutes:.0f} min" if minutes >= 1 else "under a minute"
    return ""


def _by(properties: Item) -> str:
    agent = _text(properties.get("agent"), 40)
    return f"by {agent}" if agent else ""


def _said(properties: Item) -> str:
    text = _text(_first(properties, "text", "message"))
    return f"“{text}”" if text else ""


def _page(properties: Item, item: Item, _currency: str) -> str:
    context = item.get("context")
    page = context.get("page") if isinstance(context, dict) else None
    path = properties.get("path") or (page.get("path") if isinstance(page, dict) else None)
    name = item.get("name") if item.get("name") != item.get("type") else None
    title = _text(_first(properties, "title", "name") or name, 80)
    if not title:
        return f"Looked at {_text(path, 80) or 'a page'}"
    return f"Looked at the page “{title}”"


def _screen(properties: Item, item: Item, _currency: str) -> str:
    name = item.get("name") if item.get("name") != item.get("type") else None
    title = _text(_first(properties, "title", "name", "screen_name") or name, 80)
    return f"Opened the screen “{title}”" if title else "Opened a screen of the app"


def _survey(properties: Item, _item: Item, _currency: str) -> str:
    score = _text(_first(properties, "score", "rating"), 20)
    name = _text(_first(properties, "survey_name", "survey_id"), 40)
    told = f"Answered the survey {name.upper() if len(name) <= 4 else name}" if name else "Answered a survey"
    return _listed(f"{told}{_colon(score)}", _said({"text": _first(properties, "comment", "text")}))


def _consent(properties: Item, _item: Item, _currency: str) -> str:
    purpose = _code(_first(properties, "purpose", "category", "topic"))
    granted = _first(properties, "granted", "consent", "opted_in")
    if isinstance(granted, bool):
        return f"{'Agreed to' if granted else 'Refused'} {purpose or 'what was asked'}"
    return _listed("Changed their consent", purpose)


def _corrected(properties: Item, item: Item, _currency: str) -> str:
    name = _text(item.get("name"), 60).replace("_", " ") or "a trait"
    traits = item.get("traits") or {}
    raw = item.get("name")
    if raw not in traits and f"traits.{raw}" not in (item.get("sealed_names") or ()):
        return _listed(f"Withdrew the correction of {name}", _by(properties))
    to = _text(traits.get(raw))
    return _listed(f"Corrected {name} to “{to}”" if to else f"Corrected {name}", _by(properties))


def _noted(properties: Item, _item: Item, _currency: str) -> str:
    return _listed(f"Note{_quoted(properties.get('text'))}", _by(properties))


def _identified(_properties: Item, item: Item, _currency: str) -> str:
    sealed = [name[7:] for name in item.get("sealed_names") or () if name.startswith("traits.")]
    names = sorted({*(item.get("traits") or {}), *sealed})
    shown = ", ".join(_text(name, 30).replace("_", " ") for name in names[:5])
    return f"Gave details{_colon(shown)}{', …' if len(names) > 5 else ''}"


def _joined(properties: Item, item: Item, _currency: str) -> str:
    traits = item.get("traits") or {}
    return f"Joined a group{_quoted(_first(traits, 'name', 'company') or _first(properties, 'name'))}"


def _fallback(type_: str, properties: Item, item: Item) -> str:
    """The event's own name with its first few plain properties."""
    own = item.get("name") if type_ == "custom" else None
    name = _text(own or type_, 80).replace("_", " ").replace(".", " ").strip() or "Something else"
    told = [
        f"{_text(key, 30).replace('_', ' ')} {_yes(value)}"
        for key, value in properties.items()
        if not isinstance(value, dict | list) and value is not None and value != ""
    ]
    return _listed(name[:1].upper() + name[1:], *told[:3])


def _yes(value: Any) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else _text(value, 40)


_COUPON: Final = ("coupon", "coupon_name", "code", "coupon_id")
_WORDS: Final[Mapping[str, Callable[[Item, Item, str], str]]] = {
    "purchase.completed": _bought("Bought"),
    "pos.purchase": _bought("Bought"),
    "purchase.updated": _order("Changed order", "Order changed"),
    "purchase.refunded": _order("Refund of order", "Order refunded"),
    "pos.return": _order("Returned goods of order", "Returned goods"),
    "purchase.cancelled": _order("Cancelled order", "Order cancelled"),
    "purchase.failed": _order("Payment failed for order", "Payment failed"),
    "cart.item_added": _about("Put {} in the cart"),
    "cart.item_removed": _about("Took {} out of the cart"),
    "cart.viewed": _plain("Looked at the cart"),
    "cart.shared": _plain("Shared the cart"),
    "checkout.started": _plain("Started checkout"),
    "checkout.step_viewed": _plain("Continued checkout", "step_name", "status"),
    "checkout.step_completed": _plain("Completed a checkout step", "step_name", "shipping_method"),
    "checkout.payment_entered": _plain("Entered payment details", "payment_method"),
    "coupon.entered": _named("Entered the coupon", "Entered a coupon", *_COUPON),
    "coupon.applied": _named("Used the coupon", "Used a coupon", *_COUPON),
    "coupon.denied": _named("Coupon rejected:", "Coupon rejected", *_COUPON),
    "coupon.removed": _named("Removed the coupon", "Removed a coupon", *_COUPON),
    "delivery.updated": _plain("Delivery updated", "status", "state"),
    "product.viewed": _about("Looked at {}"),
    "product.clicked": _about("Clicked {}"),
    "product.shared": _about("Shared {}"),
    "product.reviewed": _reviewed,
    "product.list_viewed": _named("Looked through the products", "Looked through products", "category", "list_id"),
    "wishlist.item_added": _about("Put {} on the wish list"),
    "wishlist.item_removed": _about("Took {} off the wish list"),
    "wishlist.item_moved_to_cart": _about("Moved {} from the wish list to the cart"),
    "promo.viewed": _named("Saw the promotion", "Saw a promotion", "name", "campaign_name", "promotion_id"),
    "promo.clicked": _named("Clicked the promotion", "Clicked a promotion", "name", "campaign_name", "promotion_id"),
    "search.performed": _named("Searched for", "Searched the shop", "query", "search"),
    "web.page_viewed": _page,
    "app.screen_viewed": _screen,
    "session.started": _plain("Visit started"),
    "session.ended": _plain("Visit ended"),
    "email.sent": _mail("Was sent the e-mail", "Was sent an e-mail"),
    "email.delivered": _mail("Received the e-mail", "Received an e-mail"),
    "email.opened": _mail("Opened the e-mail", "Opened an e-mail"),
    "email.clicked": _mail("Clicked a link in the e-mail", "Clicked a link in an e-mail"),
    "email.bounced": _mail("E-mail bounced:", "E-mail bounced"),
    "email.spam": _mail("Reported as spam the e-mail", "Reported an e-mail as spam"),
    "email.unsubscribed": _mail("Unsubscribed after the e-mail", "Unsubscribed from e-mails"),
    "push.received": _mail("Received the notification", "Received a notification"),
    "push.tapped": _mail("Tapped the notification", "Tapped a notification"),
    "push.bounced": _mail("Notification not delivered:", "Notification not delivered"),
    "call.received": _call("Called"),
    "call.completed": _call("Call ended"),
    "call.missed": _call("Called, and nobody answered"),
    "chat.started": _topic("Chat started"),
    "chat.ended": _topic("Chat ended"),
    "chat.message_sent": _topic("Wrote in the chat"),
    "chat.message_received": _topic("Received a chat message"),
    "complaint.opened": _topic("Complaint opened"),
    "complaint.escalated": _topic("Complaint escalated"),
    "complaint.resolved": _topic("Complaint resolved"),
    "survey.answered": _survey,
    "account.signed_up": _plain("Signed up for an account"),
    "account.signed_in": _plain("Signed in"),
    "account.signed_out": _plain("Signed out"),
    "account.deleted": _plain("Deleted the account"),
    "trial.started": _plain("Trial started", "plan", "plan_name"),
    "trial.ended": _plain("Trial ended", "plan", "plan_name"),
    "app.installed": _plain("Installed the app"),
    "app.opened": _plain("Opened the app"),
    "app.backgrounded": _plain("Left the app"),
    "app.foregrounded": _plain("Came back to the app"),
    "app.updated": _plain("Updated the app", "version"),
    "app.uninstalled": _plain("Uninstalled the app"),
    "app.crashed": _plain("The app crashed"),
    "app.install_attributed": _plain("App install came from a campaign"),
    "app.deep_link_opened": _plain("Opened a link in the app"),
    "app.deep_link_clicked": _plain("Clicked a link to the app"),
    "experiment.viewed": _named(
        "Took part in the experiment", "Took part in an experiment", "experiment_name", "experiment_id"
    ),
    "consent.updated": _consent,
    "loyalty.card_added": _plain("Got a loyalty card", "tier"),
    "loyalty.card_removed": _plain("Gave up the loyalty card"),
    "profile.identified": _identified,
    "group.joined": _joined,
    "identity.aliased": _plain("Two identifiers were linked"),
    "note.added": _noted,
    "trait.corrected": _corrected,
}
