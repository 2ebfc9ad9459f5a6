"""What can be restored from bases and WAL, and what must go when. Values alone."""

from datetime import UTC, datetime, timedelta

import pytest

from infra.adapters.backup.sealing import open_object, seal_object
from infra.app.backing_up import next_at, without_secrets
from schemas.backups import (
    Base,
    Until,
    base_id,
    base_of,
    base_time,
    choose,
    is_due,
    next_segment,
    reach_of,
    superfluous_wal,
    wal_name,
    wal_object,
)
from schemas.errors import BackupDamaged, BackupKeyWrong

START = datetime(2026, 11, 30, 3, tzinfo=UTC)
CHAIN = "a" * 12
KEY = bytes(range(32))


def segment(number: int) -> str:
    return f"00000001000000AA{number:08X}"


def base(number: int = 3, hours: float = 0, chain: str = CHAIN) -> Base:
    at = START + timedelta(hours=hours)
    return Base(
        id=base_id(at, 14, f"{number:012x}"),
        chain=chain,
        started_at=at,
        ended_at=at + timedelta(minutes=1),
        days=14,
        first_segment=segment(number),
        product="1",
        postgres="18",
        migrations={},
        master_checks=[],
        parts=[],
        plain_bytes=0,
        archive=[],
        files={},
        erasures=0,
    )


def wal(*numbers: int, chain: str = CHAIN) -> list[str]:
    """Names of objects, a segment an hour."""
    return [wal_object(chain, segment(each), START + timedelta(hours=each), 14) for each in numbers]


def test_the_segment_behind_the_last_of_a_log_is_the_first_of_the_next() -> None:
    assert next_segment("0000000100000000000000FE") == "0000000100000000000000FF"
    assert next_segment("0000000100000000000000FF") == "000000010000000100000000"
    assert next_segment("0000000200000001000000FF") == "000000020000000200000000"


def test_names_say_what_they_hold_and_strangers_are_none_of_ours() -> None:
    id_ = base_id(START, 14, "0123456789ab")
    assert base_time(id_) == (START, 14)
    assert base_of(f"bases/{id_}/part-00000") == id_
    assert base_of("bases/other/part") is None
    name = wal_object(CHAIN, segment(3), START, 30)
    assert wal_name(name) == (CHAIN, segment(3), START, 30)
    assert [wal_name(each) for each in (f"wal/{CHAIN}/until", "wal/x", "ledger/x")] == [None] * 3


def test_a_base_reaches_as_far_as_its_wal_has_no_gap() -> None:
    told = [each for name in wal(3, 4, 5, 7) if (each := wal_name(name)) is not None]
    found = reach_of(base(), told, Until(START + timedelta(hours=9), segment(7)))
    assert (found.until, found.gap_after) == (START + timedelta(hours=5), segment(5))
    whole = reach_of(base(), told[:3], Until(START + timedelta(hours=9), segment(5)))
    assert (whole.since, whole.until, whole.gap_after) == (base().ended_at, START + timedelta(hours=9), "")
    alone = reach_of(base(), [], None)
    assert alone.since == alone.until == base().ended_at


def test_the_nearest_base_before_an_instant_is_taken() -> None:
    old = reach_of(base(3), [], None)._replace(until=START + timedelta(hours=50))
    new = reach_of(base(30, hours=24), [], None)._replace(until=START + timedelta(hours=50))
    assert choose([old, new], START + timedelta(hours=25)) is new
    assert choose([old, new], START + timedelta(hours=23)) is old
    assert choose([old, new], START) is None
    assert choose([old, new], START + timedelta(hours=51)) is None
    assert choose([], None) is None


def test_wal_goes_with_the_last_base_that_needs_it() -> None:
    other = "b" * 12
    names = [*wal(2, 3, 4), f"wal/{CHAIN}/until", *wal(1, chain=other)]
    assert superfluous_wal(names, [base(3)], None) == [wal(2)[0], *wal(1, chain=other)]
    assert superfluous_wal(names, [base(3)], other) == wal(2)  # its first base is under way
    assert superfluous_wal(names, [], None) == names


def test_more_days_given_later_do_not_keep_a_copy_longer() -> None:
    end = START + timedelta(days=14)
    assert not is_due(START, 14, 30, end - timedelta(hours=3))
    assert is_due(START, 14, 30, end - timedelta(hours=1))  # before its time is over, by whoever looks once an hour
    assert is_due(START, 30, 7, START + timedelta(days=7))


@pytest.mark.parametrize("at", [0, 3, 4, 11, 12, 43, 44, 55, 56, -1])
def test_any_altered_byte_of_an_object_is_found_and_so_is_another_place(at: int) -> None:
    data = bytearray(seal_object(KEY, "wal/x", b"plain"))
    assert open_object(KEY, "wal/x", bytes(data)) == b"plain"
    with pytest.raises(BackupDamaged, match="wal/y"):
        open_object(KEY, "wal/y", bytes(data))
    data[at] ^= 1
    with pytest.raises((BackupDamaged, BackupKeyWrong), match="wal/x"):
        open_object(KEY, "wal/x", bytes(data))


def test_another_key_says_that_it_is_another_key() -> None:
    with pytest.raises(BackupKeyWrong, match="another backup key"):
        open_object(bytes(32), "x", seal_object(KEY, "x", b"plain"))


@pytest.mark.parametrize(
    "given",
    ['master_key = "hunter2"', '"master_key" = "hunter2"', "  backup_key='hunter2' # x", 'database = """\nhunter2"""'],
)
def test_the_settings_in_a_backup_have_no_secret(given: str) -> None:
    text = without_secrets(f'region = "DE"\n{given}\ncurrency = "EUR"\n')
    assert "hunter2" not in text
    assert "left out of the backup" in text
    assert without_secrets('region = "DE"\nmaster_key_file = "/x"\n') == 'region = "DE"\nmaster_key_file = "/x"\n'


def test_a_backup_is_due_once_a_day_in_the_deployments_time_and_a_missed_one_at_once() -> None:
    now = datetime(2026, 11, 30, 12, tzinfo=UTC)
    assert next_at(None, "03:00", "UTC", now) == now
    berlin = next_at(datetime(2026, 11, 30, 1, 59, tzinfo=UTC), "03:00", "Europe/Berlin", now)
    assert berlin.astimezone(UTC) == datetime(2026, 11, 30, 2, tzinfo=UTC)
    assert next_at(datetime(2026, 11, 29, 4, tzinfo=UTC), "03:00", "UTC", now) == datetime(2026, 11, 30, 3, tzinfo=UTC)
