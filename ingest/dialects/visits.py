"""What a page's address says about a visit: its campaign, and the class of its referrer. Pure.

Derived at the door, before addresses are sealed. What the sender says itself is left as it is.
"""

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import unquote_plus

from ingest.dialects.referrers import class_of, host_of

_TAGS: Final = {
    "source": "source", "medium": "medium", "campaign": "name", "term": "term", "keyword": "term", "kwd": "term",
    "content": "content", "id": "id", "cid": "id",
}  # fmt: skip
"""Names after `utm_`, `mtm_` or `pk_` (Matomo) → fields of `context.campaign`."""
CLICKS: Final[Mapping[str, tuple[str, str]]] = {
    "gclid": ("google", "cpc"),
    "gbraid": ("google", "cpc"),
    "wbraid": ("google", "cpc"),
    "dclid": ("google", "display"),
    "msclkid": ("bing", "cpc"),
    "fbclid": ("facebook", "social"),
    "igshid": ("instagram", "social"),
    "ttclid": ("tiktok", "cpc"),
    "twclid": ("twitter", "cpc"),
    "li_fat_id": ("linkedin", "cpc"),
    "sccid": ("snapchat", "cpc"),
    "rdt_cid": ("reddit", "cpc"),
    "epik": ("pinterest", "cpc"),
    "yclid": ("yandex", "cpc"),
    "mc_cid": ("mailchimp", "email"),
    "_kx": ("klaviyo", "email"),
}
"""Click ids in an address → source and medium. The id itself stays in the address, which is sealed."""
_MARK: Final = re.compile(
    rf"[?&#;]((?:utm|mtm|pk)_(?:{'|'.join(_TAGS)})|{'|'.join(map(re.escape, CLICKS))})=([^&#;\s]*)", re.IGNORECASE
)
_MAX_VALUE: Final = 200  # characters
CAMPAIGN: Final = "context.campaign"
REFERRER: Final = "context.referrer.type"


class Visit(NamedTuple):
    """A context with what was derived, and which fields that was."""

    context: Mapping[str, Any]
    mapped: list[str]


def derived(context: Mapping[str, Any], properties: Mapping[str, Any]) -> Visit:
    """The context with its campaign and the class of its referrer. `properties`: of a page, which may have its address.

    Without an address it costs 0.2 µs, with one some 2 µs.
    """
    page = context.get("page")
    if type(page) is not dict:
        page = properties if "url" in properties or "referrer" in properties else None
    if page is None:
        return Visit(context, [])
    url, referrer = page.get("url"), page.get("referrer")
    found: dict[str, Any] = {}
    mapped: list[str] = []
    if not _has_any(context.get("campaign")):
        campaign = _campaign(url, page.get("search"))
        if campaign:
            found["campaign"] = campaign
            mapped.append(CAMPAIGN)
    said = context.get("referrer")
    if type(referrer) is str and (said is None or (type(said) is dict and "type" not in said)):
        kind = _referrer(referrer, url if type(url) is str else "")
        if kind:
            found["referrer"] = {**(said or {}), "type": kind}
            mapped.append(REFERRER)
    return Visit({**context, **found}, mapped) if found else Visit(context, [])


def _has_any(campaign: object) -> bool:
    if type(campaign) is not dict:
        return bool(campaign)
    return any(value not in (None, "") for value in campaign.values())


def _campaign(url: object, search: object) -> dict[str, str]:
    """The campaign in an address, by its tags, else by the network whose click id it has."""
    text = url if type(url) is str and "=" in url else search if type(search) is str and "=" in search else ""
    if not text:
        return {}
    found: dict[str, str] = {}
    clicks: list[str] = []
    for written, quoted in _MARK.findall(text):
        name = written.lower()
        if name in CLICKS:
            clicks += [name] if quoted else []
            continue
        value = unquote_plus(quoted, errors="replace").strip()[:_MAX_VALUE]
        if value:
            found.setdefault(_TAGS[name.partition("_")[2]], value)
    if clicks:
        source, medium = CLICKS[clicks[0]]
        if "source" not in found:
            found |= {"source": source, "medium": found.get("medium", medium)}
        found["click"] = clicks[0]
    return found


def _referrer(referrer: str, url: str) -> str:
    """The class of a referrer; "" if it is no address."""
    if referrer in ("", "$direct"):
        return "direct"
    host = host_of(referrer)
    return class_of(host, host_of(url)) if host else ""
