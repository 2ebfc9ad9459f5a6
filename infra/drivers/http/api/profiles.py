"""Customers over HTTP: by identifier, by search, as a list, their timeline, and what staff record about them.

Without the right to see personal values, nobody can be found by one: searching needs that right, a list does not.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import FastAPI, Path, Query
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from infra.app.auditing import coded, listed_detail
from infra.drivers.http.api import examples
from infra.drivers.http.api.answers import answer
from infra.drivers.http.api.core import PREFIX, Api, Caller, Cursor, Limit, need, refusal
from query.people.listing import Wanted
from schemas.errors import BadRequest, Erased, NotFound, Problem, SharedIdentifier
from schemas.identifiers import KINDS
from schemas.roles import ACT, PERSONAL, READ

ProfileId = Annotated[UUID, Path(description="any id the profile has ever had", examples=[examples.PROFILE["id"]])]


class Lookup(BaseModel):
    """An identifier, in the body so that it is in no access log."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": examples.LOOKUP})
    kind: str = Field(max_length=64)
    value: str | int = Field(description="as the person or system wrote it; it is normalised")


class Action(BaseModel):
    """What staff record about a customer. `action` determines which fields are needed."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": examples.ACTION})
    action: Literal["note", "call", "complaint", "resolve_complaint", "correct_trait", "withdraw_correction"]
    text: str = Field("", max_length=4_000, description="the text of a note, or a remark on the other actions")
    direction: Literal["in", "out"] | None = Field(None, description="for a call")
    topic: str | None = Field(None, max_length=200, description="for a call or complaint")
    complaint_id: str | None = Field(None, max_length=200, description="the complaint to resolve")
    name: str | None = Field(None, max_length=100, description="the trait's name")
    value: str | int | float | bool | None = Field(None, description="the trait's correct value; null unsets it")

    def needed(self, field: str) -> str:
        """A field that this action requires. Raises BadRequest."""
        value = getattr(self, field)
        if value is None:
            raise BadRequest(f"the action {self.action} needs {field}", [Problem(field, "is missing")])
        return str(value)


def mount(app: FastAPI, api: Api) -> None:
    """Add the routes of this area."""
    _lookups(app, api)
    _by_id(app, api)
    _timeline(app, api)
    _list(app, api)
    _actions(app, api)
    _by_identifier(app, api)  # last, because its path matches any two segments


def _lookups(app: FastAPI, api: Api) -> None:
    finder = need(api, PERSONAL)

    @app.post(f"{PREFIX}/profiles/lookup", tags=["profiles"], responses=examples.ok(examples.PROFILE))
    async def look_up(body: Lookup, caller: Caller = finder) -> Response:
        """Find a profile by an identifier in the body."""
        return await _found(api, caller, body.kind, body.value)


def _by_id(app: FastAPI, api: Api) -> None:
    profiles, reader = api.reading.profiles, need(api, READ)

    @app.get(f"{PREFIX}/profiles/profile/{{profile_id}}", tags=["profiles"], responses=examples.ok(examples.PROFILE))
    async def read_by_id(
        profile_id: Annotated[str, Path(max_length=100, examples=[examples.PROFILE["id"]])], caller: Caller = reader
    ) -> Response:
        """A profile by its id. Personal values are included for roles that may see them."""
        personal = caller.may(PERSONAL)
        return await _viewed(api, caller, lambda: profiles.by_identifier("profile", profile_id, personal=personal))

    @app.get(
        f"{PREFIX}/profiles/{{profile_id:uuid}}/details", tags=["profiles"], responses=examples.ok(examples.DETAILS)
    )
    async def read_details(profile_id: ProfileId, caller: Caller = reader) -> Response:
        """What the profile's page shows: the source and time of each trait, and each segment's sentence."""
        personal = caller.may(PERSONAL)
        return await _viewed(api, caller, lambda: profiles.details(profile_id.bytes, personal=personal))


def _by_identifier(app: FastAPI, api: Api) -> None:
    finder = need(api, PERSONAL)

    @app.get(f"{PREFIX}/profiles/{{kind}}/{{value:path}}", tags=["profiles"], responses=examples.ok(examples.PROFILE))
    async def read_profile(
        kind: Annotated[str, Path(max_length=64, examples=["loyalty_card"])],
        value: Annotated[str, Path(max_length=512, examples=["2001"])],
        caller: Caller = finder,
    ) -> Response:
        """Find a profile by an identifier. Needs a role that sees personal values."""
        if value in ("timeline", "details", "actions") and kind not in (*KINDS, "profile"):
            reason = "is not a UUID; profile ids are UUIDs"  # a value "timeline" of a custom kind is found by lookup
            raise BadRequest("not a profile id", [Problem("profile_id", reason)])
        return await _found(api, caller, kind, value)


async def _found(api: Api, caller: Caller, kind: str, value: str | int) -> Response:
    """The profile of an identifier, or the customers who share it. The query is audited even if nobody has it."""
    shown: list[dict[str, Any]] = []
    try:
        return await _viewed(api, caller, lambda: api.reading.profiles.by_identifier(kind, value))
    except (NotFound, Erased, SharedIdentifier) as err:
        if isinstance(err, SharedIdentifier):
            ids = err.profile_ids
            shown = await api.run(lambda: api.reading.search.cards_of(ids, personal=True))
        words = await api.run(lambda: coded(api.session, str(value)))
        await api.note(caller, "customers.searched", shown=len(shown), kind=kind, words=words)
        if not isinstance(err, SharedIdentifier):
            raise
        return answer(err.body() | {"items": shown, "more": err.more}, err.status)


async def _viewed(api: Api, caller: Caller, read: Callable[[], Mapping[str, Any]]) -> Response:
    found = await api.run(read)
    await api.note(caller, "profile.viewed", UUID(found["id"]).bytes)
    return answer(found)


def _timeline(app: FastAPI, api: Api) -> None:
    profiles, timeline, reader = api.reading.profiles, api.reading.timeline, need(api, READ)

    @app.get(
        f"{PREFIX}/profiles/{{profile_id:uuid}}/timeline", tags=["profiles"], responses=examples.ok(examples.TIMELINE)
    )
    async def read_timeline(
        profile_id: ProfileId,
        limit: Limit = 50,
        cursor: Cursor = None,
        type_: Annotated[list[str] | None, Query(alias="type", description="only these types of event")] = None,
        caller: Caller = reader,
    ) -> Response:
        """The profile's events, newest first; sealed values are included for roles that may see them."""
        personal, types = caller.may(PERSONAL), frozenset(type_) if type_ else None

        def read() -> tuple[bytes, Mapping[str, Any]]:
            owner = profiles.owner(profile_id.bytes)
            return owner, timeline.page(owner, cursor, limit, personal=personal, types=types)

        owner, page = await api.run(read)
        await api.note(caller, "timeline.viewed", owner)
        return answer(page)


