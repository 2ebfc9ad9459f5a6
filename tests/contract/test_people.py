"""People and their sessions, over a real PostgreSQL."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import argon2.low_level
import pytest
from argon2 import extract_parameters

from infra.adapters.postgres.database import Database
from infra.adapters.postgres.people import PostgresPeople
from infra.adapters.postgres.tokens import PostgresTokens
from schemas.errors import BadRequest, NotFound, TooMany
from tests.conftest import Databases

NOW = datetime(2026, 5, 4, 9, tzinfo=UTC)
PASSWORD = "correct horse battery"


class Hand:
    """A monotonic clock that is moved by hand."""

    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def people(databases: Databases) -> Iterator[PostgresPeople]:
    with closing(PostgresPeople(databases.main, monotonic=Hand())) as people:
        yield people


def test_the_first_admins_link_works_once_and_is_given_until_somebody_has_a_password(people: PostgresPeople) -> None:
    earlier = people.first_admin_link(NOW)
    link = people.first_admin_link(NOW)
    assert earlier is not None
    assert link is not None
    assert people.invited(earlier, NOW) is None
    assert people.invited(link, NOW) == "admin"
    session = people.accept(link, PASSWORD, NOW)
    assert people.who(session, NOW) == ("admin", "admin")
    assert people.first_admin_link(NOW) is None
    with pytest.raises(NotFound, match="already been used"):
        people.accept(link, PASSWORD, NOW)


def test_a_link_ends_after_a_day_and_a_short_password_does_not_use_it_up(people: PostgresPeople) -> None:
    link = people.invite("Ada", "staff", NOW)
    with pytest.raises(BadRequest, match="10 to 256"):
        people.accept(link, "short", NOW)
    assert people.invited(link, NOW + timedelta(hours=23)) == "ada"
    with pytest.raises(NotFound):
        people.accept(link, PASSWORD, NOW + timedelta(hours=25))


def test_signing_in_needs_the_right_name_and_password_and_five_failures_must_wait(databases: Databases) -> None:
    hand = Hand()
    with closing(PostgresPeople(databases.main, monotonic=hand)) as people:
        people.accept(people.invite("ada", "staff", NOW), PASSWORD, NOW)
        session = people.sign_in("ADA ", PASSWORD, NOW)
        assert session is not None
        assert people.who(session, NOW) == ("ada", "staff")
        for _ in range(5):
            assert people.sign_in("ada", "wrong", NOW) is None
        with pytest.raises(TooMany, match="wait 30 s"):
            people.sign_in("ada", PASSWORD, NOW)
        hand.at += 31
        assert people.sign_in("ada", PASSWORD, NOW) is not None
        assert people.sign_in("nobody", PASSWORD, NOW) is None


def test_many_tries_at_once_are_no_more_than_five_and_an_address_has_its_own_count(databases: Databases) -> None:
    hand = Hand()
    with closing(PostgresPeople(databases.main, monotonic=hand)) as people:
        people.accept(people.invite("ada", "staff", NOW), PASSWORD, NOW)
        with ThreadPoolExecutor(8) as pool:
            tries = [pool.submit(people.sign_in, "ada", "wrong", NOW) for _ in range(12)]
        assert sum(isinstance(each.exception(), TooMany) for each in tries) == 7
        hand.at += 31
        for number in range(20):
            assert people.sign_in(f"guess-{number}", "wrong", NOW, "192.0.2.7") is None
        with pytest.raises(TooMany) as waited:
            people.sign_in("ada", PASSWORD, NOW, "192.0.2.7")
        assert waited.value.retry_after_s == 30
        with pytest.raises(TooMany):
            people.sign_in_with_token("tf_guess", NOW, "192.0.2.7")
        assert people.sign_in("ada", PASSWORD, NOW, "192.0.2.8") is not None


def test_a_strangers_guesses_hold_up_nobody_who_knows_the_password(databases: Databases) -> None:
    hand = Hand()
    with closing(PostgresPeople(databases.main, monotonic=hand)) as people:
        people.accept(people.invite("ada", "staff", NOW), PASSWORD, NOW)
        for _ in range(5):
            assert people.sign_in("ada", "wrong", NOW, "192.0.2.7") is None
        with pytest.raises(TooMany):
            people.sign_in("ada", "wrong", NOW, "192.0.2.7")
        assert people.sign_in("ada", PASSWORD, NOW, "192.0.2.8") is not None
        for number in range(20):  # now from the address that she signs in from
            assert people.sign_in(f"guess-{number}", "wrong", NOW, "192.0.2.8") is None
        with pytest.raises(TooMany):
            people.sign_in("guess", "wrong", NOW, "192.0.2.8")
        assert people.sign_in("ada", PASSWORD, NOW, "192.0.2.8") is not None


def test_counters_of_failures_take_bounded_memory_and_right_passwords_are_no_failures(
    people: PostgresPeople, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.adapters.postgres.people.REMEMBERED", 10)
    monkeypatch.setattr(PostgresPeople, "_verified", lambda *_: False)
    for number in range(50):
        people.sign_in("ada", "wrong", NOW, f"192.0.2.{number}")
    assert len(people._failed) == 10
    monkeypatch.undo()
    monkeypatch.setattr("infra.adapters.postgres.people.TRIES_OF_ADDRESS", 2)
    people.accept(people.invite("ada", "staff", NOW), PASSWORD, NOW)
    for _ in range(4):
        assert people.sign_in("ada", PASSWORD, NOW, "198.51.100.1") is not None


def test_the_first_unknown_name_costs_as_much_as_a_known_one(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted, not timed: a password is hashed once for either, with the same cost, the first time too."""
    with closing(PostgresPeople(databases.main)) as people:
        people.accept(people.invite("ada", "staff", NOW), PASSWORD, NOW)
    costs: list[object] = []

    def seen(*arguments: object, **named: object) -> bytes:
        costs.append(("hash", len(arguments)))
        return hash_secret(*arguments, **named)  # type: ignore[arg-type]

    def verified(hashed: bytes, *arguments: object) -> bool:
        costs.append(extract_parameters(hashed.decode()))
        return verify_secret(hashed, *arguments)  # type: ignore[arg-type]

    hash_secret, verify_secret = argon2.low_level.hash_secret, argon2.low_level.verify_secret
    monkeypatch.setattr("argon2._password_hasher.hash_secret", seen)
    monkeypatch.setattr("argon2._password_hasher.verify_secret", verified)
    for name in ("nobody", "ada", "nobody", "a\0b", ""):
        with closing(PostgresPeople(databases.main)) as people:  # as in a process that just started
            assert people.sign_in(name, "wrong", NOW) is None
    assert len(costs) == 5
    assert len(set(map(str, costs))) == 1, costs


