"""Dead letters under daily keys go after 30 days, and their keys after them."""

from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, cast

from infra.adapters.postgres.dead_letters import PostgresDeadLetters
from infra.adapters.vault.vault import PostgresVault
from infra.app.session import Resources
from infra.app.vault import vault_of
from infra.drivers.process.archive_role import forget_old_dead_letters
from schemas.dead_letters import seal_dead_letter
from tests.conftest import Databases

if TYPE_CHECKING:
    from infra.app.session import Session


class Opened:
    """What the sweep asks of a session."""

    def __init__(self, databases: Databases) -> None:
        self.dsn = databases.main
        self.resources = Resources()
        vault = PostgresVault(databases.vault, b"k" * 32, erased=lambda _tokens: set())
        self.resources.once("vault", lambda: vault).hold_lease()


def test_letters_of_31_days_ago_go_with_their_key_and_younger_ones_stay(databases: Databases) -> None:
    session = cast("Session", Opened(databases))
    vault = vault_of(session)
    letters = PostgresDeadLetters(databases.main)
    own = vault.tokens([("email", "ada@example.com")])[0]
    for number, (day, seal_key) in enumerate([(1, None), (20, None), (1, own)]):
        at = datetime(2026, 1, day, tzinfo=UTC)
        key = seal_key or vault.daily_token(at.date())
        tokens = () if seal_key is None else (own,)
        letter = seal_dead_letter(vault, bytes([number]) * 16, "door", "r", "", "", "web", at, None, tokens, key, b"{}")
        letters.insert([letter], [], at)
    forget_old_dead_letters(session, date(2026, 2, 1))
    assert sorted(letter.id[0] for letter in letters.list()) == [1, 2]
    (kept, _) = letters.get(bytes([1]) * 16) or (None, "")
    assert kept is not None
    assert vault.open_many([(kept.seal_key, kept.sealed, kept.id)]) == [b"{}"]
    letters.close()
    vault.close()
