"""What people define: properties, traits, computed traits, segments, lifecycle, risk, rates, source ranks.

Frozen models: the shape alone. `projections.definitions` reads files of them, applies patches and refuses what does
not hold together. Nothing here evaluates.
"""

import json
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from hashlib import sha256
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, StrictBool, StrictInt, StrictStr

from schemas.conditions import Condition
from schemas.touchpoints import BASE_TYPES, ORDER_TYPES, with_meant

DEFAULT_STAGE: Final = "prospect"
LEVELS: Final = ("low", "medium", "high")
MAX_WINDOW_DAYS: Final = 3_660
SECTIONS: Final = (
    *("properties", "traits", "computed_traits", "segments", "lifecycle", "risk", "rates", "sources", "identifiers"),
)

ANY_EVENT: Final = "*"


def _day(value: object) -> str:
    """An ISO date, kept as text: definitions are stored as JSON."""
    return date.fromisoformat(str(value)).isoformat()


Events = Annotated[tuple[StrictStr, ...], AfterValidator(with_meant)]
"""Names of events; those that SDKs have for a touchpoint mean it."""


class Model(BaseModel):
    """Frozen; an unknown key is refused, never dropped."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class PropertyDeclaration(Model):
    """What is known of a property: `personal: false` keeps it in clear from then on.

    `identifies: true`: it is the customer's own identifier, of the kind it is called by (email, phone, loyalty_card);
    a kind instead of `true`: of this kind; `false`: it may be somebody else's. It acts on what is received from now on.
    """

    personal: StrictBool | None = None
    identifies: StrictBool | StrictStr | None = None
    description: str = ""


class TraitDeclaration(Model):
    """A trait that systems send. Direct (personal, sealed) unless declared otherwise."""

    personal: StrictBool = True
    type: Literal["text", "decimal", "boolean", "time"] | None = None
    description: str = ""


class ComputedTrait(Model):
    """A value folded from the events named (a type, the name of a custom event, or "*" alone for every event).

    `of: occurred_at` is the event's time, `of: revenue` its derived revenue in the base currency (in its own where
    `where` pins one currency).

    When all events are order events and one is a completion, it is over orders, each once (decision 0035): count and
    the others see orders that are not cancelled, at their first completion; sum and avg of revenue subtract the
    refunds named in `events`, each at most what was left of its order, at its own stamp. Cancellations and updates
    of a purchase apply whether named or not; refunds of a cancelled order do not. `window_days`: N local calendar
    days, today and N - 1 before.
    """

    aggregate: StrictStr  # a name of `projections.aggregates`, which says what each needs and means
    of: StrictStr | None = None
    events: Events = ()
    window_days: StrictInt | None = None
    where: Condition | None = None
    key: StrictStr | None = None
    opens: Events = ()
    closes: Events = ()
    publish: StrictBool = False
    description: str = ""

    @property
    def all_events(self) -> tuple[str, ...]:
        """Every event name it looks at, sorted."""
        return tuple(sorted({*self.events, *self.opens, *self.closes}))

    @property
    def by_order(self) -> bool:
        """Whether it is computed over the order map (design C5): order events only, one of them a base."""
        return set(self.events) <= ORDER_TYPES and bool(set(self.events) & set(BASE_TYPES))


class Segment(Model):
    """A stored condition."""

    description: str = ""
    when: Condition


class Stage(Model):
    """One lifecycle stage; the first in the list whose condition holds is the profile's."""

    name: str
    when: Condition
    description: str = ""


class Lifecycle(Model):
    """Ordered stages; `prospect` when none holds. A patch changes the stages it names, see `merge`."""

    stages: tuple[Stage, ...]


class RiskRule(Model):
    """Points for a reason."""

    code: str
    points: StrictInt
    when: Condition
    description: str = ""


class Levels(Model):
    """Points from which risk is medium, and high; `low` below."""

    medium: StrictInt = 2
    high: StrictInt = 4


