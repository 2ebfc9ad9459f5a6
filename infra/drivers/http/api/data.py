"""Events, SQL, the overview's figures and the state of the platform over HTTP."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Final, Literal

from fastapi import FastAPI, Path, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from infra.adapters.postgres.operations import Arrived
from infra.app.record_places import set_aside, shown
from infra.app.retrying import described
from infra.drivers.http.api import examples
from infra.drivers.http.api.answers import answer
from infra.drivers.http.api.core import PREFIX, Api, Caller, need
from query.answers import iso
from query.reports.overview import Figure, Overview
from schemas.errors import BadRequest, Problem, SqlLimit, SqlRefused
from schemas.figures import PERIODS
from schemas.reads import FoundDeadLetter, RegisteredEvent
from schemas.record import uuid_text
from schemas.roles import OPERATE, PERSONAL, READ, RECORDS, SQL
from schemas.store_rows import Verdict

SQL_ROWS: Final = 10_000
_VERDICTS: Final = {
    Verdict.APPLIED: "applied",
    Verdict.DUPLICATE: "duplicate",
    Verdict.CONFLICT: "dead_letter",
    Verdict.QUARANTINED: "dead_letter",
    Verdict.ERASED: "erased",
}


class Statement(BaseModel):
    """One SELECT."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": examples.SQL})
    sql: str = Field(min_length=1, max_length=100_000)
    limit: int = Field(SQL_ROWS, ge=1, le=SQL_ROWS)


def mount(app: FastAPI, api: Api) -> None:
    """Add the routes of this area."""
    _sql(app, api)
    _events(app, api)
    _figures(app, api)
    _dead_letters(app, api)
    _records(app, api)


def _sql(app: FastAPI, api: Api) -> None:
    analyst = need(api, SQL)

    @app.post(f"{PREFIX}/sql", tags=["sql"], responses=examples.ok(examples.SQL_ANSWER))
    async def sql(request: Request, body: Statement, caller: Caller = analyst) -> Response:
        """Run one SELECT over the documented tables, in its own process, when it is your turn.

        Two statements run at a time, taking turns between people. You may have 10 running or waiting; `GET sql/queue`
        shows their places.
        """
        try:
            found = await api.ask_sql(caller, body.sql, body.limit, request.is_disconnected)
        except (SqlRefused, SqlLimit) as err:
            await api.note(caller, "sql.run", refused=err.code)
            raise
        await api.note(caller, "sql.run", rows=len(found["rows"]))
        return answer(found)

    @app.get(f"{PREFIX}/sql/queue", tags=["sql"], responses=examples.ok(examples.SQL_QUEUE))
    async def queue(caller: Caller = analyst) -> Response:
        """How many statements run and wait in this process, and the places of yours: 0 is running, 1 is next."""
        yours = [each._asdict() | {"for_s": round(each.for_s, 1)} for each in api.sql_queue.places(caller.name)]
        return answer({"running": api.sql_queue.running, "waiting": api.sql_queue.waiting, "yours": yours})


# --- events ------------------------------------------------------------------------------------------------------


def _events(app: FastAPI, api: Api) -> None:
    reader, operator = need(api, READ), need(api, OPERATE)

    @app.get(f"{PREFIX}/events", tags=["events"], responses=examples.ok(examples.ARRIVED))
    async def list_events(
        limit: Annotated[int, Query(ge=1, le=500)] = 100,
        source: Annotated[str | None, Query(max_length=64, description="only events of this source")] = None,
        type_: Annotated[
            str | None, Query(alias="type", max_length=100, description="only events of this type")
        ] = None,
        _caller: Caller = operator,
    ) -> Response:
        """List the newest events of the log and dead letters of the door, without personal values.

        `result`: pending, applied, duplicate, dead_letter or erased; `violations`: what was wrong. Filters apply to the
        newest `limit` events of each partition, so they may leave fewer.
        """
        return answer({"items": await api.run(lambda: _arrived(api, limit, source, type_))})

    @app.get(f"{PREFIX}/events/{{event_id:path}}", tags=["events"], responses=examples.ok(examples.EVENT))
    async def read_event(
        event_id: Annotated[str, Path(max_length=512, examples=["m-17"])], caller: Caller = reader
    ) -> Response:
        """What happened to an event, by its id or its message id.

        A message id with characters other than letters, digits and `._:-` is in no table and may name a person: looking
        it up needs a role that sees personal values.
        """
        personal = caller.may(PERSONAL)
        return answer(await api.run(lambda: api.reading.events.status(event_id, personal=personal)))


