"""Whose address a request comes from."""

from ipaddress import ip_network

import pytest

from infra.drivers.http.client_address import Proxies, network_of

TRUSTED = Proxies([ip_network("10.0.0.0/8"), ip_network("2001:db8:1::/48"), ip_network("127.0.0.1")])


def client(peer: str | None, *headers: tuple[str, str], proxies: Proxies = TRUSTED) -> str:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    return proxies.client({"client": None if peer is None else (peer, 4711), "headers": raw})


def test_what_a_stranger_says_of_itself_is_not_taken() -> None:
    assert client("203.0.113.9", ("x-forwarded-for", "192.0.2.1")) == "203.0.113.9"
    assert client("203.0.113.9", ("forwarded", "for=192.0.2.1")) == "203.0.113.9"
    assert client("10.0.0.1", ("x-forwarded-for", "192.0.2.1"), proxies=Proxies()) == "10.0.0.1"


@pytest.mark.parametrize(
    ("said", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("1.1.1.1, 192.0.2.1", "192.0.2.1"),  # the stranger put 1.1.1.1 there
        ("192.0.2.1, 10.0.0.7", "192.0.2.1"),
        ("10.0.0.8,10.0.0.7", "10.0.0.8"),  # all are ours: the first of them
        ("192.0.2.1:4711", "192.0.2.1"),
        ("[2001:db8::7]:80", "2001:db8::7"),
        ("2001:DB8::7", "2001:db8::7"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("192.0.2.1, nonsense", "10.0.0.1"),  # nothing behind what cannot be read is believed
        ("", "10.0.0.1"),
        (", ".join(["10.0.0.9"] * 5_000), "10.0.0.9"),
    ],
)
def test_of_a_trusted_proxy_the_nearest_stranger_counts(said: str, address: str) -> None:
    assert client("10.0.0.1", ("x-forwarded-for", said)) == address


def test_several_lines_are_one_list_and_forwarded_is_read_too() -> None:
    assert (
        client("10.0.0.1", ("x-forwarded-for", "192.0.2.1"), ("x-forwarded-for", "192.0.2.2, 10.0.0.3")) == "192.0.2.2"
    )
    assert client("10.0.0.1", ("forwarded", 'proto=https;For="[2001:db8::7]:4711";by=x, for=10.0.0.2')) == "2001:db8::7"
    assert client("10.0.0.1", ("forwarded", "for=192.0.2.9"), ("x-forwarded-for", "192.0.2.1")) == "192.0.2.1"
    assert client("10.0.0.1", ("forwarded", "for=_hidden")) == "10.0.0.1"
    assert client(None, ("x-forwarded-for", "192.0.2.1")) == ""


def test_an_ipv6_connection_is_counted_by_what_it_was_given() -> None:
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff:1") == "2001:db8::/64"
    assert network_of("2001:db8:0:1::1") != network_of("2001:db8::1")
    assert network_of("::ffff:192.0.2.1") == network_of("192.0.2.1") == "192.0.2.1"
    assert network_of("fe80::1%eth0") == "fe80::/64"
    assert network_of("") == ""
