"""What a customer is found by, and what a query asks for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.search_words import fold, is_name, keyed, meets, query_terms, search_key, terms_of

ADA = (["Ada", "Łukaszová-Öz"], [("email", "ada.l@example.com"), ("phone", "+436641234567"), ("user_id", "U-77123")])


def finds(text: str, names: list[str], identifiers: list[tuple[str, str]]) -> bool:
    """As the index and the reader together."""
    terms = terms_of(names, identifiers)
    parts = query_terms(text)
    return bool(parts) and all(terms & set(part) for part in parts) and meets(text, names, identifiers)


@pytest.mark.parametrize(
    "text",
    ["ad", "Ada", "ADA", "lukasz", "łuk", "Lukaszova", "oz", "ada oz", "oz ada", "ada.l@example.com", "ada.l@ex",
     "example", "4567", "234567", "1234567", "+43 664 1234567", "0664 1234567", "u-77123", "77123", "7123", "lukaszov"],
)  # fmt: skip
def test_a_customer_is_found_by(text: str) -> None:
    assert finds(text, *ADA)


@pytest.mark.parametrize(
    "text",
    ["", " ", "a", "bob", "adam", "ada bob", "lukaszovb", "lukaszoval", "567", "9999", "!!!", "\u202e", "🦊",
     "+43 664 9999999", "ada@", "ada.x@example.com"],
)  # fmt: skip
def test_and_not_by(text: str) -> None:
    assert not finds(text, *ADA)


def test_ids_of_browsers_and_devices_are_no_words() -> None:
    assert terms_of([], [("anonymous_id", "a-1234"), ("device_id", "d-9999")]) == set()


@pytest.mark.parametrize("name", ["firstName", "first_name", "First Name", "lastname", "NAME", "company"])
def test_names_are_known_in_every_spelling(name: str) -> None:
    assert is_name(name)
    assert not is_name(f"{name}_day")


def test_a_hostile_name_or_query_has_few_terms() -> None:
    assert len(terms_of([f"word{i}" for i in range(5_000)], [])) < 120
    assert len(terms_of(["x" * 10_000 + " " + "y " * 9_000], [])) < 20
    assert len(terms_of([" ".join(f"word{i}" for i in range(9_000))], [])) < 250
    assert len(query_terms("ab " * 10_000)) < 100


@given(st.text(alphabet=st.characters(categories=("L", "N")), min_size=2, max_size=20))
def test_every_name_is_found_by_each_of_its_beginnings(name: str) -> None:
    folded = fold(name)
    for size in range(2, len(folded) + 1):
        if folded[:size].isalnum() and folded.isalnum():
            assert finds(folded[:size], [name], [])


PLAIN = st.text(alphabet="abc", min_size=1, max_size=10)


@given(st.lists(PLAIN, min_size=1, max_size=4), st.lists(PLAIN, min_size=1, max_size=3))
def test_a_name_is_found_by_the_beginnings_of_its_words_and_by_nothing_else(held: list[str], typed: list[str]) -> None:
    asked = [word for word in typed if len(word) > 1]  # one letter asks for nothing
    expected = bool(asked) and all(any(each.startswith(word) for each in held) for word in asked)
    assert finds(" ".join(typed), [" ".join(held)], []) == expected


@given(st.text(alphabet="0123456789", min_size=9, max_size=13), st.text(alphabet="0123456789", min_size=4, max_size=8))
def test_a_phone_is_found_by_its_last_digits_and_by_no_others(digits: str, typed: str) -> None:
    phone = [("phone", f"+{digits}")]
    for size in range(4, 9):
        assert finds(digits[-size:], [], phone)
    if typed.lstrip("0") and not digits.endswith(typed.lstrip("0")) and not digits.startswith(typed):
        assert not finds(typed, [], phone)


@given(st.text(max_size=300), st.lists(st.text(max_size=50), max_size=3))
def test_no_text_breaks_it(text: str, names: list[str]) -> None:
    query_terms(text)
    meets(text, names, [("email", text)])
    terms_of(names, [("user_id", text)])


def test_terms_are_keyed() -> None:
    one, other = search_key(bytes(32)), search_key(bytes(31) + b"\1")
    assert keyed(one, "w:ada") == keyed(one, "w:ada") != keyed(other, "w:ada")
    assert -(2**63) <= keyed(one, "w:ada") < 2**63
