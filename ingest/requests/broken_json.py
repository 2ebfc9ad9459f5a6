"""Reads what it can, without guessing, from bodies that are almost JSON. Pure; used after the strict parser fails.

Each item is mended by itself, so that a flag says which ones were. A batch is cut into items at the brackets and
commas outside strings; where these do not match, items are looked for one by one. What cannot be read costs only its
own item.
"""

import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import msgspec

from ingest.accept.canonical import MAX_EVENT_BYTES, Mended, Refused, Unreadable, decode_item, mend_surrogates

_STRING: Final = rb'"[^"\\]*(?:\\.[^"\\]*)*"'
_TOKEN: Final = re.compile(
    _STRING + rb"|,(?=\s*[\]}])|[-+]?[A-Za-z_$][\w$]*(?:\s*:)?|[-+]?(?:\.\d|\d)[\w.]*(?:(?<=[eE])[-+]\d+)?", re.DOTALL
)
_MARK: Final = re.compile(_STRING + rb"|[][{},:]", re.DOTALL)
_CLOSES: Final = {ord("}"): ord("{"), ord("]"): ord("[")}
_BATCH: Final = b'"batch"'
_CONTROL: Final = re.compile(rb"[\x00-\x1f]")
_ESCAPE: Final = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|.)", re.DOTALL)
_NUMBER: Final = re.compile(rb"(-?)\+?(\d*)(?:\.(\d*))?((?:[eE][-+]?\d+)?)")
_WORDS: Final = {
    b"true": b"true", b"false": b"false",
    **dict.fromkeys((b"null", b"nan", b"inf", b"infinity", b"undefined", b"none", b"nil"), b"null"),
}  # fmt: skip
"""Words outside strings, in lower case, that can mean only one thing: those of Python, JavaScript and C."""
_FIRST: Final = re.compile(rb'"batch"\s*:\s*\[')
_NEXT: Final = re.compile(rb",\s*(?=\{)")
_PATIENCE: Final = 8  # looking for items reads at most so many times the body


class Cut(NamedTuple):
    """A batch in pieces: the body with an empty batch, and the bytes of each item."""

    envelope: bytes
    items: list[bytes]


def read_item(raw: bytes) -> object:
    """As `decode_item`; Mended if that took mending, Unreadable instead of raising Refused."""
    try:
        return decode_item(raw)
    except Refused as refused:
        if refused.rule != "invalid_json":
            return Unreadable(raw, refused)
        first = refused
    try:
        return Mended(decode_item(mend(raw)))
    except Refused as refused:
        return Unreadable(raw, first if refused.rule == "invalid_json" else refused)


def mend(body: bytes) -> bytes:
    """The body with what JSON does not know replaced by what was meant, where that is certain.

    Lone surrogates and bytes that are not UTF-8 become U+FFFD; NaN, infinities and `undefined` null; raw control
    characters their escapes. Commas before a bracket are left out, names without quotes get them, `True` is true, and
    numbers beyond every range become text.
    """
    if not body.isascii():
        body = body.decode(errors="replace").encode()
    if b"\\u" in body:
        body = mend_surrogates(body)
    return _TOKEN.sub(_mended, body)


def _mended(match: "re.Match[bytes]") -> bytes:
    token = match[0]
    first = token[:1]
    if first == b'"':
        return _string(token)
    if first == b",":
        return b""
    if token[-1:] == b":":
        return b'"' + token[:-1].strip() + b'":'
    bare = token.lstrip(b"+-")
    return _WORDS.get(bare.lower(), token) if not bare[:1].isdigit() and bare[:1] != b"." else _number(token)


def _string(token: bytes) -> bytes:
    if b"\\" in token:
        token = _ESCAPE.sub(_escape, token)
    return _CONTROL.sub(lambda found: b"\\u%04x" % found[0][0], token) if _CONTROL.search(token) else token


def _escape(found: "re.Match[bytes]") -> bytes:
    """JavaScript's `\\'` and `\\x41`. Other unknown escapes are not JSON: `C:\\new` must not become a line break."""
    if found[1] is not None:
        return b"\\u00" + found[1]
    return b"'" if found[0] == b"\\'" else found[0]


def _number(token: bytes) -> bytes:
    """A number as JSON writes it; beyond every range, as text. A leading zero may mean octal, or a code: no number."""
    found = _NUMBER.fullmatch(token)
    if found is None or not (found[2] or found[3]) or (len(found[2]) > 1 and found[2][:1] == b"0"):
        return token
    whole, part = found[2] or b"0", found[3]
    plain = found[1] + whole + (b"" if part is None else b"." + (part or b"0")) + found[4]
    return plain if abs(float(plain)) < float("inf") else b'"' + plain + b'"'


