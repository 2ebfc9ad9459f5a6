"""Applies files of definitions: validated, recorded as a fact, built as a revision beside the live one."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from schemas.control import Control, Revision
from schemas.definition_checks import warn
from schemas.definition_files import from_json, parse_documents
from schemas.definition_merge import Summary, merge
from schemas.definitions import Definitions, to_json
from schemas.errors import Problem, StoreUnavailable
from schemas.facts import DefinitionChanged


class Applied(NamedTuple):
    """What files of definitions came to. `revision`: the one being built, None when nothing changed."""

    summary: Summary
    warnings: Sequence[Problem]
    revision: int | None


def apply_files(control: Control, files: Sequence[tuple[str, str]], at: datetime) -> Applied:
    """Merge (file name, YAML) pairs into what is defined. Raises DefinitionsInvalid with every problem."""
    current = control.building() or control.live()
    base = stored(current)
    patch = parse_documents(files, base)
    merged, summary = merge(base, patch)
    if merged.content_hash == base.content_hash:
        return Applied(summary, warn(patch), None)
    definitions: Mapping[str, Any] = msgspec.json.decode(to_json(merged))
    control.add_fact(DefinitionChanged(content_hash=merged.content_hash, definitions=dict(definitions)), at)
    revision = control.add_revision("definition", definitions, merged.content_hash, at)
    return Applied(summary, warn(patch), revision)


def start_rebuild(control: Control, at: datetime) -> int:
    """A revision with the live definitions, folded anew from the log; swapped in like any other."""
    live = control.live()
    return control.add_revision("rebuild", live.definitions, live.content_hash, at)


def stored(revision: Revision) -> Definitions:
    """The definitions of a revision."""
    return from_json(msgspec.json.encode(revision.definitions))


def await_revision(
    control: Control, number: int, progress: Callable[[float], None], pause: Callable[[], None], tries: int
) -> None:
    """Wait until a revision is live. StoreUnavailable when it failed, or after `tries` pauses without a change."""
    last, left = -1.0, tries
    while left:
        revision = control.revision(number)
        if revision.state in {"live", "retired"}:
            progress(1.0)
            return
        if revision.state == "failed":
            raise StoreUnavailable(f"revision {number} was given up: {revision.message}")
        left = tries if revision.done > last else left - 1
        last = max(last, revision.done)
        progress(revision.done)
        pause()
    raise StoreUnavailable(f"revision {number} makes no progress: is the worker running? (touchfold status)")
