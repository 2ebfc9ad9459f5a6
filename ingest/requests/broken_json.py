"""Reads what it can, without guessing, from bodies that are almost JSON. Pure; used after the strict parser fails.

`NaN` and infinities, which Python's and other writers emit by default, become null. A batch is cut into items at the
brackets and commas outside strings, so that only the broken item is set aside.
"""

import re
from typing import Final, NamedTuple

from ingest.accept.canonical import mend_surrogates

_TOKEN: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|-?\b(?:Infinity|NaN)\b', re.DOTALL)
_MARK: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[][{},:]', re.DOTALL)
_CLOSES: Final = {ord("}"): ord("{"), ord("]"): ord("[")}
_BATCH: Final = b'"batch"'


class Cut(NamedTuple):
    """A batch in pieces: the body with an empty batch, and the bytes of each item."""

    envelope: bytes
    items: list[bytes]


def mend(body: bytes) -> bytes:
    """The body with lone surrogates replaced by U+FFFD, and NaN and infinities by null."""
    if b"\\u" in body:
        body = mend_surrogates(body)
    return _TOKEN.sub(_number, body) if b"NaN" in body or b"Infinity" in body else body


def _number(token: "re.Match[bytes]") -> bytes:
    return token[0] if token[0].startswith(b'"') else b"null"


def cut(body: bytes) -> Cut | None:
    """The items of `{…, "batch": […], …}`; None if its brackets do not match or it has no such array.

    Linear in the body. Whatever is between two commas is an item.
    """
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
