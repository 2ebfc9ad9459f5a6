"""Backups of a folder that is in use, what can be restored from them, and what is in none of them any more."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from psycopg2.extensions import make_dsn

from infra.adapters.backup.key import backup_key
from infra.adapters.backup.places import objects_at
from infra.adapters.backup.store import BackupStore
from infra.adapters.machine.data_folder import DataFolder
from infra.adapters.postgres.connect import connect
from infra.adapters.postgres.migrate import FOLDER
from infra.app.bootstrap import session
from infra.app.session import Session
from infra.drivers.process.archive_role import archiver_of
from tests.integration.running import Up, command, environment, result, until
from tests.object_store import CREDENTIALS, ObjectStore, object_store  # noqa: F401  # the fixture

KEYS = ("master.key", "backup.key")


def put_keys(source: Path, target: Path) -> Path:
    """An empty folder with the keys that a restore needs."""
    target.mkdir()
    for name in KEYS:
        shutil.copy(source / name, target)
    return target


class Shop:
    """A running `up` that customers come to."""

    def __init__(self, data: Path, **settings: str) -> None:
        self.data = data
        self.settings = settings
        self.between = datetime.now(UTC)
        self.up = Up(data, **settings)
        self.up.wait_ready()
        self.key = str(self.run("source", "create", "web")["write_key"])

    def run(self, *arguments: str) -> Any:
        return result(*arguments, "--data", str(self.data), **self.settings)

    def customer(self, name: str) -> None:
        """Somebody new, folded and decided when it returns."""
        item = {
            **{"type": "track", "event": "Order Completed", "userId": name, "messageId": f"m-{name}"},
            **{"context": {"traits": {"email": f"{name}@example.com"}}, "properties": {"orderId": name, "revenue": 5}},
        }
        assert self.up.send(self.key, "track", item).status == 200
        self.run("status", "--wait")

    def vault_rows(self, query: str) -> list[tuple[Any, ...]]:
        running = DataFolder(self.data).running()
        assert running is not None, "its up runs"
        connection = connect(make_dsn(running.vault_dsn), "touchfold test")
        with connection.cursor() as cursor:
            cursor.execute(query)
            rows = list(cursor.fetchall())
        connection.close()
        return rows


def store_of(shop: Shop, backups: Path) -> BackupStore:
    return BackupStore(objects_at(str(backups)), backup_key(shop.data, None))


def knows(data: Path, name: str, **settings: str) -> bool:
    """Whether a folder has a customer."""
    done = command("profile", f"user_id:{name}", "--data", str(data), "--json", **settings)
    assert done.returncode == 0 or '"not_found"' in done.stderr, done.stderr
    return done.returncode == 0


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """Ada, a backup, Bob, and WAL sent. `Shop.between` is an instant after Ada and before Bob."""
    folder = tmp_path_factory.mktemp("shop")
    made = Shop(folder / "data")
    made.customer("ada")
    made.run("backup", str(folder / "backups"))
    made.between = datetime.now(UTC)
    made.customer("bob")
    made.run("backup", str(folder / "backups"), "--wal")
    yield made
    made.up.stop()


@pytest.fixture
def backups(shop: Shop) -> Path:
    return shop.data.parent / "backups"


def test_an_instant_between_two_new_customers_is_restored_with_one_of_them(
    shop: Shop, backups: Path, tmp_path: Path
) -> None:
    for at, who in ((shop.between.isoformat(), {"ada"}), (None, {"ada", "bob"})):
        data = put_keys(shop.data, tmp_path / ("then" if at else "newest"))
        told = result("restore", str(backups), *(("--at", at) if at else ()), "--data", str(data))
        assert told["events"] == len(who)
        assert {name for name in ("ada", "bob") if knows(data, name)} == who
    assert result("rebuild", "--check", "--data", str(data))["equal"]


@pytest.fixture(params=["folder", "s3"])
def elsewhere(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Settings of an archive that is not in the data folder."""
    if request.param == "folder":
        return {"ARCHIVE": str(tmp_path / "archive elsewhere")}
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    store: ObjectStore = request.getfixturevalue("object_store")
    return {"ARCHIVE": f"s3://{store.bucket()}/archive", "S3_ENDPOINT": store.endpoint}


