"""The publish process: the change feed to Kafka topics. Any number may run: one publishes, the others stand by."""

import logging
import threading
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, Final

from infra.adapters.kafka.access import KafkaAccess
from infra.adapters.kafka.changes import DEADLINE_S, KafkaChanges, check_granted
from infra.adapters.postgres.control import PostgresControl
from infra.adapters.postgres.feed_notifier import FeedNotifier
from infra.adapters.postgres.publishing import PostgresPublishing
from infra.app.log import log_of
from infra.app.vault import vault_of
from processors.feed.personal import PersonalValues
from processors.feed.publish import BATCH, Publisher
from processors.live.compiled import Compiled
from schemas.errors import Disposition, TouchfoldError

if TYPE_CHECKING:
    from infra.app.session import Session

STANDBY_S: Final = 0.5  # how often a standby checks whether the active one is gone
IDLE_S: Final = 1.0  # most delay in noticing a stop; a new change wakes it up
GATHER_S: Final = (
    0.25  # changes arriving within this time share a transaction: each costs the brokers a marker per partition
)
PAUSE_S: Final = 1.0  # after an outage
_log = logging.getLogger("touchfold.publish")


def publisher_of(session: "Session", feed: PostgresPublishing, granted: frozenset[str] = frozenset()) -> Publisher:
    """The publisher of a session's feed. `granted`: short names of topics that may contain direct personal values."""

    def compile_(revision: int) -> Compiled:
        with closing(PostgresControl(session.dsn, "touchfold publish definitions")) as control:
            return Compiled.of(control.revision(revision), session.time_zone, session.currency)

    personal = None
    if granted:
        vault = vault_of(session)
        personal = PersonalValues(granted, log_of(session), vault, vault)
    deadline_s = min(session.settings.kafka_ack_s, DEADLINE_S)
    return Publisher(feed, KafkaChanges(access_of(session), deadline_s), compile_, session.clock, personal)


def access_of(session: "Session") -> KafkaAccess:
    access = session.adapters.kafka
    assert access is not None, "the publish role is for TOUCHFOLD_LOG=kafka"
    return access


def run(
    session: "Session",
    stop: threading.Event,
    ready: Callable[[], None],
    granted: frozenset[str] = frozenset(),
) -> None:
    """Until `stop`, publish new changes as soon as they are numbered. Outages are waited out.

    Raises SettingsInvalid if a topic that may contain personal values would keep them for 7 days or longer.
    """
    feed, notifier = PostgresPublishing(session.dsn), FeedNotifier(session.dsn)
    publisher: Publisher | None = None
    waits = False
    ready()
    try:
        while not stop.is_set():
            seen = notifier.count
            try:
                if publisher is None:
                    check_granted(access_of(session), granted)
                    publisher = publisher_of(session, feed, granted)
                done = publisher.run_once()
            except TouchfoldError as err:
                if err.disposition is not Disposition.RETRY:
                    raise
                _log.warning("waiting: %s", err.message)
                stop.wait(PAUSE_S)
                continue
            if (done is None) != waits:
                waits = done is None
                _log.info("another process is publishing: standing by" if waits else "publishing")
            if done is None:
                stop.wait(STANDBY_S)
            elif done == 0:
                notifier.wait(seen, IDLE_S)
            elif done < BATCH:
                stop.wait(GATHER_S)
    finally:
        if publisher is not None:
            publisher.close()
        feed.close()
        notifier.close()
