"""Settings: defaults, order, and errors that name the key, what is wrong and what to do."""

import tomllib
from pathlib import Path

import pytest

from infra.app.settings import FILE_KEYS, KEYS, Failpoint, Settings, load
from schemas.errors import SettingsInvalid
from schemas.reads import Deployment

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "infra" / "deploy"


def test_without_any_setting_the_defaults_hold(tmp_path: Path) -> None:
    settings = load({}, data=tmp_path)
    assert (settings.host, settings.port, settings.doors) == ("127.0.0.1", 8700, 1)
    assert settings.deployment == Deployment("UTC", "US", "USD")
    assert settings.data == tmp_path
    assert settings.database is None
    assert settings.master_key is None


def test_trusted_proxies_are_addresses_and_networks(tmp_path: Path) -> None:
    settings = load({"TOUCHFOLD_TRUSTED_PROXIES": "10.0.0.7, 192.168.1.5/16,2001:db8::/32,"}, data=tmp_path)
    assert [str(each) for each in settings.proxies] == ["10.0.0.7/32", "192.168.0.0/16", "2001:db8::/32"]
    assert load({}, data=tmp_path).proxies == ()


def test_the_data_folder_is_touchfold_data_here_when_nothing_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load({}).data == tmp_path / "touchfold-data"


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "touchfold.toml").write_text('port = 1111\nhost = "0.0.0.0"\ntime_zone = "Europe/Vienna"\n')
    env = {"TOUCHFOLD_DATA": str(tmp_path), "TOUCHFOLD_PORT": "2222", "TOUCHFOLD_HOST": "::1"}
    assert (load(env, port=3333).port, load(env).port) == (3333, 2222)
    assert (load(env).host, load(env).time_zone) == ("::1", "Europe/Vienna")


def test_the_settings_file_may_be_named_and_then_says_where_the_data_is(tmp_path: Path) -> None:
    file = tmp_path / "ours.toml"
    file.write_text(f'data = "{tmp_path}/data"\n')
    assert load({"TOUCHFOLD_CONFIG": str(file)}).data == tmp_path / "data"


def test_a_file_in_the_data_folder_cannot_move_it(tmp_path: Path) -> None:
    (tmp_path / "touchfold.toml").write_text('data = "/elsewhere"\n')
    with pytest.raises(SettingsInvalid, match="cannot say where that is"):
        load({}, data=tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("TOUCHFOLD_TIMEZONE", "UTC", "did you mean TOUCHFOLD_TIME_ZONE?"),
        ("TOUCHFOLD_DATABSE", "x", "did you mean TOUCHFOLD_DATABASE?"),
        ("TOUCHFOLD_XQZ", "1", "the settings are TOUCHFOLD_DATA"),
        ("TOUCHFOLD_PORT", "eighty", "TOUCHFOLD_PORT = eighty"),
        ("TOUCHFOLD_PORT", "70000", "less than or equal to 65535"),
        ("TOUCHFOLD_PORT", "", "TOUCHFOLD_PORT is empty: give it a value, or unset it"),
        ("TOUCHFOLD_DOORS", "0", "greater than or equal to 1"),
        ("TOUCHFOLD_HOST", "http://me", "a host name or an address"),
        ("TOUCHFOLD_TRUSTED_PROXIES", "10.0.0.0/8, proxy.internal", "names proxy.internal, which is not an address"),
        ("TOUCHFOLD_CONNECTIONS", "1", "greater than or equal to 8"),
        ("TOUCHFOLD_API_RATE", "-1", "greater than or equal to 0"),
        ("TOUCHFOLD_TIME_ZONE", "Europe/Viena", "did you mean Europe/Vienna?"),
        ("TOUCHFOLD_TIME_ZONE", "qq", "such as Europe/Berlin"),
        ("TOUCHFOLD_REGION", "USA", "two capital letters"),
        ("TOUCHFOLD_CURRENCY", "usd", "three capital letters"),
        ("TOUCHFOLD_LOG", "kafka", "TOUCHFOLD_KAFKA_BOOTSTRAP is missing"),
        ("TOUCHFOLD_WORKERS", "2", "several workers need TOUCHFOLD_LOG=kafka"),
        ("TOUCHFOLD_KAFKA_SASL", "PLAIN", "give both, or neither"),
        ("TOUCHFOLD_KAFKA_PREFIX", "a b", "TOUCHFOLD_KAFKA_PREFIX = a b"),
        ("TOUCHFOLD_LOG", "redis", "'postgres' or 'kafka'"),
        ("TOUCHFOLD_KAFKA_INSECURE", "perhaps", "TOUCHFOLD_KAFKA_INSECURE = perhaps"),
        ("TOUCHFOLD_CONFIG", "/not/there.toml", "change TOUCHFOLD_CONFIG"),
    ],
)
def test_a_wrong_setting_is_an_error_that_names_the_key_and_the_way_out(
    key: str, value: str, says: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingsInvalid) as caught:
        load({key: value}, data=tmp_path)
    assert says in caught.value.message
    assert key in caught.value.message or key == "TOUCHFOLD_CONFIG"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("port = 87 00", "is not valid TOML"),
        ("prot = 8700", "did you mean port?"),
        ("PORT = 8700", "did you mean port?"),
        ("time_zone = 7", "must be text in quotes"),
        ("[server]\nport = 1", "unknown setting server"),
    ],
)
def test_a_wrong_file_is_an_error_that_names_the_file(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "touchfold.toml").write_text(text)
    with pytest.raises(SettingsInvalid) as caught:
        load({}, data=tmp_path)
    assert says in caught.value.message
    assert str(tmp_path / "touchfold.toml") in caught.value.message


