"""Ids of an item that name nobody: placeholders, values that a definition blocks, what has no normal form. Pure."""

from collections.abc import Callable, Mapping
from typing import Final

from schemas.clear_rules import NOTHING_DECLARED, Declared
from schemas.email_form import email_form
from schemas.identifiers import KINDS
from schemas.placeholders import DEFINED, Blocked, as_counted, names_nobody, rule_of

MESSAGE_ID: Final = "message_id"
Normalise = Callable[[str, object], str | None]
Values = Mapping[str, frozenset[str]]  # by kind, "" for every other; in lower case, as written and in normal form
_NONE: Final[Values] = {}
_UNUSABLE: Final = {"email": "not_an_email", "phone": "not_a_phone"}


class DefinedBlocks:
    """What the definitions block, in the forms in which values come; made once for each version of them."""

    def __init__(self, normalise: Normalise) -> None:
        self._normalise = normalise
        self._of: Declared = NOTHING_DECLARED
        self._values: Values = _NONE

    def of(self, declared: Declared) -> Values:
        """{} where nothing is defined, as nearly everywhere."""
        if declared is not self._of:
            self._of, self._values = declared, self._made(declared)
        return self._values

    def _made(self, declared: Declared) -> Values:
        if not declared.blocked:
            return _NONE
        every = (*KINDS, MESSAGE_ID, "", *(kind for _, kinds in declared.blocked for kind in kinds))
        found: dict[str, set[str]] = {kind: set() for kind in every}
        for value, kinds in declared.blocked:
            for kind in kinds or found:
                forms = (value.strip(), self._normalise(kind, value))
                found[kind].update(form.lower() for form in forms if form is not None)
        return {kind: frozenset(values) for kind, values in found.items()}


def is_defined(values: Values, kind: str, *forms: object) -> bool:
    """Whether a value is blocked by definition in one of its forms."""
    blocked = values[kind] if kind in values else values[""]
    return any(str(form).strip().lower() in blocked for form in forms)


def no_message_id(message_id: str, values: Values) -> bool:
    """Whether a message id is none: each event that carries it is its own."""
    return names_nobody(MESSAGE_ID, message_id) or (bool(values) and is_defined(values, MESSAGE_ID, message_id))


def as_blocked(source: str, kind: str, value: object, *, defined: bool) -> Blocked | None:
    """What named nobody, as it is counted: by rule, the value only where it is of our own list.

    None for what is empty, and so absent.
    """
    if isinstance(value, str) and not value.strip():
        return None
    return as_counted(
        source, kind, value, _rule(kind, value) or (DEFINED if defined else _UNUSABLE.get(kind, "unusable"))
    )


def _rule(kind: str, value: object) -> str:
    text = str(value)
    rule = rule_of(kind, text)
    if not rule and kind == "email" and (form := email_form(text)) is not None:
        return rule_of(kind, form)  # Till 3 <noemail@shop.example>
    return rule
