"""What the `previousId` of an alias names: an anonymous id, or a user id that is already known."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from ingest.accept.draft import Draft, Pair

# What SDKs make themselves before a login. Whoever sends another text may mean a user id.
_MADE_BY_SDK: Final = re.compile(r"[0-9A-Fa-f]{8}(-?[0-9A-Fa-f]{4}){3}-?[0-9A-Fa-f]{12}")


def name_previous(
    drafts: Sequence[Draft],
    wanted: dict[Pair, None],
    normalise: Callable[[str, object], str | None],
    is_known: Callable[[str, str], bool],
) -> None:
    """Give each alias the identifiers of its `previousId`, and add all its identifiers to `wanted`.

    `wanted`: the identifiers of all other items of the same requests. `is_known`: whether the vault has one. Known as a
    user id alone: that. Known as neither: both, since the user of that id may come later (a→b after b→c), unless an SDK
    made it. Else an anonymous id: on a shared browser, two users' aliases name the same one.
    """
    for draft in drafts:
        wanted.update(dict.fromkeys(draft.pairs))
    known = dict(wanted)
    for draft in drafts:
        for kind in _kinds(draft, known, normalise, is_known):
            value = normalise(kind, draft.previous)
            if value is not None and (kind, value) not in draft.pairs:
                draft.pairs.append((kind, value))
        wanted.update(dict.fromkeys(draft.pairs))


def _kinds(
    draft: Draft,
    known: Mapping[Pair, None],
    normalise: Callable[[str, object], str | None],
    is_known: Callable[[str, str], bool],
) -> tuple[str, ...]:
    user = normalise("user_id", draft.previous)
    anonymous = normalise("anonymous_id", draft.previous)
    if user is None or anonymous is None or ("user_id", user) in draft.pairs:
        return ("anonymous_id",)
    if ("anonymous_id", anonymous) in known or is_known("anonymous_id", anonymous):
        return ("anonymous_id",)
    if ("user_id", user) in known or is_known("user_id", user):
        return ("user_id",)
    return ("anonymous_id",) if _MADE_BY_SDK.fullmatch(anonymous) else ("user_id", "anonymous_id")
