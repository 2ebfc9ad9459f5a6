"""Values that stand where an id should be and name nobody: one list for every kind of id. Pure.

What systems write for "there is none" (`(not set)`, `\\N`, `<nil>`), what was never filled in (`{{userId}}`), what a
spreadsheet destroyed (`8.2E+17`), and ids that millions of devices share. Taken as an id, each makes one person (or
order, or event) of strangers. A value is in the list only where no real id is like it; shops add their own by
definition (`identifiers: {blocked: [...]}`). A blocked value is kept as text, and counted by its rule.
"""

import re
import string
from collections.abc import Iterator
from typing import Final, NamedTuple
from urllib.parse import unquote

VERSION: Final = 2  # of the list: 1 were the words and zeros of Segment's and PostHog's defaults

WORD, ZEROS, TEMPLATE, SPREADSHEET, OBJECT, DEVICE, EMAIL, PHONE, DEFINED = RULES = (
    "word", "zeros", "template", "spreadsheet", "object", "device", "email", "phone", "defined",
)  # fmt: skip

# In any letter case, with a space, "_", "-" or nothing between words, plain or within quotes, brackets, other signs.
_WORDS: Final = (
    # serialisers and databases
    "null", "none", "nil", "nan", "nat", "na", "n/a", "n.a.", "n.a", "undefined", "true", "false", "void", r"\n",
    "null null", "undefined undefined", "none none", "no value", "array", "object", "dbnull", "system.dbnull",
    # analytics, forms and tills
    "not set", "not available", "not applicable", "not provided", "not specified", "not defined", "not given",
    "not found", "not known", "not authenticated", "not logged in", "not signed in", "logged out", "unset",
    "unspecified", "unassigned", "unavailable", "unidentified", "undetermined", "unknown", "unknown user",
    "unknown customer", "anonymous", "anonymous user", "anon", "guest", "guest user", "guest customer",
    "guest checkout", "no user", "no id", "no email", "no one", "missing", "empty", "blank", "invalid", "-1",
    "unbekannt", "keine angabe", "k.a", "k. a", "nicht angegeben", "nicht vorhanden", "inconnu", "desconocido",
    "sconosciuto",
    # what hides a value
    "redacted", "filtered", "masked", "anonymized", "anonymised", "deleted user", "removed",
    # the name of the field instead of its value
    "id", "email", "e-mail", "phone", "user id", "userid", "customer id", "distinct id", "anonymous id", "device id",
    "order id", "transaction id", "message id", "member id", "client id", "visitor id", "your user id", "user id here",
)  # fmt: skip
_ONLY_IN_BRACKETS: Final = frozenset(
    {"deleted", "other", "hidden", "private"}
)  # and other signs: plain they may be ids

# Seen on very many devices: Android 2.2's bug, what iOS 7 and Android 6 answer for a MAC, emulators, unset serials.
_DEVICES: Final = frozenset({
    "9774d56d682e549c", "02:00:00:00:00:00", "02-00-00-00-00-00", "020000000000", "ff:ff:ff:ff:ff:ff",
    "ff-ff-ff-ff-ff-ff", "ffffffffffff", "ffffffff-ffff-ffff-ffff-ffffffffffff", "004999010640000", "358240051111110",
    "353918052107063", "0123456789abcdef", "1234567890abcdef", "dead00beef", "unknown-device", "android_id",
})  # fmt: skip

# Local parts that no mailbox of a person has, and words that as both local part and domain are nobody's.
_NO_MAILBOX: Final = (
    "none", "no", "na", "n/a", "null", "nil", "undefined", "unknown", "no email", "no mail", "no e-mail",
    "no email address", "no email provided", "email not provided", "not provided", "not available", "no address",
    "no reply", "do not reply", "not set", "anonymous", "guest", "without email", "missing", "missing email",
    "keine", "keine email", "keinemail", "kein", "sans email", "sin correo", "fake email", "dummy email",
)  # fmt: skip
_SAME_ON_BOTH_SIDES: Final = frozenset({
    "test", "tester", "testing", "email", "mail", "example", "asdf", "abc", "xyz", "xxx", "xx", "x", "a", "aa", "aaa",
    "qwe", "qwerty", "fake", "dummy", "invalid", "domain", "user", "name", "customer",
})  # fmt: skip
_PRETEND: Final = frozenset(
    {"name@domain.com", "user@domain.com", "email@domain.com", "your@email.com", "my@email.com"}
)

