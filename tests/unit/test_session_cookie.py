"""The cookie of a session: its attributes, and which requests were meant with it."""

import pytest

from infra.drivers.http.session_cookie import csrf_token, from_our_pages, is_ours, secret_in, set_cookie


def test_no_other_site_and_no_script_gets_it() -> None:
    assert set_cookie("s", 60, secure=False) == "touchfold_session=s; Path=/; Max-Age=60; HttpOnly; SameSite=Strict"
    assert set_cookie("s", 60, secure=True).endswith("; Secure")
    assert set_cookie("", 0, secure=True).startswith("touchfold_session=; Path=/; Max-Age=0;")


def test_it_is_found_beside_others_and_in_no_bad_header() -> None:
    assert secret_in("theme=dark; touchfold_session=abc; x=1") == "abc"
    assert secret_in("theme=dark") == secret_in("") == secret_in("a[]=1; touchfold_session=abc") == ""


@pytest.mark.parametrize(
    ("origin", "host", "ours"),
    [
        ("https://shop.example", "shop.example", True),
        ("https://shop.example:8700", "shop.example", False),
        ("https://evil.example", "shop.example", False),
        ("null", "", False),  # a sandboxed frame's, of a request that names no host
        ("", "", False),
    ],
)
def test_only_an_origin_of_the_host_that_was_asked_is_ours(origin: str, host: str, ours: bool) -> None:
    assert is_ours(origin, host) is ours


def test_a_token_of_another_session_is_refused_whatever_the_origin() -> None:
    ours = {"origin": "https://shop.example", "host": "shop.example"}
    assert from_our_pages(ours, "secret")
    assert from_our_pages({"x-csrf-token": csrf_token("secret")}, "secret")
    assert not from_our_pages({**ours, "x-csrf-token": csrf_token("another")}, "secret")
