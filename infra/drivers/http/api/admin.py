"""Administration over HTTP: sources, tokens, people, the audit log, erasure. Each deed is in the audit log."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import FastAPI, Path, Query, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from infra.adapters.postgres.people import PersonRow
from infra.adapters.postgres.tokens import lifetime
from infra.drivers.http.api import examples
from infra.drivers.http.api.answers import answer
from infra.drivers.http.api.core import PREFIX, Api, Caller, Limit, need
from infra.drivers.http.api.erasure_lists import Whom
from infra.drivers.http.api.erasure_lists import mount as mount_lists
from infra.drivers.http.api.streams import begun, streamed
from infra.drivers.http.session_cookie import csrf_token
from query.answers import iso
from schemas.roles import AUDIT, DISCLOSE, ERASE, PEOPLE, READ, RIGHTS, SOURCES, TOKENS


class NewSource(BaseModel):
    """A sender of touchpoints."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"name": "web"}})
    name: str = Field(min_length=1, max_length=64)


class SourceSettings(BaseModel):
    """Settings of a source that change; what is absent stays, null takes a setting back to its default."""

    model_config = ConfigDict(extra="forbid", strict=True, json_schema_extra={"example": examples.SOURCE_SETTINGS})
    enabled: bool | None = Field(None, description="false: its events are refused with 404 `source_off`")
    trusted_clock: bool | None = Field(None, description="true: a server whose times are not corrected")
    events_per_s: float | None = Field(None, description="over all doors of the folder; above it 429; null: no limit")
    burst: float | None = Field(None, description="events that may come at once; null: two seconds' worth")
    origins: list[str] | None = Field(None, description="pages that may send, such as https://shop.example; else all")


class NewToken(BaseModel):
    """A token of the API."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"role": "analyst"}})
    role: str = Field(max_length=20)
    expires: str | None = Field(None, max_length=10, description="after so long, such as 90d, 12h or 4w; null: never")


class NewPerson(BaseModel):
    """Somebody who signs in to the pages."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"name": "ada", "role": "staff"}})
    name: str = Field(max_length=64)
    role: str = Field(max_length=20)


class NewRole(BaseModel):
    """What somebody may do from now on."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"role": "marketer"}})
    role: str = Field(max_length=20)


class Erasure(BaseModel):
    """Whom to erase. `force`: even if it may be more than one person; `suppress`: and refuse their events."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": examples.ERASURE})
    kind: str = Field(max_length=64, description="of the identifier, or `profile`")
    value: str | int
    force: bool = False
    suppress: bool = False


