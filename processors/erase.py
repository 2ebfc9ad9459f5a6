"""Erases a person: everything the profile of an identifier holds, step by step, each step repeatable (design C12).

The order is what makes it safe: the erased tokens are known to FOLD before any process forgets their keys, and no
process remembers a key when its row is destroyed. What survives are events without owner, counted in totals.
"""

import binascii
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Final, NamedTuple
from uuid import UUID

import msgspec

from projections.figures import add_profile
from projections.identity import Evidence, find_hubs
from projections.state import LocalDays
from schemas.erasures import (
    STEPS,
    Erasure,
    ErasureReads,
    ErasureStore,
    ErasureVault,
    ErasureWrites,
    Job,
    Ledger,
    Receipt,
    Remains,
    SealedLetter,
    Seen,
)
from schemas.errors import ErasureRefused, KeyMissing, Problem, SealBroken
from schemas.failpoints import failpoint
from schemas.figures import Cells
from schemas.identifiers import PhoneForm, normalise
from schemas.identity_rules import DEFAULT_RULES, IdentityRules
from schemas.ports import OpenIdentifier, Sealer, Vault
from schemas.record import to_us

LEASES_S: Final = 15.0  # three times a lease: one that is still held then is a fault
LETTERS: Final = 500  # read at a time; a letter is at most 32 KiB


class Preview(NamedTuple):
    """What an erasure would take."""

    tokens: frozenset[bytes]
    profiles: frozenset[bytes]
    kinds: dict[str, int]
    events: int
    problems: tuple[Problem, ...]  # why it needs --force

    @property
    def identifiers(self) -> int:
        return len(self.tokens)


class Erased(NamedTuple):
    """The answer of `erase` (contracts)."""

    found: bool
    identifiers: int
    events: int
    receipt: dict[str, object] | None


NOT_FOUND: Final = Erased(False, 0, 0, None)