def test_every_wrong_setting_is_listed_at_once(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid) as caught:
        load({"TOUCHFOLD_REGION": "x", "TOUCHFOLD_CURRENCY": "y"}, data=tmp_path)
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize("key", ["TOUCHFOLD_MASTER_KEY", "TOUCHFOLD_DATABASE", "TOUCHFOLD_VAULT"])
def test_a_secret_shows_in_no_text_of_the_settings(key: str, tmp_path: Path) -> None:
    settings = load({key: "hunter2"}, data=tmp_path)
    assert "hunter2" not in f"{settings} {settings!r}"


def test_what_is_for_tests_needs_the_test_switch(tmp_path: Path) -> None:
    for key, value in (("TOUCHFOLD_CLOCK_OFFSET_S", "60"), ("TOUCHFOLD_FAILPOINT", "fold.before_commit")):
        with pytest.raises(SettingsInvalid, match="TOUCHFOLD_TEST=1"):
            load({key: value}, data=tmp_path)
    env = {"TOUCHFOLD_TEST": "1", "TOUCHFOLD_CLOCK_OFFSET_S": "-60.5"}
    assert load(env, data=tmp_path).clock_offset_s == -60.5


@pytest.mark.parametrize(
    ("text", "point"),
    [
        ("fold.before_commit", Failpoint(None, "fold.before_commit", 1)),
        ("fold.before_commit:7", Failpoint(None, "fold.before_commit", 7)),
        ("worker@fold.before_commit:7", Failpoint("worker", "fold.before_commit", 7)),
    ],
)
def test_a_failpoint_has_a_name_and_perhaps_a_role_and_a_number(text: str, point: Failpoint, tmp_path: Path) -> None:
    env = {"TOUCHFOLD_TEST": "1", "TOUCHFOLD_FAILPOINT": text}
    assert load(env, data=tmp_path).failpoint == point


@pytest.mark.parametrize("text", ["fold.nowhere", "fold.before_commit:0", "x@fold.before_commit", "a b"])
def test_a_failpoint_that_does_not_exist_is_an_error(text: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match="TOUCHFOLD_FAILPOINT"):
        load({"TOUCHFOLD_TEST": "1", "TOUCHFOLD_FAILPOINT": text}, data=tmp_path)


def test_the_two_files_of_deploy_load_and_the_reference_has_every_key(tmp_path: Path) -> None:
    for name in ("minimal.toml", "reference.toml"):
        load({"TOUCHFOLD_CONFIG": str(DEPLOY / name)}, data=tmp_path)
    text = (DEPLOY / "reference.toml").read_text()
    given = tomllib.loads(text)
    for key in KEYS:
        field = Settings.model_fields[key.lower()]
        if key.lower() in given:
            assert str(given[key.lower()]) == str(field.default), f"{key} is not at its default"
        else:
            assert f"# {key.lower()} = " in text, f"{key} is not in reference.toml"


def test_every_setting_is_in_the_docs() -> None:
    text = (ROOT / "docs" / "settings.md").read_text()
    for key in (*KEYS, "CONFIG", "TEST"):
        assert f"| `TOUCHFOLD_{key}` |" in text


@pytest.mark.parametrize("key", FILE_KEYS)
def test_a_secret_may_stand_in_a_file_in_every_way_of_giving_settings(key: str, tmp_path: Path) -> None:
    field = key.removesuffix("_FILE").lower()
    secret = tmp_path / "secret"
    secret.write_text("  hunter2 \n\n")
    settings = load({f"TOUCHFOLD_{key}": str(secret)}, data=tmp_path)
    assert getattr(settings, field).get_secret_value() == "hunter2"
    assert "hunter2" not in f"{settings} {settings!r}"
    (tmp_path / "touchfold.toml").write_text(f'{key.lower()} = "{secret}"\n')
    assert getattr(load({}, data=tmp_path), field).get_secret_value() == "hunter2"
    # the environment wins over the file, whichever of the two ways each has
    assert getattr(load({f"TOUCHFOLD_{field.upper()}": "x"}, data=tmp_path), field).get_secret_value() == "x"


def test_every_secret_has_its_file() -> None:
    secrets = {name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)}
    assert secrets == {key.removesuffix("_FILE").lower() for key in FILE_KEYS}


def test_a_secret_given_twice_in_one_place_is_an_error_that_names_both(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hunter2")
    env = {"TOUCHFOLD_DATABASE": "hunter3", "TOUCHFOLD_DATABASE_FILE": str(tmp_path / "secret")}
    with pytest.raises(
        SettingsInvalid, match="TOUCHFOLD_DATABASE_FILE and TOUCHFOLD_DATABASE are both given"
    ) as caught:
        load(env, data=tmp_path)
    assert "hunter" not in caught.value.message
    (tmp_path / "touchfold.toml").write_text(f'master_key = "hunter3"\nmaster_key_file = "{tmp_path}/secret"\n')
    with pytest.raises(SettingsInvalid, match="both given"):
        load({}, data=tmp_path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot be read (No such file or directory)"),
        (b" \n", "is empty"),
        (b"\xff\xfe", "is not UTF-8 text"),
        (b"hunter2\nhunter3\n", "more than one line"),
        (b"x" * 70_000, "more than one line"),
    ],
)
def test_a_secret_file_without_a_value_is_an_error_that_names_it(
    content: bytes | None, says: str, tmp_path: Path
) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsInvalid) as caught:
        load({"TOUCHFOLD_KAFKA_PASSWORD_FILE": str(path)}, data=tmp_path)
    assert f"TOUCHFOLD_KAFKA_PASSWORD_FILE = {path}" in caught.value.message
    assert says in caught.value.message
    assert "hunter" not in caught.value.message
