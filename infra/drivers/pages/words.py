"""Values formatted for people: money, counts, local times, names of traits. Pure."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo

SYMBOLS: Final[Mapping[str, str]] = {"USD": "$", "EUR": "€", "GBP": "£", "JPY": "¥", "CHF": "CHF ", "CAD": "CA$"}
_WHOLE: Final = frozenset({"JPY", "KRW"})
MASKED: Final = "•••••"
STAGES: Final[Mapping[str, str]] = {
    "prospect": "grey", "new": "blue", "active": "green", "repeat": "green", "at_risk": "orange", "lapsed": "red",
    "won_back": "violet",
}  # fmt: skip
LEVELS: Final[Mapping[str, str]] = {"low": "green", "medium": "orange", "high": "red"}


def money(amount: Decimal | float | str | None, currency: str) -> str:
    """`€1,234.50`; large ones without cents."""
    if amount is None:
        return "–"
    value = Decimal(str(amount))
    places = 0 if currency in _WHOLE or abs(value) >= 100_000 else 2
    symbol = SYMBOLS.get(currency, f"{currency} ")
    return f"{'−' if value < 0 else ''}{symbol}{abs(value):,.{places}f}"


def count(number: int | Decimal | float) -> str:
    return f"{int(number):,}"


def percent(share: Decimal | float, places: int = 1) -> str:
    return f"{float(share) * 100:.{places}f} %"


def moment(at: datetime | str | None, zone: str, *, seconds: bool = False) -> str:
    """`3 May 2026, 14:02` in a time zone."""
    if at is None:
        return "–"
    if isinstance(at, str):
        at = datetime.fromisoformat(at)
    local = at.astimezone(ZoneInfo(zone))
    return f"{local.day} {local:%b %Y, %H:%M:%S}" if seconds else f"{local.day} {local:%b %Y, %H:%M}"


def day(at: datetime | str | None, zone: str) -> str:
    """`3 May 2026`."""
    return "–" if at is None else moment(at, zone).split(",")[0]


def ago(at: datetime | str | None, now: datetime) -> str:
    """`5 minutes ago`, in one unit."""
    if at is None:
        return "never"
    if isinstance(at, str):
        at = datetime.fromisoformat(at)
    seconds = (now - at).total_seconds()
    if seconds < 60:
        return "just now"
    for size, word in (
        (86_400 * 365, "year"),
        (86_400 * 30, "month"),
        (86_400, "day"),
        (3_600, "hour"),
        (60, "minute"),
    ):
        if seconds >= size:
            number = int(seconds // size)
            return f"{number} {word}{'s' if number > 1 else ''} ago"
    return "just now"


def size(number: float) -> str:
    """`12.4 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1_000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1_000
    return f"{number:.1f} TB"


def title(name: str) -> str:
    """`at_risk` as `At risk`; `revenue_90d` as `Revenue, 90 days`."""
    words = name.replace("_", " ").strip()
    head, _, tail = words.rpartition(" ")
    if head and tail[:-1].isdigit() and tail.endswith("d"):
        words = f"{head}, {tail[:-1]} days"
    return words[:1].upper() + words[1:]


def value(value: Any, *, currency: str = "", name: str = "", zone: str = "UTC") -> str:
    """A trait's value in words; money where its name says so."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str) and len(value) >= 20 and value[4:5] == "-" and value.endswith("Z"):
        try:
            return moment(value, zone)
        except ValueError:
            return value
    if currency and any(
        word in name for word in ("revenue", "amount", "spent", "refunded", "average_order", "largest")
    ):
        try:
            return money(value, currency)
        except ArithmeticError:
            return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list | dict):
        return shortened(str(value), 200)
    return str(value)


def shortened(text: str, most: int = 80) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
