"""Scripts for browsers, Segment's analytics.js and Jitsu's p.js: fetched when this deployment was installed.

`tools/analytics_js.sh` fetches them. What we put before Segment's says to it where it came from: by itself it knows
that only of https, and asks Segment otherwise.
"""

import gzip
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple

from ingest.requests.routes import Headers, Reply
from schemas.errors import NotFound, Problem

FOLDER: Final = Path(__file__).parent / "analytics_js"
MAIN: Final = "analytics.min.js"
JITSU: Final = "p.js"
_NAMES: Final = {"analytics.min.js": MAIN, "analytics.js": MAIN, "p.js": JITSU, "lib.js": JITSU}
_FOUND_AS: Final = (MAIN, "standalone.js")  # as our tool names it, and in `dist/umd` of the package
_BEFORE: Final = b"""/* Below: @segment/analytics-next, MIT, (c) Segment. These lines say where it came from. */
!function(s,k){s&&s.src&&(k=s.dataset.globalSegmentAnalyticsKey||"analytics",(window[k]=window[k]||[])._cdn=\
window[k]._cdn||s.src.split("/analytics.js/v1/")[0])}(document.currentScript);
"""
_DAY_S: Final = 86_400
_MOST_BYTES: Final = 2_000_000
_NO_SCRIPT: Final = (
    "this deployment has no scripts for browsers: `make analytics-js` fetches them where npm is; or set "
    "TOUCHFOLD_ANALYTICS_JS to the file, or to dist/umd of the npm package @segment/analytics-next"
)


class _Kept(NamedTuple):
    plain: bytes
    packed: bytes
    tag: bytes


class BrowserFiles:
    """`place`: the script, or the folder with it and its parts. Files are read once, when first asked for."""

    def __init__(self, place: Path = FOLDER) -> None:
        self._place = place
        self._kept: dict[str, _Kept] = {}

    def there(self) -> bool:
        """Whether there is a script."""
        return self._file(MAIN) is not None

    def answer(self, name: str, headers: Mapping[str, str]) -> Reply:
        """The file, or 304 if the browser has it. Raises NotFound, with what to do if there is no script at all."""
        main = _NAMES.get(name)
        kept = self._kept.get(main or name) or self._read(main or name)
        cache = b"public, max-age=%d" % _DAY_S if main else b"public, max-age=%d, immutable" % (365 * _DAY_S)
        head: Headers = (
            (b"etag", kept.tag),
            (b"cache-control", cache),
            (b"vary", b"Accept-Encoding"),
            (b"access-control-allow-origin", b"*"),
            (b"cross-origin-resource-policy", b"cross-origin"),
            (b"x-content-type-options", b"nosniff"),
        )
        if kept.tag.decode() in headers.get("if-none-match", ""):
            return Reply(304, head, b"")
        head = (*head, (b"content-type", b"text/javascript; charset=utf-8"))
        if "gzip" in headers.get("accept-encoding", ""):
            return Reply(200, (*head, (b"content-encoding", b"gzip")), kept.packed)
        return Reply(200, head, kept.plain)

    def _read(self, name: str) -> _Kept:
        file = self._file(name)
        try:
            if file is None or file.stat().st_size > _MOST_BYTES:
                raise _nothing(name)
            plain = (_BEFORE if name == MAIN else b"") + file.read_bytes()
        except OSError as err:
            raise _nothing(name) from err
        tag = b'"%s"' % sha256(plain).hexdigest()[:32].encode()
        kept = self._kept[name] = _Kept(plain, gzip.compress(plain, mtime=0), tag)
        return kept

    def _file(self, name: str) -> Path | None:
        """`name` has no slash. Of a folder only JavaScript is served."""
        if name != MAIN:
            file = self._place / name if self._place.is_dir() else self._place.parent / name
            return file if (".bundle." in name or name == JITSU) and file.is_file() else None
        if self._place.is_file():
            return self._place
        return next((file for each in _FOUND_AS if (file := self._place / each).is_file()), None)


def _nothing(name: str) -> NotFound:
    if name in (MAIN, JITSU):
        return NotFound(_NO_SCRIPT, [Problem("", f"no {name} here")])
    return NotFound("there is no such part of analytics.js here", [Problem("", "no such file")])