def test_where_the_archive_lies_elsewhere_it_is_written_again_and_a_used_one_is_refused(
    shop: Shop, backups: Path, tmp_path: Path, elsewhere: dict[str, str]
) -> None:
    data = put_keys(shop.data, tmp_path / "restored")
    done = command("restore", str(backups), "--data", str(data), **elsewhere)
    assert done.returncode == 0, done.stderr
    assert f"the archive is at {elsewhere['ARCHIVE']}: up rewrites it" in done.stderr
    assert not list((data / "archive").iterdir())
    with session_of(data, elsewhere) as here:
        archiver_of(here).flush()
    asked = ("select count(*) n, count(distinct profile_id) people from events", "--data", str(data))
    assert result("sql", *asked, **elsewhere) == [{"n": 2, "people": 2}]
    assert result("archive", "verify", "--data", str(data), **elsewhere)["records"] == 2
    again = put_keys(shop.data, tmp_path / "again")
    refused = command("restore", str(backups), "--data", str(again), **elsewhere)
    assert refused.returncode == 1
    assert "Set it to an empty folder or prefix" in refused.stderr
    assert sorted(each.name for each in again.iterdir()) == sorted(KEYS), "nothing was changed"
    (again / "touchfold.toml").write_text("".join(f'{name.lower()} = "{value}"\n' for name, value in elsewhere.items()))
    assert "Set it to an empty folder" in command("restore", str(backups), "--data", str(again)).stderr


def test_a_drill_leaves_an_archive_elsewhere_alone(shop: Shop, backups: Path, elsewhere: dict[str, str]) -> None:
    found = command("doctor", "--drill", "--json", "--data", str(shop.data), BACKUP_TO=str(backups), **elsewhere)
    [drill] = [each for each in json.loads(found.stdout) if each["check"] == "drill"]
    assert drill["ok"], drill["detail"]
    assert "found no difference" in drill["detail"]
    assert not Path(elsewhere["ARCHIVE"]).exists()


@contextmanager
def session_of(data: Path, settings: dict[str, str]) -> Iterator[Session]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(f"TOUCHFOLD_{name}", value)
        with session(data) as here:
            yield here


def test_nothing_in_a_backup_can_be_read_without_its_key(shop: Shop, backups: Path) -> None:
    needles = [b"ada@example.com", b"PG_VERSION", b"touchfold_vault", (shop.data / "master.key").read_bytes().strip()]
    found = [path for path in backups.rglob("*") if path.is_file()]
    assert len(found) > 5
    assert all(needle not in path.read_bytes() for path in found for needle in needles)
    assert all(path.stat().st_mode & 0o077 == 0 for path in found)


def test_a_list_says_to_what_instants_each_base_can_be_restored(shop: Shop, backups: Path) -> None:
    [told] = shop.run("backup", str(backups), "--list")
    assert told["from"] < shop.between.isoformat() < told["until"]
    assert (told["gap_after"], told["migrations"]["vault"]) == (
        None,
        max(int(path.name[:4]) for path in FOLDER.glob("*_vault.sql")),
    )


