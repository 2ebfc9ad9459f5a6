"""Administration over HTTP: sources, tokens, people, the audit log, erasure. Every action is in the audit log."""

from collections.abc import Iterable
from typing import Annotated, Any
from uuid import UUID

from fastapi import FastAPI, Path, Query, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from infra.adapters.postgres.people import PersonRow
from infra.adapters.postgres.sources import BlockedRow, SourceRow
from infra.adapters.postgres.tokens import lifetime
from infra.drivers.http.api import examples
from infra.drivers.http.api.answers import answer
from infra.drivers.http.api.core import PREFIX, Api, Caller, Limit, need
from infra.drivers.http.api.erasure_lists import Whom
from infra.drivers.http.api.erasure_lists import mount as mount_lists
from infra.drivers.http.api.streams import begun, streamed
from infra.drivers.http.our_address import our_address
from infra.drivers.http.session_cookie import csrf_token
from query.answers import iso
from schemas.roles import AUDIT, DISCLOSE, ERASE, PEOPLE, READ, RIGHTS, SOURCES, TOKENS


class NewSource(BaseModel):
    """A sender of touchpoints."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"name": "web"}})
    name: str = Field(min_length=1, max_length=64)


class SourceSettings(BaseModel):
    """The settings to change. Absent settings stay as they are; null resets a setting to its default."""

    model_config = ConfigDict(extra="forbid", strict=True, json_schema_extra={"example": examples.SOURCE_SETTINGS})
    enabled: bool | None = Field(None, description="if false, its events are refused with 404 `source_off`")
    trusted_clock: bool | None = Field(None, description="if true, its timestamps are not corrected")
    events_per_s: float | None = Field(None, description="over all doors together; above it, 429; null: no limit")
    burst: float | None = Field(None, description="events accepted in one burst; null: two seconds' worth")
    origins: list[str] | None = Field(
        None, description="origins whose pages may send, such as https://shop.example; default: all"
    )


class NewToken(BaseModel):
    """A new API token."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"role": "analyst"}})
    role: str = Field(max_length=20)
    expires: str | None = Field(None, max_length=10, description="lifetime such as 90d, 12h or 4w; null: never expires")


class NewPerson(BaseModel):
    """Somebody who signs in to the pages."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"name": "ada", "role": "staff"}})
    name: str = Field(max_length=64)
    role: str = Field(max_length=20)


class NewRole(BaseModel):
    """The new role."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"role": "marketer"}})
    role: str = Field(max_length=20)


