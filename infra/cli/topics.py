"""`touchfold topics plan|apply`: compare the Kafka topics with what they should be, and fix them. No database."""

import json
from typing import TYPE_CHECKING, Any

import typer

from infra.cli.options import DATA, JSON

if TYPE_CHECKING:
    from pathlib import Path

    from infra.adapters.kafka.access import KafkaAccess
    from infra.adapters.kafka.topics import Change, Finding, Step
    from infra.app.settings import Settings


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    group = typer.Typer(help="The Kafka topics: what is missing, what differs, what is unsafe.", no_args_is_help=True)
    group.command("plan")(plan)
    group.command("apply")(apply)
    app.add_typer(group, name="topics")


def plan(data: DATA = None, as_json: JSON = False) -> None:
    """Show what apply would do, and what is unsafe. Changes nothing.

    \b
    Examples:
      TOUCHFOLD_LOG=kafka TOUCHFOLD_KAFKA_BOOTSTRAP=broker:9093 touchfold topics plan
      touchfold topics plan --json
    """
    from infra.adapters.kafka import topics as kafka_topics

    settings, access = _kafka(data)
    steps, findings = kafka_topics.plan(access, settings), kafka_topics.check(access)
    if as_json:
        typer.echo(json.dumps(_as_json(steps, findings)))
        return
    for step in steps:
        _tell(step, done=False)
    unsafe = [each for each in findings if each.reason != "it is missing"]
    for each in unsafe:
        typer.echo(f"unsafe: {each.topic}: {each.reason}: {each.fix}")
    if any(step.state != "ok" for step in steps):
        typer.echo("run touchfold topics apply to make these changes", err=True)


def apply(data: DATA = None, as_json: JSON = False) -> None:
    """Create missing topics and change settings that differ. Can be repeated.

    Never removes partitions, nor records, except from a topic that keeps them for too long (inbox). To change the
    replicas of an existing topic, use Kafka's own tools.

    \b
    Examples:
      TOUCHFOLD_LOG=kafka TOUCHFOLD_KAFKA_BOOTSTRAP=broker:9093 touchfold topics apply
      TOUCHFOLD_KAFKA_PARTITIONS=48 touchfold topics apply
    """
    from infra.adapters.kafka import topics as kafka_topics

    settings, access = _kafka(data)
    steps, findings = kafka_topics.apply(access, settings), kafka_topics.check(access)
    if as_json:
        typer.echo(json.dumps(_as_json(steps, findings)))
    else:
        for step in steps:
            _tell(step, done=True)
        for each in findings:
            typer.echo(f"unsafe: {each.topic}: {each.reason}: {each.fix}")


def _kafka(data: "Path | None") -> "tuple[Settings, KafkaAccess]":
    """Raises BadRequest where the log is not in Kafka."""
    import os

    from infra.app.adapters import kafka_access
    from infra.app.settings import load
    from schemas.errors import BadRequest, Problem

    settings = load(os.environ, data=data)
    access = kafka_access(settings)
    if access is None:
        raise BadRequest(
            "only Kafka has topics: set TOUCHFOLD_LOG=kafka and TOUCHFOLD_KAFKA_BOOTSTRAP=host:port",
            [Problem("TOUCHFOLD_LOG", "is postgres")],
        )
    return settings, access


def _tell(step: "Step", *, done: bool) -> None:
    if step.state == "ok":
        typer.echo(f"ok: {step.topic}: {_size(step)}")
        return
    if step.state == "missing":
        typer.echo(f"{'made' if done else 'missing'}: {step.topic}: {_size(step)}")
    else:
        typer.echo(f"{'changed' if done and not step.by_hand else 'differs'}: {step.topic}: {_size(step)}")
    for change in step.changes:
        typer.echo(f"  {_line(change)}")


def _size(step: "Step") -> str:
    return f"{_counted(step.partitions, 'partition')}, {_counted(step.replication, 'replica')}"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _line(change: "Change") -> str:
    moved = f"{change.has} -> {change.wants}" if change.has else change.wants
    hand = f"; by hand: {change.by_hand}" if change.by_hand else ""
    return f"{change.what} {moved}  ({change.why}{hand})"


def _as_json(steps: "list[Step]", findings: "list[Finding]") -> dict[str, Any]:
    return {
        "topics": [step._asdict() | {"changes": [change._asdict() for change in step.changes]} for step in steps],
        "unsafe": [each._asdict() for each in findings],
    }
