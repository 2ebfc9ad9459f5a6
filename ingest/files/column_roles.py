"""What the columns of a file are for, by the names that shops, tills and exports give them. Pure."""

import re
from collections.abc import Mapping, Sequence
from typing import Final


def _words(text: str) -> tuple[str, ...]:
    """Names separated by commas, best first."""
    return tuple(" ".join(each.split()) for each in text.split(",") if each.strip())


_PARTS: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_]+|\d+")


TIME: Final = _words("""
    order date, order time, order created, ordered, order timestamp, order purchase timestamp, purchase, invoice
    date, transaction timestamp, transaction date, transaction time, sale date, sold, paid at, processed at,
    completed, event timestamp, event time, occurred, timestamp, created at, created, date created, received at,
    date, datetime, time, when, day, datum, bestelldatum, fecha, data, signup date, registered, updated at,
    redemption date, start date
""")
IDENTIFIERS: Final[Mapping[str, Sequence[str]]] = {
    "user_id": _words("""
    customer id, customerid, user id, userid, client id, clientid, member id, customer number, customer no,
    customer nr, customer unique id, customer code, cust id, account id, contact id, household id, household
    key, kundennummer, kunden nr, kunde, customer, cust, user, client, member, cliente, buyer id, person id,
    master id
"""),
    "loyalty_card": _words("""
    loyalty card, loyalty id, loyalty number, card number, card, card no, kundenkarte
"""),
    "email": _words("""
    email, e mail, email address, customer email, mail, billing email
"""),
    "phone": _words("""
    phone, billing phone, mobile, telephone, phone number, tel, telefon, customer phone
"""),
    "device_id": _words("""
    device id, advertising id, idfa, gaid
"""),
    "anonymous_id": _words("""
    anonymous id, user pseudo id, visitor id, cookie id, session id, client uuid
"""),
}
ORDER: Final = _words("""
    order id, orderid, order number, order no, order nr, order name, order, invoice no, invoice number, invoice
    id, invoice, invoiceno, basket id, basket, receipt, receipt id, receipt no, transaction id, transaction
    number, transaction, bon, bon nr, bestellnummer, rechnungsnummer, check number, ticket, sale id, ecommerce
    transaction id
""")
EVENT_ID: Final = _words("""
    event id, message id, id, uuid, insert id
""")
TOTAL: Final = _words("""
    order total, grand total, total, total price, revenue, net sales, gross sales, sales, sales value, total
    amount, amount total, order value, order amount, amount, amount paid, paid, value, dollar value, payment
    value, monetary, price total, umsatz, betrag, gesamtbetrag, gesamt, summe, importe, subtotal, ecommerce
    purchase revenue, purchase revenue, order total amount, total collected, total paid, total sales, charged
""")
LINE_TOTAL: Final = _words("""
    line total, line amount, line item total, lineitem total, sales value, extended price, amount, net amount,
    sales, revenue, value, total, item total, subtotal, betrag
""")
PRICE: Final = _words("""
    price, unit price, unitprice, lineitem price, line item price, item price, preis, price each, item cost,
    unit cost, selling price, sales price
""")
QUANTITY: Final = _words("""
    quantity, qty, units, pieces, lineitem quantity, item quantity, menge, anzahl, count
""")
PRODUCT: Final[Mapping[str, Sequence[str]]] = {
    "product_id": _words("""
    product id, productid, item id, article id, artikelnummer, stock code, stockcode, asin
"""),
    "sku": _words("""
    sku, lineitem sku, item sku, upc, ean, gtin
"""),
    "name": _words("""
    product name, lineitem name, item name, description, product, item, article, artikel, title
"""),
    "category": _words("""
    category, product category, department, warengruppe, product type
"""),
    "brand": _words("""
    brand, manufacturer, vendor, marke
"""),
}
SHOP: Final = _words("""
    store id, store, till, register, shop, branch, filiale, pos, terminal, cashier, location
""")
CURRENCY: Final = _words("""
    currency, currency code, order currency, waehrung, presentment currency
""")
TYPE: Final = _words("""
    event name, event type, event, type, kind, transaction type, action, record type, vorgang, typ
""")
SALES: Final = frozenset(
    _words("""
    invoice, kauf, order, paid, payment, purchase, sale, sales, sell, verkauf
""")
)
RETURNS: Final = frozenset(
    _words("""
    chargeback, credit, refund, refunded, retoure, return, returned, returns, rueckgabe, storno
""")
)
EVENT_NAMES: Final = TYPE[:3]
PURCHASES: Final[Mapping[str, str]] = {
    **dict.fromkeys(SALES, "purchase.completed"),
    **dict.fromkeys(RETURNS, "purchase.refunded"),
}
PERSON: Final = frozenset(
    _words("""
    address, address 1, address 2, age, billing name, birthday, contact name, customer name, date of birth,
    first name, firstname, full name, gender, given name, last name, lastname, name, postal code, postcode,
    shipping name, street, street number, suburb, surname, zip
""")
)


def plain(name: str) -> str:
    """A column's name as lower-case words: "InvoiceDate", "invoice_date" and "Invoice Date" are "invoice date"."""
    return " ".join(part.lower() for part in _PARTS.findall(name.rpartition(".")[2] or name))


def full(name: str) -> str:
    """As `plain`, with the objects that a dotted name goes through."""
    return " ".join(part.lower() for part in _PARTS.findall(name))


_AROUND: Final = re.compile(r"\s*[(\[].*[)\]]\s*$")
_WHOSE: Final = re.compile(r"^(billing|shipping|customer|buyer) ")
_CURRENCIES: Final = re.compile(r"\b(in )?(usd|eur|euros?|gbp|chf|cad|aud|sek|nok|dkk|pln|jpy|inr|brl)\b")
_BEFORE: Final = ("order ", "billing ", "shipping ", "customer ", "buyer ", "sale ", "event ")


def rank(name: str, words: Sequence[str]) -> int | None:
    """How well a name fits a list of names, best first: 0 is the first of them; None if it is none of them.

    "Email (Billing)" and "billing_email" are an "email", "total_eur" is a "total", too, after names that fit as they
    stand.
    """
    bare = _AROUND.sub("", name)
    unit = " ".join(_CURRENCIES.sub(" ", full(bare)).split())
    for penalty, each in enumerate((full(name), plain(name), full(bare), unit, _without(unit))):
        for form in (each, each.replace(" ", "")):
            if form in words:
                return words.index(form) + (len(words) if penalty > 1 else 0)
    return None


def _without(name: str) -> str:
    """A name without the word before it that says whose it is."""
    return next((name.removeprefix(each) for each in _BEFORE if name.startswith(each)), name)


def is_personal(name: str) -> bool:
    """Whether a column is about the person, whatever the purchase."""
    bare = full(_AROUND.sub("", name))
    return any(each in PERSON for each in (full(name), bare, _WHOSE.sub("", bare)))


def is_of_line(name: str) -> bool:
    """Whether a column says by its name that it is of a line, not of the order."""
    return full(name).startswith(("lineitem", "line item", "item ", "product ", "line "))


def snake(name: str) -> str:
    """A column's name as a property's."""
    return "_".join(full(name).split())[:64] or "column"