def test_a_flipped_byte_is_found_by_name_by_verify_and_by_restore(shop: Shop, backups: Path, tmp_path: Path) -> None:
    copy = tmp_path / "backups"
    shutil.copytree(backups, copy)
    [part] = copy.glob("bases/*/part-00000")
    [until_] = copy.glob("wal/*/until")
    wal = sorted(path for path in copy.glob("wal/*/*") if path.name != "until")
    store = store_of(shop, copy)
    for path in (part, until_, wal[-1], *copy.glob("bases/*/base"), *copy.glob("ledger/*")):
        whole, name = path.read_bytes(), path.relative_to(copy).as_posix()
        path.write_bytes(whole[:-10] + bytes([whole[-10] ^ 4]) + whole[-9:])
        assert [name in each for each in store.verify()] == [True]
        if path in {part, wal[-1]}:
            refused = command("restore", str(copy), "--data", str(put_keys(shop.data, tmp_path / f"of-{path.name}")))
            assert (refused.returncode, name in refused.stderr) == (1, True), refused.stderr
            assert "Traceback" not in refused.stderr
        path.write_bytes(whole)
    done = command("backup", str(copy), "--verify", "--json", "--data", str(shop.data))
    assert json.loads(done.stdout) == {"whole": True, "problems": []}
    segments = [path for path in wal if ".backup" not in path.name]
    segments[len(segments) // 2].unlink()
    assert any("gap" in each for each in store.verify())
    part.unlink()
    assert any(f"{part.relative_to(copy)} is missing" in each for each in store.verify())


def test_what_cannot_be_restored_is_refused_before_anything_is_written(
    shop: Shop, backups: Path, tmp_path: Path
) -> None:
    full = put_keys(shop.data, tmp_path / "full")
    (full / "precious").write_text("x")
    late = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    only_backup = tmp_path / "only"
    only_backup.mkdir()
    shutil.copy(shop.data / "backup.key", only_backup)
    good = put_keys(shop.data, tmp_path / "good")
    cases: list[tuple[Path, tuple[str, ...], dict[str, str], str]] = [
        (full, (), {}, "precious"),
        (good, ("--at", late), {}, "cannot be restored"),
        (only_backup, (), {}, "does not hold the master key"),
        (good, (), {"MASTER_KEY": "00" * 32}, "not the one for this backup"),
        (good, (), {"BACKUP_KEY": "00" * 32}, "another backup key"),
    ]
    for data, more, settings, says in cases:
        before = sorted(data.iterdir())
        done = command("restore", str(backups), *more, "--data", str(data), **settings)
        assert (done.returncode, says in done.stderr) == (1, True), done.stderr
        assert sorted(data.iterdir()) == before
    elsewhere = command("restore", str(tmp_path), "--data", str(good))
    assert "there is no backup" in elsewhere.stderr


def test_a_backup_beside_the_one_of_the_settings_stands_alone_and_moves_no_wal(shop: Shop, tmp_path: Path) -> None:
    place, settings = str(tmp_path / "beside"), {"BACKUP_TO": str(shop.data.parent / "backups")}
    before = (shop.data / "backup" / "following.json").read_bytes()
    told = result("backup", place, "--data", str(shop.data), **settings)
    assert told["at"] == told["until"]
    assert (shop.data / "backup" / "following.json").read_bytes() == before
    inside = command("backup", str(shop.data / "copies"), "--data", str(shop.data))
    assert "is inside the data folder" in inside.stderr


def test_a_backup_killed_in_its_middle_is_none_and_the_next_one_is_whole(shop: Shop, tmp_path: Path) -> None:
    place = tmp_path / "killed"
    for point in ("backup.part_put", "backup.finished"):
        killed = command(*("backup", str(place), "--data", str(shop.data)), TEST="1", FAILPOINT=f"cli@{point}")
        assert killed.returncode == -9
    assert len(shop.run("backup", str(place), "--list")) == 1  # the second was finished when it was killed
    shop.run("backup", str(place))
    assert len(shop.run("backup", str(place), "--list")) == 2
    assert shop.run("backup", str(place), "--verify")["whole"]
    assert len(list(place.glob("bases/*/base"))) == len(list(place.glob("bases/*"))) == 2


def test_a_restore_killed_in_its_middle_is_begun_again_and_nothing_starts_on_the_half(
    shop: Shop, backups: Path, tmp_path: Path
) -> None:
    data = put_keys(shop.data, tmp_path / "data")
    killed = command("restore", str(backups), "--data", str(data), TEST="1", FAILPOINT="cli@restore.unpacked")
    assert killed.returncode == -9
    half = command("status", "--data", str(data))
    assert "half restored" in half.stderr
    assert result("restore", str(backups), "--data", str(data))["events"] == 2


@pytest.mark.long
def test_a_drill_restores_aside_compares_and_leaves_nothing(shop: Shop) -> None:
    before = sorted(shop.data.parent.iterdir())
    done = command("doctor", "--drill", "--json", "--data", str(shop.data))
    found = {each["check"]: each for each in json.loads(done.stdout)}
    assert (found["drill"]["ok"], "found no difference" in found["drill"]["detail"]) == (True, True), found["drill"]
    assert (found["backups"]["ok"], found["copies"]["ok"]) == (True, True)
    assert sorted(shop.data.parent.iterdir()) == before


def test_a_bucket_and_a_folder_hold_objects_alike(object_store: ObjectStore, tmp_path: Path) -> None:  # noqa: F811
    bucket = f"s3://{object_store.bucket()}/some/prefix"
    for objects in (objects_at(bucket, object_store.endpoint), objects_at(str(tmp_path / "a" / "b"))):
        assert (objects.names(), objects.get("x"), objects.get("x/y")) == ({}, None, None)
        for name, data in {"x/1": b"one", "x/2": b"", "y": b"why"}.items():
            objects.put(name, data)
        objects.put("x/1", b"another")
        assert objects.names() == {"x/1": 7, "x/2": 0, "y": 3}
        assert objects.names("x/") == {"x/1": 7, "x/2": 0}
        assert (objects.get("x/1"), objects.get("x/2")) == (b"another", b"")
        objects.remove(["x/1", "x/2", "not/there"])
        assert objects.names() == {"y": 3}


@pytest.mark.long
def test_a_bucket_takes_a_backup_and_gives_it_back(
    shop: Shop,
    object_store: ObjectStore,  # noqa: F811
    tmp_path: Path,
) -> None:
    place = f"s3://{object_store.bucket()}/some/prefix"
    settings = {"S3_ENDPOINT": object_store.endpoint}
    assert CREDENTIALS.keys() <= environment().keys()
    result("backup", place, "--data", str(shop.data), **settings)
    assert result("backup", place, "--verify", "--data", str(shop.data), **settings)["whole"]
    data = put_keys(shop.data, tmp_path / "data")
    assert result("restore", place, "--data", str(data), **settings)["events"] == 2
    shop.run("backup", str(shop.data.parent / "backups"))  # its WAL goes there again


def test_wal_waits_sealed_while_its_place_is_away_health_says_so_and_it_goes_when_it_is_back(tmp_path: Path) -> None:
    place, aside = tmp_path / "backups", tmp_path / "aside"
    shop = Shop(tmp_path / "data", BACKUP_TO=str(place))
    store_of_soon(shop, place)
    place.rename(aside)
    place.write_text("no folder any more")
    shop.vault_rows("select pg_switch_wal()")
    waiting = shop.data / "backup" / "waiting"
    until(lambda: any(waiting.glob("*/*")), "sealed WAL that waits")

    def problems() -> dict[str, str]:
        return {each["check"]: each["detail"] for each in shop.up.get("/health").body["problems"]}

    until(lambda: str(place) in problems().get("backups", ""), "health that says so")
    shop.customer("ada")  # nothing else waits
    assert not [path for path in (shop.data / "postgres" / "wal-out").iterdir() if path.name != "on"]
    assert all(path.read_bytes().startswith(b"TFB1") for path in waiting.glob("*/*"))
    place.unlink()
    aside.rename(place)
    until(lambda: not any(waiting.glob("*/*")) and "backups" not in problems(), "all that waited is sent")
    assert shop.run("backup", "--verify")["whole"]
    shop.up.stop()


# --- a person's life, and what is gone in the end


def needles_in(files: Callable[[], Iterator[bytes]], needles: list[bytes]) -> set[bytes]:
    return {needle for data in files() for needle in needles if needle in data}


def of_folder(*folders: Path) -> Callable[[], Iterator[bytes]]:
    def files() -> Iterator[bytes]:
        for folder in folders:
            for path in folder.rglob("*"):
                if path.is_file():
                    with suppress(FileNotFoundError):
                        yield path.read_bytes()

    return files


def of_backup(store: BackupStore) -> Callable[[], Iterator[bytes]]:
    """Every object, opened and unpacked; a base as one stream, as no part can be unpacked alone."""

    def unpacked(data: bytes) -> bytes:
        with pa.input_stream(BytesIO(data), compression="zstd") as stream:
            return bytes(stream.read())

    def files() -> Iterator[bytes]:
        for base in store.bases():
            yield unpacked(b"".join(store.read(part.name) for part in base.parts))
        for name in store.objects.names():
            if name.startswith(("wal/", "ledger/")) and not name.endswith("/until"):
                data = store.read(name)
                yield unpacked(data) if data else b""
            elif name.startswith("archive/"):
                yield store.read(name)

    return files


def test_a_persons_life_known_backed_up_erased_restored_and_found_in_no_byte(tmp_path: Path) -> None:
    ledger, place = tmp_path / "ledger", tmp_path / "backups"
    shop = Shop(tmp_path / "data", LEDGER=str(ledger), BACKUP_TO=str(place), BACKUP_DAYS="7")
    store = store_of_soon(shop, place)
    shop.customer("eve")
    rows = shop.vault_rows("select hash, key_wrapped, value_sealed from identifiers")
    needles = [bytes(part) for row in rows for part in row]
    shop.run("backup")
    yesterday = datetime.now(UTC)
    assert needles_in(of_backup(store), needles) == set(needles)  # the search does find them

    erased = shop.run("erase", "email:eve@example.com", "--yes")
    gone = datetime.now(UTC)
    [remains] = erased["receipt"]["remains"]
    assert remains["where"] == "backups"
    assert remains["until"].startswith(f"{gone + timedelta(days=7):%Y-%m-%d}")
    shop.customer("bob")
    shop.run("backup")
    shop.up.stop()
    assert needles_in(of_folder(shop.data, ledger), needles[1::3] + needles[2::3]) == set()

    # yesterday's backup, and today's ledger
    data = put_keys(shop.data, tmp_path / "restored")
    told = result("restore", str(place), "--at", yesterday.isoformat(), "--data", str(data), LEDGER=str(ledger))
    assert (told["erasures"], told["erased_again"]) == (1, 1)
    assert not knows(data, "eve", LEDGER=str(ledger))
    assert needles_in(of_folder(data), needles[1::3] + needles[2::3]) == set()

    # when its days are over, no file of the backup has the person, and what is left can be restored
    store.prune(gone + timedelta(days=7) - timedelta(hours=2), 7)
    assert store.bases(), "the backup of after the erasure is younger"
    assert needles_in(of_backup(store), needles[1::3] + needles[2::3]) == set()
    after = put_keys(shop.data, tmp_path / "after")
    result("restore", str(place), "--data", str(after), LEDGER=str(ledger))
    assert (knows(after, "eve", LEDGER=str(ledger)), knows(after, "bob", LEDGER=str(ledger))) == (False, True)


def store_of_soon(shop: Shop, place: Path) -> BackupStore:
    """`up` makes the first backup by itself, at once."""
    until(lambda: bool(list(place.glob("bases/*/base"))), "the first backup")
    return store_of(shop, place)
