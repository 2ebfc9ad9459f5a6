"""`Vault` and `Sealer` in a PostgreSQL database of its own: identifier -> token, key, sealed value (design C2).

Clear values only leave this process sealed. Rows and keys are cached while a lease holds, and dropped with a new
epoch, so that an erasure can wait until nobody remembers them.
"""

import hmac
import secrets
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import date
from functools import partial
from hashlib import blake2b
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from psycopg2.extensions import cursor as Cursor

from infra.adapters.machine.lru import Recent
from infra.adapters.vault import rows
from infra.adapters.vault.connections import VaultDatabase
from infra.adapters.vault.keys import CHECK_AAD, CHECKED, HASH_KEY_AAD, META, MasterKeys, master_keys, opened
from infra.adapters.vault.lease import RENEW_S, TTL_S, Lease
from infra.adapters.vault.rewrite import keep_statistics_empty
from infra.adapters.vault.sealing import open_sealed, seal
from infra.adapters.vault.values import made_row, opened_row
from schemas.errors import KeyMissing, SealBroken, StoreUnavailable
from schemas.failpoints import failpoint
from schemas.ports import SENT_AS_THEY_ARE, OpenIdentifier

ENTRIES: Final = 160_000  # about 450 bytes each
HASH_BYTES: Final = 16
_TRIES: Final = 5

Erased = Callable[[Collection[bytes]], set[bytes]]
Missing = Mapping[bytes, tuple[str, str]]  # hash -> kind and normal form


