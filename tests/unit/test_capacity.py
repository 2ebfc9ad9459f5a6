"""The capacity model and its command: straight lines through measured figures, and pages that cannot drift."""

import json
import math
from pathlib import Path

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from infra.cli import capacity
from infra.cli.capacity_model import SOURCES, Ask, Figures, ask_of, parse_figures, plan, read_figures
from infra.cli.capacity_tables import as_json, lines, rounded, tables, with_tables
from schemas.errors import BadRequest

PAGE = Path(__file__).parents[2] / "docs" / "scaling.md"
FIGURES = read_figures()
RATES = st.floats(1, 5_000_000)


def run(*arguments: str) -> tuple[int, str]:
    """The command alone, as the whole program registers it; (exit status, what it printed). Misuse is raised."""
    app = typer.Typer()
    app.callback()(lambda: None)
    capacity.register(app)
    found = CliRunner().invoke(app, ["capacity", *arguments])
    if isinstance(found.exception, BadRequest):
        raise found.exception
    return found.exit_code, found.output


def test_every_figure_has_a_unit_a_date_a_source_and_a_bench() -> None:
    assert {figure.source for figure in FIGURES.listed} <= set(SOURCES)
    assert all(figure.value > 0 and figure.unit and figure.bench and figure.at for figure in FIGURES.listed)
    assert len({figure.name for figure in FIGURES.listed}) == len(FIGURES.listed)


def test_a_figure_without_a_known_source_is_refused() -> None:
    text = 'door_cpu = {value = 1.0, unit = "µs", from = "hearsay", date = 2026-01-01, bench = "none"}'
    with pytest.raises(ValueError, match="door_cpu"):
        parse_figures(text)


def test_a_thousand_events_a_second_are_one_process_of_each_role() -> None:
    made = plan(FIGURES, ask_of(FIGURES, 1_000))
    assert made.amount("doors") == made.amount("workers") == made.amount("archivers") == 1
    assert (made.amount("brokers"), made.amount("postgres_servers"), made.amount("partitions")) == (3, 1, 12)


def test_cores_of_the_workers_are_rate_times_cpu_over_the_planned_share() -> None:
    made = plan(FIGURES, ask_of(FIGURES, 50_000))
    us = FIGURES["runner_cpu"] + FIGURES["fold_cpu"] + FIGURES["decide_cpu"]
    assert made.amount("worker_cores") == pytest.approx(50_000 * us / 1e6 / FIGURES["core_use"])
    us += FIGURES["fold_postgres_cpu"] + FIGURES["decide_postgres_cpu"]
    assert made.amount("workers") == math.ceil(50_000 * us / 1e6 / FIGURES["core_use"])
    assert made.amount("partitions") >= 2 * made.amount("workers")


@given(RATES, st.floats(1.01, 100))
def test_more_events_never_need_less(rate: float, times: float) -> None:
    small, large = (plan(FIGURES, ask_of(FIGURES, each)) for each in (rate, min(rate * times, 10_000_000)))
    falling = {"postgres_full_days"}
    for few, many in zip(small.needs, large.needs, strict=True):
        assert few.name in falling or few.amount <= many.amount * (1 + 1e-9), few.name


@given(RATES)
def test_limits_ascend_and_those_below_the_rate_are_reached(rate: float) -> None:
    made = plan(FIGURES, ask_of(FIGURES, rate))
    rates = [limit.events_per_second for limit in made.limits]
    assert rates == sorted(rates)
    assert [limit.name for limit in made.reached] == [limit.name for limit in made.limits][: len(made.reached)]
    assert made.bottleneck is None or (made.bottleneck in made.reached and not made.bottleneck.grows)


@given(RATES)
def test_a_rate_below_the_first_limit_of_postgresql_needs_one_server(rate: float) -> None:
    made = plan(FIGURES, ask_of(FIGURES, rate))
    first = min(
        each.events_per_second
        for each in made.limits
        if each.name in {"postgres_wal", "postgres_memory"}  # of cores the need plans with what is used of them
    )
    assert (made.amount("postgres_servers") == 1) == (rate <= first) or made.amount("postgres_cores") > 64


