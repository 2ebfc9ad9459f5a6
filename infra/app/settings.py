"""The settings: one frozen tree, read once from `TOUCHFOLD_…` and a TOML file. Nothing below bootstrap sees it.

The environment overrides the file. An unknown key or a bad value is an error that names the key, says what is wrong
with it and how to fix it.
"""

import re
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple
from zoneinfo import ZoneInfo, available_timezones

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

from infra.app.secret_files import FILE_FIELDS, SECRETS, with_files_read
from schemas.backups import MOST_DAYS
from schemas.errors import Problem, SettingsInvalid
from schemas.failpoints import NAMES
from schemas.identity_rules import LOGIN_LIMIT
from schemas.reads import Deployment as Deployment  # noqa: PLC0414  # bootstrap takes it from here

PREFIX: Final = "TOUCHFOLD_"
FILE_NAME: Final = "touchfold.toml"
ROLES: Final = ("http", "worker", "archive", "ui", "up", "cli", "publish", "inbox", "backup")
_TEST_ONLY: Final = frozenset({"CLOCK_OFFSET_S", "FAILPOINT"})
_NOT_SETTINGS: Final = frozenset({"CONFIG", "TEST"})  # environment only: they control how the rest is read
_OF_THE_TESTS: Final = frozenset({"SHARED", "TEST_KAFKA"})  # where the test suite finds large data sets and a broker
_FAILPOINT: Final = re.compile(r"(?:(?P<role>[a-z]+)@)?(?P<name>[a-z_.]+)(?::(?P<hits>[1-9][0-9]{0,6}))?")
_TEXTS: Final = frozenset(  # numbers and booleans, as text
    {
        *("port", "probe_port", "doors", "ui", "workers", "clock_offset_s", "backup_days"),
        "login_limit",
        *("connections", "api_rate", "search_rate", "sign_in_rate"),
        *("kafka_insecure", "kafka_partitions", "kafka_replication", "kafka_ack_s", "kafka_buffer_mib"),
    }
)


class Failpoint(NamedTuple):
    """Where a kill test makes a process end itself: at the `hits`-th pass; None: in every role."""

    role: str | None
    name: str
    hits: int


