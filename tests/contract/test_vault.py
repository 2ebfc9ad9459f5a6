"""What `Vault` and `Sealer` promise, kept by the PostgreSQL adapter on a real server."""

import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import date
from pathlib import Path

import pytest

from infra.adapters.postgres.database import Database, Uuid
from infra.adapters.postgres.embedded import EmbeddedPostgres
from infra.adapters.postgres.erased_tokens import ErasedTokens
from infra.adapters.postgres.migrate import migrate
from infra.adapters.vault.epochs import bump_epoch, wait_for_leases
from infra.adapters.vault.master_key import master_key, parse
from infra.adapters.vault.proof import vault_is_new
from infra.adapters.vault.vault import PostgresVault
from schemas.errors import KeyMissing, MasterKeyWrong, SealBroken, StoreUnavailable
from schemas.ports import OpenIdentifier
from tests.conftest import Databases

KEY = bytes(range(32))
ADA = ("email", "ada@example.com")
AAD = b"0123456789abcdef"
DEADLINE_S = 20.0


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "never happened"
        time.sleep(0.02)


@pytest.fixture
def vault(databases: Databases) -> Iterator[PostgresVault]:
    opened = PostgresVault(databases.vault, KEY, erased=ErasedTokens(databases.main), renew_s=0.1)
    opened.hold_lease()
    yield opened
    opened.close()


def run(dsn: str, statement: str, *values: object) -> None:
    database = Database(dsn)
    with database.transaction() as cursor:
        cursor.execute(statement, values)
    database.close()


def count(dsn: str, table: str) -> int:
    database = Database(dsn)
    with database.transaction() as cursor:
        cursor.execute(f"select count(*) from {table}")
        row = cursor.fetchone()
    database.close()
    assert row is not None
    return int(row[0])


def forget(dsn: str, token: bytes) -> None:
    """Delete a row as an eraser does: row, then everybody's memory."""
    run(dsn, "delete from identifiers where token = %s", Uuid(token))
    wait_for_leases(dsn, bump_epoch(dsn), DEADLINE_S)


def test_an_identifier_keeps_its_token(vault: PostgresVault, databases: Databases) -> None:
    one, two, again = vault.tokens([ADA, ("user_id", "ada@example.com"), ADA])
    assert one == again != two
    assert len(one) == 16
    vault.close()
    other = PostgresVault(databases.vault, KEY)
    other.hold_lease()
    assert other.tokens([ADA]) == [one]
    other.close()


def test_a_token_says_nothing_about_the_value(vault: PostgresVault, databases: Databases) -> None:
    [token] = vault.tokens([ADA])
    database = Database(databases.vault)
    with database.transaction() as cursor:
        cursor.execute("select hash, token, key_wrapped, value_sealed from identifiers")
        row = cursor.fetchone()
    database.close()
    assert row is not None
    assert all(b"ada" not in bytes(part) for part in row)
    assert token == row[1]


def test_find_makes_nothing(vault: PostgresVault, databases: Databases) -> None:
    assert vault.find(*ADA) is None
    assert count(databases.vault, "identifiers") == 0
    [token] = vault.tokens([ADA])
    assert vault.find(*ADA) == token


def test_tokens_open_to_kind_and_value(vault: PostgresVault) -> None:
    one, two = vault.tokens([ADA, ("crm", "Ünïcode:1")])
    opened = vault.open([one, two, b"unknown-token-16"])
    assert opened == {one: OpenIdentifier(one, *ADA), two: OpenIdentifier(two, "crm", "Ünïcode:1")}
    assert vault.open([]) == {}


def test_a_row_keeps_what_was_first_sent_beside_the_form_that_compares(
    vault: PostgresVault, databases: Databases
) -> None:
    street, card = ("email", "ada@xn--strae-oqa.example"), ("loyalty_card", "603512345678")
    first, plain = vault.tokens([street, card], {street: "Ada@Straße.example", card: "603512345678"})
    again, _ = vault.tokens([street, card], {street: "ADA@STRASSE", card: "6035 1234 5678"})
    assert again == first
    opened = vault.open([first, plain])
    assert (opened[first].shown, opened[first].value) == ("Ada@Straße.example", "ada@xn--strae-oqa.example")
    assert (opened[plain].shown, opened[plain].sent) == ("603512345678", "")
    database = Database(databases.vault)
    with database.transaction() as cursor:
        cursor.execute("select sent_sealed from identifiers order by sent_sealed is null")
        (sealed,), (absent,) = cursor.fetchall()
    database.close()
    assert absent is None
    assert b"Ada" not in bytes(sealed)