def mount(app: FastAPI, api: Api) -> None:
    """Add the addresses of this area."""
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
        """Who asks and what they may.

        With a cookie also `csrf_token`, for the header X-CSRF-Token of requests that change something.
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
        """Who sends touchpoints, and how many write keys of each work."""
        rows = await api.run(api.sources.list)
        return answer([{**row._asdict(), "created_at": iso(row.created_at)} for row in rows])

    @app.post(f"{PREFIX}/sources", tags=["administration"], responses=examples.ok(examples.KEY))
    async def create_source(body: NewSource, request: Request, caller: Caller = admin) -> Response:
        """Make a source. Its write key is shown this once."""
        key = await api.run(lambda: api.sources.create(body.name, api.now()))
        await api.note(caller, "source.created", source=body.name)
        return answer(_key(request, body.name, key))

    @app.post(f"{PREFIX}/sources/{{name}}/rotate", tags=["administration"], responses=examples.ok(examples.KEY))
    async def rotate_source(name: SourceName, request: Request, caller: Caller = admin) -> Response:
        """Give a source a new write key; the old ones end within a second."""
        key = await api.run(lambda: api.sources.rotate(name, api.now()))
        await api.note(caller, "source.rotated", source=name)
        return answer(_key(request, name, key))

    @app.post(f"{PREFIX}/sources/{{name}}/revoke", tags=["administration"], responses=examples.ok(examples.KEYS_ENDED))
    async def revoke_source(name: SourceName, caller: Caller = admin) -> Response:
        """End all write keys of a source within a second; what it sent stays."""
        count = await api.run(lambda: api.sources.revoke(name, api.now()))
        await api.note(caller, "source.revoked", source=name)
        return answer({"name": name, "revoked": count})

    @app.post(
        f"{PREFIX}/sources/{{name}}/settings", tags=["administration"], responses=examples.ok(examples.SOURCE_CHANGED)
    )
    async def change_source(name: SourceName, body: SourceSettings, caller: Caller = admin) -> Response:
        """Change some settings of a source; every door keeps to them within a second."""
        changes = body.model_dump(exclude_unset=True)
        settings = await api.run(lambda: api.sources.change(name, changes))
        await api.note(caller, "source.changed", source=name, settings=sorted(changes))
        return answer({"name": name, "settings": settings})


def _key(request: Request, name: str, key: str) -> dict[str, str]:
    curl = examples.CURL.format(url=str(request.base_url).rstrip("/"), key=key)
    return {"name": name, "write_key": key, "curl": curl}


def _tokens(app: FastAPI, api: Api) -> None:
    admin = need(api, TOKENS)

    @app.get(f"{PREFIX}/tokens", tags=["administration"], responses=examples.ok([examples.TOKEN]))
    async def list_tokens(_caller: Caller = admin) -> Response:
        """Every token by its id, without its secret; revoked ones too."""
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
        """Make a token. It is shown this once and stored as its hash alone."""
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
        """Refuse a token, and the sessions it opened, from now on (within a second)."""
        name = await api.run(lambda: api.tokens.revoke(token_id, api.now()))
        await api.note(caller, "token.revoked", token=name)
        return answer({"id": name, "revoked": True})


# --- people ------------------------------------------------------------------------------------------------------

PersonName = Annotated[str, Path(max_length=64, examples=["ada"])]


def _people(app: FastAPI, api: Api) -> None:
    admin = need(api, PEOPLE)

    @app.get(f"{PREFIX}/people", tags=["administration"], responses=examples.ok([examples.PERSON]))
    async def list_people(_caller: Caller = admin) -> Response:
        """Who signs in to the pages, and when they were last seen."""
        return answer([_person(row) for row in await api.run(api.people.overview)])

    @app.post(f"{PREFIX}/people/{{name}}/role", tags=["administration"], responses=examples.ok(examples.PERSON_ROLE))
    async def set_role(name: PersonName, body: NewRole, caller: Caller = admin) -> Response:
        """Give somebody another role, from their next request on. The last admin stays one (400)."""
        await api.run(lambda: api.people.set_role(name, body.role))
        await api.note(caller, "person.role_set", person=name, to=body.role)
        return answer({"name": name, "role": body.role})

    @app.post(f"{PREFIX}/people/{{name}}/disable", tags=["administration"], responses=examples.ok(examples.DISABLED))
    async def disable_person(name: PersonName, caller: Caller = admin) -> Response:
        """Let somebody sign in no more; what they have open ends."""
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
        """Make somebody who may sign in. `link` sets their password: it is shown this once, works once, for a day."""
        secret = await api.run(lambda: api.people.invite(body.name, body.role, api.now()))
        name = body.name.strip().lower()
        await api.note(caller, "person.invited", person=name, as_role=body.role)
        return answer({"name": name, "role": body.role, "link": f"{request.base_url}welcome/{secret}"})

    @app.post(f"{PREFIX}/people/{{name}}/link", tags=["administration"], responses=examples.ok(examples.LINKED))
    async def new_link(name: PersonName, request: Request, caller: Caller = admin) -> Response:
        """A new link for somebody who lost theirs, or their password; earlier links end."""
        secret = await api.run(lambda: api.people.link(name, api.now()))
        await api.note(caller, "person.linked", person=name)
        return answer({"name": name, "link": f"{request.base_url}welcome/{secret}"})


# --- audit and erasure -------------------------------------------------------------------------------------------


def _audit(app: FastAPI, api: Api) -> None:
    auditor = need(api, AUDIT)

    @app.get(f"{PREFIX}/audit", tags=["administration"], responses=examples.ok(examples.AUDIT))
    async def list_audit(
        limit: Limit = 100,
        before: Annotated[int | None, Query(ge=1, description="`next` of the page before")] = None,
        profile_id: Annotated[UUID | None, Query(description="only of this profile")] = None,
        _caller: Caller = auditor,
    ) -> Response:
        """Who looked at whom and who did what, the newest first."""
        profile = None if profile_id is None else profile_id.bytes

        rows = await api.run(lambda: api.audit.page(before, limit, profile))
        items = [{**row._asdict(), "at": iso(row.at)} for row in rows]
        return answer({"items": items, "next": rows[-1].seq if len(rows) == limit and rows[-1].seq > 1 else None})

    @app.get(f"{PREFIX}/audit/verify", tags=["administration"], responses=examples.ok(examples.VERIFIED))
    async def verify_audit(_caller: Caller = auditor) -> Response:
        """Whether every entry is as it was written and none is missing. `head`: keep it elsewhere, to compare."""
        problems = await api.run_slowly(api.audit.verify)
        seq, hash_ = await api.run(api.audit.head)
        return answer({"whole": not problems, "problems": problems, "head": {"seq": seq, "hash": hash_}})


def _erase(app: FastAPI, api: Api) -> None:
    eraser = need(api, ERASE)

    @app.post(f"{PREFIX}/erase", tags=["administration"], responses=examples.ok(examples.ERASED))
    async def erase(body: Erasure, caller: Caller = eraser) -> Response:
        """Erase the customer an identifier belongs to: identifiers, personal values, profile. Cannot be undone.

        Takes some seconds. 409 `erasure_refused` says why it may be more than one person; then look, and `force`.
        An identifier that nobody has: `"found": false`.
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
        """Everything that is kept of one person, as a ZIP: a page to read, and the same as JSON.

        Sent as it is read: where that fails, the connection is closed without the last chunk, and no program opens
        the file. In the audit log before it begins.
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
