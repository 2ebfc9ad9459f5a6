"""The JSON Schema of a definitions file, published as `schemas/definitions.schema.json`. Pure."""

from typing import Any

from projections.aggregates.registry import AGGREGATES
from schemas.definitions import Definitions


def json_schema() -> dict[str, Any]:
    """The schema of the models, with the aggregates there are."""
    schema = Definitions.model_json_schema(by_alias=True)
    aggregate = schema["$defs"]["ComputedTrait"]["properties"]["aggregate"]
    aggregate["enum"] = list(AGGREGATES)
    aggregate["description"] = "\n".join(f"- {name}: {each.meaning}." for name, each in AGGREGATES.items())
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Touchfold definitions"}
