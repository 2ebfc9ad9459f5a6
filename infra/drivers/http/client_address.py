"""Whose address a request comes from: the connection's, or what trusted proxies say in front of it.

Each proxy adds who asked it to the end of `X-Forwarded-For` (or `Forwarded`, RFC 7239). So it is read from the end, and
only as far as those who wrote it are trusted: what a stranger puts at its front is never reached.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address
MOST_HOPS: Final = 20  # of proxies that are looked through


class Proxies:
    """The proxies whose word is taken."""

    def __init__(self, networks: Iterable[Network] = ()) -> None:
        self._networks = tuple(networks)
        self._trusts = lru_cache(4_096)(self._look)

    def trusts(self, address: str) -> bool:
        """Whether this is one of them."""
        return bool(self._networks) and self._trusts(address)

    def _look(self, text: str) -> bool:
        address = _parsed(text)
        return address is not None and any(address in network for network in self._networks)

    def client(self, scope: Mapping[str, Any]) -> str:
        """The address that a request comes from; "" where it came by a Unix socket."""
        peer = scope.get("client")
        nearest = str(peer[0]) if peer else ""
        if not self.trusts(nearest):
            return nearest
        for hop, said in enumerate(_said(scope["headers"])):
            address = _parsed(said)
            if address is None or hop >= MOST_HOPS:
                break
            nearest = str(address)
            if not self.trusts(nearest):
                break
        return nearest


def _said(headers: Sequence[tuple[bytes, bytes]]) -> Iterator[str]:
    """What proxies said who asked them, the nearest first. X-Forwarded-For counts before Forwarded."""
    plain = [value for name, value in headers if name == b"x-forwarded-for"]
    for line in reversed(plain):
        yield from (part.decode("latin-1") for part in reversed(line.split(b",")))
    if plain:
        return
    for line in reversed([value for name, value in headers if name == b"forwarded"]):
        for element in reversed(line.decode("latin-1").split(",")):
            pairs = (pair.partition("=") for pair in element.split(";"))
            yield next((value for name, _, value in pairs if name.strip().lower() == "for"), "")


def _parsed(text: str) -> Address | None:
    """`192.0.2.7`, `192.0.2.7:4711`, `[2001:db8::1]:4711`, in quotes or not; None for what is none of them."""
    text = text.strip().strip('"').strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


@lru_cache(4_096)
def network_of(address: str) -> str:
    """What counts as one sender: an IPv4 address, or the /64 that an IPv6 connection usually is given."""
    found = _parsed(address)
    if isinstance(found, IPv6Address):
        return str(ip_network((int(found), 64), strict=False))
    return address if found is None else str(found)
