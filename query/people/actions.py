"""Turns what staff type into the events it becomes; and finds what is still open. Pure."""

from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final, NamedTuple

from schemas.conditions import parse_time
from schemas.errors import BadRequest, Problem

_YES: Final = frozenset({"yes", "true", "y", "1"})
_NO: Final = frozenset({"no", "false", "n", "0"})
COMPLAINTS: Final = frozenset({"complaint.opened", "complaint.escalated", "complaint.resolved"})


class OpenComplaint(NamedTuple):
    """A complaint that no later event resolves. `opened_at`: ISO; `topic`: "" if none was sent or it is sealed."""

    complaint_id: str
    topic: str
    opened_at: str
    escalated: bool


def open_complaints(items: Iterable[Mapping[str, Any]]) -> list[OpenComplaint]:
    """From a timeline's items, newest first as it gives them; the oldest complaint first.

    Those without a number are left out: nothing can name them.
    """
    found: dict[str, OpenComplaint] = {}
    ordered = list(items)
    ordered.reverse()
    ordered.sort(key=lambda each: str(each["occurred_at"]))  # those of one time stay as the timeline has them
    for item in ordered:
        number = (item.get("properties") or {}).get("complaint_id")
        if number is None or item["type"] not in COMPLAINTS:
            continue
        key = str(number)
        if item["type"] == "complaint.resolved":
            found.pop(key, None)
            continue
        known = found.get(key)
        topic = (item.get("properties") or {}).get("topic")
        found[key] = OpenComplaint(
            key,
            str(topic) if isinstance(topic, str) else known.topic if known else "",
            known.opened_at if known else str(item["occurred_at"]),
            item["type"] == "complaint.escalated" or (known is not None and known.escalated),
        )
    return list(found.values())


def trait_value(text: str, type_: str | None, now: object = None) -> str | int | float | bool:
    """A corrected value in the trait's declared type; if none is declared, text, or a number where it was one.

    `now`: the trait's present value. Raises BadRequest saying what is expected.
    """
    text = text.strip()
    if not text:
        raise _refused("must not be empty")
    if type_ == "boolean" or (type_ is None and isinstance(now, bool)):
        return _truth(text)
    if type_ == "decimal":
        return _number(text)
    if type_ == "time":
        if parse_time(text) is None:
            raise _refused("must be a date or time such as 2024-05-31 or 2024-05-31T08:00:00Z")
        return text
    if type_ is None and isinstance(now, int | float):
        try:
            return _number(text)
        except BadRequest:
            return text  # nothing requires it to stay a number
    return text


def confirms(typed: str, name: str, profile_id: str) -> bool:
    """Whether the typed text names the person: the name in any case, the id, or its first eight digits."""
    said = " ".join(typed.split()).casefold()
    names = {" ".join(name.split()).casefold(), profile_id.casefold(), profile_id[:8].casefold()}
    return bool(said) and said in names


def _truth(text: str) -> bool:
    said = text.casefold()
    if said in _YES or said in _NO:
        return said in _YES
    raise _refused("must be yes or no")


def _number(text: str) -> int | float:
    try:
        number = Decimal(text)
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite() or abs(number) >= 10**15:
        raise _refused("must be a number such as 12 or 3.5")
    return int(number) if number == number.to_integral_value() else float(number)


def _refused(reason: str) -> BadRequest:
    return BadRequest(f"the value {reason}", [Problem("value", reason)])
