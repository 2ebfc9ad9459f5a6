"""Identifiers in the traits of a call that keeps no traits: they count, and there is no value to refer to."""

from datetime import UTC, datetime
from functools import partial

import pytest

from ingest.accept.accept import Acceptor
from ingest.accept.calls import SourceRules
from schemas.identifiers import normalise
from schemas.record import decode
from tests.unit.test_accept import PlainVault, daily


@pytest.mark.parametrize(
    "call",
    [{"type": "track", "event": "E"}, {"type": "page"}, {"type": "screen"}, {"type": "alias", "previousId": "a"}],
)
def test_an_email_in_the_traits_of_any_call_is_an_identifier(call: dict[str, str]) -> None:
    vault = PlainVault()
    acceptor = Acceptor(vault, vault, partial(normalise, phone=str), daily)
    item = {**call, "userId": "u-1", "messageId": "m-1", "traits": {"email": "Ada@example.com"}}
    [pending] = acceptor.accept([item], SourceRules("web"), datetime(2026, 11, 24, 12, tzinfo=UTC)).pending
    record = decode(pending.value)
    assert {each.kind for each in record.ids} >= {"user_id", "email"}
    assert (record.traits, record.sealed) == ({}, None)
