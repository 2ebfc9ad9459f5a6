"""TLS for the servers, from two PEM files: read at start, and again when they change, so that renewing a certificate
needs no restart."""

import logging
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from schemas.errors import Problem, SettingsInvalid

if TYPE_CHECKING:
    from infra.app.settings import Settings

LOOK_S: Final = 5.0
HANDSHAKE_S: Final = 10.0
_CERT, _KEY = "TOUCHFOLD_TLS_CERT", "TOUCHFOLD_TLS_KEY"
_log = logging.getLogger("touchfold.tls")


class Certificate:
    """`context` stays the same object; new connections get what was read last. One thread."""

    def __init__(self, cert: Path, key: Path, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Raises SettingsInvalid."""
        self._cert = cert
        self._key = key
        self._monotonic = monotonic
        self._looked_at = monotonic()
        self._stamps = self._stamped()
        self.context = loaded(cert, key)

    def look(self) -> None:
        """Reload the files if they have changed; a bad certificate is logged and not used."""
        now = self._monotonic()
        if now - self._looked_at < LOOK_S:
            return
        self._looked_at = now
        stamps = self._stamped()
        if stamps == self._stamps:
            return
        self._stamps = stamps
        try:
            loaded(self._cert, self._key)  # both or neither: a context with only one of them could serve nobody
            self.context.load_cert_chain(self._cert, self._key, password=_no_password)
        except (SettingsInvalid, OSError, ValueError) as err:
            _log.error("the certificate has changed but cannot be used, so the previous one stays in use: %s", err)
        else:
            _log.info("the certificate has changed: new connections use it")

    def _stamped(self) -> list[tuple[int, int] | None]:
        return [_stamp(path) for path in (self._cert, self._key)]


def certificate_of(settings: "Settings") -> Certificate | None:
    """None if the servers use plain HTTP. Raises SettingsInvalid."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return Certificate(settings.tls_cert, settings.tls_key)


def loaded(cert: Path, key: Path) -> ssl.SSLContext:
    """A server context. Raises SettingsInvalid, naming the file and what is wrong with it."""
    for path, setting in ((cert, _CERT), (key, _KEY)):
        try:
            path.read_bytes()
        except OSError as err:
            raise _bad(
                setting, path, f"cannot be read ({err.strerror}): put it there, readable by this account"
            ) from err
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(cert, key, password=_no_password)
    except ssl.SSLError as err:
        if err.reason == "KEY_VALUES_MISMATCH":
            raise _bad(_KEY, key, f"is not the key of the certificate {cert}: use two that belong together") from err
        at = (_KEY, key) if _holds_certificate(cert) else (_CERT, cert)
        what = "a private key" if at[0] == _KEY else "a certificate, followed by its chain"
        raise _bad(*at, f"is not a PEM file with {what}") from err
    except ValueError as err:  # asked for a password
        raise _bad(_KEY, key, "is encrypted: save it without a password, readable only by this account (0600)") from err
    return context


def _no_password() -> str:
    raise ValueError("the key has a password")


def _holds_certificate(path: Path) -> bool:
    try:
        ssl.create_default_context(cadata=path.read_text(encoding="ascii", errors="replace"))
    except (ssl.SSLError, ValueError):
        return False
    return True


def _bad(setting: str, path: Path, reason: str) -> SettingsInvalid:
    return SettingsInvalid(f"{setting} = {path} {reason}", [Problem(setting, reason)])


def _stamp(path: Path) -> tuple[int, int] | None:
    """A value that changes with the file; None while it is missing."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino
