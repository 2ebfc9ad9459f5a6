"""Writes the JSON Schemas of the topics: `python tools/topics.py`. `tests/unit/test_topics.py` compares them."""

import json

from schemas.topics import MODELS, SCHEMAS, json_schema


def text_of(topic: str) -> str:
    return json.dumps(json_schema(topic), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for name in MODELS:
        (SCHEMAS / f"{name}.json").write_text(text_of(name))