_IN_ORDER: Final = "12345678901234567890"
_OTHER_KIND: Final = "external"
_KINDS: Final = frozenset({
    "user_id", "anonymous_id", "device_id", "loyalty_card", "email", "phone", "message_id", "order_id",
})  # fmt: skip
_SIGNS: Final = string.punctuation + string.whitespace
_SEPARATORS: Final = ("_", "-", "", " ")
_ONLY_ASCII_SIGNS: Final = re.compile(r"[0\s!-/:-@\[-`{-~]*")  # nothing but zeros and punctuation
_CROSSED_OUT: Final = re.compile(r"x{3,}", re.IGNORECASE)
_GUID_IN_BRACES: Final = re.compile(r"\{[0-9a-f-]{32,36}\}", re.IGNORECASE)
_TEMPLATE: Final = re.compile(
    r"\{\{.*?\}\}|\{%.*?%\}|\$\{.*?\}|#\{.*?\}|<%.*?%>|<\?.*?\?>|%%.+?%%|\*\|.+?\|\*|@@.+?@@|\$\$.+?\$\$|\[\[.+?\]\]"
    r"|\A(?:\$?\{\$?[A-Z_a-z][\w .:|$'-]*\}|%[A-Z_a-z][\w.-]*%|\[[A-Z][A-Z_]{2,}\]|<[A-Z][A-Z_]{2,}>|__[A-Z][A-Z_]*__"
    r"|\$[A-Z_]{3,}|\$\([\w. ]+\)|#[A-Z_]{3,}#|\{\w+\}|<your[ _-].*>|\[your[ _-].*\]|YOUR_[A-Z_]+)\Z"
)
# Excel writes 8.2E+17, Python 8.2e+17, Java 8.2E17, a German Excel 8,2E+17. A code such as 12E5 is none of these.
_LOST_DIGITS: Final = re.compile(r"[+-]?\d(?:[.,]\d+)?[Ee]\+\d{1,3}|[+-]?\d[.,]\d+[Ee]\d{1,3}")
_CELL_ERROR: Final = re.compile(r"#(?:N/?A|NV)(?: N/A)?|#[¿¡]?[A-ZÄÖÜÉ/0]+[!?]")
_OBJECT: Final = re.compile(
    r"\[object \w+\]|<.+ at 0x[0-9a-f]+>|#<.+>|<(?:built-in |bound )?(?:function|method|class|object|module)\b.*>"
    r"|<\w+ object\b.*>|<\w+: None>|(?:HASH|ARRAY|SCALAR|CODE|GLOB)\(0x[0-9a-f]+\)|function\b.*\{.*|java\.lang\.\S+"
    r"|System\.(?:Object|String)(?:\[\])?|Promise \{.*\}|Optional\(nil\)|%![a-z]\(.*\)",
    re.IGNORECASE,
)
# ASCII ids that begin with a letter or digit and hold no sign of which a template, a cell error or an object is made:
# then only a look into one set is left.
PLAIN: Final = re.compile(r"(?!\d[.,])[0:.-]*[1-9A-Za-z][\w.:@~=&;?!/-]*", re.ASCII)


def _spellings(words: tuple[str, ...]) -> Iterator[str]:
    for word in words:
        yield word
        parts = word.split()
        if len(parts) > 1:
            yield from (between.join(parts) for between in _SEPARATORS)