def test_customers_and_bytes_that_are_given_are_used() -> None:
    few, many = (plan(FIGURES, Ask(1_000, customers, 7, 1_000)) for customers in (1_000, 100_000_000))
    assert few.amount("postgres_profiles_gb") * 100_000 == pytest.approx(many.amount("postgres_profiles_gb"))
    small, large = (plan(FIGURES, Ask(1_000, 1_000, 7, size)) for size in (500, 5_000))
    assert small.amount("archive_gb") * 10 == pytest.approx(large.amount("archive_gb"))
    assert small.amount("broker_disk_tb") < large.amount("broker_disk_tb")


@pytest.mark.parametrize(
    ("given_", "word"),
    [
        ({"events_per_second": 0}, "events per second"),
        ({"events_per_second": -5}, "events per second"),
        ({"events_per_second": math.nan}, "events per second"),
        ({"events_per_second": math.inf}, "events per second"),
        ({"events_per_second": 1, "customers": 0}, "customers"),
        ({"events_per_second": 1, "retention_days": 0}, "retention days"),
        ({"events_per_second": 1, "event_bytes": 1}, "event bytes"),
        ({"events_per_second": 1, "event_bytes": 1e9}, "event bytes"),
    ],
)
def test_values_that_make_no_sense_are_refused_by_name(given_: dict[str, float], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        ask_of(FIGURES, **given_)  # type: ignore[arg-type]  # a whole float stands for a count


def test_the_command_prints_every_need_and_every_limit() -> None:
    status, out = run("--events-per-second", "20000")
    made = plan(FIGURES, ask_of(FIGURES, 20_000))
    assert status == 0
    assert out.splitlines() == lines(made)
    assert all(need.what in out for need in made.needs)
    assert all(limit.what in out and limit.then in out for limit in made.limits)


def test_the_command_gives_json_with_the_source_of_every_figure() -> None:
    status, out = run("--events-per-second", "2e4", "--customers", "5000", "--json")
    found = json.loads(out)
    assert status == 0
    assert found["asked"] == {
        "events_per_second": 20_000,
        "customers": 5_000,
        "retention_days": 7,
        "event_bytes": FIGURES["record_bytes"],
    }
    assert found == json.loads(json.dumps(as_json(plan(FIGURES, ask_of(FIGURES, 2e4, 5_000)), FIGURES)))
    assert {each["from"] for each in found["figures"].values()} <= set(SOURCES)


@pytest.mark.parametrize("wrong", [("--events-per-second", "0"), ("--events-per-second", "9", "--customers", "-1")])
def test_the_command_is_misused_with_nonsense(wrong: tuple[str, ...]) -> None:
    with pytest.raises(BadRequest) as raised:  # the program ends with 2 for these
        run(*wrong)
    assert type(raised.value) is BadRequest


def test_the_command_wants_a_rate_and_shows_examples() -> None:
    assert run()[0] == 2
    assert "touchfold capacity --events-per-second 5000" in run("--help")[1]


def test_the_page_on_scaling_has_the_tables_of_the_model() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert with_tables(page, FIGURES) == page, "run: python tools/scaling_tables.py"


def test_a_page_without_a_place_for_a_table_is_an_error() -> None:
    with pytest.raises(ValueError, match="needs"):
        with_tables("# Scaling", FIGURES)


def test_tables_are_whole() -> None:
    for rows in tables(Figures(FIGURES.listed)).values():
        assert len({row.count("|") for row in rows}) == 1


@pytest.mark.parametrize(
    ("amount", "text"),
    [(3.0, "3"), (0.0123, "0.012"), (0.5, "0.5"), (12.34, "12.3"), (1234.5, "1,234"), (1_000_000.0, "1,000,000")],
)
def test_amounts_are_shown_with_few_figures(amount: float, text: str) -> None:
    assert rounded(amount) == text