def _arrived(api: Api, limit: int, source: str | None, type_: str | None) -> list[dict[str, Any]]:
    operations, reads = api.operations, api.reading.reads
    starts = [max(0, end - limit) for end in operations.ends()]
    found = [
        each
        for each in operations.arrived(starts, limit)
        if (source is None or each.source == source) and (type_ is None or each.type == type_)
    ][:limit]
    keys = [bytes.fromhex(each.id.replace("-", "")) for each in found]
    registered = {row.event_key: row for row in reads.registered(keys)}
    letters = {row.event_id: row for row in reversed(reads.letters(keys))}
    rows = [
        (each.received_at, _event(each, registered.get(key), letters.get(key)))
        for each, key in zip(found, keys, strict=True)
    ]
    if type_ is None:
        refused = [each for each in operations.letters(limit) if each["stage"] in {"door", "inbox"}]
        rows += [(each["received_at"], _letter(each)) for each in refused if source in (None, each["source"])]
    rows.sort(key=lambda row: row[0], reverse=True)
    return [row for _, row in rows[:limit]]


def _event(each: Arrived, registered: RegisteredEvent | None, letter: FoundDeadLetter | None) -> dict[str, Any]:
    result = "pending" if registered is None else _VERDICTS[Verdict(registered.verdict)]
    return {
        "id": each.id,
        "message_id": each.message_id,
        "partition": each.partition,
        "offset": each.offset,
        "source": each.source,
        "type": each.type,
        "name": each.name,
        "received_at": iso(each.received_at),
        "occurred_at": iso(each.occurred_at),
        "result": result,
        "violations": [] if letter is None else [_violation(letter.rule, letter.path, letter.reason)],
        "sealed_names": list(each.sealed),
        "properties": each.properties,
        "context": each.context,
    }


def _letter(each: Mapping[str, Any]) -> dict[str, Any]:
    """A dead letter of the door, which never reached the log."""
    at = iso(each["received_at"])
    empty = dict.fromkeys(("id", "message_id", "partition", "offset", "type", "name"))
    return {
        **empty,
        "source": each["source"],
        "received_at": at,
        "occurred_at": None,
        "result": "dead_letter",
        "violations": [_violation(each["rule"], each["path"], each["reason"])],
        "sealed_names": [],
        "properties": {},
        "context": {},
        "dead_letter": each["id"],
    }


def _violation(rule: str, path: str, reason: str) -> dict[str, str]:
    return {"rule": rule, "path": path, "reason": reason}


# --- figures -----------------------------------------------------------------------------------------------------


def status(api: Api) -> dict[str, Any]:
    """The same counts as `touchfold status --json`."""
    state = api.operations.state(api.session.clock.now())
    decided = max(0, state["applied"] - state["waiting"])
    return {
        "ready": api.health.get().look()["status"] != "unavailable",
        "lag": state["accepted"] - decided,
        "accepted": state["accepted"],
        "applied": state["applied"],
        "decided": decided,
        "dead_letters": state["dead_letters"],
        "archived": state["archived"],
        "archive_files": state["archive_files"],
        "archive_merges_waiting": state["archive_merging"],
        "archive_rewrites_waiting": state["archive_rewriting"],
        "waiting": state["partitions_waiting"],
    }


def _figures(app: FastAPI, api: Api) -> None:
    reader, operator = need(api, READ), need(api, OPERATE)

    @app.get(f"{PREFIX}/status", tags=["operation"], responses=examples.ok(examples.STATUS))
    async def read_status(_caller: Caller = reader) -> Response:
        """Progress of acceptance, folding, decisions and the archive, as in `touchfold status --json`."""
        return answer(await api.run(lambda: status(api)))

    @app.get(f"{PREFIX}/operations", tags=["operation"], responses=examples.ok(examples.OPERATIONS))
    async def read_operations(_caller: Caller = operator) -> Response:
        """The data of the Health page: sizes, timers, the revision being built, disk and lease."""
        return answer(await api.run(lambda: api.operations.state(api.session.clock.now())))

    @app.get(f"{PREFIX}/reports/overview", tags=["reports"], responses=examples.ok(examples.OVERVIEW))
    async def read_overview(days: int = 30, _caller: Caller = reader) -> Response:
        """Customers, orders, revenue and channels of the last 7, 30, 90 or 365 local days and the period before.

        Includes everything received before `as_of`. Money is in the base currency, net of refunds; amounts without an
        exchange rate are left out of sums and listed in `missing_rates`. 503 `figures_preparing` while a folder from
        an earlier version is counted for the first time.
        """
        if days not in PERIODS:
            reason = f"must be one of {', '.join(map(str, PERIODS))}"
            raise BadRequest("not a period of this report", [Problem("days", reason)])
        return answer(_overview(await api.run(lambda: api.reports.overview(days))))


