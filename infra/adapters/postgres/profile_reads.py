"""A profile as readers need it: the columns of a statement, and a row of them as `ProfileRead`."""

from collections.abc import Sequence
from typing import Any, Final

from schemas.reads import ProfileRead

DECIDED: Final = """p.version, p.state, p.segments, p.lifecycle, p.risk, p.reasons, p.first_us, p.last_us,
    p.event_count, m.tokens, m.kinds"""
"""What follows the profile's id. `p` is a row of its revision's profiles, `m` the identifiers it owns."""

OWNED: Final = """left join lateral (
    select array_agg(o.token order by o.last_us desc, o.last_n desc, o.last_event desc, o.token) tokens,
        array_agg(o.kind order by o.last_us desc, o.last_n desc, o.last_event desc, o.token) kinds
    from tokens o where o.profile_id = p.profile_id) m on true"""


def profile_read(row: Sequence[Any]) -> ProfileRead:
    """From the profile's id and DECIDED."""
    owner, version, state, mask, stage, risk, reasons, first, last, count, tokens, kinds = row
    return ProfileRead(
        *(owner, version, bytes(state), int.from_bytes(bytes(mask), "little"), stage, risk),
        *([(code, points) for code, points in reasons], first, last, count),
        list(zip(tokens or (), kinds or (), strict=True)),
    )