class PostgresVault:
    """Any thread may call. Connects when first used, and again after an outage; cache hits never wait for the database.

    `erased`: which of some tokens were erased (`ErasedTokens` asks the main database); without it every absent key
    is KeyMissing. `entries`: cached identifiers. `tokens` needs `hold_lease`; readers may do without, and then cache
    nothing.
    """

    def __init__(
        self,
        dsn: str,
        master_key: bytes,
        *,
        erased: Erased | None = None,
        entries: int = ENTRIES,
        ttl_s: float = TTL_S,
        renew_s: float = RENEW_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = VaultDatabase(dsn)
        self._given = master_key
        self._masters = MasterKeys.of(master_key)
        self._erased = erased
        self._lock = threading.Lock()  # for the cache; held for microseconds
        self._drops = 0  # how often the cache was cleared: what was read before that is not cached afterwards
        self._hash_key: bytes | None = None
        self._hasher = blake2b(digest_size=HASH_BYTES)
        self._token_of: Recent = Recent(entries)
        self._key_of: Recent = Recent(entries)
        self._today: tuple[date | None, bytes] = (None, b"")  # last day whose words were hashed, its key's token
        self._letters_day: tuple[date, bytes] | None = None  # the last day's token for dead letters
        self._stand_in: dict[bytes, bytes] = {}  # suppressed hash -> the token it answers with
        self._stand_ins: frozenset[bytes] = frozenset()
        self._lease = Lease(dsn, lambda: self.hash_key, self._forget, ttl_s=ttl_s, renew_s=renew_s, monotonic=monotonic)

    # --- opening -----------------------------------------------------------------------------------------------

    @property
    def hash_key(self) -> bytes:
        """See the port. Raises MasterKeyWrong if the master key is not the one this vault was created with."""
        if self._hash_key is None:
            key = self._database.write(self._prepare)
            self._hasher = blake2b(digest_size=HASH_BYTES, key=key, person=b"tf-identifier")
            self._hash_key = key
        return self._hash_key

    def _prepare(self, cursor: Cursor) -> bytes:
        """Read the vault's own row, or create it: if two processes do so, the first one's counts."""
        query = "select hash_key_wrapped, master_check from vault_meta"
        cursor.execute(query)
        row = cursor.fetchone()
        if row is None:
            wrapped = self._masters.wrap(secrets.token_bytes(32), HASH_KEY_AAD)
            check = self._masters.wrap(CHECKED, CHECK_AAD)
            cursor.execute("insert into vault_meta values (true, 1, %s, %s) on conflict do nothing", (wrapped, check))
            keep_statistics_empty(cursor, "identifiers")
            cursor.execute(query)
            row = cursor.fetchone()
            assert row is not None, "vault_meta was emptied while we looked"
        self._masters = master_keys(cursor, self._given)
        return opened(self._masters, row)

    def key_checks(self) -> list[bytes]:
        """What proves that a master key opens this vault now: one check, or two while the key is being replaced."""
        keys = self._database.write(self._learnt)
        return [seal(cipher, CHECKED, CHECK_AAD) for cipher in keys.ciphers]

    def hold_lease(self) -> None:
        """Take the lease and keep it until `close`: from then on `tokens` works, and rows are cached.

        Does not raise: while the vault is unavailable, `tokens` raises StoreUnavailable.
        """
        self._lease.start()

    def has_lease(self) -> bool:
        return self._lease.valid()

    def close(self) -> None:
        """Give the lease back and disconnect."""
        self._lease.close()
        self._database.close()
        with self._lock:
            self._clear()

    def _clear(self) -> None:
        self._drops += 1
        self._letters_day = None
        self._token_of.clear()
        self._key_of.clear()

    def _forget(self, cursor: Cursor) -> None:
        """A new epoch: clear the cache, and learn who is suppressed now and which master key is valid."""
        self._masters = self._learnt(cursor)
        cursor.execute("select hash from suppressed")
        hashes = [bytes(row[0]) for row in cursor.fetchall()]
        key = self.hash_key
        with self._lock:
            self._clear()
            self._stand_in = {
                hashed: blake2b(hashed, digest_size=16, key=key, person=b"tf-suppressed").digest() for hashed in hashes
            }
            self._stand_ins = frozenset(self._stand_in.values())

    def _learnt(self, cursor: Cursor) -> MasterKeys:
        """The master keys valid now; a new one already learnt is kept. Raises MasterKeyWrong: ours is refused."""
        keys = master_keys(cursor, self._given)
        cursor.execute(META)
        row = cursor.fetchone()
        if row is not None:
            opened(keys, row)
        self._given = keys.newest
        return keys

    # --- Vault -------------------------------------------------------------------------------------------------

    def hash_of(self, kind: str, value: str) -> bytes:
        """The keyed hash of a (kind, normalised value): 16 bytes."""
        _ = self.hash_key
        hasher = self._hasher.copy()
        hasher.update(f"{kind}\0{value}".encode())
        return hasher.digest()

    def tokens(
        self, identifiers: Sequence[tuple[str, str]], sent: Mapping[tuple[str, str], str] = SENT_AS_THEY_ARE
    ) -> list[bytes]:
        """See the port. Suppressed identifiers get no row, but a stand-in that `suppressed` knows and nothing opens."""
        if self._hash_key is None:
            _ = self.hash_key
        for _ in range(_TRIES):
            with self._lock:
                self._need_lease()
                drops = self._drops
                hashes, found = self._recall(identifiers)
            if None not in found:
                return found  # type: ignore[return-value]  # no None is in it
            missing = {
                hashed: identifier
                for hashed, token, identifier in zip(hashes, found, identifiers, strict=True)
                if token is None
            }
            made = self._resolve(missing, sent, drops)
            with self._lock:
                self._need_lease()  # the look-up may have taken longer than the rest of the lease
                if drops == self._drops:
                    return [token or made[hashed] for token, hashed in zip(found, hashes, strict=True)]
        raise StoreUnavailable("the vault's cache is being cleared faster than it can be read", retry_after_s=1)

    def _recall(self, identifiers: Sequence[tuple[str, str]]) -> tuple[list[bytes], list[bytes | None]]:
        """The hash of each, and its token if cached."""
        blank, recent = self._hasher.copy, self._token_of.get
        hashes: list[bytes] = []
        found: list[bytes | None] = []
        for kind, value in identifiers:
            hasher = blank()
            hasher.update(f"{kind}\0{value}".encode())
            hashed = hasher.digest()
            hashes.append(hashed)
            found.append(recent(hashed))
        return hashes, found

    def _need_lease(self) -> None:
        if not self._lease.valid():
            raise StoreUnavailable("the vault lease has expired: the vault is unavailable or slow", retry_after_s=1)

    def _resolve(self, missing: Missing, sent: Mapping[tuple[str, str], str], drops: int) -> dict[bytes, bytes]:
        """Tokens by hash, with new rows if there are none. Cached only after the commit."""
        stand_in = self._stand_in
        made = {hashed: stand_in[hashed] for hashed in missing if hashed in stand_in}
        wanted = [hashed for hashed in missing if hashed not in made]
        for _ in range(_TRIES):
            if not wanted:
                return made
            found, new = self._database.write(partial(self._find_or_insert, wanted, missing, sent))
            if new:
                failpoint("vault.after_commit")
            known = [(hashed, token, self._unwrap(wrapped, token)) for hashed, token, wrapped in found] + new
            made |= {hashed: token for hashed, token, _ in known}
            self._remember(known, drops)
            wanted = [hashed for hashed in wanted if hashed not in made]  # another door was first: read its row
        raise StoreUnavailable("vault rows are created and erased faster than they can be read", retry_after_s=1)

    def _find_or_insert(
        self, wanted: Sequence[bytes], missing: Missing, sent: Mapping[tuple[str, str], str], cursor: Cursor
    ) -> tuple[list[tuple[bytes, bytes, bytes]], list[tuple[bytes, bytes, bytes]]]:
        """(hash, token, wrapped key) of existing rows, (hash, token, key) of new ones."""
        found = rows.of_hashes(cursor, wanted)
        absent = sorted(set(wanted).difference([hashed for hashed, _, _ in found]))
        return found, self._insert(cursor, absent, missing, sent) if absent else []

    def _insert(
        self, cursor: Cursor, wanted: Sequence[bytes], missing: Missing, sent: Mapping[tuple[str, str], str]
    ) -> list[tuple[bytes, bytes, bytes]]:
        """Create the rows in ascending order of hash (so two doors never deadlock); other doors' rows are left out."""
        made = [made_row(hashed, *missing[hashed], sent.get(missing[hashed])) for hashed in wanted]
        wrapped = [self._masters.wrap(each.key, each.token) for each in made]
        new = rows.insert(cursor, made, wrapped)
        failpoint("vault.before_commit")
        return [(each.hashed, each.token, each.key) for each in made if each.hashed in new]

    def _remember(self, known: Iterable[tuple[bytes, bytes, bytes]], drops: int) -> None:
        """(hash, token, key) rows; `drops`: its value before they were read."""
        with self._lock:
            if drops == self._drops and self._lease.valid():
                for hashed, token, key in known:
                    self._token_of.put(hashed, token)
                    self._key_of.put(token, key)

    def find(self, kind: str, value: str) -> bytes | None:
        """See the port."""
        return self.find_hash(self.hash_of(kind, value))

    def find_hash(self, hashed: bytes) -> bytes | None:
        """The token of a keyed hash, or None. Reads the vault each time."""
        found = self._database.read(partial(rows.of_hashes, hashes=[hashed]))
        return found[0][1] if found else None

    def open(self, tokens: Iterable[bytes]) -> dict[bytes, OpenIdentifier]:
        """See the port. Reads the vault each time: values are never kept in memory."""
        wanted = list(tokens)
        if not wanted:
            return {}
        _ = self.hash_key  # so that a wrong master key is reported as such, rather than as "broken"

        found = self._database.read(partial(rows.values_of, tokens=wanted))
        return {row[0]: opened_row(row, self._unwrap(row[2], row[0])) for row in found}

    def suppressed(self, tokens: Iterable[bytes]) -> set[bytes]:
        """See the port: those that `tokens` gave to suppressed identifiers."""
        return set(self._stand_ins.intersection(tokens)) if self._stand_ins else set()

    def _unwrap(self, wrapped: bytes, token: bytes) -> bytes:
        try:
            return self._masters.unwrap(wrapped, token)
        except InvalidTag as err:
            raise SealBroken(f"the key of vault row {token.hex()} cannot be opened") from err

    # --- Sealer ------------------------------------------------------------------------------------------------

    def seal(self, token: bytes, plain: bytes, aad: bytes) -> bytes:
        """See the port. Raises KeyMissing for a token that has no row (any more)."""
        key: bytes | None = None
        if self._lease.valid():
            with self._lock:
                key = self._key_of.get(token)
        if key is None:
            key = self._load_keys((token,)).get(token)
        if key is None:
            raise KeyMissing(f"there is no key to seal under: token {token.hex()}")
        return seal(AESGCM(key), plain, aad)

    def open_many(self, sealed: Sequence[tuple[bytes, bytes, bytes]]) -> list[bytes | None]:
        """See the port. One look-up for all keys not cached."""
        keys: dict[bytes, AESGCM] = {}
        for token, key in self._keys({token for token, _, _ in sealed}).items():
            keys[token] = AESGCM(key)
        opened: list[bytes | None] = []
        for token, data, aad in sealed:
            cipher = keys.get(token)
            if cipher is None:
                opened.append(None)
                continue
            try:
                opened.append(open_sealed(cipher, data, aad))
            except (InvalidTag, ValueError) as err:
                raise SealBroken(f"sealed bytes cannot be opened with the key of token {token.hex()}") from err
        return opened

    def _keys(self, tokens: set[bytes]) -> dict[bytes, bytes]:
        """The key of each token; erased ones are left out. Raises KeyMissing."""
        keys = self._recall_keys(tokens)
        absent = [token for token in tokens if token not in keys]
        if absent:
            keys |= self._load_keys(absent)
            lost = {token for token in absent if token not in keys}
            if lost and self._erased is not None:
                lost -= self._erased(lost)
            if lost:
                raise KeyMissing(
                    f"{len(lost)} keys are missing from the vault and were not erased (first: token "
                    f"{min(lost).hex()}): the vault was lost or is older than the log. Restore its newest backup"
                )
        return keys

    def _recall_keys(self, tokens: Iterable[bytes]) -> dict[bytes, bytes]:
        """The cached ones; none without a lease."""
        if not self._lease.valid():
            return {}
        with self._lock:
            recent = self._key_of.get
            return {token: key for token in tokens if (key := recent(token)) is not None}

    def _load_keys(self, tokens: Sequence[bytes]) -> dict[bytes, bytes]:
        _ = self.hash_key
        drops = self._drops

        wrapped_keys = self._database.read(partial(rows.keys_of, tokens=tokens))
        keys = {token: self._unwrap(wrapped, token) for token, wrapped in wrapped_keys}
        with self._lock:
            if drops == self._drops and self._lease.valid():
                for token, key in keys.items():
                    self._key_of.put(token, key)
        return keys

    def daily_token(self, day: date) -> bytes:
        """The token of the key that seals a day's dead letters without identifiers. Created when first needed.

        Cached under the lease: an import may refuse a million lines, and each look-up is three statements.
        """
        with self._lock:
            known, drops = self._letters_day, self._drops
        if known is not None and known[0] == day and self._lease.valid():
            return known[1]
        token = self._token_of_day("daily_keys", day)
        with self._lock:
            if drops == self._drops:
                self._letters_day = day, token
        return token

    def _token_of_day(self, table: str, day: date) -> bytes:
        _ = self.hash_key
        token, key = secrets.token_bytes(16), secrets.token_bytes(32)

        def take(cursor: Cursor) -> bytes:
            return rows.key_of_day(cursor, table, day, token, self._learnt(cursor).wrap(key, token))

        return self._database.write(take)

    def daily_codes(self, words: Sequence[str], day: date | None = None) -> dict[date, list[str]]:
        """By day, 16 hex digits for each word: its hash under the day's key, meaningless once the key is gone: after
        30 days, or with the next erasure.

        For `day`, whose key is created when first needed; without it, for every day that still has a key.
        """
        if day is None:
            days = self._database.read(rows.word_tokens)
            keys = self._load_keys(list(days)) if days else {}
        else:
            today, token = self._today
            keys = self._recall_keys([token]) if today == day else {}
            if not keys:  # a new day, an erasure, or a restored vault
                token = self._token_of_day("word_keys", day)
                self._today = day, token
                keys = self._keys({token})
            days = {token: day}
        return {
            days[token]: [hmac.digest(key, b"word " + word.encode(), "sha256")[:8].hex() for word in words]
            for token, key in keys.items()
        }

    def expire_daily_keys(self, before: date) -> int:
        """Destroy the keys of days before `before`, and so what they sealed. Returns how many sealed dead letters."""

        count = self._database.write(partial(rows.expire, before=before))
        with self._lock:
            self._letters_day = None
        return count
