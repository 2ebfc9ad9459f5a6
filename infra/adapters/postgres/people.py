"""People who sign in: argon2id passwords, sessions, one-time links. Secrets are only stored as hashes."""

import re
import secrets
import threading
import time
from base64 import b64encode
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import cached_property
from hashlib import sha256
from math import ceil
from typing import Any, Final, NamedTuple

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError

from infra.adapters.postgres.database import Database
from infra.adapters.postgres.statements import PerThread
from schemas.errors import BadRequest, NotFound, Problem, TooMany
from schemas.roles import ROLES

IDLE: Final = timedelta(hours=12)
LONGEST: Final = timedelta(days=7)
LINK_LIVES: Final = timedelta(hours=24)
SEEN_EVERY: Final = timedelta(minutes=1)  # precision of `seen_at`: one write per minute and session
SHORTEST_PASSWORD: Final = 10
LONGEST_PASSWORD: Final = 256  # argon2 takes any length; a megabyte would be an attack
TRIES: Final = 5  # failed sign-ins from an address for one name before it must wait; other addresses need not
TRIES_OF_ADDRESS: Final = 20  # for all names together: people in a shop often share one
WAIT_S: Final = 30.0
FORGET_S: Final = 3_600.0  # after this pause, failures are no longer consecutive
REMEMBERED: Final = 10_000  # (address, name) that failed lately; the oldest go first
HASHERS: Final = 2  # passwords checked at the same time: each takes 64 MiB and two cores
ADMIN: Final = "admin"
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._@+-]{0,63}")


Tries = tuple[str, str | None]
"""(address, name) that tries to sign in; None: all names from the address together."""


class Person(NamedTuple):
    """Who is signed in. For a token's session `name` is `token:ID`."""

    name: str
    role: str


class PersonRow(NamedTuple):
    """A person as listed."""

    name: str
    role: str
    created_at: datetime
    disabled_at: datetime | None
    has_password: bool
    seen_at: datetime | None


