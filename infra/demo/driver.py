"""Sends the demo shop to the door of a running `up`: keys, history, then live events. Prints nothing itself."""

import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import date, datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

from infra.demo.client import Client
from infra.demo.folder import DemoFolder
from infra.demo.history import CUSTOMERS, SEED, Plan, simulate
from infra.demo.journey import SOURCES
from infra.demo.live import Trickle
from infra.demo.sender import MOST, Batch, Sender, batches, body_of, send_all
from schemas.errors import SettingsInvalid, StoreUnavailable

Progress = Callable[[str, int, int], None]
"""(what is being done, how much is done, how much there is)."""


@dataclass(frozen=True)
class Wanted:
    """The command's options; None means the default, or the value of the first run."""

    seed: int | None = None
    until: date | None = None
    customers: int | None = None
    mixed: bool = False  # load into a folder with other data


def planned(folder: DemoFolder, wanted: Wanted) -> Plan | None:
    """The plan of the first run, if there was one. Raises SettingsInvalid if the options ask for a different one."""
    found = folder.plan()
    if found is None:
        return None
    for name in ("seed", "until", "customers"):
        asked, had = getattr(wanted, name), getattr(found, name)
        if asked is not None and asked != had:
            raise SettingsInvalid(
                f"this demo was created with --{name} {had}: omit --{name} to continue it, or use another "
                "data folder with --data"
            )
    return found


class Shop(NamedTuple):
    """Where the demo runs, and with which clock, time zone and currency."""

    url: str
    token: str  # of an admin
    time_zone: str
    currency: str
    now: Callable[[], datetime]


def plan_of(shop: Shop, folder: DemoFolder, wanted: Wanted) -> Plan:
    """The plan of the first run, or a new one, which is saved. Raises SettingsInvalid."""
    found = planned(folder, wanted)
    if found is not None:
        return found
    events = Client(shop.url, shop.token).status()["accepted"]
    if events and not wanted.mixed:
        raise SettingsInvalid(
            f"{folder.path.parent} holds {events:,} events that are not the demo's; you could not tell its invented "
            "customers from yours: use another folder with --data, or confirm with --yes"
        )
    today = shop.now().astimezone(ZoneInfo(shop.time_zone)).date()
    until = wanted.until or today
    if until > today:
        raise SettingsInvalid(f"--until {until} is in the future: the history must end at a past midnight")
    plan = Plan(
        seed=SEED if wanted.seed is None else wanted.seed,
        until=until,
        customers=CUSTOMERS if wanted.customers is None else wanted.customers,
        time_zone=shop.time_zone,
        currency=shop.currency,
    )
    folder.write_plan(plan)
    return plan


def ensure_keys(shop: Shop, folder: DemoFolder) -> dict[str, str]:
    """A write key for each of the demo's sources, created once. A source whose key was not saved gets a new one."""
    keys = folder.keys()
    client = Client(shop.url, shop.token)
    known = client.sources()
    for source in SOURCES:
        if source in keys:
            continue
        make = client.rotate_source if source in known else client.create_source
        keys[source] = make(source)
        folder.write_keys(keys)
    return keys


def load(
    shop: Shop, folder: DemoFolder, plan: Plan, keys: dict[str, str], stop: threading.Event, progress: Progress
) -> int:
    """Send what has not been acknowledged, and wait until all is applied and decided. Returns the events sent now.

    Raises Stopped, StoreUnavailable, ServiceFailed.
    """
    if folder.loaded():
        return 0
    progress("simulating", 0, 0)
    history = simulate(plan)
    folder.write_truth(plan, history.truths, history.shared)
    work = batches(history.events)
    total, start = len(history.events), folder.sent()
    del history
    sent = _send(shop, folder, keys, stop, progress, work, start, total)
    _await(shop, stop, progress, total)
    return sent


def _send(
    shop: Shop,
    folder: DemoFolder,
    keys: dict[str, str],
    stop: threading.Event,
    progress: Progress,
    work: list[Batch],
    start: int,
    total: int,
) -> int:
    before = sum(batch.events for batch in work[:start])

    def acknowledged(count: int, events: int) -> None:
        folder.write_sent(count)
        progress("loading", events, total)

    progress("loading", before, total)
    send_all(work, start, lambda: Sender(shop.url, keys, stop), acknowledged)
    folder.write_sent(len(work), whole=True)
    return total - before


def _await(shop: Shop, stop: threading.Event, progress: Progress, total: int) -> None:
    client = Client(shop.url, shop.token)
    client.await_decided(stop, lambda applied: progress("deciding", min(total, applied), total))
    progress("deciding", total, total)


def trickle(
    shop: Shop,
    plan: Plan,
    keys: dict[str, str],
    rate: float,
    stop: threading.Event,
    tell: Callable[[str], None],
) -> None:
    """Send `rate` live events a second until `stop`. Waits while the door is unreachable."""
    if rate <= 0:
        stop.wait()
        return
    now = shop.now
    stories = Trickle(plan, int(now().timestamp()))
    started, sent = time.monotonic(), 0
    with closing(Sender(shop.url, keys, stop)) as sender:
        while not stop.wait(max(0.02, started + (sent + 1) / rate - time.monotonic())):
            due = max(1, int((time.monotonic() - started) * rate) - sent)
            if due > MOST:  # after a long outage of the door, skip the events of the meantime
                started, sent, due = time.monotonic(), 0, 1
            by_source: dict[str, list[bytes]] = {}
            for _ in range(due):
                event = stories.next(int(now().timestamp() * 1_000))
                by_source.setdefault(event.source, []).append(event.body)
            for source, bodies in by_source.items():
                _post(sender, source, body_of(bodies), tell)
            sent += due


def _post(sender: Sender, source: str, body: bytes, tell: Callable[[str], None]) -> None:
    while True:
        try:
            sender.post(source, body)
        except StoreUnavailable as err:
            tell(f"waiting: {err.message}")
        else:
            return