@dataclass(frozen=True)
class Eraser:
    """`new_id`: 16 random bytes. `vault` reads and opens, `vault_rows` destroys."""

    store: ErasureStore
    vault: Vault
    sealer: Sealer
    vault_rows: ErasureVault
    ledger: Ledger
    phone: PhoneForm
    now: Callable[[], datetime]
    new_id: Callable[[], bytes]
    hash_of: Callable[[str, str], bytes]
    rules: IdentityRules = DEFAULT_RULES
    leases_s: float = LEASES_S

    def find(self, kind: str, value: str) -> bytes | None:
        """The token of KIND:VALUE as people write it; `profile` takes a profile id, old ids included."""
        if kind == "profile":
            try:
                token = UUID(value).bytes
            except ValueError:
                return None
            with self.store.reading() as reads:
                return token if reads.owners([token]) else None
        normal = normalise(kind, value, phone=self.phone)
        return None if normal is None else self.vault.find(kind, normal)

    def preview(self, token: bytes) -> Preview:
        with self.store.reading() as reads:
            return plan(reads, token, self.rules, self._kind_of(token))

    def erase(self, kind: str, value: str, *, force: bool = False, suppress: bool = False) -> Erased:
        """Do all steps. Raises ErasureRefused when it needs `force`, RightsMissing before anything is deleted; after
        any other error `resume` goes on.
        """
        self._check_rights()
        token = self.find(kind, value)
        if token is None:
            if suppress and (normal := normalise(kind, value, phone=self.phone)) is not None:
                self._suppress([self.hash_of(kind, normal)])
            return NOT_FOUND
        kind_of = self._kind_of(token)

        def make(reads: ErasureReads) -> Erasure:
            wanted = plan(reads, token, self.rules, kind_of)
            if wanted.problems and not force:
                raise ErasureRefused("erasing this person needs --force", wanted.problems)
            return Erasure(
                id=self.new_id().hex(),
                at=self.now(),
                tokens=sorted(each.hex() for each in wanted.tokens),
                hashes=sorted(each.hex() for each in self.vault_rows.hashes(wanted.tokens)),
                profiles=sorted(each.hex() for each in wanted.profiles),
                kinds=wanted.kinds,
                events=wanted.events,
                suppress=suppress,
            )

        erasure = self.store.begin(make)
        failpoint("erase.after_fact")
        return self.run(Job(erasure, "fact"))

    def _kind_of(self, token: bytes) -> str:
        found = self.vault.open([token])
        return found[token].kind if token in found else "unknown"

    def run(self, job: Job) -> Erased:
        """Do the steps of a job that are not done."""
        steps: dict[str, Callable[[Erasure], None]] = {
            "tokens": self._name_tokens,
            "epoch": self._new_epoch,
            "letters": self._delete_letters,
            "vault": self._destroy,
            "projections": self._delete_projections,
            "receipt": self._write_receipt,
        }
        for step in STEPS[STEPS.index(job.step) + 1 :]:
            steps[step](job.erasure)
        receipt = receipt_of(job.erasure, self.vault_rows.remains())
        return Erased(True, len(job.erasure.tokens), job.erasure.events, receipt)

    def _check_rights(self) -> None:
        self.store.check_rights()
        self.vault_rows.check_rights()

    def resume(self) -> int:
        """Finish open jobs, and do again what the ledger knows and a restored database does not; returns how many."""
        jobs = self.store.open_jobs()
        opened = {job.erasure.id for job in jobs}
        for erasure in self.ledger.read():
            tokens = erasure.token_bytes()
            if erasure.id not in opened and (self.store.not_named(tokens) or self.vault_rows.present(tokens)):
                self.store.add_job(erasure)
                jobs.append(Job(erasure, "fact"))
        if jobs:
            self._check_rights()
        for job in jobs:
            self.run(job)
        return len(jobs)

    def unsuppress(self, kind: str, value: str) -> int:
        """Let a person in again, by any identifier that was suppressed with them; returns how many identifiers."""
        normal = normalise(kind, value, phone=self.phone)
        if normal is None:
            return 0
        hashed = self.hash_of(kind, normal)
        count = self.vault_rows.unsuppress({hashed} | self.store.hashes_of_erasures_with(hashed))
        if count:
            self.vault_rows.forget_everywhere(self.leases_s)
        return count

    def _suppress(self, hashes: Collection[bytes]) -> None:
        self.vault_rows.suppress(hashes, self.now())
        self.vault_rows.forget_everywhere(self.leases_s)

    # --- the steps -----------------------------------------------------------------------------------------------

    def _name_tokens(self, erasure: Erasure) -> None:
        self.store.name_tokens(erasure)
        failpoint("erase.after_tokens")

    def _new_epoch(self, erasure: Erasure) -> None:
        if erasure.suppress:
            self.vault_rows.suppress(erasure.hash_bytes(), erasure.at)
        self.vault_rows.forget_everywhere(self.leases_s)
        self.store.advance(erasure.id, "epoch")
        failpoint("erase.after_epoch")

    def _delete_letters(self, erasure: Erasure) -> None:
        """Letters without tokens are opened and searched: now, while the values can still be read."""
        values = list(self.vault.open(erasure.token_bytes()).values())
        after = bytes(16)
        while values and (letters := self.store.letters_without_tokens(after, LETTERS)):
            after = letters[-1].id
            found = [id_ for id_, plain in self._opened(letters) if mentions(plain, values, self.phone)]
            if found:
                self.store.delete_letters(found)
        self.store.advance(erasure.id, "letters")

    def _opened(self, letters: Sequence[SealedLetter]) -> Iterable[tuple[bytes, bytes]]:
        try:
            plain = self.sealer.open_many([(letter.key, letter.data, letter.id) for letter in letters])
        except (KeyMissing, SealBroken):
            if len(letters) > 1:
                for letter in letters:
                    yield from self._opened([letter])
            return  # nobody can read it (its daily key has expired): nothing in it is left to erase
        for letter, opened in zip(letters, plain, strict=True):
            if opened is not None:
                yield letter.id, opened

    def _destroy(self, erasure: Erasure) -> None:
        self.vault_rows.destroy(erasure.token_bytes())
        self.store.advance(erasure.id, "vault")
        failpoint("erase.after_vault")

    def _delete_projections(self, erasure: Erasure) -> None:
        with self.store.writing() as writes:
            delete_projections(writes, erasure, self.rules)
            writes.advance(erasure.id, "projections")
        failpoint("erase.after_projections")

    def _write_receipt(self, erasure: Erasure) -> None:
        self.store.number_feed()
        self.ledger.append(erasure, digest_of(erasure))
        failpoint("erase.after_receipt")
        self.store.advance(erasure.id, "receipt", self.now())