class Erasure(BaseModel):
    """Whom to erase. `force`: even if this may be more than one person; `suppress`: also refuse their future events."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": examples.ERASURE})
    kind: str = Field(max_length=64, description="the identifier's kind, or `profile`")
    value: str | int
    force: bool = False
    suppress: bool = False


def mount(app: FastAPI, api: Api) -> None:
    """Add the routes of this area."""
    _me(app, api)
    _sources(app, api)
    _tokens(app, api)
    _people(app, api)
    _links(app, api)
    _audit(app, api)
    _erase(app, api)
    mount_lists(app, api)
    _export_person(app, api)


def _me(app: FastAPI, api: Api) -> None:
    reader = need(api, READ)

    @app.get(f"{PREFIX}/me", tags=["administration"], responses=examples.ok(examples.ME))
    async def read_me(caller: Caller = reader) -> Response:
        """The caller and their rights.

        With a session cookie, also `csrf_token`: send it as X-CSRF-Token with requests that change something.
        """
        rights = sorted(right for right, roles in RIGHTS.items() if caller.role in roles)
        found: dict[str, Any] = {"name": caller.name, "role": caller.role, "rights": rights}
        if caller.by_cookie:
            found["csrf_token"] = csrf_token(caller.secret)
        return answer(found)


# --- sources and tokens ------------------------------------------------------------------------------------------

SourceName = Annotated[str, Path(max_length=64, examples=["web"])]


def _sources(app: FastAPI, api: Api) -> None:
    admin = need(api, SOURCES)

    @app.get(f"{PREFIX}/sources", tags=["administration"], responses=examples.ok([examples.SOURCE]))
    async def list_sources(_caller: Caller = admin) -> Response:
        """List the sources that send touchpoints, how many valid write keys each has, and which ids named nobody."""
        rows, blocked = await api.run(lambda: (api.sources.list(), api.sources.blocked()))
        return answer([_source(row, blocked.get(row.name, ())) for row in rows])

    @app.post(f"{PREFIX}/sources", tags=["administration"], responses=examples.ok(examples.KEY))
    async def create_source(body: NewSource, request: Request, caller: Caller = admin) -> Response:
        """Create a source. Its write key is shown only once."""
        key = await api.run(lambda: api.sources.create(body.name, api.now()))
        await api.note(caller, "source.created", source=body.name)
        return answer(_key(request, body.name, key))

    @app.post(f"{PREFIX}/sources/{{name}}/rotate", tags=["administration"], responses=examples.ok(examples.KEY))
    async def rotate_source(name: SourceName, request: Request, caller: Caller = admin) -> Response:
        """Give a source a new write key; the old ones stop working within a second."""
        key = await api.run(lambda: api.sources.rotate(name, api.now()))
        await api.note(caller, "source.rotated", source=name)
        return answer(_key(request, name, key))

    @app.post(f"{PREFIX}/sources/{{name}}/revoke", tags=["administration"], responses=examples.ok(examples.KEYS_ENDED))
    async def revoke_source(name: SourceName, caller: Caller = admin) -> Response:
        """Revoke all write keys of a source, within a second. What it has sent stays."""
        count = await api.run(lambda: api.sources.revoke(name, api.now()))
        await api.note(caller, "source.revoked", source=name)
        return answer({"name": name, "revoked": count})

    @app.post(
        f"{PREFIX}/sources/{{name}}/settings", tags=["administration"], responses=examples.ok(examples.SOURCE_CHANGED)
    )
    async def change_source(name: SourceName, body: SourceSettings, caller: Caller = admin) -> Response:
        """Change some settings of a source; they take effect within a second."""
        changes = body.model_dump(exclude_unset=True)
        settings = await api.run(lambda: api.sources.change(name, changes))
        await api.note(caller, "source.changed", source=name, settings=sorted(changes))
        return answer({"name": name, "settings": settings})


def _source(row: SourceRow, blocked: Iterable[BlockedRow]) -> dict[str, Any]:
    told = [{**each._asdict(), "last_at": iso(each.last_at)} for each in blocked]
    return {**row._asdict(), "created_at": iso(row.created_at), "blocked": told}


def _key(request: Request, name: str, key: str) -> dict[str, str]:
    curl = examples.CURL.format(url=our_address(request.scope, request.headers), key=key)
    return {"name": name, "write_key": key, "curl": curl}


def _tokens(app: FastAPI, api: Api) -> None:
    admin = need(api, TOKENS)

    @app.get(f"{PREFIX}/tokens", tags=["administration"], responses=examples.ok([examples.TOKEN]))
    async def list_tokens(_caller: Caller = admin) -> Response:
        """List all tokens by id, without their secrets, including revoked ones."""
        rows = await api.run(api.tokens.overview)
        return answer(
            [
                {
                    "id": row.id,
                    "role": row.role,
                    "created_at": iso(row.created_at),
                    "revoked_at": None if row.revoked_at is None else iso(row.revoked_at),
                    "expires_at": None if row.expires_at is None else iso(row.expires_at),
                }
                for row in rows
            ]
        )

    @app.post(f"{PREFIX}/tokens", tags=["administration"], responses=examples.ok(examples.TOKEN_MADE))
    async def create_token(body: NewToken, caller: Caller = admin) -> Response:
        """Create a token. It is shown only once; only its hash is stored."""
        now, lives = api.now(), None if body.expires is None else lifetime(body.expires)
        name, token = await api.run(lambda: api.tokens.create(body.role, now, lives))
        expires_at = None if lives is None else iso(now + lives)
        await api.note(caller, "token.created", token=name, for_role=body.role, expires_at=expires_at)
        return answer({"id": name, "token": token, "role": body.role, "expires_at": expires_at})

    @app.post(
        f"{PREFIX}/tokens/{{token_id}}/revoke", tags=["administration"], responses=examples.ok(examples.TOKEN_ENDED)
    )
    async def revoke_token(
        token_id: Annotated[str, Path(max_length=64, examples=["3f9a01bc"])], caller: Caller = admin
    ) -> Response:
        """Revoke a token and the sessions it opened, within a second."""
        name = await api.run(lambda: api.tokens.revoke(token_id, api.now()))
        await api.note(caller, "token.revoked", token=name)
        return answer({"id": name, "revoked": True})


# --- people ------------------------------------------------------------------------------------------------------

PersonName = Annotated[str, Path(max_length=64, examples=["ada"])]


def _people(app: FastAPI, api: Api) -> None:
    admin = need(api, PEOPLE)

    @app.get(f"{PREFIX}/people", tags=["administration"], responses=examples.ok([examples.PERSON]))
    async def list_people(_caller: Caller = admin) -> Response:
        """List the users of the pages, and when they were last seen."""
        return answer([_person(row) for row in await api.run(api.people.overview)])

    @app.post(f"{PREFIX}/people/{{name}}/role", tags=["administration"], responses=examples.ok(examples.PERSON_ROLE))
    async def set_role(name: PersonName, body: NewRole, caller: Caller = admin) -> Response:
        """Change a user's role, effective from their next request. The last admin must remain one (400)."""
        await api.run(lambda: api.people.set_role(name, body.role))
        await api.note(caller, "person.role_set", person=name, to=body.role)
        return answer({"name": name, "role": body.role})

    @app.post(f"{PREFIX}/people/{{name}}/disable", tags=["administration"], responses=examples.ok(examples.DISABLED))
    async def disable_person(name: PersonName, caller: Caller = admin) -> Response:
        """Stop a user from signing in, and end their sessions."""
        await api.run(lambda: api.people.disable(name, api.now()))
        await api.note(caller, "person.disabled", person=name)
        return answer({"name": name, "disabled": True})


