"""TCP sockets of our servers: bound early, listening once the process can answer; and how addresses are written."""

import errno
import socket

from infra.drivers.http.connections import BACKLOG
from schemas.errors import PortInUse, SettingsInvalid


def listen_on(host: str, port: int, setting: str = "--port N or TOUCHFOLD_PORT") -> socket.socket:
    """A bound TCP socket, not yet listening. Raises PortInUse, or SettingsInvalid if the host or port cannot be used.

    `setting`: the option or variable that sets the port.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as err:
        raise SettingsInvalid(f"TOUCHFOLD_HOST = {host} is not an address of this machine: {err.strerror}") from err
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
    except OSError as err:
        listener.close()
        if err.errno == errno.EADDRINUSE:
            raise PortInUse(
                f"port {port} on {host} is in use: stop the program that uses it, or choose another with {setting}"
            ) from err
        what = (
            "needs more privileges: use one above 1023"
            if err.errno == errno.EACCES
            else f"cannot be used: {err.strerror}"
        )
        raise SettingsInvalid(f"port {port} on {host} {what}") from err
    return listener


def start_listening(listener: socket.socket, setting: str = "--port N") -> None:
    """Start listening; connections then wait for a door. Raises PortInUse: another program may have bound it too."""
    try:
        listener.listen(BACKLOG)
    except OSError as err:
        raise PortInUse(f"port {listener.getsockname()[1]} was just taken: choose another with {setting}") from err


def url_of(host: str, port: int, scheme: str = "http") -> str:
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
