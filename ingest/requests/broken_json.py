"""Bodies that are almost JSON: what can be read of them without guessing. Pure; comes after the strict parser.

`NaN` and infinities, which Python's and other writers put out by default, stand for no number: null. A batch is cut
into its items by brackets and commas outside of strings, so that a broken item is set aside alone.
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
    """The body with U+FFFD for halves of surrogate pairs and null for what is no number."""
    if b"\\u" in body:
        body = mend_surrogates(body)
    return _TOKEN.sub(_number, body) if b"NaN" in body or b"Infinity" in body else body


def _number(token: "re.Match[bytes]") -> bytes:
    return token[0] if token[0].startswith(b'"') else b"null"


def cut(body: bytes) -> Cut | None:
    """The items of `{…, "batch": […], …}`; None where its brackets do not match or there is no such array.

    Linear in the body. What stands between two commas is an item, whatever it is.
    """
    open_: list[int] = []
    begins: list[int] = []  # where the batch's items begin; one more behind the last comma
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