class Settings(BaseModel):
    """Every setting with its default; docs/settings.md describes them in full."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    data: Path = Field(Path("touchfold-data"), description="the data folder")
    host: str = Field("127.0.0.1", min_length=1, description="the address to listen on")
    port: int = Field(8700, ge=0, le=65535, description="the port to listen on; 0 takes a free one")
    probe_port: int = Field(0, ge=0, le=65535, description="the port of /live, /ready and /metrics of a role; 0: none")
    doors: int = Field(1, ge=1, le=16, description="HTTP processes that share the port")
    ui: bool = Field(True, description="whether the pages are served")
    analytics_js: Path | None = Field(None, description="Segment's script for browsers, or the folder it is in")
    tls_cert: Path | None = Field(None, description="PEM file of our certificate and its signers; turns on HTTPS")
    tls_key: Path | None = Field(None, description="PEM file of its key, without a password")
    connections: int = Field(4096, ge=8, le=1_000_000, description="per HTTP process; fewer if descriptors run short")
    trusted_proxies: str | None = Field(None, description="proxies whose X-Forwarded-For is trusted, comma-separated")
    api_rate: float = Field(300.0, ge=0, le=1e6, description="API requests per second and caller; 0: no limit")
    search_rate: float = Field(50.0, ge=0, le=1e6, description="searches per second and caller; 0: no limit")
    sign_in_rate: float = Field(60.0, ge=0, le=1e6, description="sign-in attempts per minute and address; 0: no limit")
    database: SecretStr | None = Field(None, description="your own PostgreSQL, instead of the one in the data folder")
    vault: SecretStr | None = Field(None, description="the vault's database; by default DATABASE's name + _vault")
    log: Literal["postgres", "kafka"] = Field("postgres", description="where the log lives")
    kafka_bootstrap: str | None = Field(None, description="brokers, host:port separated by commas")
    kafka_insecure: bool = Field(False, description="allow brokers without TLS, and topics with one replica")
    kafka_prefix: str = Field("touchfold", description="prefix of our topics' names")
    kafka_partitions: int = Field(12, ge=1, le=1024, description="of the events topic when `topics apply` creates it")
    kafka_replication: int = Field(3, ge=1, le=9, description="replicas of topics that `topics apply` creates")
    kafka_tls_ca: Path | None = Field(None, description="PEM file of the brokers' authority; else the system's")
    kafka_tls_cert: Path | None = Field(None, description="PEM file of our certificate, for mutual TLS")
    kafka_tls_key: Path | None = Field(None, description="PEM file of its key")
    kafka_sasl: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = Field(None, description="how we log in")
    kafka_username: str | None = Field(None, description="the name we log in with")
    kafka_password: SecretStr | None = Field(None, description="its password")
    kafka_ack_s: float = Field(
        8.0, gt=0, le=300, description="how long the door waits for the brokers' acknowledgement"
    )
    kafka_buffer_mib: int = Field(64, ge=1, le=4096, description="memory for records not yet taken by the brokers")
    kafka_personal: str | None = Field(None, description="topics that may carry personal values, comma-separated")
    worker_runner: Literal["faust", "aiokafka"] = Field("faust", description="what drives the workers on Kafka")
    workers: int = Field(1, ge=0, le=64, description="worker processes on this machine; more than one only with kafka")
    worker_id: str | None = Field(None, description="name of this machine's workers in their group; else the host name")
    archive: str | None = Field(None, description="another folder for the archive, or s3://bucket/prefix")
    s3_endpoint: str | None = Field(None, description="URL of an S3-compatible store; else Amazon's")
    unknown: Literal["seal", "clear"] = Field("seal", description="for undeclared numbers, booleans and times")
    time_zone: str = Field("UTC", description="the zone in which definitions count days")
    region: str = Field("US", description="country of phone numbers without a country code")
    login_limit: int = Field(
        LOGIN_LIMIT, ge=5, le=10_000, description="e-mails, phones or cards of a login or card before it is shared"
    )
    currency: str = Field("USD", description="for amounts without a currency, and for totals")
    master_key: SecretStr | None = Field(None, description="64 hex digits or base64; else the file master.key")
    master_key_next: SecretStr | None = Field(None, description="the new one, for `key rotate`")
    ledger: Path | None = Field(None, description="the folder of the ledger of erasures, best outside the data folder")
    backup_to: str | None = Field(None, description="where automatic backups go: a folder, or s3://bucket/prefix")
    backup_at: str = Field("03:00", description="time of the daily backup, in TIME_ZONE")
    backup_days: int = Field(14, ge=1, le=MOST_DAYS, description="days a backup is kept")
    backup_key: SecretStr | None = Field(None, description="64 hex digits or base64; else the file backup.key")
    clock_offset_s: float = Field(0.0, description="shifts the decision clock; only with TOUCHFOLD_TEST=1")
    failpoint: Failpoint | None = Field(None, description="ends a process there; only with TOUCHFOLD_TEST=1")

    @property
    def deployment(self) -> Deployment:
        return Deployment(self.time_zone, self.region, self.currency)

    @property
    def proxies(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """Addresses and networks of `trusted_proxies`."""
        parts = filter(None, (part.strip() for part in (self.trusted_proxies or "").split(",")))
        return tuple(ip_network(part, strict=False) for part in parts)

    @field_validator("trusted_proxies", mode="after")
    @classmethod
    def _networks(cls, value: str | None) -> str | None:
        for part in filter(None, (part.strip() for part in (value or "").split(","))):
            try:
                ip_network(part, strict=False)
            except ValueError:
                raise ValueError(f"names {part}, which is not an address or a network such as 10.0.0.0/8") from None
        return value

    @field_validator("data", mode="after")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @field_validator("ledger", "analytics_js", mode="after")
    @classmethod
    def _absolute_if_given(cls, value: Path | None) -> Path | None:
        return None if value is None else value.expanduser().absolute()

    @field_validator("backup_at", mode="after")
    @classmethod
    def _time_of_day(cls, value: str) -> str:
        if re.fullmatch("([01][0-9]|2[0-3]):[0-5][0-9]", value) is None:
            raise ValueError("must be a time of day, such as 03:00")
        return value

    @field_validator("host", mode="after")
    @classmethod
    def _address(cls, value: str) -> str:
        if "/" in value or any(letter.isspace() for letter in value):
            raise ValueError("must be a host name or an address, such as 127.0.0.1 or 0.0.0.0")
        return value

    @field_validator("worker_id", mode="after")
    @classmethod
    def _member_name(cls, value: str | None) -> str | None:
        if value is not None and re.fullmatch("[a-zA-Z0-9._-]{1,200}", value) is None:
            raise ValueError("may contain only letters, digits, ., _ and -, such as worker-1")
        return value

    @field_validator("kafka_prefix", mode="after")
    @classmethod
    def _topic_name(cls, value: str) -> str:
        if re.fullmatch("[a-zA-Z0-9_-]{1,100}", value) is None:
            raise ValueError("may contain only letters, digits, _ and -, such as touchfold")
        return value

    @model_validator(mode="after")
    def _fit_together(self) -> "Settings":
        """Settings that depend on each other. The message names the one to set."""
        if self.log == "kafka" and self.kafka_bootstrap is None:
            raise ValueError(f"{PREFIX}KAFKA_BOOTSTRAP is missing: TOUCHFOLD_LOG=kafka needs it, such as host:9092")
        if self.probe_port and self.probe_port == self.port:
            raise ValueError(f"{PREFIX}PROBE_PORT is the same as {PREFIX}PORT: choose another port")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError(f"{PREFIX}TLS_CERT and {PREFIX}TLS_KEY belong together: give both, or neither")
        if self.log == "postgres" and self.workers > 1:
            raise ValueError(f"{PREFIX}WORKERS is more than 1: several workers need TOUCHFOLD_LOG=kafka")
        if (self.kafka_sasl is None) != (self.kafka_username is None):
            raise ValueError(f"{PREFIX}KAFKA_SASL and {PREFIX}KAFKA_USERNAME belong together: give both, or neither")
        return self

    @field_validator("time_zone", mode="after")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            return ZoneInfo(value).key
        except (KeyError, ValueError, OSError):  # unknown; not a relative path; a directory of zones
            close = {zone.lower(): zone for zone in available_timezones()}
            near = get_close_matches(value.lower(), close, 1)
            hint = f"did you mean {close[near[0]]}?" if near else "use a name such as Europe/Berlin"
            raise ValueError(f"is not a time zone: {hint}") from None

    @field_validator("region", mode="after")
    @classmethod
    def _two_letters(cls, value: str) -> str:
        if re.fullmatch("[A-Z]{2}", value) is None:
            raise ValueError("must be the two capital letters of a country, such as US or DE")
        return value

    @field_validator("currency", mode="after")
    @classmethod
    def _three_letters(cls, value: str) -> str:
        if re.fullmatch("[A-Z]{3}", value) is None:
            raise ValueError("must be the three capital letters of an ISO 4217 currency, such as USD or EUR")
        return value

    @field_validator("failpoint", mode="before")
    @classmethod
    def _parsed(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        match = _FAILPOINT.fullmatch(value)
        if match is None:
            raise ValueError("must be name, name:hits or role@name:hits")
        role, name = match["role"], match["name"]
        if name not in NAMES:
            raise ValueError(f"is not a failpoint; the failpoints are {', '.join(sorted(NAMES))}")
        if role is not None and role not in ROLES:
            raise ValueError(f"does not name a role; the roles are {', '.join(ROLES)}")
        return Failpoint(role, name, int(match["hits"] or 1))


KEYS: Final = tuple(name.upper() for name in Settings.model_fields)
"""Every key, as it follows TOUCHFOLD_ in the environment; the file has them in lower case."""

FILE_KEYS: Final = tuple(name.upper() for name in FILE_FIELDS)
"""For each secret key, the key that names a file holding its value."""
_NAMES: Final = frozenset({*KEYS, *FILE_KEYS})


def load(environ: Mapping[str, str], *, data: Path | None = None, port: int | None = None) -> Settings:
    """Settings from the environment and the TOML file; `data` and `port` from the command line override both.

    The file is TOUCHFOLD_CONFIG, else touchfold.toml in the data folder if it exists. Raises SettingsInvalid.
    """
    env = _from_environment(environ)
    folder = data or Path(env.get("data", (Settings.model_fields["data"].default, ""))[0])
    file = _from_file(environ.get(PREFIX + "CONFIG"), folder)
    found: dict[str, tuple[Any, str]] = {**file, **env}
    if data is not None:
        found["data"] = (data, "--data")
    if port is not None:
        found["port"] = (port, "--port")
    if environ.get(PREFIX + "TEST") != "1":
        _refuse_test_only(found)
    return _validate(found)


def _from_environment(environ: Mapping[str, str]) -> dict[str, tuple[Any, str]]:
    """Field -> (value, the name it was given under)."""
    found: dict[str, tuple[Any, str]] = {}
    for name, value in environ.items():
        if not name.startswith(PREFIX):
            continue
        key = name.removeprefix(PREFIX)
        if key in _OF_THE_TESTS:
            continue
        if key not in _NAMES and key not in _NOT_SETTINGS:
            raise _unknown(name, key)
        if not value:
            raise SettingsInvalid(f"{name} is empty: give it a value, or unset it", [Problem(name, "is empty")])
        if key in _NAMES:
            found[key.lower()] = (value, name)
    return with_files_read(found)


def _from_file(configured: str | None, folder: Path) -> dict[str, tuple[Any, str]]:
    path = Path(configured) if configured else folder / FILE_NAME
    if not configured and not path.exists():
        return {}
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as err:
        reason = err.strerror if isinstance(err, OSError) else "it is not UTF-8"
        raise SettingsInvalid(
            f"the settings file {path} cannot be read: {reason}. Create it, or change TOUCHFOLD_CONFIG"
        ) from err
    except tomllib.TOMLDecodeError as err:
        raise SettingsInvalid(f"the settings file {path} is not valid TOML: {err}") from err
    found: dict[str, tuple[Any, str]] = {}
    for key, value in entries.items():
        origin = f"{key} in {path}"
        if key.upper() not in _NAMES or key != key.lower():
            raise _unknown(origin, key.upper(), small=True)
        if key == "data" and not configured:
            raise SettingsInvalid(f"{origin}: the file is in the data folder, so it cannot say where that is")
        found[key] = (value, origin)
    return with_files_read(found)


def _unknown(origin: str, key: str, *, small: bool = False) -> SettingsInvalid:
    near = get_close_matches(key, [*KEYS, *FILE_KEYS, *_NOT_SETTINGS], 1, 0.5)
    names = [PREFIX + each for each in KEYS]
    if small:
        near, names = [each.lower() for each in near], [each.lower() for each in KEYS]
    elif near:
        near = [PREFIX + near[0]]
    hint = f"did you mean {near[0]}?" if near else f"the settings are {', '.join(names)}"
    return SettingsInvalid(f"unknown setting {origin}: {hint}", [Problem(origin, "is not a setting")])


def _refuse_test_only(found: Mapping[str, tuple[Any, str]]) -> None:
    for key in sorted(_TEST_ONLY):
        if key.lower() in found:
            origin = found[key.lower()][1]
            raise SettingsInvalid(
                f"{origin} is for tests: unset it, or set TOUCHFOLD_TEST=1 as well",
                [Problem(origin, "only with TOUCHFOLD_TEST=1")],
            )


def _validate(found: Mapping[str, tuple[Any, str]]) -> Settings:
    wrong = [
        Problem(origin, "must be text in quotes")
        for field, (value, origin) in found.items()
        if field not in _TEXTS and not isinstance(value, str | Path)
    ]
    if not wrong:
        try:
            return Settings(**{field: value for field, (value, _) in found.items()})
        except ValidationError as err:
            wrong = [_problem(dict(entry), found) for entry in err.errors(include_url=False)]
    raise SettingsInvalid("; ".join(f"{problem.path} {problem.reason}" for problem in wrong), wrong)


def _problem(entry: Mapping[str, Any], found: Mapping[str, tuple[Any, str]]) -> Problem:
    if not entry["loc"]:  # about several settings together: the message names them
        path, _, reason = str(entry["msg"]).removeprefix("Value error, ").partition(" ")
        return Problem(path, reason)
    field = str(entry["loc"][0])
    value, origin = found[field]
    reason = str(entry["msg"]).removeprefix("Value error, ")
    reason = reason[0].lower() + reason[1:]
    if not isinstance(value, SecretStr) and field not in SECRETS:
        origin = f"{origin} = {value}" if origin.startswith((PREFIX, "--")) else f"{origin} ({value})"
    return Problem(origin, reason)
