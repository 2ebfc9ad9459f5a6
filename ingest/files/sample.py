"""What a proposal of a mapping is made of and what it is. Pure."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from ingest.files.tables import Layout
from schemas.errors import Problem

SAMPLE_ROWS: Final = 10_000


class Sample(NamedTuple):
    """The first rows of a file. `name`: its name without endings; `modified`: when it was last written."""

    name: str
    format: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    layout: Layout
    modified: datetime


class Setting(NamedTuple):
    """What the deployment says: the currency of amounts without one, the zone of times without one, and the time."""

    currency: str
    time_zone: str
    now: datetime


class Proposal(NamedTuple):
    """`mapping`: plain data, as the YAML would be read; with `missing` not empty it cannot be used yet.

    `columns`: name, kind and use of each, "" for unused ones.
    """

    mapping: dict[str, Any]
    missing: list[Problem]
    remarks: list[str]
    columns: list[dict[str, str]]
