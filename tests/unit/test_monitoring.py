"""Alert rules and the dashboard: they use metrics and labels that are told, and every alert says what to do."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from infra.drivers.http import metrics
from infra.drivers.process import role_probes

FOLDER: Final = Path(__file__).parents[2] / "infra" / "deploy" / "monitoring"
CONTRACTS: Final = (Path(__file__).parents[2] / "docs" / "contracts.md").read_text()
_NAME: Final = re.compile(r"\btouchfold_([a-z_]+)")
_BY: Final = re.compile(r"\bby \(([a-z_, ]+)\)")
_SELECTED: Final = re.compile(r"\{([a-z_]+)[=!~]")


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def expressions() -> Iterator[str]:
    """Of alerts and panels."""
    yield from (rule["expr"] for rule in rules())
    for panel in json.loads((FOLDER / "dashboard.json").read_text())["panels"]:
        yield from (target["expr"] for target in panel["targets"])


def metrics_used() -> set[str]:
    """Without touchfold_; of a histogram its name."""
    found = {name for text in expressions() for name in _NAME.findall(text)}
    return {re.sub("_(bucket|sum|count)$", "", name) if name not in metrics.HELP else name for name in found}


def test_every_metric_that_is_used_is_told() -> None:
    assert len(metrics_used()) > 20
    assert metrics_used() - metrics.HELP.keys() - role_probes.HELP.keys() == set()


def test_every_label_that_is_used_stands_in_the_contracts() -> None:
    for text in expressions():
        labels = {label.strip() for group in _BY.findall(text) for label in group.split(",")} - {"le"}
        labels |= set(_SELECTED.findall(text))
        names = _NAME.findall(text)
        told = {
            label
            for name in names
            for group in re.findall(rf"`{re.sub('_bucket$', '', name)}{{([a-z_,]+)}}`", CONTRACTS)
            for label in group.split(",")
        }
        assert labels <= told, text


def test_every_alert_says_what_is_wrong_and_what_to_do() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(names) == len(set(names))
    for rule in rules():
        assert set(rule["annotations"]) == {"summary", "remedy"}, rule["alert"]
        assert all(len(text) > 10 for text in rule["annotations"].values())
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert re.fullmatch(r"\d+m", rule["for"])
        assert rule["expr"].count("(") == rule["expr"].count(")")


def test_every_metric_of_the_probe_port_stands_in_the_contracts_with_its_labels() -> None:
    written = [f"`{name}{{{','.join(told.labels)}}}`" for name, told in role_probes.HELP.items()]
    assert [text for text in written if text not in CONTRACTS] == []
