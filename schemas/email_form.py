"""The one form of an e-mail address by which two are compared. Pure; what was sent is kept beside it.

The domain is in ASCII by IDNA 2008 without transitional mapping: `straße` and `strasse` are two domains, punycode and
Unicode one. The local part is kept but for its case: servers that tell `Ada` from `ada` are not known to us, forms that
write either are. Dots and `+tags` stay: whether they matter is up to each provider.
"""

import re
import unicodedata
from typing import Final
from urllib.parse import unquote

_PLAIN: Final = re.compile(r"[a-z0-9][a-z0-9._+=-]*@[a-z0-9_][a-z0-9_-]*(?:\.[a-z0-9_-]+)*")
_NAMED: Final = re.compile(r"[^<>]*<\s*([^<>]+?)\s*>[\s.,;]*")  # Ada <ada@example.com>
_COMMENT: Final = re.compile(r"\s+\([^()]*\)\s*\Z")  # ada@example.com (Ada)
_SCHEME: Final = re.compile(r"mailto:/{0,2}", re.IGNORECASE)
_BEFORE: Final = "<([{'\"`“”‘’«»„‚"  # quotation marks of several languages
_AFTER: Final = ".,;:!?>)]}'\"`“”‘’«»。，；"
_NOT_IN_A_DOMAIN: Final = re.compile(r"[\s@,;:<>()\[\]\"\\/|`'!?#&=*^~{}$%+]")


def email_form(text: str) -> str | None:
    """The form of an address, or None where the text is none or more than one. Idempotent."""
    if _PLAIN.fullmatch(text):
        return text
    named = _NAMED.fullmatch(text)
    if named is not None:
        text = named[1]
    text = _SCHEME.sub("", text, count=1) if _SCHEME.match(text) else text
    if "@" not in text:
        text = unquote(text) if "%40" in text else unicodedata.normalize("NFKC", text) if "＠" in text else text
    text = _trimmed(text)
    local, _, rest = text.partition("@")
    domain = _in_ascii(rest.partition("?")[0] if "?" in rest else rest)  # mailto:ada@example.com?subject=…
    local = unicodedata.normalize("NFC", local.lower())
    local = unicodedata.normalize("NFC", local.lower())  # a few letters are lower only after they are composed
    if not local or domain is None or any(letter.isspace() for letter in local) or "," in local or "<" in local:
        return None
    return f"{local}@{domain}"


def may_be_of_two(form: str) -> bool:
    """Whether a form by IDNA 2003, which earlier builds made, may be of two domains.

    It wrote ß as ss and a final sigma as σ, and left out zero-width joiners. Top-level domains have none of these.
    """
    domain = form.rpartition("@")[2]
    return domain.isascii() and any(map(_lost_letters, domain.split(".")[:-1]))


def _lost_letters(label: str) -> bool:
    if label.startswith("xn--"):
        try:
            label = label[4:].encode().decode("punycode")
        except UnicodeError:
            return False
    return "ss" in label or "σ" in label or (not label.isascii() and _may_have_joiners(label))


def _may_have_joiners(label: str) -> bool:
    """Whether IDNA 2008 allows one anywhere: Indic and Arabic scripts."""
    import idna  # noqa: PLC0415

    try:
        places = range(1, len(label) + 1)
        return any(idna.valid_contextj(f"{label[:at]}\u200c{label[at:]}", at) for at in places)
    except ValueError:  # a letter that Unicode does not have
        return False


def _trimmed(text: str) -> str:
    """Without the punctuation of the sentence or list that the address was copied from."""
    text = _COMMENT.sub("", text).strip()
    quoted_local = text[:1] == '"' and '"@' in text
    after = _AFTER if "@[" not in text else _AFTER.replace("]", "")
    while text and (text[-1] in after or text[-1].isspace()):
        text = text[:-1]
    while text and not quoted_local and (text[0] in _BEFORE or text[0].isspace()):
        text = text[1:]
    return text


def _in_ascii(domain: str) -> str | None:
    """A domain as the DNS has it, in lower case; None for what is no domain."""
    if domain.isascii():
        domain = domain.lower()
    else:  # a letter's lower case is UTS 46's: Python's knows a final sigma
        mapped = _mapped(domain)
        if mapped is None:
            return None
        domain = ".".join(map(_label, mapped.split(".")))
    domain = domain.strip().removesuffix(".")
    if domain[:1] == "[" and domain[-1:] == "]":
        return domain if domain.count("[") == 1 else None  # an address literal
    if not domain or domain[0] in ".-" or ".." in domain or _NOT_IN_A_DOMAIN.search(domain):
        return None
    return domain


def _mapped(domain: str) -> str | None:
    """UTS 46 without transitional processing: case, width and composition are one, ß and final sigma stay."""
    import idna  # noqa: PLC0415  # its tables take 10 ms to import, and few domains need them

    try:
        mapped: str = idna.uts46_remap(domain, std3_rules=False, transitional=False)
        return mapped
    except idna.IDNAError:
        return None


def _label(label: str) -> str:
    """Punycode also for what registries no longer accept, such as emoji: two spellings must not be two addresses."""
    return label if label.isascii() else "xn--" + label.encode("punycode").decode("ascii").lower()
