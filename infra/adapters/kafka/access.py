"""How to reach Kafka, in the terms of each of its three client libraries. Imports none of them, opens nothing."""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.topics import EVENTS as EVENTS  # noqa: PLC0414  # the worker takes it from here


@dataclass(frozen=True)
class KafkaAccess:
    """The brokers, and our credentials for them. TLS unless `insecure` is set and no authority is given."""

    bootstrap: str  # host:port, separated by commas
    prefix: str = "touchfold"
    insecure: bool = False
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    sasl: str | None = None  # PLAIN | SCRAM-SHA-256 | SCRAM-SHA-512
    username: str | None = None
    password: str | None = None

    def topic(self, name: str) -> str:
        """The full name of one of TOPICS."""
        return f"{self.prefix}.{name}"

    @property
    def tls(self) -> bool:
        return not self.insecure or self.tls_ca is not None

    @property
    def protocol(self) -> str:
        """Kafka's word: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL."""
        return ("SASL_" if self.sasl else "") + ("SSL" if self.tls else "PLAINTEXT")

    def confluent(self) -> dict[str, Any]:
        """For confluent_kafka's producers, consumers and admin client."""
        conf: dict[str, Any] = {"bootstrap.servers": self.bootstrap, "security.protocol": self.protocol}
        if self.tls_ca is not None:
            conf["ssl.ca.location"] = str(self.tls_ca)
        if self.tls_cert is not None:
            conf |= {"ssl.certificate.location": str(self.tls_cert), "ssl.key.location": str(self.tls_key)}
        if self.sasl is not None:
            conf |= {
                "sasl.mechanism": self.sasl,
                "sasl.username": self.username or "",
                "sasl.password": self.password or "",
            }
        return conf

    def aiokafka(self) -> dict[str, Any]:
        """Keyword arguments for aiokafka's clients and, under the same names, kafka-python's."""
        conf: dict[str, Any] = {"bootstrap_servers": self.bootstrap.split(","), "security_protocol": self.protocol}
        if self.tls:
            conf["ssl_context"] = self._ssl_context()
        if self.sasl is not None:
            conf |= {
                "sasl_mechanism": self.sasl,
                "sasl_plain_username": self.username,
                "sasl_plain_password": self.password,
            }
        return conf

    kafka_python = aiokafka

    def _ssl_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=None if self.tls_ca is None else str(self.tls_ca))
        if self.tls_cert is not None:
            context.load_cert_chain(str(self.tls_cert), None if self.tls_key is None else str(self.tls_key))
        return context
