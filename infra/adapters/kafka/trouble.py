"""Problems between a librdkafka client and the brokers, in words that say what to do."""

import logging
import threading
import time
from collections.abc import Mapping
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Producer

from schemas.errors import StoreUnavailable

_RECENT_S: Final = 30.0
_REPEAT_S: Final = 30.0  # how often the same problem is logged: librdkafka reports it 20 times a second
_ASK_S: Final = 0.5
NO_TOPIC: Final = frozenset(
    {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION, KafkaError._NOENT}
)
_TLS: Final = "TLS fails: check TOUCHFOLD_KAFKA_TLS_CA, _TLS_CERT and _TLS_KEY"
_HINTS: Final[Mapping[int, str]] = {
    KafkaError._AUTHENTICATION: "the brokers refuse our login: check TOUCHFOLD_KAFKA_USERNAME and _PASSWORD",
    KafkaError.SASL_AUTHENTICATION_FAILED: (
        "the brokers refuse our login: check TOUCHFOLD_KAFKA_USERNAME and _PASSWORD"
    ),
    KafkaError.UNSUPPORTED_SASL_MECHANISM: "the brokers do not support this login method: check TOUCHFOLD_KAFKA_SASL",
    KafkaError._SSL: _TLS,
    KafkaError._RESOLVE: "no such host: check TOUCHFOLD_KAFKA_BOOTSTRAP",
    KafkaError._ALL_BROKERS_DOWN: (
        "no broker answers (if one runs: check TOUCHFOLD_KAFKA_BOOTSTRAP, and that it speaks TLS and SASL as we do)"
    ),
}
_REFUSED: Final = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    }
)
_log = logging.getLogger("touchfold.kafka")


class Trouble:
    """The last error of a client's connections: its `error_cb`. Any thread."""

    def __init__(self) -> None:
        self.fatal: str | None = None
        self.code = KafkaError.NO_ERROR
        self._text = ""
        self._hinted = False
        self._at = -_RECENT_S
        self._logged_at = -_REPEAT_S
        self._lock = threading.Lock()

    def __call__(self, error: KafkaError) -> None:
        now, code = time.monotonic(), error.code()
        hint = _HINTS.get(code) or (_TLS if "SSL" in error.str() else None)
        with self._lock:
            if code == KafkaError._FATAL:
                self.fatal = error.str()
            known = now - self._at < _RECENT_S
            if known and (code == KafkaError._ALL_BROKERS_DOWN or (self._hinted and not hint)):
                return  # less informative than the error before it
            told = code != KafkaError._ALL_BROKERS_DOWN
            text = (f"{hint} ({error.str()})" if told else hint) if hint else error.str()
            self._text, self._at, self._hinted = text, now, hint is not None and told
            self.code = KafkaError._SSL if hint == _TLS else code
            due = now - self._logged_at >= _REPEAT_S
            if due:
                self._logged_at = now
        if due:
            _log.warning("Kafka: %s", text)

    def text(self) -> str:
        """The problem of the last half minute; "" if there was none."""
        with self._lock:
            return self._text if time.monotonic() - self._at < _RECENT_S else ""

    def because(self) -> str:
        text = self.text()
        return f": {text}" if text else ""


def unavailable(error: KafkaError, topic: str, trouble: Trouble) -> StoreUnavailable:
    """What a client reports, with what to do about it."""
    code = error.code()
    if code in NO_TOPIC:
        return StoreUnavailable(
            f"{topic} does not exist, or lacks partitions: run touchfold topics apply", retry_after_s=5
        )
    if code in _REFUSED:
        text = f"we may not use {topic} ({error.name()}): grant our account the rights (docs/kafka.md)"
        return StoreUnavailable(text, retry_after_s=5)
    if code in {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE}:
        return StoreUnavailable(f"max.message.bytes of {topic} is too low: run touchfold topics apply", retry_after_s=5)
    return StoreUnavailable(f"Kafka does not answer ({error.name()}){trouble.because()}", retry_after_s=2)


def shared_config() -> dict[str, Any]:
    """librdkafka's settings for any of our clients: quick to reconnect, quiet (`Trouble` reports what matters)."""
    return {
        "socket.keepalive.enable": True,
        "socket.connection.setup.timeout.ms": 5_000,
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 1_000,
        "allow.auto.create.topics": False,
        "log.connection.close": False,
        "log_level": 2,
    }


REFUSED: Final = frozenset({KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError._SSL})
"""Problems with the settings: waiting does not help."""


def reach(config: Mapping[str, Any], wait_s: float) -> Trouble | None:
    """Ask the brokers anything. None if they answer, else why not; immediately if they refuse us."""
    trouble = Trouble()
    producer = Producer({**shared_config(), **config, "error_cb": trouble, "logger": _log})
    deadline = time.monotonic() + wait_s
    while True:
        try:
            producer.list_topics(timeout=_ASK_S)
            return None
        except KafkaException:
            producer.poll(0)  # calls `trouble` with what has happened meanwhile
        if trouble.code in REFUSED or time.monotonic() > deadline:
            return trouble