_KNOWN: Final = frozenset(_spellings(_WORDS))
_NO_MAILBOXES: Final = frozenset(
    spelling for word in _spellings(_NO_MAILBOX) for spelling in (word, word.replace(" ", "."))
)
_LISTED: Final = _DEVICES | _PRETEND
PLAIN_ONES: Final = _KNOWN | _DEVICES | {"x" * letters for letters in range(3, 65)}  # what can be in plain form


def names_nobody(kind: str, value: str) -> bool:
    """Whether an id as it was sent names nobody: a user, device, order or message id, an address, a card.

    About 0.4 µs for an id that names somebody. `kind`: an identifier's, or `order_id`, `message_id`, `refund_id`.
    """
    if kind != "email" and PLAIN.fullmatch(value):
        return value.lower() in PLAIN_ONES
    return rule_of(kind, value) != ""


def is_no_id(message_id: object) -> bool:
    """Whether an event's id is none: absent, empty or a placeholder."""
    if isinstance(message_id, str | int) and not isinstance(message_id, bool):
        return message_id == "" or names_nobody("message_id", str(message_id))
    return message_id is None


def rule_of(kind: str, value: str) -> str:
    """The rule by which a value names nobody, one of RULES; "" for one that may name somebody, and for no value."""
    text = value.strip()
    if not text:
        return ""
    if kind == "email":
        return _rule(text) or _email_rule(text)
    return _rule(text) or (PHONE if kind == "phone" and _dummy_number(text) else "")


def listed(value: str) -> bool:
    """Whether a value is itself in our list, and so can be shown: it says nothing about a person."""
    return _bare(value) in _KNOWN or value.strip().lower() in _LISTED


def _rule(text: str) -> str:
    if "%" in text and "%7b" in text.lower():
        text = unquote(text)
    lowered, bare = text.lower(), _bare(text)
    if lowered in _KNOWN or bare in _KNOWN or (bare in _ONLY_IN_BRACKETS and bare != lowered):
        return WORD
    if _ONLY_ASCII_SIGNS.fullmatch(text):
        return ZEROS
    if lowered in _DEVICES:
        return DEVICE
    if _CROSSED_OUT.fullmatch(text):
        return WORD
    if _LOST_DIGITS.fullmatch(text) or _CELL_ERROR.fullmatch(text):
        return SPREADSHEET
    if _OBJECT.fullmatch(text):
        return OBJECT
    return TEMPLATE if _TEMPLATE.search(text) and not _GUID_IN_BRACES.fullmatch(text) else ""


def _bare(text: str) -> str:
    """In lower case, without the quotes, brackets and other signs around it, and with single spaces."""
    return " ".join(text.strip(_SIGNS).lower().split())


def _dummy_number(text: str) -> bool:
    """Numbers that people type to be let through: one digit throughout, or all in their order."""
    digits = "".join(letter for letter in text if letter.isdecimal())
    return len(digits) >= 7 and (len(set(digits)) == 1 or _IN_ORDER.startswith(digits.removeprefix("0")))


def _email_rule(text: str) -> str:
    """An address by what tills, forms and testers write; the domain counts only together with the local part."""
    address = text.lower().strip("<>")
    local, at, domain = address.rpartition("@")
    if not at:
        return ""
    label = domain.partition(".")[0]
    if local in _NO_MAILBOXES or address in _PRETEND or (local == label and local in _SAME_ON_BOTH_SIDES):
        return EMAIL
    return EMAIL if label in _NO_MAILBOXES and local in _KNOWN else ""


class Blocked(NamedTuple):
    """An id that named nobody, as it is counted. `kind`: `external` for types of the senders' own.

    `rule`: of RULES, or why it has no normal form (`not_a_phone`, …). `value`: only where it is of our own list.
    """

    source: str
    kind: str
    rule: str
    value: str


def as_counted(source: str, kind: str, value: object, rule: str) -> Blocked:
    """A value that was blocked, without anything of a person."""
    shown = _bare(value) if isinstance(value, str) and rule in (WORD, DEVICE, EMAIL) and listed(value) else ""
    return Blocked(source, kind if kind in _KINDS else _OTHER_KIND, rule, shown)
