"""Whether topics can be written or read now, by the brokers' metadata: leaders, and enough replicas in sync."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin import ConfigResource as _ConfigResource  # type: ignore[attr-defined]  # not in their stubs

from infra.adapters.kafka.access import KafkaAccess
from infra.adapters.kafka.trouble import Trouble, shared_config, unavailable
from schemas.errors import StoreUnavailable
from schemas.topics import EVENTS, PROFILE_CHANGES, PROFILES, RISK_CHANGES, SEGMENT_CHANGES

ConfigResource: Final[Any] = _ConfigResource
ASK_S: Final = 1.5
_PASSES: Final = frozenset({KafkaError.NO_ERROR, KafkaError.REPLICA_NOT_AVAILABLE})


class Topics:
    """Calling it raises StoreUnavailable while a partition of these topics lacks what it must have. One thread.

    `writing`: as many replicas in sync as `min.insync.replicas` asks for; else a leader alone, which is what readers
    need. The client is made at the first call.
    """

    def __init__(self, access: KafkaAccess, names: Sequence[str], *, writing: bool) -> None:
        self._access = access
        self._topics = [access.topic(name) for name in names]
        self._writing = writing
        self._trouble = Trouble()
        self._client: AdminClient | None = None
        self._least: dict[str, int] = {}

    def __call__(self) -> None:
        for topic in self._topics:
            wrong = list(self._wrong(topic))
            if wrong:
                more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
                raise StoreUnavailable(f"{topic}: {', '.join(wrong[:3])}{more}", retry_after_s=2)

    def _wrong(self, topic: str) -> Iterator[str]:
        client = self._asking()
        try:
            found = client.list_topics(topic, timeout=ASK_S).topics[topic]
            least = self._least_replicas(client, topic) if self._writing else 0
        except KafkaException as err:
            client.poll(0)  # calls `_trouble` with what happened meanwhile
            self._client = None
            raise unavailable(err.args[0], topic, self._trouble) from err
        if found.error is not None:
            raise unavailable(found.error, topic, self._trouble)
        for number, each in sorted(found.partitions.items()):
            if each.leader < 0 or (each.error is not None and each.error.code() not in _PASSES):
                yield f"partition {number} has no leader"
            elif len(each.isrs) < least:
                yield f"partition {number} has {len(each.isrs)} replicas in sync, but needs at least {least}"

    def _least_replicas(self, client: AdminClient, topic: str) -> int:
        """The topic's min.insync.replicas, fetched once."""
        if topic not in self._least:
            resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
            try:
                config: Any = client.describe_configs([resource], request_timeout=ASK_S)[resource].result(ASK_S + 1)
            except TimeoutError:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT)) from None
            self._least[topic] = int(config["min.insync.replicas"].value)
        return self._least[topic]

    def _asking(self) -> AdminClient:
        if self._client is None:
            config = {**shared_config(), **self._access.confluent(), "error_cb": self._trouble}
            self._client = AdminClient(config)
        return self._client


def events_writable(access: KafkaAccess) -> Callable[[], None]:
    """For a door."""
    return Topics(access, [EVENTS], writing=True)


def events_readable(access: KafkaAccess) -> Callable[[], None]:
    """For workers and the archiver."""
    return Topics(access, [EVENTS], writing=False)


def change_topics(access: KafkaAccess) -> Callable[[], None]:
    """For the publisher."""
    return Topics(access, [PROFILE_CHANGES, SEGMENT_CHANGES, RISK_CHANGES, PROFILES], writing=True)
