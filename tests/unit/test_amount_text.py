"""Amounts as text: each is the number a person reads in it, or nothing."""

import pytest

from schemas.amount_text import Amount, amount_text, read_amount

READ = [
    ("2,718.28", 27182800, None),
    ("2.718,28", 27182800, None),
    ("3,50", 35000, None),
    ("£7.20", 72000, "GBP"),
    ("7,20 €", 72000, "EUR"),
    ("(8.40)", -84000, None),
    ("($8.40)", -84000, None),
    ("$8.40", 84000, None),  # of some twenty countries
    ("US$8.40", 84000, "USD"),
    ("CAD $8.40", 84000, "CAD"),
    ("8.40 nok", 84000, "NOK"),
    ("kr 8,40", 84000, None),
    ("SEK 8,40 kr", 84000, "SEK"),
    ("6 543,21", 65432100, None),
    ("6\u202f543,21", 65432100, None),
    ("6\xa0543", 65430000, None),
    ("6'543.21", 65432100, None),
    ("6’543.21 CHF", 65432100, "CHF"),
    ("\u22129", -90000, None),
    ("9-", -90000, None),
    ("-€9", -90000, "EUR"),
    ("€ -9", -90000, "EUR"),
    ("19,-", 190000, None),
    ("€ 19,-", 190000, "EUR"),
    ("19.\u2013 CHF", 190000, "CHF"),
    ("Rs. 2,34,567.50", 2345675000, None),
    ("1,234,567", 12345670000, None),
    ("1.234.567", 12345670000, None),
    ("1,234.567", 12345670, None),
    ("0,125", 1250, None),
    ("1234,567", 12345670, None),
    ("٣٫٥", 35000, None),
    ("４５．５０", 455000, None),
    ("R$ 4.321,00", 43210000, "BRL"),
    ("4,99 zł", 49900, "PLN"),
    (" 4.99 ", 49900, None),
    ("4.995", 49950, None),
    ("1e3", 10000000, None),
]


@pytest.mark.parametrize(("text", "number", "currency"), READ)
def test_an_amount_is_read_as_people_read_it(text: str, number: int, currency: str | None) -> None:
    assert read_amount(text) == Amount(number, currency)


@pytest.mark.parametrize(
    "text",
    ["1,234", "$1,234", "€1.234", "1.234 €", "", " ", "-", "free", "12 pcs", "12%", "1,2,3", "03.11.2024", "2024-11-03",
     "€5 USD", "¥5 EUR", "--5", "-(5)", "5 5", "12\xb2", "\xbd", "1_000", "NaN", "Infinity", "5 to 7", "1e3 EUR",
     "99999999999999999", "1" * 70, "12,5,0.00", "1.23,456"],
)  # fmt: skip
def test_what_may_mean_two_numbers_or_none_is_not_read(text: str) -> None:
    assert read_amount(text) is None


@pytest.mark.parametrize(
    ("text", "comma", "point"),
    [
        ("1,234", 12340, 12340000),
        ("1.234", 12340000, 12340),
        ("€1.234", 12340000, 12340),
        ("12.345", 123450000, 123450),
        ("12.50", 125000, 125000),  # no thousands have two digits
        ("12,50", 125000, 125000),
        ("0.125", 1250, 1250),
        ("1,234.50", 12345000, 12345000),
    ],
)
def test_what_a_source_says_of_its_numbers_decides(text: str, comma: int, point: int) -> None:
    found = [read_amount(text, mark) for mark in (",", ".")]
    assert [each and each.scaled for each in found] == [comma, point]


def test_numbers_are_numbers_and_other_types_are_none() -> None:
    assert [read_amount(each) for each in (12, 12.5, -3)] == [Amount(120000), Amount(125000), Amount(-30000)]
    assert [read_amount(each) for each in (None, True, [5], {"amount": 5}, float("nan"))] == [None] * 5


@pytest.mark.parametrize(
    ("amount", "text"),
    [(12340, "1.2340"), (12345, "1.2345"), (0, "0"), (-13000, "-1.3"), (1200000, "120"), (50, "0.0050")],
)
def test_an_amount_is_written_so_that_every_source_reads_it_alike(amount: int, text: str) -> None:
    assert amount_text(amount) == text
    assert {read_amount(text, mark) for mark in (None, ",", ".")} == {Amount(amount)}