class PostgresPeople:
    """Any thread may call."""

    def __init__(self, dsn: str, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._connections = PerThread(lambda: Database(dsn, "touchfold people"))
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._failed: dict[Tries, tuple[int, float]] = {}  # -> (consecutive failures, time of the last)
        self._signed_in: dict[Tries, None] = {}  # successful sign-ins from these
        self._hashers = threading.BoundedSemaphore(HASHERS)

    @cached_property
    def _hasher(self) -> PasswordHasher:
        return PasswordHasher()  # argon2id with the library's defaults (RFC 9106, low memory): 64 MiB, 3 passes

    @cached_property
    def _nobody(self) -> str:
        """What to verify against if there is no such person, so that both cases take equally long: nothing matches.

        Assembled rather than computed: otherwise the first unknown name would take twice as long.
        """
        hasher = self._hasher
        cost = f"m={hasher.memory_cost},t={hasher.time_cost},p={hasher.parallelism}"
        salt, digest = (
            b64encode(secrets.token_bytes(size)).rstrip(b"=").decode() for size in (hasher.salt_len, hasher.hash_len)
        )
        return f"$argon2id$v=19${cost}${salt}${digest}"

    # --- people ----------------------------------------------------------------------------------------------------

    def invite(self, name: str, role: str, at: datetime) -> str:
        """Create a person; returns the secret of a link that sets the password. A disabled person can be invited again.

        Raises BadRequest for a bad name or role, and if somebody with this name can already sign in.
        """
        name = _checked(name)
        _check_role(role)
        made = self._connections.rows(
            "insert into people as p (id, name, role, created_at) values (%s, %s, %s, %s) on conflict (name) do update"
            " set role = excluded.role, disabled_at = null, password_hash = null"
            " where p.password_hash is null or p.disabled_at is not null returning id",
            (secrets.token_hex(8), name, role, at),
        )
        if not made:
            reason = "is taken: give them a new link or another role instead"
            raise BadRequest("there is already somebody with this name", [Problem("name", reason)])
        return self.link(name, at)

    def link(self, name: str, at: datetime) -> str:
        """A new one-time link for a person; earlier ones stop working. Raises NotFound."""
        person = self._id(name)
        secret = secrets.token_urlsafe(24)
        self._connections.rows(
            "with ended as (delete from invitations where person = %s and used_at is null)"
            " insert into invitations (token_hash, person, created_at, expires_at) values (%s, %s, %s, %s)",
            (person, _hash(secret), person, at, at + LINK_LIVES),
        )
        return secret

    def first_admin_link(self, at: datetime) -> str | None:
        """A link for the first admin; None once anybody has a password."""
        if self._connections.rows("select 1 from people where password_hash is not null limit 1"):
            return None
        return self.invite(ADMIN, "admin", at)

    def invited(self, secret: str, at: datetime) -> str | None:
        """The name that a link is for; None if it was used, replaced or is older than 24 hours."""
        rows = self._connections.rows(
            "select p.name from invitations i join people p on p.id = i.person"
            " where i.token_hash = %s and i.used_at is null and i.expires_at > %s and p.disabled_at is null",
            (_hash(secret), at),
        )
        return str(rows[0][0]) if rows else None

    def accept(self, secret: str, password: str, at: datetime) -> str:
        """Set the password with a link, which uses it up; returns a session's secret. Raises BadRequest, NotFound."""
        hashed = self._hashed(password)
        rows = self._connections.rows(
            "with used as (update invitations i set used_at = %s from people p where i.token_hash = %s"
            " and i.used_at is null and i.expires_at > %s and p.id = i.person and p.disabled_at is null"
            " returning i.person)"
            " update people set password_hash = %s from used where people.id = used.person returning people.id",
            (at, _hash(secret), at, hashed),
        )
        if not rows:
            raise NotFound("this link has already been used or is too old: ask an admin for a new one")
        self._end_sessions(str(rows[0][0]), at)
        return self._open_session(at, person=str(rows[0][0]))

    def overview(self) -> list[PersonRow]:
        """Everybody, by name."""
        rows = self._connections.rows(
            "select name, role, created_at, disabled_at, password_hash is not null,"
            " (select max(seen_at) from sessions s where s.person = people.id) from people order by name"
        )
        return [PersonRow(*row) for row in rows]

    def set_role(self, name: str, role: str) -> None:
        """Raises NotFound, BadRequest (the last admin must remain one)."""
        _check_role(role)
        person = self._id(name)
        if role != "admin":
            self._keep_an_admin(person)
        self._connections.rows("update people set role = %s where id = %s", (role, person))

    def disable(self, name: str, at: datetime) -> None:
        """Nobody can sign in with this name any more; sessions end immediately. Raises NotFound, BadRequest."""
        person = self._id(name)
        self._keep_an_admin(person)
        self._connections.rows("update people set disabled_at = coalesce(disabled_at, %s) where id = %s", (at, person))
        self._end_sessions(person, at)

    def _keep_an_admin(self, person: str) -> None:
        others = self._connections.rows(
            "select 1 from people where role = 'admin' and disabled_at is null and id <> %s limit 1", (person,)
        )
        mine = self._connections.rows("select role = 'admin' from people where id = %s", (person,))
        if mine[0][0] and not others:
            raise BadRequest(
                "this is the last admin: appoint another one first", [Problem("name", "is the last admin")]
            )

    def _id(self, name: str) -> str:
        rows = self._connections.rows("select id from people where name = %s", (name.strip().lower(),))
        if not rows:
            raise NotFound("there is nobody with this name: `touchfold user list` shows the names")
        return str(rows[0][0])

    # --- passwords and sessions ------------------------------------------------------------------------------------

    def _hashed(self, password: str) -> str:
        if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
            reason = f"must have {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters"
            raise BadRequest(f"the password {reason}", [Problem("password", reason)])
        with self._hashers:
            return self._hasher.hash(password)

    def sign_in(self, name: str, password: str, at: datetime, address: str = "") -> str | None:
        """A session's secret; None for a wrong name or password. Takes equally long for an unknown name.

        Raises TooMany after five failures in a row from an address for this name, or twenty from an address; whoever
        signs in from another address need not wait.
        """
        name = name.strip().lower()[:LONGEST_PASSWORD].replace("\0", "\ufffd")  # PostgreSQL's text has no NUL
        self._count_try(address, name)
        rows = self._connections.rows(
            "select id, password_hash from people where name = %s and disabled_at is null", (name,)
        )
        stored = rows[0][1] if rows else None
        if not self._verified(stored or self._nobody, password) or stored is None:
            return None
        self._forget_tries(address, name)
        return self._open_session(at, person=str(rows[0][0]))

    def _verified(self, hashed: str, password: str) -> bool:
        try:
            with self._hashers:
                return self._hasher.verify(hashed, password[: LONGEST_PASSWORD + 1])
        except (VerifyMismatchError, VerificationError, InvalidHashError):
            return False

    def _count_try(self, address: str, name: str | None) -> None:
        """Count an attempt before its password is checked, so that simultaneous attempts cannot exceed the limit.

        Whoever signed in from there before is not affected by other people's attempts there.
        """
        whose: list[tuple[Tries, int]] = [((address, name), TRIES)] if name is not None else []
        with self._lock:
            if address and (address, name) not in self._signed_in:
                whose.append(((address, None), TRIES_OF_ADDRESS))
            now = self._monotonic()
            for who, most in whose:
                tries, last = self._failed.get(who, (0, 0.0))
                left = WAIT_S - (now - last)
                if tries >= most and left > 0:
                    raise TooMany(f"too many wrong passwords: wait {left:.0f} s", retry_after_s=max(1, ceil(left)))
            for who, _ in whose:
                tries, last = self._failed.pop(who, (0, 0.0))
                self._failed[who] = (tries + 1 if now - last < FORGET_S else 1, now)
            _keep_newest(self._failed)

    def _forget_tries(self, address: str, name: str | None) -> None:
        """It was correct, so it does not count as a failure."""
        with self._lock:
            tries, last = self._failed.get((address, None), (0, 0.0))
            if tries and (address, name) not in self._signed_in:
                self._failed[address, None] = (tries - 1, last)
            if name is not None:
                self._failed.pop((address, name), None)
                self._signed_in.pop((address, name), None)
                self._signed_in[address, name] = None
                _keep_newest(self._signed_in)

    def sign_in_with_token(self, token: str, at: datetime, address: str = "") -> str | None:
        """A session's secret for an API token; None if it is unknown, revoked or expired.

        Raises TooMany after twenty failures from an address.
        """
        self._count_try(address, None)
        rows = self._connections.rows(
            "select id from api_tokens where token_hash = %s and revoked_at is null"
            " and (expires_at is null or expires_at > %s)",
            (_hash(token.strip()), at),
        )
        if not rows:
            return None
        self._forget_tries(address, None)
        return self._open_session(at, token=str(rows[0][0]))

    def _open_session(self, at: datetime, *, person: str | None = None, token: str | None = None) -> str:
        secret = secrets.token_urlsafe(32)
        self._connections.rows(
            "insert into sessions (session_hash, person, token, created_at, seen_at, expires_at)"
            " values (%s, %s, %s, %s, %s, %s)",
            (_hash(secret), person, token, at, at, at + LONGEST),
        )
        return secret

    def who(self, secret: str, at: datetime, *, used: bool = True) -> Person | None:
        """Whose session this is; None if it ended, idled for 12 hours or is a week old. `used`: counts as activity."""
        rows = self._connections.rows(
            "select coalesce(p.name, 'token:' || t.id), coalesce(p.role, t.role), s.seen_at from sessions s"
            " left join people p on p.id = s.person left join api_tokens t on t.id = s.token"
            " where s.session_hash = %s and s.ended_at is null and s.expires_at > %s and s.seen_at > %s"
            " and p.disabled_at is null and t.revoked_at is null and (t.expires_at is null or t.expires_at > %s)",
            (_hash(secret), at, at - IDLE, at),
        )
        if not rows:
            return None
        name, role, seen_at = rows[0]
        if used and at - seen_at > SEEN_EVERY:
            self._connections.rows("update sessions set seen_at = %s where session_hash = %s", (at, _hash(secret)))
        return Person(name, role)

    def sign_out(self, secret: str, at: datetime) -> None:
        self._connections.rows(
            "update sessions set ended_at = coalesce(ended_at, %s) where session_hash = %s", (at, _hash(secret))
        )

    def _end_sessions(self, person: str, at: datetime) -> None:
        self._connections.rows("update sessions set ended_at = %s where person = %s and ended_at is null", (at, person))

    def close(self) -> None:
        self._connections.close()


def _keep_newest(found: dict[Tries, Any]) -> None:
    while len(found) > REMEMBERED:
        del found[next(iter(found))]


def _checked(name: str) -> str:
    name = name.strip().lower()
    if not _NAME.fullmatch(name):
        reason = "must have 1 to 64 letters, digits or any of . _ @ + -"
        raise BadRequest(f"a sign-in name {reason}", [Problem("name", reason)])
    return name


def _check_role(role: str) -> None:
    if role not in ROLES:
        raise BadRequest("not a role", [Problem("role", f"must be one of {', '.join(ROLES)}")])


def _hash(secret: str) -> bytes:
    """256 random bits need no salt and no slow hash."""
    return sha256(secret.encode()).digest()
