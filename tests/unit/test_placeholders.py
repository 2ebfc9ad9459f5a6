"""Values that name nobody, by rule; ids that look odd and name somebody."""

import pytest

from schemas.placeholders import listed, names_nobody, rule_of


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        *((word, "word") for word in (
            "(not set)", "Not_Set", "not-set", "NOTSET", "N/A", "n.a.", "#N/A", "NA", "<NA>", "unknown", "[Unknown]",
            "<nil>", "(null)", "NULL", "\\N", "<no value>", "'null'", '"(none)"', "-- none --", "__null__", "user_id",
            "{userId}", "USER_ID", "{{userId}}", "%7B%7BuserId%7D%7D", "your-user-id", "[REDACTED]", "(deleted)",
            "XXXX", "not logged in", "guest", "undefined", "-1", "*|EMAIL|*", "k. A.", " null ",
        )),
        *((sign, "zeros") for sign in ("0", "0000", "00:00:00:00:00:00", "0.0", "--", "***", "?", "#####", "-",
                                       "00000000-0000-0000-0000-000000000000")),
        *((text, "template") for text in (
            "${user.id}", "{{ customer.id | default }}", "u-{{id}}", "<%= user.id %>", "%%emailaddr%%", "__IDFA__",
            "*|MERGE1|*", "#{user.name}", "%recipient%", "{customer.number}", "$(user.name)", "[[contact.number]]",
        )),
        *((text, "spreadsheet") for text in ("8.2E+17", "8,20983E+17", "8.20983e+17", "8.2E17", "1E+15", "#REF!",
                                             "#NAME?", "#DIV/0!", "#WERT!", "#NV")),
        *((text, "object") for text in ("[object Object]", "[object Promise]", "<User object at 0x7f01ab>",
                                        "#<User:0x00007f>", "HASH(0x55d0)", "Optional(nil)", "%!s(<nil>)",
                                        "<built-in function id>", "function () { return id }")),
        *((text, "device") for text in ("9774d56d682e549c", "9774D56D682E549C", "02:00:00:00:00:00",
                                        "FF:FF:FF:FF:FF:FF")),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["user_id", "device_id", "order_id", "message_id", "crm"])
def test_a_placeholder_names_nobody_whatever_the_kind(value: str, rule: str, kind: str) -> None:
    assert rule_of(kind, value) == rule
    assert names_nobody(kind, value)


@pytest.mark.parametrize(
    "value",
    [
        "u1", "42", "1001.0", "1.1", "1.10", "12E5", "1e5", "5E-10", "3f2504e0-4f89-11d3-9a0c-0305e82c3301",
        "{3F2504E0-4F89-11D3-9A0C-0305E82C3301}", "GA1.2.1234.5678", "#1001", "A-1", "user@host", "na1", "nullmeier",
        "guest-4711", "deleted", "100%", "[abc]", "(1)", "a+b", "xx", "0x1f", "Noni", "id7", "000-12", "$money", "",
    ],
)  # fmt: skip
def test_an_id_that_only_looks_odd_names_somebody(value: str) -> None:
    assert rule_of("user_id", value) == ""
    assert not names_nobody("user_id", value)


@pytest.mark.parametrize(
    "address",
    [
        "noemail@noemail.com", "none@shop.example", "NoEmail@till.example", "no-email@x.example", "no.reply@x.example",
        "test@test.com", "asdf@asdf.com", "null@null.com", "undefined@undefined", "{{email}}", "guest@shop.example",
        "%%email%%@x.example",
    ],
)  # fmt: skip
def test_an_address_that_tills_and_testers_write_names_nobody(address: str) -> None:
    assert names_nobody("email", address)


@pytest.mark.parametrize(
    "address", ["ada@example.com", "joe@joe.example", "test@example.com", "nora@none.example", "info@shop.example"]
)
def test_an_address_that_somebody_reads_is_no_placeholder(address: str) -> None:
    assert not names_nobody("email", address)


def test_only_what_is_in_our_own_list_can_be_shown() -> None:
    assert listed("(not set)")
    assert listed("9774d56d682e549c")
    assert not listed("8.20983E+17")
    assert not listed("none@ada.example")
    assert not listed("u-{{id}}")
