"""`s3://bucket/prefix`: how settings name a place in an object store."""

import re
from typing import Final, NamedTuple

_URL: Final = re.compile("s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(.*))?")


class S3Place(NamedTuple):
    bucket: str
    prefix: str


def s3_place(text: str) -> S3Place | None:
    """None if it is not such a URL."""
    found = _URL.fullmatch(text)
    return None if found is None else S3Place(found[1], found[2] or "")
