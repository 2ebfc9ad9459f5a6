"""In which encoding a text file is written, by its first bytes. Pure.

UTF-16 and UTF-8 are known by their marks or their zeros. Other bytes that are not UTF-8 are read as Windows-1252, which
is what spreadsheets write in Western Europe and America; whoever has another one says so in the mapping. A detector by
frequencies of letters was not used: a file of ids and amounts has too few letters for it.
"""

import codecs
from typing import Final, NamedTuple

SAMPLE: Final = 1_048_576
FALLBACK: Final = "cp1252"
_MARKS: Final = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class Encoding(NamedTuple):
    """`name`: how the file is opened. `fallback`: how a line is read that is not UTF-8; None: it is refused."""

    name: str
    fallback: str | None

    @property
    def errors(self) -> str:
        """Bytes that cannot be read become lone surrogates, which get their row another look, or refused."""
        return "replace" if self.name.startswith(("utf-16", "utf-32")) else "surrogateescape"


def encoding_of(sample: bytes, said: str | None = None) -> Encoding:
    """The encoding of a file that begins with these bytes (up to SAMPLE), or the one that the mapping says."""
    for mark, name in _MARKS:
        if sample.startswith(mark):
            return Encoding(name, None)
    if said is not None:
        return Encoding("utf-8-sig" if codecs.lookup(said).name == "utf-8" else said, None)
    wide = _wide(sample[:4_096])
    if wide:
        return Encoding(wide, None)
    return Encoding("utf-8-sig", None if _has_utf8(sample) else FALLBACK)


def _wide(start: bytes) -> str:
    """UTF-16 without a mark: delimiters, digits and line ends have a zero in every other byte."""
    even, odd = start[::2].count(0), start[1::2].count(0)
    least = len(start) // 20
    if odd > max(least, 10 * even):
        return "utf-16-le"
    return "utf-16-be" if even > max(least, 10 * odd) else ""


def _has_utf8(sample: bytes) -> bool:
    """Whether letters beyond ASCII are written as UTF-8, more often than not: then a line that is not is damaged."""
    text = sample.decode("utf-8", "surrogateescape")
    if text.isascii():
        return False
    escaped = sum(1 for letter in text if "\udc80" <= letter <= "\udcff")
    beyond = sum(1 for letter in text if letter > "\x7f") - escaped
    return beyond > escaped


def is_text(text: str) -> bool:
    """Whether a text has no bytes that could not be read."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def reread(text: str, encoding: str) -> str:
    """A text with escaped bytes, read in another encoding. Raises UnicodeDecodeError."""
    return text.encode("utf-8", "surrogateescape").decode(encoding)
