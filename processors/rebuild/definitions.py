"""Applies definition files: validates them, records them as a fact and builds a revision next to the live one."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import msgspec

from projections.definitions.checks import warn
from projections.definitions.files import from_json, parse_documents
from projections.definitions.merge import Summary, merge
from schemas.control import SUPERSEDED, Control, Revision
from schemas.definitions import Definitions, to_json
from schemas.errors import DefinitionsMoved, Problem, StoreUnavailable
from schemas.facts import DefinitionChanged


class Applied(NamedTuple):
    """The result of applying definitions. `revision`: the one being built, None if nothing changed."""

    summary: Summary
    warnings: Sequence[Problem]
    revision: int | None
    patch: Definitions


TRIES: Final = 50  # of a merge while others change definitions; each takes a few milliseconds


def apply_files(control: Control, files: Sequence[tuple[str, str]], at: datetime) -> Applied:
    """Merge (file name, YAML) pairs into the definitions; if others change these meanwhile, merge again.

    Raises DefinitionsInvalid with every problem; DefinitionsMoved if others keep changing them.
    """
    for _ in range(TRIES - 1):
        try:
            return _apply(control, files, at)
        except DefinitionsMoved:
            continue
    return _apply(control, files, at)


def _apply(control: Control, files: Sequence[tuple[str, str]], at: datetime) -> Applied:
    base = stored(current := control.newest())
    patch = parse_documents(files, base)
    merged, summary = merge(base, patch)
    if merged.content_hash == base.content_hash:
        building = current.revision if current.state == "building" else None  # somebody else's, with the same content
        return Applied(summary, warn(patch), building, patch)
    definitions: Mapping[str, Any] = msgspec.json.decode(to_json(merged))
    fact = DefinitionChanged(content_hash=merged.content_hash, definitions=dict(definitions))
    revision = control.add_revision(
        "definition", definitions, merged.content_hash, at, base=current.content_hash, fact=fact
    )
    return Applied(summary, warn(patch), revision, patch)


def start_rebuild(control: Control, at: datetime) -> int:
    """Start a revision, folded again from the log, of the newest definitions; it is swapped in like any other."""
    for _ in range(TRIES - 1):
        try:
            return _rebuild(control, at)
        except DefinitionsMoved:
            continue
    return _rebuild(control, at)


def _rebuild(control: Control, at: datetime) -> int:
    newest = control.newest()
    return control.add_revision("rebuild", newest.definitions, newest.content_hash, at, base=newest.content_hash)


def stored(revision: Revision) -> Definitions:
    """The definitions of a revision."""
    return from_json(msgspec.json.encode(revision.definitions))


def await_revision(
    control: Control, number: int, progress: Callable[[float], None], pause: Callable[[], None], tries: int
) -> int:
    """Wait until a revision, or the one that superseded it, is live; returns its number.

    Raises StoreUnavailable if it failed, or after `tries` pauses without progress.
    """
    last, left = -1.0, tries
    while left:
        revision = control.revision(number)
        if revision.state in {"live", "retired"}:
            progress(1.0)
            return number
        if revision.state == "failed" and revision.message == SUPERSEDED:
            number, last, left = number + 1, -1.0, tries
            continue
        if revision.state == "failed":
            raise StoreUnavailable(f"revision {number} was given up: {revision.message}")
        left = tries if revision.done > last else left - 1
        last = max(last, revision.done)
        progress(revision.done)
        pause()
    raise StoreUnavailable(f"revision {number} is making no progress: is the worker running? (touchfold status)")
