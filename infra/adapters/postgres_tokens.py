"""API tokens: random, shown once, kept as SHA-256. 256 random bits need no salt and no slow hash."""

import secrets
from datetime import datetime
from hashlib import sha256
from typing import Final, NamedTuple

from infra.adapters.postgres import Database
from infra.adapters.postgres_reads import PerThread
from schemas.errors import BadRequest, NotFound, Problem
from schemas.roles import ROLES

PREFIX: Final = "tf_"  # so that scanners of leaked secrets know one


class TokenRow(NamedTuple):
    """A token without its secret. `id` names it for `revoke`."""

    id: str
    role: str
    created_at: datetime
    revoked_at: datetime | None


class PostgresTokens:
    """Any thread may call. Nothing is remembered here."""

    def __init__(self, dsn: str) -> None:
        self._connections = PerThread(lambda: Database(dsn, "touchfold tokens"))

    def create(self, role: str, at: datetime) -> tuple[str, str]:
        """(id, token) of a new token; the token is nowhere else. Raises BadRequest for a role that is none."""
        if role not in ROLES:
            raise BadRequest("not a role", [Problem("role", f"must be one of {', '.join(ROLES)}")])
        name, token = secrets.token_hex(4), PREFIX + secrets.token_urlsafe(32)
        self._connections.rows(
            "insert into api_tokens (token_hash, id, role, created_at) values (%s, %s, %s, %s) on conflict do nothing",
            (_hash(token), name, role, at),
        )
        return name, token

    def overview(self) -> list[TokenRow]:
        """Every token, revoked ones too, oldest first."""
        rows = self._connections.rows("select id, role, created_at, revoked_at from api_tokens order by created_at, id")
        return [TokenRow(*row) for row in rows]

    def revoke(self, name: str, at: datetime) -> str:
        """Refuse a token from now on and return its id; a repeat changes nothing. `name`: the id, or the token itself.

        Raises NotFound.
        """
        rows = self._connections.rows(
            "update api_tokens set revoked_at = coalesce(revoked_at, %s) where id = %s or token_hash = %s returning id",
            (at, name, _hash(name)),
        )
        if not rows:
            raise NotFound("there is no such token: `touchfold token list` has the ids")
        return str(rows[0][0])

    def find(self, token: str) -> tuple[str, str] | None:
        """(id, role) of a token; None when there is none or it was revoked."""
        rows = self._connections.rows(
            "select id, role from api_tokens where token_hash = %s and revoked_at is null", (_hash(token),)
        )
        return (rows[0][0], rows[0][1]) if rows else None

    def role(self, token: str) -> str | None:
        """The role of a token, as `find`."""
        found = self.find(token)
        return None if found is None else found[1]

    def close(self) -> None:
        self._connections.close()


def _hash(token: str) -> bytes:
    return sha256(token.encode()).digest()
