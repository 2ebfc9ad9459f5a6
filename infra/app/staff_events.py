"""What staff record about a customer: notes, calls, complaints, corrections. Each is an event from the source `staff`.

They go through acceptance into the log like any sender's events, and are committed when a call returns.
"""

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from infra.adapters.postgres.reads import PostgresReads
from infra.adapters.postgres.sources import PostgresSources
from infra.app.accepting import acceptor_of
from infra.app.log import log_of
from infra.app.vault import vault_of
from ingest.accept.calls import Call, SourceRules
from schemas.clear_view import STAFF_SOURCE
from schemas.errors import BadRequest, Erased, NotFound, Problem
from schemas.identity_rules import DEFAULT_RULES
from schemas.ports import OpenIdentifier
from schemas.record import decode

if TYPE_CHECKING:
    from infra.app.session import Session

SOURCE: Final = STAFF_SOURCE
LONGEST: Final = 4_000  # characters in a note
LONGEST_VALUE: Final = 500


class Acting:
    """Any thread may call. `profile_id`: 16 bytes, the profile's present id; `who`: the sign-in name."""

    def __init__(self, session: "Session") -> None:
        self._now = session.door_clock.now
        self._vault = vault_of(session)
        self._reads = PostgresReads(session.dsn, "touchfold acting")
        self._log = log_of(session)
        self._sources = PostgresSources(session.dsn, unknown=session.unknown_clear)
        self._acceptor = acceptor_of(session)
        self._lock = threading.Lock()
        self._known = False
        self._check_disk = session.disk.check

    def note(self, profile_id: bytes, who: str, text: str) -> str:
        """Write a note; returns the event's id. Raises BadRequest, NotFound, Erased, StoreUnavailable."""
        return self._track(profile_id, who, "note.added", {"text": _text("text", text)})

    def call(self, profile_id: bytes, who: str, *, direction: str, topic: str, text: str = "") -> str:
        """Record a call; `direction`: in or out."""
        if direction not in ("in", "out"):
            raise BadRequest("not a direction", [Problem("direction", "must be in or out")])
        properties = {"direction": direction, "topic": _text("topic", topic, 200)}
        if text.strip():
            properties["text"] = _text("text", text)
        event = "call.received" if direction == "in" else "call.completed"
        return self._track(profile_id, who, event, properties)

    def complaint(self, profile_id: bytes, who: str, *, topic: str, text: str = "") -> str:
        """Open a complaint; it stays open until it is resolved by its id, which is in the event."""
        properties = {"complaint_id": f"staff-{uuid4().hex[:12]}", "topic": _text("topic", topic, 200)}
        if text.strip():
            properties["text"] = _text("text", text)
        return self._track(profile_id, who, "complaint.opened", properties)

    def resolve_complaint(self, profile_id: bytes, who: str, *, complaint_id: str, text: str = "") -> str:
        """Close a complaint by its id."""
        properties = {"complaint_id": _text("complaint_id", complaint_id, 200)}
        if text.strip():
            properties["text"] = _text("text", text)
        return self._track(profile_id, who, "complaint.resolved", properties)

    def correct_trait(self, profile_id: bytes, who: str, name: str, value: str | int | float | bool | None) -> str:
        """Correct a trait; the correction outranks every source until it is withdrawn or replaced by a newer one."""
        name = _text("name", name, 100)
        if isinstance(value, str):
            value = _text("value", value, LONGEST_VALUE)
        return self._send(profile_id, who, "trait.corrected", {}, {name: value}, name)

    def withdraw_correction(self, profile_id: bytes, who: str, name: str) -> str:
        """Withdraw a correction, so that the trait comes from the sources again."""
        return self._send(profile_id, who, "trait.corrected", {}, {}, _text("name", name, 100))

    def close(self) -> None:
        self._reads.close()
        self._sources.close()

    # --- sending ---------------------------------------------------------------------------------------------------

    def _track(self, profile_id: bytes, who: str, event: str, properties: Mapping[str, Any]) -> str:
        return self._send(profile_id, who, event, properties, {}, None)

    def _send(
        self,
        profile_id: bytes,
        who: str,
        event: str,
        properties: Mapping[str, Any],
        traits: Mapping[str, Any],
        name: str | None,
    ) -> str:
        best = self._best(profile_id)
        item: dict[str, Any] = {
            **_identified(best),
            "event": event,
            "messageId": f"staff-{uuid4()}",
            "properties": {**properties, "agent": who},
        }
        item["type"] = "identify" if name is not None else "track"
        if name is not None:
            item |= {"traits": dict(traits), "name": name}
        return self._append(item, best.token)

    def _best(self, profile_id: bytes) -> OpenIdentifier:
        """The profile's highest-ranked identifier; the event goes to whichever profile owns it."""
        live = self._reads.live()
        found = self._reads.profile(live, profile_id)
        if found.erased:
            raise Erased("this person's data was erased")
        if found.profile is None:
            raise NotFound("there is no profile with this id")
        opened = self._vault.open([token for token, _ in found.profile.tokens])
        if not opened:
            raise Erased("this person's data was erased")
        return min(opened.values(), key=lambda each: (DEFAULT_RULES.rank(each.kind), each.value))

    def _append(self, item: Mapping[str, Any], token: bytes) -> str:
        """Accept the item and append it. `token`: of the identifier used, as it was a moment ago."""
        self._check_disk()
        with self._lock:
            self._make_source()
            rules = SourceRules(SOURCE, self._sources.declared())
            call = Call([dict(item)], rules, self._now(), trusted_clock=True, staff=True)
            (accepted,) = self._acceptor.accept_many([call])
            (result,) = accepted.results
            if accepted.dead:
                raise BadRequest(f"not recorded: {accepted.dead[0].reason}", [Problem("", accepted.dead[0].reason)])
            if accepted.suppressed:
                raise Erased("this person was erased and new data about them is refused")
            if token not in {bytes.fromhex(each.token) for each in decode(accepted.pending[0].value).ids}:
                raise Erased("this person's data was erased")  # between the look-up and the write
            self._log.append(accepted.pending)
            return result.id

    def _make_source(self) -> None:
        """The source `staff`, created at its first event. Its key is discarded, so nobody else can write as staff."""
        if not self._known:
            if SOURCE not in self._reads.sources():
                self._sources.create(SOURCE, self._now())
                self._sources.revoke(SOURCE, self._now())
            self._known = True


def _identified(best: OpenIdentifier) -> dict[str, Any]:
    """The part of an item that identifies the person."""
    if best.kind == "user_id":
        return {"userId": best.value}
    if best.kind == "anonymous_id":
        return {"anonymousId": best.value}
    return {"context": {"externalIds": [{"id": best.value, "type": best.kind}]}}


def _text(field: str, value: str, most: int = LONGEST) -> str:
    value = value.strip()
    if not value or len(value) > most:
        reason = f"must have 1 to {most} characters"
        raise BadRequest(f"{field} {reason}", [Problem(field, reason)])
    return value