def _person(row: PersonRow) -> dict[str, Any]:
    state = "disabled" if row.disabled_at else "active" if row.has_password else "invited"
    return {
        "name": row.name,
        "role": row.role,
        "state": state,
        "created_at": iso(row.created_at),
        "seen_at": None if row.seen_at is None else iso(row.seen_at),
    }


def _links(app: FastAPI, api: Api) -> None:
    admin = need(api, PEOPLE)

    @app.post(f"{PREFIX}/people", tags=["administration"], responses=examples.ok(examples.INVITED))
    async def invite_person(body: NewPerson, request: Request, caller: Caller = admin) -> Response:
        """Create a user. `link` lets them set a password: it is shown only once and works once, within a day."""
        secret = await api.run(lambda: api.people.invite(body.name, body.role, api.now()))
        name = body.name.strip().lower()
        await api.note(caller, "person.invited", person=name, as_role=body.role)
        return answer({"name": name, "role": body.role, "link": f"{request.base_url}welcome/{secret}"})

    @app.post(f"{PREFIX}/people/{{name}}/link", tags=["administration"], responses=examples.ok(examples.LINKED))
    async def new_link(name: PersonName, request: Request, caller: Caller = admin) -> Response:
        """Create a new link for somebody who lost theirs or forgot their password. Earlier links stop working."""
        secret = await api.run(lambda: api.people.link(name, api.now()))
        await api.note(caller, "person.linked", person=name)
        return answer({"name": name, "link": f"{request.base_url}welcome/{secret}"})


