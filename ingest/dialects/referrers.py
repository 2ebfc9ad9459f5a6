"""What kind of page somebody came from: search, social, email, direct, internal or other. Data, and one look-up. Pure.

The library that others use for this, referer-parser, has not been kept since 2016; this table is its idea with
today's names.
"""

from functools import lru_cache
from typing import Final

_SEARCH: Final = frozenset({
    "bing.com", "duckduckgo.com", "search.yahoo.com", "baidu.com", "ecosia.org", "qwant.com", "startpage.com",
    "search.brave.com", "ask.com", "search.aol.com", "search.naver.com", "search.seznam.cz", "sogou.com", "so.com",
    "kagi.com", "swisscows.com", "mojeek.com", "lite.duckduckgo.com", "search.marginalia.nu", "coccoc.com",
    "search.daum.net", "com.google.android.googlequicksearchbox", "com.duckduckgo.mobile.android",
})  # fmt: skip
_SEARCH_NAMES: Final = frozenset({"google", "yandex"})  # with the ending of any country
_SOCIAL: Final = frozenset({
    "facebook.com", "fb.com", "fb.me", "messenger.com", "instagram.com", "threads.net", "threads.com", "t.co",
    "twitter.com", "x.com", "linkedin.com", "lnkd.in", "pin.it", "reddit.com", "tiktok.com", "youtube.com", "youtu.be",
    "snapchat.com", "whatsapp.com", "wa.me", "t.me", "telegram.org", "vk.com", "ok.ru", "tumblr.com", "quora.com",
    "bsky.app", "mastodon.social", "discord.com", "discord.gg", "weibo.com", "xing.com", "line.me", "medium.com",
    "news.ycombinator.com", "com.facebook.katana", "com.linkedin.android", "com.reddit.frontpage",
    "com.twitter.android", "com.instagram.android", "com.pinterest",
})  # fmt: skip
_SOCIAL_NAMES: Final = frozenset({"pinterest"})
_EMAIL: Final = frozenset({
    "mail.google.com", "outlook.live.com", "outlook.office.com", "outlook.office365.com", "mail.yahoo.com",
    "mail.aol.com", "mail.proton.me", "e.mail.ru", "mail.yandex.ru", "mail.yandex.com", "gmx.net", "gmx.com", "web.de",
    "app.fastmail.com", "mail.zoho.com", "mail.naver.com", "icloud.com", "com.google.android.gm",
})  # fmt: skip


def host_of(url: str) -> str:
    """The host in a URL, in lower case and without `www.`; "" if it has none."""
    _, slashes, rest = url.partition("//")
    if not slashes:
        return ""
    for end in "/?#":
        rest = rest.partition(end)[0]
    host = rest.rpartition("@")[2].partition(":")[0].lower()
    return host.removeprefix("www.")


@lru_cache(maxsize=10_000)
def class_of(referrer: str, own: str) -> str:
    """The class of a referring host. `own`: the host of the page; "" if it is not known."""
    if own and (referrer == own or referrer.endswith(f".{own}") or own.endswith(f".{referrer}")):
        return "internal"
    parts = referrer.split(".")
    ends = [".".join(parts[at:]) for at in range(len(parts) - 1)] or parts
    if not _EMAIL.isdisjoint(ends) or parts[0] in ("mail", "webmail", "roundcube"):
        return "email"
    if not _SEARCH.isdisjoint(ends) or (parts[0] in _SEARCH_NAMES and len(parts) <= 3):
        return "search"
    if not _SOCIAL.isdisjoint(ends) or not _SOCIAL_NAMES.isdisjoint(parts[:2]):
        return "social"
    return "other"
