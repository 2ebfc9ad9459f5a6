"""Which spellings are one identifier, which are two, and which identify nobody."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.adapters.phones import Phones
from schemas.email_form import may_be_of_two
from schemas.identifiers import KINDS
from schemas.normal_forms import as_sent, examine, normalise

US, DE = Phones("US"), Phones("DE")


@pytest.mark.parametrize(
    ("sent", "form"),
    [
        ("ada@straße.example", "ada@xn--strae-oqa.example"),
        ("ada@STRASSE.example", "ada@strasse.example"),
        ("ada@xn--strae-oqa.example", "ada@xn--strae-oqa.example"),
        ("ada@Bücher.Example", "ada@xn--bcher-kva.example"),
        ("ada@bu\u0308cher.example", "ada@xn--bcher-kva.example"),
        ("ada@XN--BCHER-KVA.example", "ada@xn--bcher-kva.example"),
        ("eva@i❤.example", "eva@xn--i-7iq.example"),
        ("eva@xn--i-7iq.example", "eva@xn--i-7iq.example"),
        ("ｅva＠ｅxample．com", "eva@example.com"),
        ("νίκος@νίκος.example", "νίκος@xn--kxawhkp.example"),
        ("mailto:ada@example.com", "ada@example.com"),
        ("MAILTO:Ada@Example.com?subject=Hello%20there", "ada@example.com"),
        ("ada%40example.com", "ada@example.com"),
        ("Ada Lovelace <ada@example.com>", "ada@example.com"),
        ('"Lovelace, Ada" <Ada@example.com>;', "ada@example.com"),
        ("<ada@example.com>", "ada@example.com"),
        ("ada@example.com (Ada Lovelace)", "ada@example.com"),
        ("ada@example.com,", "ada@example.com"),
        ("ada@example.com.", "ada@example.com"),
        ("'ada@example.com'", "ada@example.com"),
        ("\u200bada@exam\u00adple.com\u200e", "ada@example.com"),
        ("ada\u200d@example.com", "ada@example.com"),
        ("a.da+shop@example.com", "a.da+shop@example.com"),
        ("o'neil@example.com", "o'neil@example.com"),
        ("Ä.Öz@example.com", "ä.öz@example.com"),
        ("ada@[192.0.2.1]", "ada@[192.0.2.1]"),
    ],
)
def test_spellings_of_an_address_have_one_form(sent: str, form: str) -> None:
    assert normalise("email", sent, phone=US) == form
    assert normalise("email", form, phone=US) == form


@pytest.mark.parametrize(
    "text",
    ["ada", "ada@", "@example.com", "ada@example.com, eva@example.com", "ada@exa mple.com", "ada@example..com",
     "ada@-example.com", "ada@example.com/shop", "a@b@c", "ada <eva> <eva@example.com>"],
)  # fmt: skip
def test_what_is_not_one_address_identifies_nobody(text: str) -> None:
    assert examine("email", text, phone=US) == (None, "not_an_email")


def test_an_address_is_a_placeholder_also_behind_its_name() -> None:
    assert examine("email", "Till 3 <noemail@shop.example>", phone=US) == (None, "blocked")


@pytest.mark.parametrize(
    ("sent", "form"),
    [
        ("(202) 555-0123", "+12025550123"),
        ("tel:+1-202-555-0123", "+12025550123"),
        ("TEL:+1-202-555-0123", "+12025550123"),
        ("Tel. 202.555.0123", "+12025550123"),
        ("２０２５５５０１２３", "+12025550123"),
        ("+44 20 7946 0018", "+442079460018"),
        ("+49 (0)30 1234567", "+49301234567"),
        ("0049 30 1234567", "+49301234567"),
        ("011 49 30 1234567", "+49301234567"),
        ("+44 7700 900123", "+447700900123"),
        ("+33 6 39 98 01 02", "+33639980102"),
        ("\u202a+1 202 555 0123\u202c", "+12025550123"),
    ],
)
def test_spellings_of_a_valid_number_have_one_form(sent: str, form: str) -> None:
    assert normalise("phone", sent, phone=US) == form


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        ("555-1234", "not_a_phone"),
        ("5551234", "not_a_phone"),
        ("030 1234567", "not_a_phone"),
        ("+1 030 1234567", "not_a_phone"),
        ("202-555-0123 ext 5", "not_a_phone"),
        ("tel:+1-202-555-0123;ext=5", "not_a_phone"),
        ("+1 555 555 5555", "not_a_phone"),
        ("9999999999", "blocked"),
        ("1234567890", "blocked"),
        ("0123456789", "blocked"),
        ("n/a", "blocked"),
    ],
)
def test_a_number_that_no_telephone_has_identifies_nobody(number: str, reason: str) -> None:
    assert examine("phone", number, phone=US) == (None, reason)


def test_a_national_number_is_read_in_the_region_alone() -> None:
    assert normalise("phone", "030 1234567", phone=DE) == "+49301234567"
    assert normalise("phone", "030 1234567", phone=US) is None


def test_looking_up_finds_what_earlier_builds_took() -> None:
    earlier = Phones("US", looking_up=True)
    assert normalise("phone", "555-1234", phone=earlier) == "+15551234"
    assert normalise("phone", "(202) 555-0123", phone=earlier) == "+12025550123"


@pytest.mark.parametrize(
    ("kind", "sent", "form"),
    [
        ("loyalty_card", "6035 1234 5678", "603512345678"),
        ("loyalty_card", "6035-1234-5678", "603512345678"),
        ("loyalty_card", "6035\u20111234\u00a05678", "603512345678"),
        ("loyalty_card", "６０３５ １２３４", "60351234"),
        ("loyalty_card", "0042-A", "0042A"),
        ("gift_card", "AB12 CD34", "AB12CD34"),
        ("memberCard", "12-34", "1234"),
        ("voucher", "XMAS-2026", "XMAS2026"),
        ("promoCode", "A-1", "A1"),
        ("user_id", "AB12-CD34", "AB12-CD34"),
        ("anonymous_id", "a b", "a b"),
        ("crm", "AB-12", "AB-12"),
        ("ga_client_id", "GA1.2-3", "GA1.2-3"),
        ("user_id", "ab\u200bc\u00ad", "abc"),
        ("user_id", "می\u200cخواهم", "می\u200cخواهم"),
    ],
)
def test_cards_and_codes_compare_without_spaces_and_dashes_and_ids_as_they_are(kind: str, sent: str, form: str) -> None:
    assert normalise(kind, sent, phone=US) == form


def test_what_is_shown_is_what_was_sent() -> None:
    assert as_sent(" Ada <Ada@Straße.example> ") == "Ada <Ada@Straße.example>"
    assert as_sent(4711.0) == "4711"
    assert as_sent("\ufeff030 1234567\n") == "030 1234567"


_LETTERS = st.sampled_from(
    "aAzZ0١９ßẞſςΣİıǅﬁ①Ⅳ㎏ﷺ \u0301\u0307\u0345\u200b\u200c\u200d\u00ad\u202e\ufeff＠@.。．,;<>()[]\"'-‐_+%40:?/eE{}$xn"
)


@given(st.sampled_from([*KINDS, "gift_card"]), st.text(_LETTERS, max_size=25) | st.emails() | st.text(max_size=30))
def test_the_form_of_a_form_is_itself(kind: str, value: str) -> None:
    once = normalise(kind, value, phone=US)
    assert once is None or normalise(kind, once, phone=US) == once


@pytest.mark.parametrize(
    ("earlier", "of_two"),
    [
        ("ada@strasse.example", True),
        ("ada@shop.xn--mller-strasse-wob.example", True),  # müller-straße as IDNA 2003 has it
        ("ada@xn--kxawhku.example", True),  # νίκοσ, or νίκος
        ("ada@xn--mgba3gch31f.example", True),  # Persian: had a non-joiner, or none
        ("ada@xn--11b2ezc.example", True),  # Devanagari: after a virama
        ("boss@example.com", False),
        ("ada@mail.swiss", False),
        ("ada@xn--strae-oqa.example", False),  # sent in punycode: ß
        ("ada@straße.example", False),  # could not be encoded, and kept its letters
        ("ada@xn--bcher-kva.example", False),
        ("ada@xn--wgv71a.example", False),  # 日本
        ("ada@xn--ß.example", False),
        ("ada@xn--99999999.example", False),  # no punycode
    ],
)
def test_which_addresses_of_earlier_builds_may_be_of_two_people(earlier: str, of_two: bool) -> None:
    assert may_be_of_two(earlier) is of_two
