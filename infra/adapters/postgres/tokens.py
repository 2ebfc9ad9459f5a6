"""API tokens: random, shown once, stored as SHA-256. 256 random bits need no salt and no slow hash."""

import re
import secrets
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final, NamedTuple

from infra.adapters.postgres.database import Database
from infra.adapters.postgres.statements import PerThread
from schemas.errors import BadRequest, NotFound, Problem
from schemas.roles import ROLES

PREFIX: Final = "tf_"  # so that scanners for leaked secrets recognise one


class TokenRow(NamedTuple):
    """A token without its secret. `id` names it for `revoke`."""

    id: str
    role: str
    created_at: datetime
    revoked_at: datetime | None
    expires_at: datetime | None  # None: never

    def state(self, now: datetime) -> str:
        """valid, expired or revoked."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "valid"


class PostgresTokens:
    """Any thread may call. Nothing is cached here."""

    def __init__(self, dsn: str) -> None:
        self._connections = PerThread(lambda: Database(dsn, "touchfold tokens"))

    def create(self, role: str, at: datetime, lives: timedelta | None = None) -> tuple[str, str]:
        """(id, token) of a new token; the token is stored nowhere else. `lives`: until it expires; None: forever.

        Raises BadRequest for an unknown role.
        """
        if role not in ROLES:
            raise BadRequest("not a role", [Problem("role", f"must be one of {', '.join(ROLES)}")])
        name, token = secrets.token_hex(4), PREFIX + secrets.token_urlsafe(32)
        self._connections.rows(
            "insert into api_tokens (token_hash, id, role, created_at, expires_at) values (%s, %s, %s, %s, %s)"
            " on conflict do nothing",
            (_hash(token), name, role, at, None if lives is None else at + lives),
        )
        return name, token

    def overview(self) -> list[TokenRow]:
        """Every token, including revoked and expired ones, oldest first."""
        rows = self._connections.rows(
            "select id, role, created_at, revoked_at, expires_at from api_tokens order by created_at, id"
        )
        return [TokenRow(*row) for row in rows]

    def revoke(self, name: str, at: datetime) -> str:
        """Refuse a token from now on and return its id; repeating it changes nothing. `name`: id or token.

        Raises NotFound.
        """
        rows = self._connections.rows(
            "update api_tokens set revoked_at = coalesce(revoked_at, %s) where id = %s or token_hash = %s returning id",
            (at, name, _hash(name)),
        )
        if not rows:
            raise NotFound("there is no such token: `touchfold token list` shows the ids")
        return str(rows[0][0])

    def find(self, token: str, at: datetime) -> tuple[str, str] | None:
        """(id, role) of a token; None if it does not exist, was revoked or has expired."""
        rows = self._connections.rows(
            "select id, role from api_tokens where token_hash = %s and revoked_at is null"
            " and (expires_at is null or expires_at > %s)",
            (_hash(token), at),
        )
        return (rows[0][0], rows[0][1]) if rows else None

    def role(self, token: str, at: datetime) -> str | None:
        """The role of a token, as `find`."""
        found = self.find(token, at)
        return None if found is None else found[1]

    def close(self) -> None:
        self._connections.close()


_UNITS: Final = {"h": "hours", "d": "days", "w": "weeks"}
LONGEST: Final = timedelta(days=3_660)


def lifetime(text: str) -> timedelta:
    """90d, 12h or 4w as a lifetime: an hour to ten years. Raises BadRequest."""
    match = re.fullmatch(r"([1-9][0-9]{0,4})([hdw])", text.strip())
    lives = timedelta(**{_UNITS[match[2]]: int(match[1])}) if match else timedelta()
    if not timedelta(hours=1) <= lives <= LONGEST:
        reason = "must be hours, days or weeks, such as 12h, 90d or 4w: an hour to ten years"
        raise BadRequest(f"not a lifetime: it {reason}", [Problem("expires", reason)])
    return lives


def _hash(token: str) -> bytes:
    return sha256(token.encode()).digest()