class Risk(Model):
    """Rules whose points add up, and the levels they reach. A patch changes the rules it names, see `merge`."""

    rules: tuple[RiskRule, ...] = ()
    levels: Levels = Levels()


class Rate(Model):
    """Units of the base currency for one of `currency`, from the local day `date` on."""

    currency: str
    date: Annotated[str, AfterValidator(_day)]
    rate: Decimal


class Numbers(Model):
    """How numbers are written in text. `decimal`: the mark before the fraction, by which "1,234" means one number."""

    decimal: Literal[".", ","]


class Source(Model):
    """A source's rank when two sources send the same order: the higher one's amounts hold; how it writes amounts."""

    rank: StrictInt = 0
    numbers: Numbers | None = None


class BlockedValue(Model):
    """A value that names nobody here, in any letter case: of these kinds, or of every kind if none is given.

    Kinds are those of identifiers, and `message_id`.
    """

    value: StrictStr
    kinds: tuple[StrictStr, ...] = ()
    description: str = ""


class Identifiers(Model):
    """What is not an identifier in this shop, beside the product's own list (`schemas.placeholders`)."""

    blocked: tuple[StrictStr | StrictInt | BlockedValue, ...] = ()

    def entries(self) -> dict[str, BlockedValue]:
        """Each by its value; a text alone is of every kind."""
        found = (each if isinstance(each, BlockedValue) else BlockedValue(value=str(each)) for each in self.blocked)
        return {each.value: each for each in found}


class Definitions(Model):
    """Everything defined, or a patch to it. `delete` names what a patch removes, and is never stored."""

    properties: dict[str, dict[str, PropertyDeclaration]] = {}
    traits: dict[str, TraitDeclaration] = {}
    computed_traits: dict[str, ComputedTrait] = {}
    segments: dict[str, Segment] = {}
    lifecycle: Lifecycle | None = None
    risk: Risk | None = None
    rates: tuple[Rate, ...] = ()
    sources: dict[str, Source] = {}
    identifiers: Identifiers | None = None
    delete: tuple[str, ...] = ()

    @property
    def stage_names(self) -> tuple[str, ...]:
        """Every stage a profile can be in, the default first."""
        stages = self.lifecycle.stages if self.lifecycle else ()
        return (DEFAULT_STAGE, *(s.name for s in stages if s.name != DEFAULT_STAGE))

    def conditions(self) -> Iterator[tuple[str, Any]]:
        """Every profile condition with the path of its root."""
        for name, segment in self.segments.items():
            yield f"segments.{name}.when", segment.when
        for i, stage in enumerate(self.lifecycle.stages if self.lifecycle else ()):
            yield f"lifecycle.stages[{i}].when", stage.when
        for i, rule in enumerate(self.risk.rules if self.risk else ()):
            yield f"risk.rules[{i}].when", rule.when

    @property
    def content_hash(self) -> str:
        """32 hex digits over the canonical JSON: equal definitions, equal hash."""
        return sha256(to_json(self)).hexdigest()[:32]


def decimal_marks(defs: Definitions) -> dict[str, str]:
    """Source → the decimal mark it says it writes."""
    return {name: source.numbers.decimal for name, source in defs.sources.items() if source.numbers}


def _plain(value: object) -> object:
    """JSON types only; decimals as the float that prints the same (checked: at most 15 digits)."""
    if isinstance(value, Decimal):
        return int(value) if value == int(value) else float(value)
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def plain(model: BaseModel) -> Any:
    """A model as JSON types, without what has its default."""
    return _plain(model.model_dump(by_alias=True, exclude_defaults=True))


def to_json(defs: Definitions) -> bytes:
    """Canonical JSON for storage: sorted keys, defaults left out. `from_json` gives equal definitions back."""
    raw = plain(defs)
    raw.pop("delete", None)
    return json.dumps(raw, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