def _list(app: FastAPI, api: Api) -> None:
    reader = need(api, READ)

    @app.get(f"{PREFIX}/profiles", tags=["profiles"], responses=examples.ok(examples.SEARCH))
    async def list_profiles(
        search: Annotated[
            str | None, Query(max_length=200, examples=["ada"], description="words of a name, phone number or address")
        ] = None,
        segment: Annotated[str | None, Query(max_length=100, description="only members of this segment")] = None,
        stage: Annotated[str | None, Query(max_length=100, description="only in this stage")] = None,
        risk: Annotated[str | None, Query(max_length=20, description="only at this risk level")] = None,
        attribute: Annotated[
            list[str] | None, Query(description="NAME:VALUE of a non-personal trait; repeat for more")
        ] = None,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        cursor: Cursor = None,
        caller: Caller = reader,
    ) -> Response:
        """List customers by segment, stage, risk and attributes, ordered by id; or find them with `search`.

        `search` matches whole words and prefixes of names and addresses, last digits of numbers, or any identifier,
        most recently seen first. It cannot be combined with filters and needs a role that sees personal values. For
        other roles, names, phones and e-mail addresses are null. A page may be short although `next` is set.
        """
        if search is None:
            wanted = Wanted(segment, stage, risk, _attributes(attribute or []))
            return await _listed(api, caller, wanted, cursor, limit)
        if not caller.may(PERSONAL):
            raise refusal(caller.role, PERSONAL)
        if segment or stage or risk or attribute:
            raise BadRequest(
                "search cannot be combined with filters", [Problem("search", "leave out either search or all filters")]
            )
        return await _searched(api, caller, search, cursor, limit)