def _overview(found: Overview) -> dict[str, Any]:
    return {
        "days": found.days,
        "first": found.period.first.isoformat(),
        "last": found.period.last.isoformat(),
        "made_at": iso(found.made_at),
        "as_of": iso(found.as_of),
        "currency": found.currency,
        "customers": found.customers,
        "new_customers": _figure(found.new_customers),
        "orders": _figure(found.orders),
        "revenue": _figure(found.revenue),
        "average_order": _figure(found.average_order),
        "repeat_rate": _figure(found.repeat_rate),
        "events": _figure(found.events),
        "at_risk_value": f"{found.at_risk_value:f}",
        "at_risk_missing": found.at_risk_missing,
        "missing_rates": [
            {"currency": each.currency, "orders": each.orders, "refunds": each.refunds, "amount": f"{each.amount:f}"}
            for each in found.missing_rates
        ],
        "unreadable_amounts": found.unreadable_amounts,
        "unknown_customers": found.unknown_customers,
        "by_day": [
            {"day": day.isoformat(), "orders": orders, "revenue": f"{money:f}"} for day, orders, money in found.by_day
        ],
        "by_family": [{"family": family, "events": count} for family, count in found.by_family],
    }


def _figure(found: Figure) -> dict[str, Any]:
    return {"now": _number(found.now), "before": _number(found.before), "change": found.change}


def _number(value: Decimal) -> str | int:
    """A count as a number, a fraction as text."""
    return int(value) if value.as_tuple().exponent == 0 else f"{value:f}"


# --- dead letters ------------------------------------------------------------------------------------------------


def _dead_letters(app: FastAPI, api: Api) -> None:
    operator = need(api, OPERATE)

    @app.get(f"{PREFIX}/dead-letters", tags=["operation"], responses=examples.ok([examples.LETTER]))
    async def list_dead_letters(
        state: Literal["open", "retried", "erased"] = "open",
        limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
        _caller: Caller = operator,
    ) -> Response:
        """List dead letters and why they were set aside, newest first, without their content."""
        found = await api.run(lambda: api.retrying.get().list(state, limit))
        return answer([described(letter) for letter in found])

    @app.get(f"{PREFIX}/dead-letters/{{letter_id}}", tags=["operation"], responses=examples.ok(examples.LETTER_SHOWN))
    async def show_dead_letter(letter_id: LetterId, _caller: Caller = operator) -> Response:
        """One dead letter, with its state. Its content is encrypted; `touchfold dead-letters show` decrypts it."""
        letter, state = await api.run(lambda: api.retrying.get().get(letter_id))
        return answer({**described(letter), "state": state})

    @app.post(f"{PREFIX}/dead-letters/{{letter_id}}/retry", tags=["operation"], responses=examples.ok(examples.RETRIED))
    async def retry_dead_letter(letter_id: LetterId, caller: Caller = operator) -> Response:
        """Send a dead letter of the door or inbox again, unchanged. For others, 400 says what to do instead."""

        def work() -> tuple[str, dict[str, Any]]:
            retrying = api.retrying.get()
            letter, _ = retrying.get(letter_id)
            return uuid_text(letter.id), retrying.run([letter])

        text, outcome = await api.run_slowly(work)
        await api.note(caller, "dead_letter.retried", letter=text)
        return answer(outcome)


# --- records of the log ------------------------------------------------------------------------------------------


def _records(app: FastAPI, api: Api) -> None:
    admin = need(api, RECORDS)
    at = f"{PREFIX}/records/{{partition}}/{{offset}}"

    @app.get(at, tags=["operation"], responses=examples.ok(examples.RECORD))
    async def show_record(partition: Partition, offset: Offset, _caller: Caller = admin) -> Response:
        """What is known about a record of the log and why it cannot be read, without its content."""
        return answer(await api.run(lambda: shown(api.session, partition, offset)))

    @app.post(f"{at}/set-aside", tags=["operation"], responses=examples.ok(examples.RECORD_PASSED))
    async def set_record_aside(partition: Partition, offset: Offset, caller: Caller = admin) -> Response:
        """Set aside the record a partition waits at, as a dead letter, so that the partition continues.

        409 `set_aside_refused` if it can be read or is already applied. After an upgrade, retry applies it.
        """
        wait = await api.run(lambda: set_aside(api.session, partition, offset, caller.name))
        await api.note(caller, "record.set_aside", partition=partition, offset=offset, code=wait.code)
        return answer(wait._asdict())


Partition = Annotated[int, Path(ge=0, le=32_767, description="as shown by status", examples=[2])]
Offset = Annotated[int, Path(ge=0, le=2**63 - 1, examples=[17])]
LetterId = Annotated[str, Path(max_length=64, examples=[examples.LETTER["id"]])]