def test_what_is_sealed_opens_under_its_token_and_event_alone(vault: PostgresVault) -> None:
    one, two = vault.tokens([ADA, ("user_id", "u1")])
    sealed = vault.seal(one, b"secret", AAD)
    assert b"secret" not in sealed
    assert vault.seal(one, b"secret", AAD) != sealed
    assert vault.open_many([(one, sealed, AAD)] * 2) == [b"secret", b"secret"]
    for wrong in (
        (two, sealed, AAD),
        (one, sealed, b"x" * 16),
        (one, sealed[:-1] + bytes([sealed[-1] ^ 1]), AAD),
        (one, b"", AAD),
    ):
        with pytest.raises(SealBroken):
            vault.open_many([wrong])


def test_an_erased_key_opens_to_nothing_and_a_lost_one_stops_us(vault: PostgresVault, databases: Databases) -> None:
    one, two = vault.tokens([ADA, ("user_id", "u1")])
    sealed = [(token, vault.seal(token, b"secret", AAD), AAD) for token in (one, two)]
    run(databases.main, "insert into erased_tokens values (%s, now())", Uuid(one))
    forget(databases.vault, one)
    assert vault.open_many(sealed) == [None, b"secret"]
    assert vault.open([one]) == {}
    run(databases.main, "delete from erased_tokens")
    with pytest.raises(KeyMissing, match="vault was lost"):
        vault.open_many(sealed)
    with pytest.raises(KeyMissing):
        vault.seal(one, b"secret", AAD)


def test_an_erased_identifier_that_returns_gets_a_new_token(vault: PostgresVault, databases: Databases) -> None:
    [old] = vault.tokens([ADA])
    forget(databases.vault, old)
    [new] = vault.tokens([ADA])
    assert new != old
    assert vault.open([old, new]) == {new: OpenIdentifier(new, *ADA)}


def test_a_suppressed_identifier_is_refused_and_leaves_no_row(vault: PostgresVault, databases: Databases) -> None:
    run(databases.vault, "insert into suppressed values (%s, gen_random_uuid())", vault.hash_of(*ADA))
    wait_for_leases(databases.vault, bump_epoch(databases.vault), DEADLINE_S)
    one, two = vault.tokens([ADA, ("user_id", "u1")])
    assert vault.suppressed([one, two]) == {one}
    assert vault.tokens([ADA]) == [one]
    assert count(databases.vault, "identifiers") == 1
    run(databases.vault, "delete from suppressed")
    wait_for_leases(databases.vault, bump_epoch(databases.vault), DEADLINE_S)
    [back] = vault.tokens([ADA])
    assert back != one
    assert vault.suppressed([back, one]) == set()


def test_many_more_identifiers_than_are_remembered_keep_their_tokens(databases: Databases) -> None:
    vault = PostgresVault(databases.vault, KEY, entries=10)
    vault.hold_lease()
    identifiers = [("user_id", str(number)) for number in range(500)]
    tokens = vault.tokens(identifiers)
    assert len(set(tokens)) == 500
    assert vault.tokens(identifiers[::-1]) == tokens[::-1]
    sealed = [(token, vault.seal(token, token, AAD), AAD) for token in tokens[:40]]
    assert vault.open_many(sealed) == tokens[:40]
    vault.close()


def test_threads_on_two_vaults_agree(databases: Databases) -> None:
    vaults = [PostgresVault(databases.vault, KEY, entries=64) for _ in range(2)]
    for vault in vaults:
        vault.hold_lease()
    identifiers = [("user_id", str(number)) for number in range(300)]

    def work(number: int) -> dict[tuple[str, str], bytes]:
        mine: dict[tuple[str, str], bytes] = {}
        for start in range(0, 300, 30):
            part = identifiers[start : start + 30]
            part = part if number % 2 else part[::-1]
            mine.update(zip(part, vaults[number % 2].tokens(part), strict=True))
        return mine

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(work, range(8)))
    assert all(result == results[0] for result in results)
    assert len(set(results[0].values())) == 300
    for vault in vaults:
        vault.close()


