"""What is said of a dead letter is true: tried on one of each rule that acceptance, inbox, import and fold have."""

import ast
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from ingest.accept.accept import Acceptor
from ingest.accept.calls import SourceRules
from ingest.accept.canonical import Refused as RefusedItem
from ingest.accept.canonical import Unreadable, decode_item
from ingest.accept.retry import accept_again
from ingest.requests import inbox
from schemas.clear_rules import NOTHING_DECLARED, Declared
from schemas.dead_letters import FOLD, IMPORT, INBOX, INTERNAL, RETRY, REUSED, DeadLetter, remedies, remedy
from schemas.errors import BadRequest
from schemas.identifiers import normalise
from schemas.sources import Source
from schemas.waits import SET_ASIDE, UNREADABLE
from tests.unit.test_accept import NOW, PHONE, PlainVault, daily

INGEST: Final = Path(__file__).parents[2] / "ingest"
NAMES: Final = {"INTERNAL": INTERNAL, "REUSED": REUSED}
DOOR_MODULES: Final = (*sorted((INGEST / "accept").glob("*.py")), INGEST / "dialects" / "translate.py")
GOOD: Final[dict[str, Any]] = {"type": "track", "event": "Sold", "userId": "ada", "messageId": "m-1"}
BAD: Final[dict[str, Any]] = {
    "wrong_type": [],
    "no_identifier": {**GOOD, "userId": None},
    "too_large": {**GOOD, "properties": {str(n): "x" * 8_000 for n in range(200)}},
    "too_deep": {**GOOD, "properties": json.loads('{"a":' * 40 + "1" + "}" * 40)},
    "too_many_keys": {**GOOD, "properties": dict.fromkeys(map(str, range(31_000)), 1)},
    "invalid_json": b'{"type": "track",',
    "string_too_long": {**GOOD, "properties": {"a": "x" * 33_000}},
    "key_too_long": {**GOOD, "properties": {"x" * 33_000: 1}},
    "unknown_type": {**GOOD, "type": "teleport"},
    "missing_field": {**GOOD, "event": None},
    "bad_event_name": {**GOOD, "event": "x" * 600},
}
CALLS: Final[dict[str, dict[str, Any]]] = {
    "invalid_json": {"value": b"no JSON"},
    "bad_request": {"value": b'{"batch": 7}'},
    "too_large": {"value": json.dumps({"batch": [{}] * 3_000}).encode()},
    "not_found": {"path": "nowhere"},
    "invalid_write_key": {"write_key": "wk_nobody"},
    "source_off": {"write_key": "wk_off"},
}
MENDED_HERE: Final = {"invalid_write_key", "source_off"}  # of the inbox: not by the producer alone


class Senders:
    """Two sources by their write keys; of one it can be said whether it is on."""

    def __init__(self, on: bool) -> None:
        self._on = on

    def find(self, write_key: str) -> Source | None:
        return {"wk_web": Source("web"), "wk_off": Source("off", enabled=self._on)}.get(write_key)

    def declared(self) -> Declared:
        return NOTHING_DECLARED


@pytest.fixture
def vault() -> PlainVault:
    return PlainVault()


@pytest.fixture
def acceptor(vault: PlainVault) -> Acceptor:
    return Acceptor(vault, vault, partial(normalise, phone=PHONE), daily, random_bytes=lambda n: b"r" * n)


def refused_in(module: Path) -> Iterator[str]:
    """The rules of all `Refused(rule, …)` in a module of ingest."""
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Refused":
            rule = node.args[0]
            if isinstance(rule, ast.Constant):
                yield str(rule.value)
            elif isinstance(rule, ast.Name) and rule.id != "LEFT_OUT":  # a row that is left out is no dead letter
                yield NAMES[rule.id]


def of_import() -> set[str]:
    """The rules of lines, and those of acceptance, which it passes on."""
    found = {rule for module in INGEST.rglob("*.py") for rule in refused_in(module)}
    assert found > BAD.keys()
    return found


def test_each_rule_of_acceptance_is_tried_here() -> None:
    assert {rule for module in DOOR_MODULES for rule in refused_in(module)} == BAD.keys() | {INTERNAL}


