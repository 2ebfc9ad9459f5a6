"""What the demo's customers do live: an endless trickle, one touch at a time. Pure: time is an argument."""

from random import Random
from typing import Final, NamedTuple

import msgspec

from infra.demo.history import Plan
from infra.demo.journey import Journey, Touch, stamp
from infra.demo.names import CALL_TOPICS, CAMPAIGNS
from infra.demo.people import DAYS, Person, cast

STORIES: Final = 6  # stories running in parallel
_SCENES: Final = {"visit": 50, "web_order": 14, "till_order": 16, "mail": 12, "call": 5, "complaint": 1, "survey": 2}


class LiveEvent(NamedTuple):
    """One item for the door, happening now."""

    source: str
    body: bytes


class Trickle:
    """Returns the next event on each call. `run`: distinguishes this run in message and order ids."""

    def __init__(self, plan: Plan, run: int) -> None:
        self._plan = plan
        self._run = run
        self._rng = Random(f"touchfold demo live {plan.seed} {run}")
        self._people = [person for person in cast(plan.seed, plan.customers) if not _gone(person)]
        self._stories: list[list[Touch]] = []
        self._told = 0
        self._sent = 0

    def next(self, now_ms: int) -> LiveEvent:
        """The next touch of one of the running stories."""
        while len(self._stories) < STORIES:
            self._stories.append(self._story())
        story = self._rng.choice(self._stories)
        touch = story.pop(0)
        if not story:
            self._stories.remove(story)
        self._sent += 1
        message_id = f"demo-live-{self._plan.seed}-{self._run}-{self._sent}"
        item = {**touch.item, "messageId": message_id, "timestamp": stamp(now_ms)}
        return LiveEvent(touch.source, msgspec.json.encode(item))

    def _story(self) -> list[Touch]:
        """One scene of one customer, its touches in order of time."""
        rng, self._told = self._rng, self._told + 1
        person = rng.choice(self._people)
        to = Journey(person, rng, self._plan.currency, f"L{self._run}-{self._told}")
        to.signed_in.update(device.anonymous_id for device in person.devices if device.signed_in)
        scene = rng.choices([*_SCENES], [*_SCENES.values()])[0]
        if person.user_id is None and scene in {"visit", "web_order"}:
            scene = "till_order"
        if person.kind == "prospect" and scene.endswith("order"):
            scene = "visit"
        self._play(to, scene)
        return sorted(to.touches, key=lambda touch: touch.at_ms)

    def _play(self, to: Journey, scene: str) -> None:
        person, rng = to.person, to.rng
        if scene == "visit":
            to.visit(0, rng.choice(person.devices), rng.choice((1, 2, 3, 4)), cart=rng.random() < 0.3)
        elif scene == "web_order":
            to.web_order(0, rng.choice(person.devices), person.basket, collected=rng.random() < 0.1)
        elif scene == "till_order":
            to.till_order(0, person.basket)
        elif scene == "mail":
            to.mail(
                0, "cmp-live", rng.choice(CAMPAIGNS), result=rng.choice(("delivered", "opened", "opened", "clicked"))
            )
        elif scene == "call":
            to.call(0, rng.choice(CALL_TOPICS), missed=rng.random() < 0.15)
        elif scene == "complaint":
            to.complain(0, escalated=False, resolved_after_days=None if rng.random() < 0.5 else 1)
        else:
            to.survey(0, rng.choices(range(11), (1, 0, 1, 1, 1, 3, 4, 9, 20, 25, 30))[0])


def _gone(person: Person) -> bool:
    return person.leaves or person.join_day >= DAYS
