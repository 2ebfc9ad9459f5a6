"""Names that lead into a column's value: `payload.customer.id` where `payload` holds JSON or a struct. Pure.

A step into an object is a name, into a list a number (`items.0.sku`), or the key of a list of keys and values, which is
how BigQuery writes the parameters of an event (`event_params.ga_session_id`).
"""

from typing import Any, Final

import msgspec

from ingest.accept.canonical import Refused
from schemas.mapping import Column

_DECODE: Final = msgspec.json.Decoder().decode


def as_data(value: object, name: str) -> Any:
    """The value itself, or what its JSON text means; None if it is blank. Raises Refused."""
    if type(value) is not str:
        return value
    if not value.strip():
        return None
    try:
        return _DECODE(value)
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError) as err:
        raise Refused("bad_json", name, "is not JSON") from err


def step_into(value: object, column: Column) -> Any:
    """The value at the end of the steps; None where one leads nowhere. Raises Refused for text that is not JSON."""
    for step in column.steps:
        value = as_data(value, column.base)
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list):
            value = _in_list(value, step)
        else:
            return None
    return value


def _in_list(values: list[Any], step: str) -> Any:
    if step.isdecimal():
        return values[int(step)] if int(step) < len(values) else None
    for each in values:
        if isinstance(each, dict) and each.get("key") == step:
            return _only(each.get("value"))
    return None


def _only(value: Any) -> Any:
    """The one value that is not null of {"string_value": …, "int_value": …}."""
    if not isinstance(value, dict):
        return value
    return next((each for each in value.values() if each is not None), None)
