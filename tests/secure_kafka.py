"""A broker with mutual TLS and passwords (SASL), and what clients need to connect to it."""

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from kafka.admin import (
    ACL,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    KafkaAdminClient,
    ResourcePattern,
    ResourceType,
)

from infra.adapters.kafka.access import KafkaAccess
from infra.adapters.kafka.trouble import reach
from tests.kafka_broker import DEADLINE_S, Cluster, Node

PASSWORD: Final = "right-horse"
SCRAM: Final = "SCRAM-SHA-512"
_ACLS: Final = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": "User:broker;User:operator;User:ANONYMOUS",  # the last is the controller itself
}


class Authority:
    """Signs certificates; everything is written to `folder` as PEM files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"test authority {folder.name}")])
        certificate = self._sign(self._name, self._key, authority=True)
        self.path = folder / "ca.pem"
        self.path.write_bytes(certificate)

    def issue(self, name: str) -> tuple[Path, Path]:
        """(certificate, key) for 127.0.0.1."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), key, authority=False)
        paths = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        paths[0].write_bytes(certificate)
        paths[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return paths

    def _sign(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, authority: bool) -> bytes:
        now = datetime.now(UTC)
        public = key.public_key()
        builder = (
            x509.CertificateBuilder(subject_name=subject, issuer_name=self._name, public_key=public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=2))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if not authority:
            names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1")), x509.DNSName("localhost")])
            builder = builder.add_extension(names, critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)


class SecureCluster(Cluster):
    """One broker whose listener uses SASL over TLS and requires a client certificate.

    With `acls`, the account `touchfold` may do only what `grant` allows, and `operator` may do everything.
    """

    def __init__(self, folder: Path, *, acls: bool = False) -> None:
        self._authority = Authority(folder / "authority")
        certificate, key = self._authority.issue("broker")
        store = folder / "authority" / "broker-store.pem"
        store.write_bytes(key.read_bytes() + certificate.read_bytes() + self._authority.path.read_bytes())
        login = (
            f'org.apache.kafka.common.security.plain.PlainLoginModule required username="broker" password="{PASSWORD}"'
        )
        super().__init__(
            folder,
            properties={
                "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:SASL_SSL",
                "sasl.enabled.mechanisms": f"PLAIN,{SCRAM}",
                "inter.broker.listener.name": "PLAINTEXT",  # only its name; the protocol is in the map
                "sasl.mechanism.inter.broker.protocol": "PLAIN",
                "listener.name.plaintext.plain.sasl.jaas.config": (
                    f'{login} user_broker="{PASSWORD}" user_touchfold="{PASSWORD}" user_operator="{PASSWORD}";'
                ),
                f"listener.name.plaintext.{SCRAM.lower()}.sasl.jaas.config": (
                    "org.apache.kafka.common.security.scram.ScramLoginModule required;"
                ),
                "ssl.keystore.type": "PEM",
                "ssl.keystore.location": str(store),
                "ssl.truststore.type": "PEM",
                "ssl.truststore.location": str(self._authority.path),
                "listener.name.plaintext.ssl.client.auth": "required",
            }
            | (_ACLS if acls else {}),
            formatting=["--add-scram", f"{SCRAM}=[name=touchfold,password={PASSWORD}]"],
        )
        self._certificate, self._key = self._authority.issue("touchfold")

    def grant(self, prefix: str, rights: Mapping[tuple[str, str], Sequence[str]]) -> None:
        """Grant `touchfold` rights by (resource type, name); names are prefixes, with PREFIX replaced by `prefix`."""
        acls = []
        for (kind, name), operations in rights.items():
            named = name.replace("PREFIX", prefix)
            pattern = ResourcePattern(ResourceType[kind], named, ACLResourcePatternType.PREFIXED)
            allow = ACLPermissionType.ALLOW
            acls += [ACL("User:touchfold", "*", ACLOperation[each], allow, pattern) for each in operations]
        with closing(KafkaAdminClient(**self.operator(prefix).kafka_python())) as admin:
            refused = admin.create_acls(acls)["failed"]
        assert not refused, refused

    def operator(self, prefix: str) -> KafkaAccess:
        """Access for an account that may do everything."""
        return replace(self.access(prefix, "PLAIN"), username="operator")

    def access(self, prefix: str, sasl: str = SCRAM) -> KafkaAccess:
        """Access for our own account."""
        return KafkaAccess(
            self.bootstrap,
            prefix=prefix,
            tls_ca=self._authority.path,
            tls_cert=self._certificate,
            tls_key=self._key,
            sasl=sasl,
            username="touchfold",
            password=PASSWORD,
        )

    def stranger(self, prefix: str) -> KafkaAccess:
        """Access for a client that trusts a different authority."""
        return replace(self.access(prefix), tls_ca=Authority(self.folder / "other").path)

    def wait(self, nodes: Sequence[Node]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while (trouble := reach(self.access("any").confluent(), 1.0)) is not None:
            assert self.running(), (nodes[0].folder / "broker.log").read_text()[-3_000:]
            assert time.monotonic() < deadline, trouble.text()