@pytest.mark.parametrize("rule", BAD)
def test_a_bad_item_is_refused_again_and_taken_when_it_is_corrected(
    acceptor: Acceptor, vault: PlainVault, rule: str
) -> None:
    said = remedy("door", rule)
    assert "A retry sends it unchanged, and this build would refuse it again" in said
    assert "send it again from there; the same message id is fine" in said
    (letter,) = acceptor.accept([_item(BAD[rule])], SourceRules("web"), NOW).dead
    assert (letter.stage, letter.rule) == ("door", rule)
    again = accept_again(letter, _plain(vault, letter), acceptor, NOTHING_DECLARED, NOW)
    assert [each.rule for each in again.dead] == [rule]
    assert again.pending == []
    assert len(acceptor.accept([GOOD], SourceRules("web"), NOW).pending) == 1


def _item(bad: Any) -> Any:
    """As the door hands it on: bytes that are no item are kept as they are."""
    raw = bad if isinstance(bad, bytes) else json.dumps(bad).encode()
    try:
        return decode_item(raw)
    except RefusedItem as refused:
        return Unreadable(raw, refused)


def _plain(vault: PlainVault, letter: DeadLetter) -> bytes:
    (plain,) = vault.open_many([(letter.seal_key, letter.sealed, letter.id)])
    assert plain is not None
    return plain


@pytest.mark.parametrize("rule", CALLS)
def test_a_message_of_the_inbox_is_taken_again_where_that_is_said_and_nowhere_else(rule: str) -> None:
    given = {"value": json.dumps(GOOD).encode(), "write_key": "wk_web"} | CALLS[rule]
    message = inbox.Message("t", 0, 0, None, **given)
    refusal = inbox.open_message(message, Senders(on=False), NOW)
    assert isinstance(refusal, inbox.Refusal)
    assert refusal.rule == rule
    assert isinstance(inbox.open_message(message, Senders(on=False), NOW), inbox.Refusal), "as it is"
    owner = Source("web") if rule == "invalid_write_key" else None
    again = inbox.open_message(message, Senders(on=True), NOW, source=owner)
    assert isinstance(again, inbox.Opened) == (rule in MENDED_HERE)
    assert (RETRY in remedy(INBOX, rule)) == (rule in MENDED_HERE)
    assert ("refuse it again" in remedy(INBOX, rule)) != (rule in MENDED_HERE)


@pytest.mark.parametrize("stage", ["door", INBOX])
def test_what_an_error_of_ours_kept_out_is_sent_again_after_an_upgrade(stage: str) -> None:
    assert remedy(stage, INTERNAL).endswith(f"upgrade, then: {RETRY}")


@pytest.mark.parametrize(("stage", "rule"), [(IMPORT, rule) for rule in sorted(of_import())] + [(FOLD, REUSED)])
def test_what_cannot_be_sent_again_is_refused_with_what_can_be_done(acceptor: Acceptor, stage: str, rule: str) -> None:
    said = remedy(stage, rule)
    at = datetime(2026, 1, 1, tzinfo=UTC)
    letter = DeadLetter(b"i" * 16, stage, rule, "", "why", "shop", at, None, (), b"k" * 16, b"")
    with pytest.raises(BadRequest) as refused:
        accept_again(letter, b"{}", acceptor, NOTHING_DECLARED, NOW)
    assert said in refused.value.message
    assert RETRY not in said
    if stage == IMPORT:
        assert "import the file again" in said or "import it again" in said
    if rule == REUSED:
        assert "neither a retry nor a rebuild can change that" in said
        assert "give it its own id" in said


@pytest.mark.parametrize("rule", [UNREADABLE, SET_ASIDE])
def test_a_record_set_aside_is_applied_by_a_retry_of_a_build_that_can_read_it(rule: str) -> None:
    assert remedy(FOLD, rule).endswith(f"apply it with: {RETRY}" if rule == SET_ASIDE else f"apply them with: {RETRY}")


def test_each_kind_of_letter_is_told_once() -> None:
    told = remedies([("door", "too_deep"), (FOLD, REUSED), ("door", "too_deep")])
    assert [each.split(":")[0] for each in told] == ["too_deep (door)", "id_reused (fold)"]
