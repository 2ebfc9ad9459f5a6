"""The client address of a request: the connection's, or what trusted proxies in front of us report.

Each proxy appends its client to `X-Forwarded-For` (or `Forwarded`, RFC 7239). So the header is read from the end, and
only as far as the proxies that wrote it are trusted: forged entries at the front are never reached.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address
MOST_HOPS: Final = 20  # proxies to look through at most


class Proxies:
    """The trusted proxies."""

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
        """The address a request comes from; "" if it came over a Unix socket."""
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
    """The clients the proxies report, nearest first. X-Forwarded-For takes precedence over Forwarded."""
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
    """Parses `192.0.2.7`, `192.0.2.7:4711` or `[2001:db8::1]:4711`, quoted or not; None for anything else."""
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
    """What counts as one sender: an IPv4 address, or a /64, which is what an IPv6 subscriber usually gets."""
    found = _parsed(address)
    if isinstance(found, IPv6Address):
        return str(ip_network((int(found), 64), strict=False))
    return address if found is None else str(found)