def cut(body: bytes) -> Cut | None:
    """The items of `{…, "batch": […], …}`; None if it has no such array, or none that holds an event.

    Linear in the body. Whatever is between two commas is an item.
    """
    pieces = _by_brackets(body)
    if pieces is None or any(_NEXT.search(item) and isinstance(read_item(item), Unreadable) for item in pieces.items):
        return _by_items(body) or pieces  # two quotes too many, in two items, hide what is between them
    return pieces


def _by_brackets(body: bytes) -> Cut | None:
    """Cut where the brackets say; None if they do not match."""
    open_: list[int] = []
    begins: list[int] = []  # where the batch's items begin, plus the position after the last comma
    ends: list[int] = []
    key = b""
    expects = False  # the value of "batch" comes next
    for mark in _MARK.finditer(body):
        sign = mark[0]
        code = sign[0]
        if code == ord('"'):
            key, expects = sign, False
        elif sign == b":":
            expects = len(open_) == 1 and key == _BATCH and not begins
        elif sign in (b"{", b"["):
            if expects and sign == b"[":
                begins.append(mark.end())
            open_.append(code)
            expects = False
        elif sign == b",":
            if len(begins) > len(ends) and len(open_) == 2:
                ends.append(mark.start())
                begins.append(mark.end())
            expects = False
        else:
            if not open_ or open_.pop() != _CLOSES[code]:
                return None
            if len(begins) > len(ends) and len(open_) == 1:
                ends.append(mark.start())
    if open_ or not begins or len(begins) != len(ends):
        return None
    items = [body[start:end].strip() for start, end in zip(begins, ends, strict=True)]
    return Cut(body[: begins[0]] + body[ends[-1] :], [item for item in items if item])


# ---------------------------------------------------------------- brackets that do not match


def _by_items(body: bytes) -> Cut | None:
    """Cut at what reads as an event, beginning after `"batch": [`; what lies between two of them is an item, too.

    For a quote inside a string, a bracket too few, or a body that ends early. None if there is no event at all.
    """
    first = _FIRST.search(body)
    if first is None:
        return None
    begin = first.end()
    found = list(_events(body, begin))
    if not found:
        return None
    items: list[bytes] = []
    for start, end in found:
        items += [between] if (between := body[begin:start].strip(b" \t\r\n,")) else []
        items.append(body[start:end])
        begin = end
    closes = body.find(b"]", begin)
    rest = body[begin : len(body) if closes < 0 else closes].strip(b" \t\r\n,")
    tail = b"]}" if closes < 0 or not _is_json(body[: first.end()] + body[closes:]) else body[closes:]
    head = body[: first.end()]
    return Cut(head + tail, [*items, rest] if rest else items) if _is_json(head + tail) else None


def _events(body: bytes, at: int) -> Iterator[tuple[int, int]]:
    """(start, end) of what reads as an event. Reads the body at most `_PATIENCE` times."""
    left = _PATIENCE * len(body)
    while left > 0 and 0 <= at < len(body):
        start = body.find(b"{", at)
        end = _end_of(body, start) if start >= 0 else None
        if end is not None and _is_event(body[start:end]):
            yield start, end
            left -= end - start
            at = end
            continue
        if start < 0:
            return
        left -= MAX_EVENT_BYTES if end is None else end - start
        after = _NEXT.search(body, start)
        at = -1 if after is None else after.end()


def _end_of(body: bytes, start: int) -> int | None:
    """Where the object that begins at `start` ends; None if it does not within an item's size."""
    depth = 0
    for mark in _MARK.finditer(body, start, start + MAX_EVENT_BYTES):
        sign = mark[0]
        if sign in (b"{", b"["):
            depth += 1
        elif sign in (b"}", b"]"):
            depth -= 1
            if depth == 0:
                return mark.end()
    return None


def _is_event(raw: bytes) -> bool:
    """Whether an object is one of a batch's items rather than a part of one: only items have a type and a person."""
    item: Any = read_item(raw)
    if isinstance(item, Mended):
        item = item.item
    return type(item) is dict and isinstance(item.get("type"), str) and not item.keys().isdisjoint(_OF_ITEMS)


_OF_ITEMS: Final = frozenset({"userId", "anonymousId", "messageId", "event", "context", "previousId", "groupId"})


def _is_json(body: bytes) -> bool:
    try:
        msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True