def _attributes(given: Sequence[str]) -> dict[str, str]:
    """NAME:VALUE, each. Raises BadRequest."""
    found = dict[str, str]()
    for each in given:
        name, colon, value = each.partition(":")
        if not colon or name in found:
            raise BadRequest("not an attribute", [Problem("attribute", "must be NAME:VALUE, with each name only once")])
        found[name] = value
    return found


async def _listed(api: Api, caller: Caller, wanted: Wanted, cursor: str | None, limit: int) -> Response:
    page, personal = api.reading.listing.page, caller.may(PERSONAL)
    found = await api.run(lambda: page(wanted, cursor, limit, personal=personal))
    await api.note(caller, "customers.listed", **listed_detail(wanted, found))
    return answer(found)


async def _searched(api: Api, caller: Caller, search: str, cursor: str | None, limit: int) -> Response:
    if api.throttle is not None:
        api.throttle.search(caller.name)
    find = api.reading.search.find

    def look() -> tuple[Mapping[str, Any], list[str]]:
        return find(search, limit=limit, cursor=cursor), coded(api.session, search)

    found, words = await api.run(look)
    await api.note(caller, "customers.searched", shown=len(found["items"]), words=words)
    return answer(found)


def _actions(app: FastAPI, api: Api) -> None:
    profiles, staff = api.reading.profiles, need(api, ACT)

    @app.post(
        f"{PREFIX}/profiles/{{profile_id:uuid}}/actions", tags=["profiles"], responses=examples.ok(examples.ACTED)
    )
    async def act(profile_id: ProfileId, body: Action, caller: Caller = staff) -> Response:
        """Record a note, call or complaint, or correct a trait: an event of the source `staff`, durable on return.

        A correction overrides every source until it is corrected again or withdrawn. `GET events/{event_id}` shows
        whether it has been applied.
        """

        def work() -> tuple[bytes, str]:
            owner = profiles.owner(profile_id.bytes)
            return owner, _act(api, owner, caller.name, body)()

        owner, event_id = await api.run(work)
        await api.note(caller, _DONE[body.action], owner)
        return answer({"event_id": event_id})


_DONE = {
    "note": "note.added",
    "call": "call.recorded",
    "complaint": "complaint.opened",
    "resolve_complaint": "complaint.resolved",
    "correct_trait": "trait.corrected",
    "withdraw_correction": "correction.withdrawn",
}


def _act(api: Api, owner: bytes, who: str, body: Action) -> Callable[[], str]:
    acting = api.acting.get()
    needed, text = body.needed, body.text
    match body.action:
        case "note":
            return lambda: acting.note(owner, who, text)
        case "call":
            return lambda: acting.call(owner, who, direction=needed("direction"), topic=needed("topic"), text=text)
        case "complaint":
            return lambda: acting.complaint(owner, who, topic=needed("topic"), text=text)
        case "resolve_complaint":
            return lambda: acting.resolve_complaint(owner, who, complaint_id=needed("complaint_id"), text=text)
        case "correct_trait":
            return lambda: acting.correct_trait(owner, who, needed("name"), body.value)
        case "withdraw_correction":
            return lambda: acting.withdraw_correction(owner, who, needed("name"))
