"""Your own PostgreSQL instead of the one in the data folder: two databases on a server run by others.

Same shape as `EmbeddedPostgres`: lock, start, poll, stop, `dsn`, `vault_dsn`.
"""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

import psycopg2
from psycopg2.extensions import make_dsn, parse_dsn

from infra.adapters.postgres.connect import connect
from infra.adapters.postgres.embedded import EmbeddedPostgres
from infra.adapters.postgres.pooler import shares_backends
from schemas.errors import Problem, ServiceFailed, SettingsInvalid, StoreUnavailable

OLDEST: Final = 14  # oldest version that the migrations' SQL works with; the wheel and the tests use 18
VAULT_SUFFIX: Final = "_vault"
_UTC: Final = frozenset({"UTC", "GMT", "Etc/UTC", "Etc/GMT", "UCT", "Etc/UCT", "Zulu", "Etc/Zulu", "Universal"})
_OPTIONS_REFUSED: Final = (
    "there is a pooler in front of it; give the server's own address, or use session pooling and pass our options on "
    "(PgBouncer: pool_mode = session, ignore_startup_parameters = options)"
)


class OwnPostgres:
    """`database`: a connection string or URL; `vault`: the same for the vault, default: the name + "_vault"."""

    def __init__(self, data: Path, database: str, vault: str | None = None) -> None:
        self._folder = EmbeddedPostgres(data)  # only for its lock: the archive has a single owner here too
        parts = _parse(database, "TOUCHFOLD_DATABASE")
        name = parts.get("dbname") or parts.get("user", "")
        if not name:
            raise _bad("TOUCHFOLD_DATABASE", "has no database name: add one, such as …/touchfold")
        self.dsn = make_dsn(**parts)
        vault_parts = _parse(vault, "TOUCHFOLD_VAULT") if vault else {**parts, "dbname": name + VAULT_SUFFIX}
        self.vault_dsn = make_dsn(**vault_parts)
        self._vault_name = vault_parts.get("dbname", "")
        if self.dsn == self.vault_dsn:
            raise _bad("TOUCHFOLD_VAULT", "is the same database as TOUCHFOLD_DATABASE: the vault needs its own")

    def lock(self) -> None:
        """Take the data folder (archive, master key, ledger) for this process. Raises FolderLocked."""
        self._folder.lock()

    def start(self, progress: Callable[[str], None] = lambda _line: None) -> None:
        """Check that both databases answer; create the vault's if it is missing and we may. Raises ServiceFailed."""
        progress("connecting to your PostgreSQL")
        self._check(self.dsn, "TOUCHFOLD_DATABASE")
        try:
            self._check(self.vault_dsn, "TOUCHFOLD_VAULT")
        except ServiceFailed:
            self._make_vault()
            self._check(self.vault_dsn, "TOUCHFOLD_VAULT")

    def _check(self, dsn: str, key: str) -> None:
        try:
            with closing(connect(dsn, "touchfold check")) as connection:
                version = connection.server_version // 10_000
                zone = connection.get_parameter_status("TimeZone")
        except StoreUnavailable as err:
            reason = str(err.__cause__).strip().splitlines()[-1] if err.__cause__ else err.message
            hint = _OPTIONS_REFUSED if "unsupported startup parameter" in reason else "start it, or correct the setting"
            raise ServiceFailed(f"{key} does not answer ({reason}): {hint}") from err
        if version < OLDEST:
            raise ServiceFailed(f"{key} is PostgreSQL {version}: version {OLDEST} or newer is needed")
        if shares_backends(dsn):
            raise ServiceFailed(
                f"{key} goes through a pooler that gives each transaction a different server connection (such as "
                "PgBouncer with pool_mode transaction or statement): locks that protect progress and erasure would be "
                "lost, and events counted twice. Give the server's own address, or set pool_mode = session for "
                "this database"
            )
        if zone not in _UTC:
            raise ServiceFailed(
                f"{key} goes through something that drops the time zone we ask for (it is {zone}, must be UTC; "
                "PgBouncer's ignore_startup_parameters does this): give the server's own address, or run there "
                "ALTER ROLE our_account SET timezone = 'UTC'"
            )

    def _make_vault(self) -> None:
        by_hand = f'create database "{self._vault_name}"'
        try:
            with closing(connect(self.dsn, "touchfold setup")) as connection:
                connection.autocommit = True
                with connection.cursor() as cursor:
                    cursor.execute(
                        "select 1 from pg_database where datname = %s",
                        (self._vault_name,),
                    )
                    if cursor.fetchone() is None:
                        cursor.execute(f'create database "{self._vault_name.replace(chr(34), chr(34) * 2)}"')
        except psycopg2.Error as err:
            raise ServiceFailed(
                f"the vault's database {self._vault_name} is missing and we may not create it: run {by_hand}, or set "
                "TOUCHFOLD_VAULT"
            ) from err

    def poll(self) -> int | None:
        """The server is run by others: we never restart it."""
        return None

    @property
    def pid(self) -> int:
        return 0

    def stop(self) -> None:
        """Release the data folder."""
        self._folder.stop()


def _parse(text: str, key: str) -> dict[str, str]:
    try:
        return dict(parse_dsn(text))
    except psycopg2.ProgrammingError as err:
        raise _bad(key, "is not a connection string: write postgresql://user:password@host:5432/touchfold") from err


def _bad(key: str, reason: str) -> SettingsInvalid:
    return SettingsInvalid(f"{key} {reason}", [Problem(key, reason)])
