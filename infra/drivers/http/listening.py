"""TCP sockets of our edges: bound first, heard once the process may answer, and how they are written."""

import errno
import socket

from infra.drivers.http.connections import BACKLOG
from schemas.errors import PortInUse, SettingsInvalid


def listen_on(host: str, port: int, setting: str = "--port N or TOUCHFOLD_PORT") -> socket.socket:
    """A bound TCP socket, not yet listening. Raises PortInUse, or SettingsInvalid for a host or port we cannot have.

    `setting`: by which another port is given.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as err:
        raise SettingsInvalid(f"TOUCHFOLD_HOST = {host} is no address of this machine: {err.strerror}") from err
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
    except OSError as err:
        listener.close()
        if err.errno == errno.EADDRINUSE:
            raise PortInUse(
                f"port {port} on {host} is in use: stop the program that has it, or take another with {setting}"
            ) from err
        what = (
            "needs more rights: take one above 1023" if err.errno == errno.EACCES else f"cannot be had: {err.strerror}"
        )
        raise SettingsInvalid(f"port {port} on {host} {what}") from err
    return listener


def start_listening(listener: socket.socket, setting: str = "--port N") -> None:
    """From here on connections wait for a door. Raises PortInUse: two programs may have bound the port, unheard."""
    try:
        listener.listen(BACKLOG)
    except OSError as err:
        raise PortInUse(f"port {listener.getsockname()[1]} was just taken: take another with {setting}") from err


def url_of(host: str, port: int, scheme: str = "http") -> str:
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
