"""`touchfold profile KIND:VALUE`: what is known of one customer."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.cli.options import DATA, JSON

if TYPE_CHECKING:
    from schemas.errors import SharedIdentifier


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("profile")(profile)


def profile(
    identifier: Annotated[str, typer.Argument(metavar="KIND:VALUE", help="such as email:ada@example.com")],
    data: DATA = None,
    as_json: JSON = False,
) -> None:
    """Show one customer, found by any identifier, or by profile:ID.

    Kinds: user_id, anonymous_id, email, phone, loyalty_card, device_id, profile, and your own external types.

    Example: touchfold profile user_id:ada
    """
    from contextlib import closing
    from uuid import UUID

    from infra.app.auditing import coded, note_command
    from infra.app.bootstrap import session
    from infra.app.reading import reading_of
    from schemas.errors import Erased, NotFound, SharedIdentifier
    from schemas.identifiers import parse_selector

    kind, value = parse_selector(identifier)  # before opening anything
    with session(data) as here, closing(reading_of(here)) as reading:
        try:
            answer = reading.profiles.by_selector(identifier)
        except (NotFound, Erased):
            note_command(here, "customers.searched", shown=0, kind=kind, words=coded(here, value))
            raise
        except SharedIdentifier as err:
            items = reading.search.cards_of(err.profile_ids, personal=True)
            note_command(here, "customers.searched", shown=len(items), kind=kind, words=coded(here, value))
            _show_several(err, items, as_json)
            raise typer.Exit(1) from err
        note_command(here, "profile.viewed", UUID(answer["id"]).bytes)
    if as_json:
        typer.echo(json.dumps(answer, ensure_ascii=False))
    else:
        _show(answer)


def _show_several(err: "SharedIdentifier", items: list[dict[str, Any]], as_json: bool) -> None:
    """The customers who share the identifier, most recently seen first."""
    if as_json:
        typer.echo(json.dumps(err.body() | {"items": items, "more": err.more}, ensure_ascii=False))
        return
    typer.echo(f"{len(items)}{'+' if err.more else ''} customers share this identifier, which alone identifies nobody:")
    for each in items:
        known = ", ".join(each[name] for name in ("name", "email", "phone") if each[name])
        typer.echo(f"  profile:{each['id']}  {known or '(no name)'}, last seen {_time(each['last_seen_at'])}")


def _show(answer: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    console.print(Text(f"profile {answer['id']}", style="bold"))
    risk = answer["risk"]
    reasons = ", ".join(f"{each['code']} (+{each['points']})" for each in risk["reasons"])
    facts = {
        "stage": answer["lifecycle"],
        "risk": risk["level"] + (f": {reasons}" if reasons else ""),
        "segments": ", ".join(answer["segments"]) or "none",
        "events": f"{answer['event_count']}, from {_time(answer['first_seen_at'])} to {_time(answer['last_seen_at'])}",
    }
    if "missing_rate" in answer:
        facts["missing rate"] = (
            f"{answer['missing_rate']} amounts have no exchange rate to the base currency and are not in any total"
        )
    if "unreadable_amounts" in answer:
        facts["unreadable"] = f"{answer['unreadable_amounts']} amounts could not be read and are not in any total"
    parts = {
        "": facts,
        "identifiers": [
            (each["kind"] + (", formerly" if "former" in each else ""), each["value"]) for each in answer["identifiers"]
        ],
        "traits": answer["traits"],
        "computed": {name: value for name, value in answer["computed"].items() if value is not None},
    }
    for title, rows in parts.items():
        if rows:
            table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), title=title or None, title_justify="left")
            table.add_column(style="cyan", no_wrap=True)
            table.add_column(overflow="fold")
            for name, value in rows.items() if isinstance(rows, dict) else rows:
                table.add_row(Text(str(name)), Text(_text(value)))
            console.print(table)


def _time(iso: str | None) -> str:
    """`2026-05-01 10:00`, in UTC."""
    return "?" if iso is None else iso[:16].replace("T", " ")


def _text(value: Any) -> str:
    """A value for display: money without trailing zeros, times to the minute."""
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = str(value)
    whole, point, places = text.partition(".")
    if point and len(places) == 4 and places.isdecimal() and whole.lstrip("-").isdecimal():
        return f"{whole}.{places[:2]}{places[2:].rstrip('0')}"
    return _time(text) if text.endswith("Z") and "T" in text and len(text) >= 20 else text
