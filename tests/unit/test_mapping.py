"""The mapping of files: what is refused, with its path and what to do."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import schemas
from schemas.errors import DefinitionsInvalid
from schemas.mapping import FileMapping, json_schema
from schemas.mapping_reading import check_columns, read_mapping

EXAMPLES = Path(__file__).parents[2] / "examples"
GOOD: dict[str, Any] = {
    "source": "tills",
    "format": "csv",
    "type": "pos.purchase",
    "identifiers": {"loyalty_card": "card"},
    "occurred_at": {"column": "day", "format": "%Y%m%d"},
    "properties": {"revenue": {"column": "paid", "money": "EUR"}},
}


def mapping(**changes: Any) -> FileMapping:
    """The good one with changes; None takes a key away."""
    return read_mapping(yaml.safe_dump({key: value for key, value in (GOOD | changes).items() if value is not None}))


def problems(**changes: Any) -> dict[str, str]:
    with pytest.raises(DefinitionsInvalid) as caught:
        mapping(**changes)
    assert caught.value.problems, "an invalid mapping names its problems"
    return {problem.path: problem.reason for problem in caught.value.problems}


def test_a_column_may_be_written_short() -> None:
    read = mapping(occurred_at="day", properties={"week": "week_no"})
    assert (read.occurred_at.column, read.occurred_at.format) == ("day", "iso")
    assert read.properties["week"].column == "week_no"
    assert ("properties.week", "week_no") in read.columns()


def test_id_none_is_no_id() -> None:
    assert mapping(id="none").id is None
    assert mapping().id is None
    assert mapping(id="till_no").id == "till_no"


@pytest.mark.parametrize("name", ["cdnow.yaml", "complete_journey.yaml"])
def test_the_examples_are_valid(name: str) -> None:
    read = read_mapping((EXAMPLES / name).read_text(encoding="utf-8"), name)
    assert read.historical
    assert read.currency() == "USD"


@pytest.mark.parametrize(
    ("changes", "path", "words"),
    [
        ({"source": None}, "source", "is missing"),
        ({"identifiers": None}, "identifiers", "is missing"),
        ({"identifiers": {}}, "identifiers", "at least one"),
        ({"identifiers": {"pro:file": "x"}}, "identifiers.pro:file", "not a kind"),
        ({"identifiers": {"user_id": 5}}, "identifiers.user_id", "must be text"),
        ({"id": False}, "id", "in quotes"),
        ({"format": "pdf"}, "format", "csv, jsonl, parquet, xlsx"),
        ({"time_zone": "Mars/Olympus"}, "time_zone", "not a time zone"),
        ({"time_zone": "../etc"}, "time_zone", "not a time zone"),
        ({"occurred_at": {"column": "day", "format": "YYYYMMDD"}}, "occurred_at.format", "a pattern"),
        ({"occurred_at": {"colum": "day"}}, "occurred_at.colum", "did you mean 'column'?"),
        ({"ocurred_at": "day"}, "ocurred_at", "did you mean 'occurred_at'?"),
        ({"group_by": "basket"}, "group_by", "must be a list"),
        ({"properties": {"total": {"sum": "paid"}}}, "properties.total.sum", "group_by"),
        ({"properties": {"total": {"money": "EUR"}}}, "properties.total", "needs a column"),
        ({"properties": {"total": {"column": "paid", "money": "euro"}}}, "properties.total.money", "such as USD"),
        ({"products": {"amount": {"column": "paid", "money": "USD"}}}, "products.amount.money", "one currency"),
        (
            {"properties": {"r": {"column": "paid", "money": "EUR"}, "currency": "c"}},
            "properties.currency",
            "leave out",
        ),
        ({"type": "note.added"}, "type", "cannot come from a file"),
        ({"type": "identity.aliased"}, "type", "cannot come from a file"),
        ({"traits": {"name": "n"}}, "traits", "profile.identified"),
        ({"constant": {"channel": "store"}}, "constant.channel", "dotted path"),
        ({"constant": {"context.channel": [1]}}, "constant.context.channel", "must be text"),
        ({"constant": {"properties.revenue": 1}}, "constant.properties.revenue", "also read from a column"),
        ({"constant": {"properties.currency": "USD"}}, "constant.properties.currency", "EUR"),
        ({"historical": "yes"}, "historical", "true or false"),
    ],
)
def test_what_is_wrong_is_told_with_its_path(changes: dict[str, Any], path: str, words: str) -> None:
    assert words in problems(**changes)[path]


def test_all_problems_are_told_at_once() -> None:
    assert {"time_zone", "properties.total.sum"} <= problems(
        time_zone="Nowhere", properties={"total": {"sum": "paid"}}
    ).keys()


@pytest.mark.parametrize("text", ["a: [", "- 1", "", "just words"])
def test_what_is_no_yaml_object_is_refused(text: str) -> None:
    with pytest.raises(DefinitionsInvalid, match=r"tills\.yaml"):
        read_mapping(text, "tills.yaml")


def test_a_missing_column_names_those_of_the_file() -> None:
    with pytest.raises(DefinitionsInvalid) as caught:
        check_columns(mapping(), ["Card", "day", "paid_eur"], "tills.csv")
    found = {problem.path: problem.reason for problem in caught.value.problems}
    assert found.keys() == {"identifiers.loyalty_card", "properties.revenue"}
    assert "did you mean 'Card'?" in found["identifiers.loyalty_card"]
    assert "it has: Card, day, paid_eur" in found["properties.revenue"]


def test_the_published_schema_is_the_model() -> None:
    path = Path(schemas.__file__ or "").parent / "mapping.schema.json"
    assert json.loads(path.read_text(encoding="utf-8")) == json_schema()
