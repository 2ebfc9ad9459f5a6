"""Brings the rows of earlier builds to this build's normal forms: new hashes, tokens that meet, values of nobody.

Each batch commits, and all of it may be done again: a process that was killed is followed by one that begins again.
Rows change under the lock of an erasure, which copies the table.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Final, NamedTuple

from psycopg2.extensions import cursor as Cursor

from infra.adapters.postgres.connection_pool import Lane
from infra.adapters.postgres.database import Database, Uuid, Uuids
from infra.adapters.vault.epochs import bump_epoch
from infra.adapters.vault.keys import DESTROY_LOCK
from infra.adapters.vault.values import sent_aad, value_aad
from infra.adapters.vault.vault import PostgresVault
from schemas.email_form import may_be_of_two
from schemas.failpoints import failpoint
from schemas.ports import OpenIdentifier

FORMS: Final = 2  # the version of the forms that this build's `schemas.normal_forms` makes
_IDNA_2003: Final = 1  # the forms up to this version made one domain of some that are two
BATCH: Final = 1_000
_FIRST: Final = bytes(16)
Normalise = Callable[[str, object], str | None]
Unnamed = Callable[[dict[bytes, str]], object]  # what to do with tokens, by kind, of values that name nobody
Ambiguous = Callable[[Collection[bytes]], object]  # what to do with tokens of addresses that may be of two people


class Met(NamedTuple):
    """Two tokens of one identifier."""

    token: bytes
    other: bytes
    kind: str


class VaultForms:
    """For one vault, at a start; of several processes one works, and the others wait for it."""

    def __init__(self, vault: PostgresVault, dsn: str) -> None:
        self._vault = vault
        self._dsn = dsn
        self._database = Database(dsn, "touchfold vault forms", Lane.WORK)

    def are_current(self) -> bool:
        return self._version() >= FORMS

    def _version(self) -> int:
        with self._database.reading() as cursor:
            cursor.execute("select forms from vault_meta")
            row = cursor.fetchone()
        return 0 if row is None else int(row[0])

    def bring(self, normalise: Normalise, unnamed: Unnamed, ambiguous: Ambiguous) -> int:
        """Go through all rows; returns how many there were.

        `unnamed` is called with those that name nobody, `ambiguous` with addresses that may be of two people.
        """
        after, seen, merged = _FIRST, 0, self._version() <= _IDNA_2003
        while batch := self._vault.open(self._next(after)):
            after = max(batch)
            seen += len(batch)
            forms = {token: normalise(each.kind, each.value) for token, each in batch.items()}
            nobody = {token: batch[token].kind for token, form in forms.items() if form is None}
            if nobody:
                unnamed(nobody)
            if merged and (of_two := [token for token, each in batch.items() if _is_of_two(each)]):
                ambiguous(of_two)
            changed = {token: form for token, form in forms.items() if form is not None and form != batch[token].value}
            if changed:
                self._change([(batch[token], form) for token, form in changed.items()])
            failpoint("forms.stepped")
        with self._database.transaction() as cursor:
            cursor.execute("update vault_meta set forms = greatest(forms, %s)", (FORMS,))
        bump_epoch(self._dsn)  # a process of the build before may remember a hash that is no more
        return seen

    def _next(self, after: bytes) -> list[bytes]:
        with self._database.reading() as cursor:
            cursor.execute(
                "select token from identifiers where token > %s order by token limit %s", (Uuid(after), BATCH)
            )
            return [row[0] for row in cursor.fetchall()]

    def _change(self, changed: Sequence[tuple[OpenIdentifier, str]]) -> None:
        with self._database.transaction() as cursor:
            cursor.execute("select pg_advisory_xact_lock(%s)", (DESTROY_LOCK,))
            cursor.execute(
                "select token from identifiers where token = any(%s)", (Uuids([each.token for each, _ in changed]),)
            )
            there = {row[0] for row in cursor.fetchall()}  # the others were erased meanwhile
            for each, form in changed:
                if each.token in there:
                    self._rehash(cursor, each, form)

    def _rehash(self, cursor: Cursor, each: OpenIdentifier, form: str) -> None:
        """Give a row its new hash; where another row has it, the two tokens have met."""
        token, hashed = each.token, self._vault.hash_of(each.kind, form)
        cursor.execute("select token from identifiers where hash = %s", (hashed,))
        row = cursor.fetchone()
        if row is not None:
            if row[0] != token:  # else another process was here first
                pair = (Uuid(token), Uuid(row[0]), each.kind)
                cursor.execute("insert into met_tokens values (%s, %s, %s) on conflict do nothing", pair)
            return
        cursor.execute(
            "update identifiers set hash = %s, value_sealed = %s, sent_sealed = %s where token = %s",
            (
                hashed,
                self._vault.seal(token, form.encode(), value_aad(token)),
                self._vault.seal(token, each.shown.encode(), sent_aad(token)),
                Uuid(token),
            ),
        )

    def met(self) -> list[Met]:
        """Tokens that are one identifier, and of which the log does not say so yet."""
        with self._database.reading() as cursor:
            cursor.execute("select token, other, kind from met_tokens order by token")
            return [Met(*row) for row in cursor.fetchall()]

    def told(self, met: Sequence[Met]) -> None:
        """The log says so now."""
        with self._database.transaction() as cursor:
            cursor.execute("delete from met_tokens where token = any(%s)", (Uuids([each.token for each in met]),))

    def close(self) -> None:
        self._database.close()


def _is_of_two(each: OpenIdentifier) -> bool:
    return each.kind == "email" and each.shown == each.value and may_be_of_two(each.value)