def digest_of(erasure: Erasure) -> str:
    """SHA-256 over the sorted keyed hashes of the identifiers, one a line."""
    return sha256("\n".join(sorted(erasure.hashes)).encode()).hexdigest()


def receipt_of(erasure: Erasure, remains: Sequence[Remains]) -> dict[str, object]:
    """What the person who asked may keep: proof without personal data, and what is still to go where."""
    return {
        "id": str(UUID(hex=erasure.id)),
        "erased_at": erasure.at.isoformat().replace("+00:00", "Z"),
        "identifiers": len(erasure.tokens),
        "kinds": erasure.kinds,
        "events": erasure.events,
        "suppressed": erasure.suppress,
        "sha256": digest_of(erasure),
        "remains": [each._asdict() for each in remains],
    }


def route_key(tokens: Iterable[tuple[str, bytes]], rules: IdentityRules) -> bytes:
    """The token whose key seals the events of a signature: the highest-ranked, ties to the smaller token."""
    return min((rules.rank(kind), token) for kind, token in tokens)[1]


def plan(reads: ErasureReads, token: bytes, rules: IdentityRules, kind: str) -> Preview:
    """The tokens of the profile that the token belongs to, and what goes with them.

    A hub is shared with others: it goes only when it is the one named. A token that was seen in events of the
    person alone goes too, even where its link was refused. `kind`: of the token, if it was never folded.
    """
    rows = reads.owners([token])
    kinds = {token: kind}
    profiles: set[bytes] = set()
    for row in rows:
        kinds[token] = row.kind
        if row.profile_id is not None:
            profiles.add(row.profile_id)
        if not row.hub and row.profile_id is not None:
            kinds |= {each.token: each.kind for each in reads.members(profiles) if not each.hub}
    seen = {each.signature: each for each in reads.evidence_of(kinds)}
    gone = {s for s, each in seen.items() if each.profile_id in profiles or route_key(each.tokens, rules) in kinds}
    beside = {t: k for s in gone for k, t in seen[s].tokens if t not in kinds}
    kept = {t for each in reads.evidence_of(beside) if each.signature not in gone for _, t in each.tokens}
    alone = {t: k for t, k in beside.items() if t not in kept}
    profiles |= {row.profile_id for row in reads.owners(alone) if row.profile_id is not None}
    kinds |= alone
    refused = reads.count_refused(kinds, seen)
    counts = {name: list(kinds.values()).count(name) for name in sorted(set(kinds.values()))}
    problems = _problems(counts.get("user_id", 0), refused)
    return Preview(frozenset(kinds), frozenset(profiles), counts, reads.count_events(gone), problems)


def _problems(user_ids: int, refused: int) -> tuple[Problem, ...]:
    found = []
    if user_ids > 1:
        found.append(Problem("user_id", f"the profile holds {user_ids} user_ids: these may be different people"))
    if refused:
        found.append(Problem("", f"{refused} refused links touch it: whose these identifiers are is an open case"))
    return tuple(found)


def delete_projections(writes: ErasureWrites, erasure: Erasure, rules: IdentityRules) -> None:
    """Delete what was computed of the person. Their signatures lose owner and evidence; signatures of others lose the
    erased token alone, and are resolved again where that may change who is whom.

    States go with the route key, as a rebuild has it: where that is a hub that stays, the state stays unowned, until
    the hub is erased itself.
    """
    erased = set(erasure.token_bytes())
    seen = {each.signature: each for each in writes.evidence_of(erased)}
    ended = {bytes.fromhex(profile) for profile in erasure.profiles}
    ended |= {row.profile_id for row in writes.owners(erased) if row.profile_id in erased}
    unread = {s for s, each in seen.items() if route_key(each.tokens, rules) in erased}
    gone = unread | {s for s, each in seen.items() if each.profile_id in ended}
    left = [_without(seen[s], erased) for s in seen if s not in gone]
    beside = {token for s in seen for _, token in seen[s].tokens} - erased
    stay = beside - _hubs_that_stay(writes, beside, erased, gone, rules)
    around = [each for each in writes.evidence_of(stay) if each.signature not in seen]
    writes.delete_states(unread | writes.nobodys(erased))
    _uncount(writes, ended)
    published = writes.delete_profiles(ended)
    writes.empty_evidence(gone, {s: route_key(seen[s].tokens, rules) for s in gone - unread})
    writes.strip_evidence(left)
    writes.delete_tokens(erased)
    kept = {token for each in (*left, *around) for _, token in each.tokens}
    writes.delete_token_rows(stay - kept)  # of events that came after the plan: nothing is left that holds them
    writes.set_receipts(_receipts([*left, *around], stay))
    writes.mark_identity([each.signature for each in (*left, *around)])
    writes.add_erased_changes(published, to_us(erasure.at))


