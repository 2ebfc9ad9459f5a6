"""Pure steps that lift an old stored payload to the next version.

Stored bytes never change; readers carry the history.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from schemas.errors import RecordUnreadable

Payload = dict[str, Any]


def _same(payload: Payload) -> Payload:
    return payload


UPCASTERS: Final[Mapping[tuple[str, int], Callable[[Payload], Payload]]] = {
    ("touchpoint", 1): _same,  # version 2 added `n` and `flags`, whose absence means 0 and none
}
"""One step for each (form, version) below the current one: `(form, n)` makes n + 1 of n."""


def lift(
    form: str,
    version: int,
    current: int,
    payload: Payload,
    steps: Mapping[tuple[str, int], Callable[[Payload], Payload]] = UPCASTERS,
) -> Payload:
    """Lift a payload from `version` to `current`, one version at a time. Raises RecordUnreadable below v1."""
    if version < 1:
        raise RecordUnreadable(f"no reader for {form} v{version}")
    for step in range(version, current):
        payload = steps[form, step](payload)
    return payload