def test_the_name_of_somebody_who_signs_in_is_taken_and_a_disabled_one_comes_again(people: PostgresPeople) -> None:
    people.accept(people.invite("boss", "admin", NOW), PASSWORD, NOW)
    people.invite("ada", "staff", NOW)
    first = people.invite("ada", "marketer", NOW)  # not accepted yet: another role, another link
    people.accept(first, PASSWORD, NOW)
    with pytest.raises(BadRequest, match="already somebody with this name"):
        people.invite("Ada", "admin", NOW)
    assert [row.role for row in people.overview() if row.name == "ada"] == ["marketer"]
    people.disable("ada", NOW)
    again = people.invite("ada", "staff", NOW)
    assert people.sign_in("ada", PASSWORD, NOW) is None  # the old password is gone
    session = people.accept(again, "another long password", NOW)
    assert people.who(session, NOW) == ("ada", "staff")
    for name in ("", "a b", "-x", "x" * 65, "a/b", "a:b"):
        with pytest.raises(BadRequest, match="sign-in name"):
            people.invite(name, "staff", NOW)


def test_a_link_of_somebody_who_was_disabled_is_not_used_up(people: PostgresPeople) -> None:
    people.accept(people.invite("boss", "admin", NOW), PASSWORD, NOW)
    link = people.invite("ada", "staff", NOW)
    people.disable("ada", NOW)
    assert people.invited(link, NOW) is None
    with pytest.raises(NotFound):
        people.accept(link, PASSWORD, NOW)


def test_a_session_ends_by_signing_out_idling_a_week_and_by_being_disabled(people: PostgresPeople) -> None:
    people.accept(people.invite("admin", "admin", NOW), PASSWORD, NOW)
    first = people.accept(people.invite("ada", "staff", NOW), PASSWORD, NOW)
    assert people.who(first, NOW + timedelta(hours=13)) is None
    at = NOW
    for _ in range(14):  # in use all the time
        at += timedelta(hours=11)
        assert people.who(first, at) is not None
    assert people.who(first, NOW + timedelta(days=7)) is None
    second = people.sign_in("ada", PASSWORD, NOW)
    assert second is not None
    people.set_role("ada", "marketer")
    assert people.who(second, NOW) == ("ada", "marketer")
    people.disable("ada", NOW)
    assert people.who(second, NOW) is None
    assert people.sign_in("ada", PASSWORD, NOW) is None
    third = people.sign_in("admin", PASSWORD, NOW)
    assert third is not None
    people.sign_out(third, NOW)
    assert people.who(third, NOW) is None


def test_the_last_admin_stays(people: PostgresPeople) -> None:
    people.accept(people.invite("boss", "admin", NOW), PASSWORD, NOW)
    with pytest.raises(BadRequest, match="last admin"):
        people.disable("boss", NOW)
    with pytest.raises(BadRequest, match="last admin"):
        people.set_role("boss", "staff")
    people.invite("other", "admin", NOW)
    people.set_role("boss", "staff")


def test_an_api_token_opens_a_session_until_it_is_revoked(people: PostgresPeople, databases: Databases) -> None:
    with closing(PostgresTokens(databases.main)) as tokens:
        name, token = tokens.create("analyst", NOW)
        session = people.sign_in_with_token(token, NOW)
        assert session is not None
        assert people.who(session, NOW) == (f"token:{name}", "analyst")
        assert people.sign_in_with_token("tf_other", NOW) is None
        tokens.revoke(name, NOW)
        assert people.who(session, NOW) is None


def test_no_secret_is_stored(people: PostgresPeople, databases: Databases) -> None:
    link = people.invite("ada", "staff", NOW)
    session = people.accept(link, PASSWORD, NOW)
    with closing(Database(databases.main)) as database, database.transaction() as cursor:
        cursor.execute("select (select string_agg(p::text, '') from people p), (select string_agg(s::text, '')"
                       " from sessions s), (select string_agg(i::text, '') from invitations i)")  # fmt: skip
        stored = " ".join(cursor.fetchone() or ())
        for secret in (link, session, PASSWORD):
            assert secret not in stored
        assert sha256(session.encode()).hexdigest() in stored
        assert "$argon2id$" in stored
