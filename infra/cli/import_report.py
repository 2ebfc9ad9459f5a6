"""What `touchfold import` prints: a proposal, a preview, and how an import went."""

import json
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import typer

from infra.cli.options import say

if TYPE_CHECKING:
    from ingest.files.importer import Result
    from ingest.files.notes import Note
    from ingest.files.proposing import Proposed

SHOWN = 20  # refused lines shown in the terminal; --json has all


def print_proposal(proposed: "Proposed", as_json: bool) -> None:
    """The mapping on stdout, so that it can be kept in a file; what is said about it on stderr."""
    if as_json:
        typer.echo(json.dumps(proposed.as_json(), ensure_ascii=False))
        return
    say("proposed mapping, from the first rows:")
    typer.echo(proposed.yaml, nl=False)
    for remark in proposed.proposal.remarks:
        say(f"remark: {remark}")
    for warning in proposed.warnings:
        say(f"warning: {warning['message']}")
    unused = [each["column"] for each in proposed.proposal.columns if not each["use"] and each["kind"] != "empty"]
    if unused:
        say(f"not used: {', '.join(unused)}")
    for each in proposed.preview:
        what = f"refused: {each['refused']}" if "refused" in each else json.dumps(each["item"], ensure_ascii=False)
        say(f"line {each['line']}: {what}")


def print_preview(shown: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(shown, ensure_ascii=False))
        return
    for each in shown:
        place = f"{each['file']} line {each['line']}" if "file" in each else f"line {each['line']}"
        typer.echo(f"{place}:{' refused: ' + each['refused'] if 'refused' in each else ''}")
        if "item" in each:
            typer.echo(json.dumps(each["item"], ensure_ascii=False, indent=2))
    if not shown:
        typer.echo("no lines")


def print_result(result: "Result", warnings: "Sequence[Note]", files: int, as_json: bool) -> None:
    if as_json:
        _print_json(result, warnings, files)
        return
    rows = {
        "events": result.events,
        "accepted": result.accepted,
        "duplicates": result.duplicates,
        "refused": len(result.refused),
    }
    if result.unreadable_amounts:
        rows["unreadable amounts"] = result.unreadable_amounts
    for name, count in rows.items():
        typer.echo(f"{name:<10} {count:>12,}")
    for each in islice(result.refused, SHOWN):
        place = f"{each.file} line {each.line}" if files > 1 else f"line {each.line}"
        typer.echo(f"  {place}: {each.reason}")
    if len(result.refused) > SHOWN:
        typer.echo(f"  and {len(result.refused) - SHOWN:,} more: --json has all; touchfold dead-letters list")
        for reason in result.reasons.values():
            typer.echo(f"  {reason.count:,} of them: {reason.reason}")
    _print_warnings(warnings)


def _print_warnings(warnings: "Sequence[Note]") -> None:
    for note in warnings:
        places = f" (line {', '.join(map(str, note.lines))}{', …' if note.count > len(note.lines) else ''})"
        count = f"{note.count:,} × " if note.count > 1 else ""
        typer.echo(f"warning: {count}{note.message}{places if note.lines else ''}")


def _print_json(result: "Result", warnings: "Sequence[Note]", files: int) -> None:
    """One object, its refused lines written one by one: there may be millions."""
    counts = {"events": result.events, "accepted": result.accepted, "duplicates": result.duplicates}
    typer.echo(json.dumps(counts)[:-1] + ', "refused": [', nl=False)
    for number, each in enumerate(result.refused):
        line = each._asdict() if files > 1 else {"line": each.line, "reason": each.reason}
        typer.echo((", " if number else "") + json.dumps(line, ensure_ascii=False), nl=False)
    reasons = json.dumps([each.as_json() for each in result.reasons.values()], ensure_ascii=False)
    told = json.dumps([note.as_json() for note in warnings], ensure_ascii=False)
    typer.echo(f'], "reasons": {reasons}, "warnings": {told}, "unreadable_amounts": {result.unreadable_amounts}}}')
