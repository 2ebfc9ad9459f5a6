"""HTTPS of the edges: door, API, pages and their WebSocket; a certificate renewed meanwhile; files that are none."""

import os
import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from websockets.sync.client import connect
from websockets.typing import Origin

from infra.drivers.http.tls import loaded
from schemas.errors import SettingsInvalid
from tests.integration.running import Up, result, until

SOCKET = "/_nicegui_ws/socket.io/?EIO=4&transport=websocket"


def write_certificate(folder: Path, name: str = "localhost", password: bytes | None = None) -> tuple[Path, Path]:
    """A certificate signed by itself, and its key; written as renewal tools do, whole and then in place."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    sealed = NoEncryption() if password is None else BestAvailableEncryption(password)
    written = {
        folder / "cert.pem": certificate.public_bytes(Encoding.PEM),
        folder / "key.pem": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, sealed),
    }
    for path, content in written.items():
        making = path.with_suffix(".making")
        making.write_bytes(content)
        os.replace(making, path)
    return folder / "cert.pem", folder / "key.pem"


def served(up: Up) -> x509.Certificate:
    """The certificate that a new connection is shown."""
    host, port = up.url.removeprefix("https://").split(":")
    return x509.load_pem_x509_certificate(ssl.get_server_certificate((host, int(port))).encode())


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("tls")
    cert, key = write_certificate(folder)
    started = Up(folder / "data", TLS_CERT=str(cert), TLS_KEY=str(key))
    started.wait_ready()
    yield started
    started.stop()


def trusting(up: Up) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(up.data.parent / "cert.pem"))


def test_door_api_pages_and_sockets_speak_https(up: Up) -> None:
    assert up.url.startswith("https://127.0.0.1:")
    data = ("--data", str(up.data))
    key = result("source", "create", "web", *data)
    assert f"{up.url}/v1/" in key["curl"]
    token = result("token", "create", "--role", "staff", *data)["token"]
    assert [each["check"] for each in result_of_doctor(up) if not each["ok"]] == []
    with httpx.Client(base_url=up.url, verify=trusting(up)) as client:
        sent = client.post("/v1/track", json={"userId": "ada", "event": "x"}, auth=(key["write_key"], ""))
        assert sent.status_code == 200
        assert client.get("/api/v1/me", headers={"Authorization": f"Bearer {token}"}).json()["role"] == "staff"
        signed = client.post("/sign-in", data={"token": token}, headers={"Origin": up.url})
        assert signed.status_code == 303
        assert "Secure" in signed.headers["set-cookie"].split("; ")
        cookie = signed.headers["set-cookie"].split(";")[0]
        assert client.get("/customers", headers={"Cookie": cookie}).status_code == 200
    address = up.url.replace("https", "wss") + SOCKET
    more = {"Cookie": cookie}
    with connect(address, origin=Origin(up.url), additional_headers=more, ssl=trusting(up)) as opened:
        assert str(opened.recv(30)).startswith("0{")


def result_of_doctor(up: Up) -> list[dict[str, object]]:
    found = result("doctor", "--data", str(up.data))
    assert isinstance(found, list)
    return found


def test_what_is_no_https_gets_no_answer_and_old_versions_none_either(up: Up) -> None:
    host, port = up.url.removeprefix("https://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as plain:
        plain.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert not plain.recv(1_000).startswith(b"HTTP/")
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection((host, int(port)), timeout=30) as raw, pytest.raises((ssl.SSLError, OSError)):
        old.wrap_socket(raw)


def test_a_renewed_certificate_is_served_without_a_restart_and_a_broken_one_is_not(up: Up) -> None:
    before, pids = served(up).serial_number, up.pids("http")
    write_certificate(up.data.parent, "renewed")
    until(lambda: served(up).serial_number != before, "the renewed certificate")
    renewed = served(up)
    assert "renewed" in renewed.subject.rfc4514_string()
    (up.data.parent / "cert.pem").write_text("no certificate")
    until(lambda: "the previous one stays in use" in up.log, "word of the broken one")
    assert served(up) == renewed
    assert up.pids("http") == pids


@pytest.mark.parametrize(
    ("damage", "setting", "reason"),
    [
        ("missing", "TOUCHFOLD_TLS_CERT", "cannot be read (No such file or directory)"),
        ("no certificate", "TOUCHFOLD_TLS_CERT", "is not a PEM file with a certificate"),
        ("no key", "TOUCHFOLD_TLS_KEY", "is not a PEM file with a private key"),
        ("another key", "TOUCHFOLD_TLS_KEY", "use two that belong together"),
        ("password", "TOUCHFOLD_TLS_KEY", "is encrypted"),
    ],
)
def test_files_that_are_none_name_the_setting_and_what_to_do(
    tmp_path: Path, damage: str, setting: str, reason: str
) -> None:
    cert, key = write_certificate(tmp_path, password=b"secret" if damage == "password" else None)
    if damage == "missing":
        cert.unlink()
    elif damage == "no certificate":
        cert.write_text("-----BEGIN CERTIFICATE-----\nno\n-----END CERTIFICATE-----\n")
    elif damage == "no key":
        key.write_text("no key")
    elif damage == "another key":
        (tmp_path / "other").mkdir()
        _, key = write_certificate(tmp_path / "other")
    with pytest.raises(SettingsInvalid) as refused:
        loaded(cert, key)
    (problem,) = refused.value.problems
    assert problem.path == setting
    assert reason in problem.reason


def test_a_start_with_such_files_ends_with_the_reason(tmp_path: Path) -> None:
    cert, key = write_certificate(tmp_path)
    cert.write_text("no certificate")
    up = Up(tmp_path / "data", TLS_CERT=str(cert), TLS_KEY=str(key))
    assert up.wait_end() == 1
    assert "TOUCHFOLD_TLS_CERT" in up.log
    assert "is not a PEM file with a certificate" in up.log
    alone = Up(tmp_path / "data", TLS_CERT=str(cert))
    assert alone.wait_end() == 1
    assert "TOUCHFOLD_TLS_CERT and TOUCHFOLD_TLS_KEY belong together" in alone.log
