"""The published JSON Schemas are those of the models, and a page describes every topic."""

import json
import runpy
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from schemas.failpoints import NAMES
from schemas.topics import GRANTABLE, MODELS, PROFILES, SCHEMAS, TOPIC_OF, TOPICS, topic_names

ROOT: Final = Path(__file__).parents[2]
TOOL: Final = runpy.run_path(str(ROOT / "tools" / "topics.py"))
PAGE: Final = (ROOT / "docs" / "topics.md").read_text()


@pytest.mark.parametrize("topic", sorted(MODELS))
def test_the_published_schema_is_that_of_the_model(topic: str) -> None:
    assert (SCHEMAS / f"{topic}.json").read_text() == TOOL["text_of"](topic), "run: .venv/bin/python tools/topics.py"


def test_every_topic_has_a_model_a_schema_and_a_chapter() -> None:
    assert set(MODELS) == set(TOPICS) == {each.stem for each in SCHEMAS.glob("*.json")}
    for topic in MODELS:
        assert f"\n## `touchfold.{topic}`" in PAGE
        assert f"schemas/topics/{topic}.json" in PAGE


def _fields(model: type[msgspec.Struct]) -> set[str]:
    return {field.encode_name for field in msgspec.structs.fields(model)}


@pytest.mark.parametrize("topic", sorted(MODELS))
def test_the_page_names_every_field(topic: str) -> None:
    chapter = PAGE.split(f"\n## `touchfold.{topic}`")[1].split("\n## ")[0]
    if topic in set(TOPIC_OF.values()):
        chapter = PAGE  # fields of changes are told once
    missing = {name for name in _fields(MODELS[topic]) if f"`{name}`" not in chapter and f'"{name}"' not in chapter}
    assert not missing


def test_the_examples_of_the_page_are_messages() -> None:
    """Each ```json block under a topic's heading decodes as its message, and holds no field beside the model's."""
    for topic, model in MODELS.items():
        chapter = PAGE.split(f"\n## `touchfold.{topic}`")[1].split("\n## ")[0]
        blocks = [block.split("```")[0] for block in chapter.split("```json\n")[1:]]
        assert blocks, f"{topic} has no example"
        for block in blocks:
            assert _whole(model, block.encode()) == json.loads(block)


def _whole(model: type[msgspec.Struct], value: bytes) -> Any:
    """What the model keeps of a value."""
    return msgspec.to_builtins(msgspec.json.decode(value, type=model))


def test_compacted_profiles_can_never_be_granted() -> None:
    assert PROFILES not in GRANTABLE
    assert set(TOPIC_OF.values()) >= GRANTABLE


def test_topics_are_named_short_or_whole() -> None:
    assert topic_names("touchfold.profile-changes, risk-changes,", "touchfold") == {"profile-changes", "risk-changes"}
    assert topic_names("", "touchfold") == frozenset()


def test_the_publishers_failpoint_has_a_name() -> None:
    assert "publish.after_ack" in NAMES  # tests/integration/test_publishing.py ends a publisher there
