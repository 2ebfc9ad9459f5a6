"""Formats a capacity plan: as lines for a terminal, as JSON, and as the tables of docs/scaling.md. Pure."""

from collections.abc import Sequence
from typing import Any, Final

from infra.cli.capacity_model import Ask, Figures, Limit, Need, Plan, ask_of, plan

RATES: Final = (1_000, 10_000, 100_000, 1_000_000)
"""Events a second of the tables in docs/scaling.md."""


def amount_text(need: Need) -> str:
    """Counts as integers; amounts with at most three significant figures and their unit."""
    return f"{rounded(need.amount)} {need.unit}".rstrip()


def rounded(amount: float) -> str:
    if amount == int(amount) or amount >= 100:
        return f"{amount:,.0f}"
    return f"{amount:.1f}" if amount >= 1 else f"{amount:.2g}"


def lines(made: Plan) -> list[str]:
    """For a terminal."""
    ask = made.ask
    found = [
        f"{rounded(ask.events_per_second)} events a second, {ask.customers:,} customers,"
        f" {ask.retention_days:g} days in Kafka, {ask.event_bytes:,.0f} bytes an event",
        "",
    ]
    part = ""
    for need in made.needs:
        found.append(f"{need.part if need.part != part else '':<12}{need.what:<42}{amount_text(need):>16}")
        part = need.part
    found += ["", f"{'events/s':>12}  what is saturated there, and what to do then"]
    for limit in made.limits:
        mark = "<" if limit in made.reached else " "
        found.append(f"{rounded(limit.events_per_second):>12} {mark}{limit.what}: {limit.then}")
    found += ["", f"< reached at {rounded(ask.events_per_second)} events a second. {_verdict(made)}"]
    return found


def _verdict(made: Plan) -> str:
    if made.bottleneck is None:
        return "More processes and brokers are all that is needed."
    return f"First bottleneck that more processes do not remove: {made.bottleneck.what}."


def as_json(made: Plan, figures: Figures) -> dict[str, Any]:
    """Everything, with the figures it was computed from."""
    return {
        "asked": made.ask._asdict(),
        "needs": {need.name: {"amount": need.amount, "unit": need.unit, "part": need.part} for need in made.needs},
        "limits": [limit._asdict() | {"reached": limit in made.reached} for limit in made.limits],
        "bottleneck": made.bottleneck.name if made.bottleneck else None,
        "figures": {
            each.name: {
                "value": each.value,
                "unit": each.unit,
                "from": each.source,
                "date": each.at.isoformat(),
                "bench": each.bench,
            }
            for each in figures.listed
        },
    }


def figure_table(figures: Figures) -> list[str]:
    """Markdown: every figure and its source."""
    rows = [
        f"| {each.name} | {each.value:,g} | {each.unit} | {each.source} | {each.bench} |" for each in figures.listed
    ]
    return ["| figure | value | unit | from | by |", "|---|---|---|---|---|", *rows]


def need_table(figures: Figures, rates: Sequence[int] = RATES) -> list[str]:
    """Markdown: what each rate needs, with the default numbers of customers and days."""
    plans = [plan(figures, ask_of(figures, rate)) for rate in rates]
    head = [f"{rate:,} events/s" for rate in rates]
    rows = [f"| | customers | {' | '.join(f'{each.ask.customers:,}' for each in plans)} |"]
    for place, need in enumerate(plans[0].needs):
        amounts = " | ".join(amount_text(each.needs[place]) for each in plans)
        rows.append(f"| {need.part} | {need.what} | {amounts} |")
    firsts = " | ".join(each.bottleneck.what if each.bottleneck else "none" for each in plans)
    rows.append(f"| | first bottleneck that more processes do not remove | {firsts} |")
    return [f"| part | what | {' | '.join(head)} |", "|---|---|" + "---|" * len(plans), *rows]


def limit_table(figures: Figures) -> list[str]:
    """Markdown: the rates at which one of each resource is saturated."""
    ask: Ask = ask_of(figures, RATES[0])
    limits: Sequence[Limit] = plan(figures, ask).limits
    rows = [
        f"| {rounded(limit.events_per_second)} | {limit.what} | {'more of it' if limit.grows else 'a limit'} |"
        f" {limit.then} |"
        for limit in limits
    ]
    return ["| events/s | what is full there | | what then |", "|---|---|---|---|", *rows]


def tables(figures: Figures) -> dict[str, list[str]]:
    """By the name of its place in docs/scaling.md."""
    return {"needs": need_table(figures), "limits": limit_table(figures), "figures": figure_table(figures)}


def with_tables(page: str, figures: Figures) -> str:
    """The page with its tables recomputed, each between `<!-- NAME -->` and `<!-- /NAME -->`.

    Raises ValueError when a place is missing.
    """
    for name, rows in tables(figures).items():
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        before, found, rest = page.partition(begin)
        _, closed, after = rest.partition(end)
        if not (found and closed):
            raise ValueError(f"the page has no place for the table {name}: {begin} … {end}")
        page = "\n".join([before + begin, *rows, end]) + after
    return page
