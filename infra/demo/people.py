"""The cast of the demo shop: its customers, their traits, and their identifiers. Pure.

Nothing happens here; `infra.demo.history` makes them act.
"""

import unicodedata
from dataclasses import dataclass, field
from random import Random
from typing import Final, NamedTuple

from infra.demo.names import AREA_CODES, EMAIL_DOMAINS, FAMILY_NAMES, GIVEN_NAMES, PLACES

KIOSK: Final = "kiosk-entrance-1"  # a device in the shop on which many sign in
CLERK_PHONE: Final = "+1 (510) 555-0100"  # what a clerk types if a customer gives no number
KINDS: Final = (
    ("loyal", 24),
    ("occasional", 30),
    ("one_timer", 15),
    ("churner", 14),
    ("won_back", 5),
    ("prospect", 12),
)
DAYS: Final = 548  # 18 months
_AGE_BANDS: Final = ("18-24", "25-34", "35-44", "45-54", "55-64", "65+")
_LEAVERS: Final = ("churner", "one_timer")


class Device(NamedTuple):
    """A browser or an app. `signed_in`: whether its owner ever signs in on it; `app_id`: an app's device id."""

    anonymous_id: str
    app_id: str | None
    signed_in: bool


@dataclass(slots=True)
class Person:
    """One made-up customer. Days count from the start of the history; `gap_days`: mean days between orders."""

    number: int
    kind: str
    name: str
    given: str
    family: str
    city: str
    country: str
    age_band: str
    emails: list[str]
    phone: str | None
    user_id: str | None
    card: str | None
    devices: list[Device]
    shared_device: str | None  # a household's tablet, used by two people
    web_share: float
    gap_days: float
    basket: float  # typical value of an order, relative to 1
    newsletter: bool
    clerk_typed: bool
    uses_kiosk: bool
    join_day: int
    leave_day: int | None
    return_day: int | None = None
    identifiers: list[tuple[str, str]] = field(default_factory=list)  # filled with what they actually sent

    @property
    def keen(self) -> bool:
        """Whether they want every e-mail, and read it."""
        return self.kind == "loyal" and self.number % 6 == 0

    @property
    def leaves(self) -> bool:
        """Whether they are gone at the end."""
        return self.kind in _LEAVERS


def cast(seed: int, customers: int) -> list[Person]:
    """The customers of a seed; the same arguments give the same people."""
    return [_person(Random(f"touchfold demo person {seed} {number}"), seed, number) for number in range(customers)]


def _person(rng: Random, seed: int, number: int) -> Person:
    kind = rng.choices([kind for kind, _ in KINDS], [weight for _, weight in KINDS])[0]
    given, family = rng.choice(GIVEN_NAMES), rng.choice(FAMILY_NAMES)
    place = rng.choices(PLACES, [place.weight for place in PLACES])[0]
    clerk_typed, uses_kiosk = number % 5 == 1, number % 6 == 2
    account = kind == "prospect" or uses_kiosk or rng.random() < 0.72
    has_card = clerk_typed or not account or (kind != "prospect" and rng.random() < 0.5)
    join, leave, back = _days(rng, kind)
    return Person(
        number=number,
        kind=kind,
        name=f"{given} {family}",
        given=given,
        family=family,
        city=place.city,
        country=place.country,
        age_band=rng.choices(_AGE_BANDS, (8, 22, 24, 20, 15, 11))[0],
        emails=_emails(rng, given, family, number),
        phone=None if clerk_typed or rng.random() < 0.22 else phone_of(number, place.country),
        user_id=f"u-{10_000 + number * 7}" if account else None,
        card=f"LC{_check_digits(seed, number)}" if has_card else None,
        devices=_devices(rng, seed, number, account),
        shared_device=f"tablet-{number // 2:05d}" if account and number % 24 in {10, 11} else None,
        web_share=(rng.uniform(0.35, 0.95) if account else 0.0) if has_card else 1.0,
        gap_days={"loyal": 27, "occasional": 62, "churner": 28, "won_back": 30}.get(kind, 0) * rng.uniform(0.7, 1.3),
        basket=rng.lognormvariate(0.0, 0.35),
        newsletter=rng.random() < 0.62,
        clerk_typed=clerk_typed,
        uses_kiosk=uses_kiosk,
        join_day=join,
        leave_day=leave,
        return_day=back,
    )


def _days(rng: Random, kind: str) -> tuple[int, int | None, int | None]:
    """(join, leave, come back); the shop grows, so somewhat more people join on later days."""
    if kind == "won_back":
        join = rng.randrange(0, 90)
        leave = join + rng.randrange(70, 150)
        return join, leave, leave + rng.randrange(188, 260)
    if kind == "churner":
        join = rng.randrange(0, 300)
        return join, rng.randrange(join + 90, DAYS - 8), None
    if kind == "one_timer":
        join = rng.randrange(0, DAYS - 15)
        return join, None, None
    return int((DAYS - 20) * rng.random() ** 1.2), None, None


def _emails(rng: Random, given: str, family: str, number: int) -> list[str]:
    first, last = ascii_of(given), ascii_of(family)
    forms = (f"{first}.{last}", f"{first[0]}{last}", f"{first}{last}", f"{last}.{first}")
    found = [f"{rng.choice(forms)}{number}@{rng.choice(EMAIL_DOMAINS)}"]
    if rng.random() < 0.05:  # a later address
        found.append(f"{last}{first[0]}.{number}@{rng.choice(EMAIL_DOMAINS)}")
    return found


def _devices(rng: Random, seed: int, number: int, account: bool) -> list[Device]:
    count = rng.choices((1, 2, 3), (5, 4, 2))[0] if account else 1
    made = []
    for place in range(count):
        head, tail = rng.getrandbits(32), rng.getrandbits(48)
        anonymous = f"{head:08x}-{seed & 0xFFFF:04x}-4{place:03x}-8{number & 0xFFF:03x}-{tail:012x}"
        app = f"app-{rng.getrandbits(64):016x}" if place == 1 else None
        made.append(Device(anonymous, app, account and (place == 0 or rng.random() < 0.96)))
    return made


def phone_of(number: int, country: str) -> str:
    """A number from a range reserved for fiction, different for each person, in various formats."""
    if country == "FR":
        digits = f"{number % 10_000:04d}"
        return (f"+33 6 39 98 {digits[:2]} {digits[2:]}", f"+336 3998 {digits}")[number % 2]
    if country == "GB" and number < 1_000:
        return (f"+44 7700 900{number:03d}", f"+44 (0)7700 900 {number:03d}")[number % 2]
    place, line = divmod(number, 99)
    area = AREA_CODES[place % len(AREA_CODES)]
    line += 101  # 0100 is the clerk's
    return (f"+1 ({area}) 555-0{line}", f"+1 {area} 555 0{line}", f"+1{area}5550{line}")[number % 3]


def ascii_of(text: str) -> str:
    """A name in lower-case letters, as people use it in e-mail addresses."""
    plain = unicodedata.normalize("NFD", text.lower().translate(_FOLDED))
    return "".join(letter for letter in plain if "a" <= letter <= "z")


_FOLDED: Final = str.maketrans({"ł": "l", "ø": "o", "ß": "ss", "đ": "d", "ð": "d", "ı": "i", "æ": "ae"})


def _check_digits(seed: int, number: int) -> str:
    body = 400_000_000 + (seed % 97) * 1_000_000 + number
    return f"{body}{sum(int(digit) for digit in str(body)) % 10}"