# --- audit and erasure -------------------------------------------------------------------------------------------


def _audit(app: FastAPI, api: Api) -> None:
    auditor = need(api, AUDIT)

    @app.get(f"{PREFIX}/audit", tags=["administration"], responses=examples.ok(examples.AUDIT))
    async def list_audit(
        limit: Limit = 100,
        before: Annotated[int | None, Query(ge=1, description="`next` of the previous page")] = None,
        profile_id: Annotated[UUID | None, Query(description="only entries about this profile")] = None,
        _caller: Caller = auditor,
    ) -> Response:
        """List who looked at whom and who did what, newest first."""
        profile = None if profile_id is None else profile_id.bytes

        rows = await api.run(lambda: api.audit.page(before, limit, profile))
        items = [{**row._asdict(), "at": iso(row.at)} for row in rows]
        return answer({"items": items, "next": rows[-1].seq if len(rows) == limit and rows[-1].seq > 1 else None})

    @app.get(f"{PREFIX}/audit/verify", tags=["administration"], responses=examples.ok(examples.VERIFIED))
    async def verify_audit(_caller: Caller = auditor) -> Response:
        """Verify that no entry was altered or removed. Keep a copy of `head` elsewhere to compare with."""
        problems = await api.run_slowly(api.audit.verify)
        seq, hash_ = await api.run(api.audit.head)
        return answer({"whole": not problems, "problems": problems, "head": {"seq": seq, "hash": hash_}})


def _erase(app: FastAPI, api: Api) -> None:
    eraser = need(api, ERASE)

    @app.post(f"{PREFIX}/erase", tags=["administration"], responses=examples.ok(examples.ERASED))
    async def erase(body: Erasure, caller: Caller = eraser) -> Response:
        """Erase the customer an identifier belongs to: identifiers, personal values, profile. Cannot be undone.

        Takes a few seconds. 409 `erasure_refused` says why this may be more than one person: check, then use `force`.
        If nobody has the identifier, `"found"` is false.
        """
        from infra.app.erasing import erase_person  # noqa: PLC0415  # phone numbers' tables take 0.1 s to import

        value = str(body.value)
        done = await api.run_erasing(
            lambda: erase_person(api.session, body.kind, value, force=body.force, suppress=body.suppress)
        )
        detail = {name: done[name] for name in ("found", "identifiers", "events")}
        await api.note(caller, "profile.erased", None, kind=body.kind, suppress=body.suppress, **detail)
        return answer(done)


def _export_person(app: FastAPI, api: Api) -> None:
    discloser = need(api, DISCLOSE)

    @app.post(
        f"{PREFIX}/export-person",
        tags=["administration"],
        response_class=Response,
        responses={200: {"content": {"application/zip": {"example": "PK…"}}}},
    )
    async def export_person(body: Whom, caller: Caller = discloser) -> Response:
        """Download everything stored about one person as a ZIP: a page to read, and the same data as JSON.

        Streamed as it is read: if reading fails, the connection is closed before the last chunk, so the file cannot
        be opened. The audit entry is written before the download starts.
        """
        from infra.app.exporting import ACTION, exported  # noqa: PLC0415  # phone numbers' tables take 0.1 s to import
        from query.people.person_export import name_of_file  # noqa: PLC0415

        profiles = api.reading.profiles
        profile_id = await api.run(lambda: profiles.owner(profiles.token(body.kind, body.value)))
        await api.note(caller, ACTION, profile_id)
        chunks = await api.run_slowly(lambda: begun(exported(api.session, api.reading, profile_id)))
        disposition = f'attachment; filename="{name_of_file(profile_id)}"'
        headers = {"Cache-Control": "no-store", "Content-Disposition": disposition}
        return StreamingResponse(
            streamed(chunks, api.run_slowly, lambda: api.watch(caller)), 200, headers, "application/zip"
        )