DOOR = """
import sys
from infra.adapters.vault.vault import PostgresVault
vault = PostgresVault(sys.argv[1], bytes(range(32)))
vault.hold_lease()
print("ready", flush=True)
sys.stdin.readline()
for number in range(200):
    for token in vault.tokens([("user_id", str(number)), ("email", "ada@example.com")]):
        print(token.hex())
vault.close()
"""


def test_two_door_processes_agree(databases: Databases) -> None:
    doors = [
        subprocess.Popen(
            [sys.executable, "-c", DOOR, databases.vault],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for door in doors:
        assert door.stdout is not None
        assert door.stdout.readline() == "ready\n"
    for door in doors:
        assert door.stdin is not None
        door.stdin.write("go\n")
        door.stdin.flush()
    one, two = (door.communicate(timeout=DEADLINE_S)[0].split() for door in doors)
    assert [door.returncode for door in doors] == [0, 0]
    assert one == two
    assert len(set(one)) == 201


def test_a_day_has_one_key_and_it_can_be_destroyed(vault: PostgresVault, databases: Databases) -> None:
    day = date(2026, 1, 31)
    token = vault.daily_token(day)
    other = PostgresVault(databases.vault, KEY)
    assert other.daily_token(day) == token
    assert other.daily_token(date(2026, 2, 1)) != token
    sealed = vault.seal(token, b"letter", AAD)
    assert other.open_many([(token, sealed, AAD)]) == [b"letter"]
    assert vault.expire_daily_keys(date(2026, 2, 1)) == 1
    with pytest.raises(KeyMissing):
        other.open_many([(token, sealed, AAD)])
    other.close()


def test_the_day_s_key_is_asked_for_once_while_the_lease_holds(vault: PostgresVault, databases: Databases) -> None:
    """An import may refuse a million lines: each asks for it."""
    day = date(2026, 1, 31)
    token = vault.daily_token(day)
    with closing(Database(databases.vault)) as database, database.transaction() as cursor:
        cursor.execute("delete from daily_keys")
    assert vault.daily_token(day) == token, "remembered"
    wait_for_leases(databases.vault, bump_epoch(databases.vault), DEADLINE_S)
    assert vault.daily_token(day) != token, "an erasure or a restore came between"


# --- leases ------------------------------------------------------------------------------------------------------


def test_without_a_lease_there_are_no_tokens(databases: Databases) -> None:
    vault = PostgresVault(databases.vault, KEY)
    with pytest.raises(StoreUnavailable, match="lease"):
        vault.tokens([ADA])
    assert vault.find(*ADA) is None
    vault.close()


def test_a_lease_that_is_not_renewed_runs_out_by_our_own_clock(databases: Databases) -> None:
    now = [100.0]
    vault = PostgresVault(databases.vault, KEY, renew_s=3600, monotonic=lambda: now[0])
    vault.hold_lease()
    [token] = vault.tokens([ADA])
    now[0] += 4.9
    assert vault.tokens([ADA]) == [token]
    now[0] += 0.2
    with pytest.raises(StoreUnavailable) as caught:
        vault.tokens([ADA])
    assert caught.value.status == 503
    assert caught.value.retry_after_s == 1
    vault.close()


def test_an_eraser_waits_for_leases_of_the_old_epoch(databases: Databases) -> None:
    vault = PostgresVault(databases.vault, KEY, ttl_s=3600, renew_s=3600)
    vault.hold_lease()
    epoch = bump_epoch(databases.vault)
    with pytest.raises(StoreUnavailable, match="lease"):
        wait_for_leases(databases.vault, epoch, 0.2)
    vault.close()  # gives its lease back
    wait_for_leases(databases.vault, epoch, DEADLINE_S)


def test_a_dead_holders_lease_expires_by_the_databases_clock(databases: Databases) -> None:
    _ = PostgresVault(databases.vault, KEY).hash_key
    run(
        databases.vault,
        "insert into leases values (%s, 1, now() + interval '0.7 seconds')",
        Uuid(b"a dead process.."),
    )
    wait_for_leases(databases.vault, bump_epoch(databases.vault), DEADLINE_S)
    assert count(databases.vault, "leases") == 0


def test_a_new_epoch_empties_the_memory_before_the_lease_says_so(vault: PostgresVault, databases: Databases) -> None:
    [old] = vault.tokens([ADA])
    run(databases.vault, "delete from identifiers")
    assert vault.tokens([ADA]) == [old]  # remembered
    wait_for_leases(databases.vault, bump_epoch(databases.vault), DEADLINE_S)
    assert vault.tokens([ADA]) != [old]


# --- outages -----------------------------------------------------------------------------------------------------


def test_the_vault_survives_a_restart_of_its_server(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path)
    server.start()
    migrate(server.vault_dsn, "vault")
    vault = PostgresVault(server.vault_dsn, KEY, ttl_s=1.0, renew_s=0.1)
    vault.hold_lease()
    [token] = vault.tokens([ADA])
    sealed = vault.seal(token, b"secret", AAD)
    server.stop()
    until(lambda: not vault.has_lease())
    for identifier in (ADA, ("user_id", "new")):
        with pytest.raises(StoreUnavailable):
            vault.tokens([identifier])
    with pytest.raises(StoreUnavailable):
        vault.find(*ADA)
    server.start()
    until(vault.has_lease)
    assert vault.tokens([ADA]) == [token]
    assert vault.open_many([(token, sealed, AAD)]) == [b"secret"]
    assert len(vault.tokens([("user_id", "new")])) == 1
    vault.close()
    server.stop()


def test_a_vault_that_is_away_at_the_start_is_used_when_it_comes(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path)
    server.start()
    migrate(server.vault_dsn, "vault")
    server.stop()
    vault = PostgresVault(server.vault_dsn, KEY, renew_s=0.1)
    vault.hold_lease()
    with pytest.raises(StoreUnavailable):
        vault.tokens([ADA])
    server.start()
    until(vault.has_lease)
    assert len(vault.tokens([ADA])) == 1
    vault.close()
    server.stop()


def test_a_connection_cut_between_two_calls_is_made_anew(vault: PostgresVault, databases: Databases) -> None:
    assert vault.find(*ADA) is None
    with pytest.raises(StoreUnavailable):  # our own connection goes too
        run(
            databases.vault,
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database()",
        )
    assert vault.find(*ADA) is None
    until(vault.has_lease)
    assert len(vault.tokens([ADA])) == 1


# --- the master key ----------------------------------------------------------------------------------------------


def test_another_master_key_is_recognised(vault: PostgresVault, databases: Databases) -> None:
    [token] = vault.tokens([ADA])
    wrong = PostgresVault(databases.vault, bytes(32))
    with pytest.raises(MasterKeyWrong, match=r"master\.key"):
        wrong.find(*ADA)
    with pytest.raises(MasterKeyWrong):
        wrong.open([token])
    with pytest.raises(MasterKeyWrong):
        wrong.daily_token(date.max)
    wrong.hold_lease()
    with pytest.raises(MasterKeyWrong):
        wrong.tokens([ADA])
    wrong.close()


def test_the_master_key_is_made_once_and_closed_to_others(tmp_path: Path) -> None:
    key = master_key(tmp_path / "data", None, lambda: True)
    assert len(key) == 32
    assert master_key(tmp_path / "data", None, lambda: False) == key
    path = tmp_path / "data" / "master.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(path.parent) == ["master.key"]


def test_a_lost_master_key_is_never_replaced(tmp_path: Path, vault: PostgresVault, databases: Databases) -> None:
    _ = vault.hash_key
    with pytest.raises(MasterKeyWrong, match="lost"):
        master_key(tmp_path, None, lambda: vault_is_new(databases.vault))
    assert os.listdir(tmp_path) == []


def test_a_vault_is_new_until_a_key_was_used_on_it(databases: Databases) -> None:
    assert vault_is_new(databases.vault)
    assert vault_is_new(databases.main)  # not even migrated as a vault
    _ = PostgresVault(databases.vault, KEY).hash_key
    assert not vault_is_new(databases.vault)


def test_a_configured_master_key_is_hex_or_base64(tmp_path: Path) -> None:
    for text in (
        KEY.hex(),
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8",
    ):
        assert master_key(tmp_path, f" {text}\n", lambda: False) == KEY
    for wrong in ("", "abc", "zz" * 32, KEY.hex()[:-2], "é" * 64):
        with pytest.raises(MasterKeyWrong, match="THE_NAME"):
            parse(wrong, "THE_NAME")


def test_a_damaged_key_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "master.key").write_text("truncat")
    with pytest.raises(MasterKeyWrong, match=r"master\.key"):
        master_key(tmp_path, None, lambda: True)
