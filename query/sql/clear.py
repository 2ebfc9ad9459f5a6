"""What SQL does not show yet: fields declared clear that were sealed when received. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from query.sql.results import iso
from schemas.archive import ArchiveFile
from schemas.clear_rules import Declared, declared_of
from schemas.clear_view import COLUMN_RULES, declared_from, hash_of, named_since

RULED: Final = frozenset({"order_id", "revenue", "currency", "product_ids", "campaign_id"})
"""Columns made by rules that a new build may change."""
READERS: Final = frozenset({"properties", "order_id", "revenue", "currency", "campaign_id", "product_ids"})
"""Columns of `events` built from properties; only these can lack a field."""


class Rules(NamedTuple):
    """A row of clear_rules: what was declared, and when."""

    hash: str
    declared: Mapping[str, Any]
    since: datetime


def warnings(
    statement: str,
    columns: frozenset[str] | None,
    entries: Sequence[ArchiveFile],
    definitions: Mapping[str, Any],
    applied_at: datetime,
    rules: Sequence[Rules],
) -> list[str]:
    """One line for each field that is still sealed in some archive files: fields the statement names, or if it names
    none, all that its `properties` lack.

    `columns`: those it names; None: possibly all. `definitions`: those in force, applied at `applied_at`. `rules`:
    newest first.
    """
    if not rules or not (columns is None or columns & READERS):
        return []
    now = declared_of(definitions, unknown=bool(rules[0].declared["unknown"]))
    since = next((each.since for each in rules if each.hash == hash_of(now)), applied_at)
    behind = [entry for entry in entries if entry.clear != hash_of(now)]
    known = {each.hash: declared_from(each.declared) for each in rules}
    lines: dict[str, int] = {}
    for entry in behind:
        for field in _fields(now, known.get(entry.clear)):
            lines[field] = lines.get(field, 0) + 1
    named = {field for field in lines if field.rpartition(".")[2].lower() in statement.lower()}
    if columns is not None and "properties" not in columns:
        lines = {field: lines[field] for field in named}
    told = [
        f"{field} was sealed before {iso(since)}: {count} of the archive's {len(entries)} files do not have it yet"
        " and are being rewritten in the background (touchfold status)"
        for field, count in sorted(lines.items())
        if not named or field in named
    ]
    older = sum(_rules_of(rules, entry.clear) != COLUMN_RULES for entry in behind)
    if older and (columns is None or columns & RULED):
        told.append(
            f"{', '.join(sorted(RULED if columns is None else columns & RULED))}: {older} of the archive's"
            f" {len(entries)} files follow an earlier build's rules and are being rewritten in the background"
            " (touchfold status)"
        )
    return told


def _rules_of(rules: Sequence[Rules], clear: str) -> int:
    """The version of the rules that a file's columns follow; 1 if it does not say."""
    return next((int(each.declared.get("rules", 1)) for each in rules if each.hash == clear), 1)


def _fields(now: Declared, before: Declared | None) -> Iterable[str]:
    """EVENT.FIELD of what became clear. Unknown for a file written by an earlier build."""
    if before is None:
        return ()
    return [f"{event}.{name}" for event, names in named_since(now, before).items() for name in names]