def _uncount(writes: ErasureWrites, profile_ids: Collection[bytes]) -> None:
    """Take the profiles out of the overview's figures. Their orders come back as nobody's, which the worker counts."""
    days = LocalDays(writes.time_zone())
    for revision, rows in writes.counted(profile_ids).items():
        cells: Cells = {}
        for row in rows:
            add_profile(cells, row, days, -1)
        writes.add_figures(revision, cells)


def _without(each: Seen, erased: AbstractSet[bytes]) -> Seen:
    return each._replace(tokens=tuple((kind, token) for kind, token in each.tokens if token not in erased))


def _hubs_that_stay(
    writes: ErasureWrites,
    beside: AbstractSet[bytes],
    erased: AbstractSet[bytes],
    gone: AbstractSet[bytes],
    rules: IdentityRules,
) -> AbstractSet[bytes]:
    """Of tokens seen with the person, those that are hubs without them too. Others are made hubs no more."""
    hubs = {row.token for row in writes.owners(beside) if row.hub}
    rest = [_without(each, erased) for each in writes.evidence_of(hubs) if each.signature not in gone]
    evidence = [Evidence(each.signature, each.tokens, each.first_us, each.first_event) for each in rest]
    stay = hubs & find_hubs(evidence, rules)
    writes.clear_hubs(hubs - stay)
    return stay


def _receipts(evidence: Iterable[Seen], tokens: AbstractSet[bytes]) -> list[Receipt]:
    """First and last receipt of tokens, from all that is left of their evidence."""
    found: dict[bytes, list[tuple[int, bytes]]] = {}
    for each in evidence:
        for _, token in each.tokens:
            if token in tokens:
                found.setdefault(token, []).append((each.first_us, each.first_event))
    return [Receipt(token, min(receipts), max(receipts)) for token, receipts in sorted(found.items())]


_LONG_ENOUGH: Final = 5  # letters of a value that is looked for inside longer texts


def mentions(plain: bytes, values: Iterable[OpenIdentifier], phone: PhoneForm) -> bool:
    """Whether a dead letter names one of the values: as a whole field in its normal form, or inside a text as a word.

    Values under 5 letters count as whole fields only: "42" stands in every other letter.
    """
    values = list(values)
    fields = _fields(plain)
    wanted = {(each.kind, each.value) for each in values}
    kinds = {each.kind for each in values}
    if any((kind, normalise(kind, field, phone=phone)) in wanted for kind in kinds for field in fields):
        return True
    words = [re.escape(each.value.casefold()) for each in values if len(each.value) >= _LONG_ENOUGH]
    words += [each.token.hex() for each in values]  # a whole record may be inside
    pattern = re.compile(rf"(?<!\w)(?:{'|'.join(words)})(?!\w)")
    return any(pattern.search(field.casefold()) for field in fields if isinstance(field, str))


def _fields(plain: bytes) -> list[str | int | float]:
    """Every scalar of a JSON text, keys included; the whole text where it is none, or holds bytes that are none."""
    try:
        item = msgspec.json.decode(plain)
    except (msgspec.MsgspecError, RecursionError):
        return [plain.decode(errors="replace")]
    found: list[str | int | float] = []
    if isinstance(item, dict) and isinstance(item.get("bytes"), str):  # of a body that is no JSON, beside its times
        with suppress(binascii.Error):
            found.append(binascii.a2b_base64(item["bytes"]).decode(errors="replace"))
    stack = [item]
    while stack:
        top = stack.pop()
        if isinstance(top, dict):
            stack.extend(top)
            stack.extend(top.values())
        elif isinstance(top, list):
            stack.extend(top)
        elif isinstance(top, str | int | float):
            found.append(top)
    return found
