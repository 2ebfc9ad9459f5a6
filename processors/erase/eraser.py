"""Erases people: everything in the profiles of the given identifiers, in repeatable steps (design C12).

The order makes it safe: FOLD knows the erased tokens before any process forgets their keys, and no process remembers a
key when its row is destroyed. What survives are events without an owner, which still count in totals.

Many people go through each step together, so that work that costs the same for one and for a thousand (two vault
epochs, a search of every dead letter, rewritten tables) is done once (decision 0027).
"""

import hmac
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Final, NamedTuple
from uuid import UUID

import msgspec

from processors.erase.dead_letters import Names
from processors.erase.plan import Preview, plan, plan_many, same_people
from processors.erase.projections import delete_projections, tokens_of
from schemas.erasures import (
    STEPS,
    Erasure,
    ErasureReads,
    ErasureStore,
    ErasureVault,
    Job,
    Ledger,
    Remains,
    SealedDeadLetter,
)
from schemas.errors import ErasureRefused, KeyMissing, Problem, SealBroken
from schemas.failpoints import failpoint
from schemas.identifiers import PhoneForm, normalise
from schemas.identity_rules import DEFAULT_RULES, IdentityRules
from schemas.ports import Sealer, Vault
from schemas.record import to_us

LEASES_S: Final = 15.0  # three times a lease: one still held after that is a fault
LETTERS: Final = 500  # read at a time; a letter is at most 32 KiB
TOGETHER: Final = 100  # people whose projections are deleted in one transaction, which DECIDE waits for


class Erased(NamedTuple):
    """The answer of `erase` (contracts)."""

    found: bool
    identifiers: int
    events: int
    receipt: dict[str, object] | None


NOT_FOUND: Final = Erased(False, 0, 0, None)


class Taken(NamedTuple):
    """What was erased, as receipts state it. `erased_on`: ISO date, UTC."""

    erased_on: str
    identifiers: int
    kinds: dict[str, int]
    events: int


class Begun(NamedTuple):
    """People whose erasure can no longer be stopped, each by the first token that named them."""

    jobs: list[Job]
    previews: dict[bytes, Preview]
    refused: dict[bytes, tuple[Problem, ...]]  # people who need --force: nothing was done to them
    same: dict[bytes, bytes]  # each requested token -> the token its person is listed under here


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
        """The token of KIND:VALUE as people write it; `profile` takes a profile id, including former ones."""
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
            return plan(reads, token, self.rules, self._kinds_of([token])[token])

    def erase(self, kind: str, value: str, *, force: bool = False, suppress: bool = False) -> Erased:
        """Do all steps. Raises ErasureRefused if it needs `force`, and RightsMissing before anything is deleted; after
        any other error `resume` continues.
        """
        self.check_rights()
        token = self.find(kind, value)
        if token is None:
            if suppress:
                self.suppress_strangers([(kind, value)])
            return NOT_FOUND
        begun = self.begin([token], force=force, suppress=suppress)
        if begun.refused:
            raise ErasureRefused("erasing this person needs --force", begun.refused[token])
        self.advance(begun.jobs)
        remains = self.finish(begun.jobs)
        preview = begun.previews[token]
        return Erased(True, preview.identifiers, preview.events, self.receipt(self.taken(preview), suppress, remains))

    def begin(
        self,
        tokens: Sequence[bytes],
        *,
        force: bool,
        suppress: bool,
        before: Callable[[Mapping[bytes, Preview]], None] = lambda _taken: None,
    ) -> Begun:
        """Plan and record the erasure of the people with these tokens; without `force`, those who need it are left out.

        `before` is called with the people before they are recorded, while they can still be found.

        With `suppress`, their hashes go on the vault's list first. Nothing stored says which tokens were suppressed, so
        after a crash before the record, people are refused but not erased, and must be erased again.
        """
        kinds = self._kinds_of(tokens)
        found: dict[bytes, Preview] = {}

        def make(reads: ErasureReads) -> list[Erasure]:
            found.update(plan_many(reads, kinds, self.rules, force=force))
            taken = {token: each for token, each in found.items() if force or not each.problems}
            before(taken)
            if suppress:
                self._suppress(taken.values())
            return [self._erasure(each) for each in taken.values()]

        jobs = [Job(each, "fact") for each in self.store.begin(make)]
        failpoint("erase.after_fact")
        refused = {} if force else {token: each.problems for token, each in found.items() if each.problems}
        return Begun(jobs, found, refused, same_people(tokens, found))

    def _erasure(self, preview: Preview) -> Erasure:
        return Erasure(
            id=self.new_id().hex(),
            on=self._today(),
            tokens=sorted(each.hex() for each in preview.tokens),
            profiles=sorted(each.hex() for each in preview.profiles),
        )

    def _kinds_of(self, tokens: Sequence[bytes]) -> dict[bytes, str]:
        found = self.vault.open(tokens)
        return {token: found[token].kind if token in found else "unknown" for token in tokens}

    def advance(self, jobs: Sequence[Job]) -> None:
        """Do the remaining steps except the last, which `finish` does for any number of jobs."""
        steps: dict[str, Callable[[Sequence[Erasure]], None]] = {
            "tokens": self._name_tokens,
            "epoch": self._new_epoch,
            "letters": self._delete_letters,
            "vault": self._destroy,
            "projections": self._delete_projections,
            "ledger": self._write_ledger,
        }
        for number, step in enumerate(STEPS):
            due = [job.erasure for job in jobs if STEPS.index(job.step) < number]
            if due and step in steps:
                steps[step](due)

    def finish(self, jobs: Sequence[Job]) -> list[Remains]:
        """The last step: overwrite deleted rows where possible. Returns where something is left."""
        self.store.clean()
        self.vault_rows.clean()  # last: it also switches the WAL, into which reading a page may have copied rows
        failpoint("erase.after_clean")
        self.store.advance([job.erasure.id for job in jobs], "receipt", self._today())
        return self.vault_rows.remains()

    def check_rights(self) -> None:
        """Raise RightsMissing if our account may not do one of the steps."""
        self.store.check_rights()
        self.vault_rows.check_rights()

    def resume(self) -> int:
        """Finish open jobs, and repeat erasures in the ledger that a restored database lacks; returns how many."""
        self._compare_suppressed()
        jobs = self.store.open_jobs()
        opened = {job.erasure.id for job in jobs}
        undone = [each for each in self._undone() if each.id not in opened]
        if undone:
            self.store.add_jobs(undone)
            jobs += [Job(each, "fact") for each in undone]
        if jobs:
            self.check_rights()
            self.advance(jobs)
            self.finish(jobs)
        return len(jobs)

    def _undone(self) -> list[Erasure]:
        """Erasures that are in the ledger but not in the databases."""
        known = self.ledger.read()
        tokens = {token for each in known for token in each.token_bytes()}
        back = self.store.not_named(tokens) | self.vault_rows.present(tokens) if tokens else set()
        return [each for each in known if not back.isdisjoint(each.token_bytes())]

    def receipt(self, taken: Taken, suppressed: bool, remains: Sequence[Remains]) -> dict[str, object]:
        """The receipt for the person who asked: proof without personal data, and where data is still to be deleted.

        None of it is stored in the folder next to a token, so nobody who has both can join them by an id or a time.
        `sha256`: keyed hash of the rest, which only this deployment can make.
        """
        said: dict[str, object] = {
            "id": str(UUID(bytes=self.new_id())),
            **taken._asdict(),
            "suppressed": suppressed,
            "remains": [each._asdict() for each in remains],
        }
        return said | {"sha256": self._proof(said)}

    def taken(self, preview: Preview) -> Taken:
        """The receipt's summary of a preview that is carried out now."""
        return Taken(self._today().isoformat(), preview.identifiers, preview.kinds, preview.events)

    def _today(self) -> date:
        return self.now().astimezone(UTC).date()

    def is_ours(self, receipt: Mapping[str, object]) -> bool:
        """Whether this deployment wrote a receipt and nobody has changed it."""
        said = {name: value for name, value in receipt.items() if name != "sha256"}
        return hmac.compare_digest(str(receipt.get("sha256", "")).encode(), self._proof(said).encode())

    def _proof(self, said: Mapping[str, object]) -> str:
        key = self.hash_of("touchfold", "receipts")
        return hmac.digest(key, msgspec.json.encode(said, order="sorted"), "sha256").hex()

    # --- the suppressed ----------------------------------------------------------------------------------------------

    def suppress_strangers(self, identifiers: Iterable[tuple[str, str]]) -> None:
        """Suppress people who are not known yet; each identifier is a separate person."""
        normal = [(kind, normalise(kind, value, phone=self.phone)) for kind, value in identifiers]
        self._add_to_list([[self.hash_of(kind, value)] for kind, value in normal if value is not None])
        self.vault_rows.forget_everywhere(self.leases_s)

    def unsuppress(self, kind: str, value: str) -> bool:
        """Lift a person's suppression, by any identifier that was suppressed with them; False if it was not."""
        normal = normalise(kind, value, phone=self.phone)
        if normal is None or not self.vault_rows.unsuppress(self.hash_of(kind, normal)):
            return False
        self.ledger.keep_suppressed(self.vault_rows.suppressed())
        self.vault_rows.forget_everywhere(self.leases_s)
        return True

    def _suppress(self, people: Iterable[Preview]) -> None:
        people = list(people)
        hashes = self.vault_rows.hashes({token for each in people for token in each.tokens})
        self._add_to_list([[hashes[token] for token in each.tokens if token in hashes] for each in people])

    def _add_to_list(self, people: Sequence[Collection[bytes]]) -> None:
        self.vault_rows.suppress(people)
        self.ledger.keep_suppressed(self.vault_rows.suppressed())

    def _compare_suppressed(self) -> None:
        """Restore entries missing from the vault's suppression list from the ledger's list, and the other way round."""
        kept, known = self.ledger.suppressed(), self.vault_rows.suppressed()
        lost = {hashed: mark for hashed, mark in kept.items() if hashed not in known}
        if lost:
            self.vault_rows.add_suppressed(lost)
            self.vault_rows.forget_everywhere(self.leases_s)
        if known.keys() - kept.keys():
            self.ledger.keep_suppressed({**kept, **known})

    # --- the steps -----------------------------------------------------------------------------------------------

    def _name_tokens(self, erasures: Sequence[Erasure]) -> None:
        self.store.name_tokens(erasures)
        failpoint("erase.after_tokens")

    def _new_epoch(self, erasures: Sequence[Erasure]) -> None:
        self.vault_rows.forget_everywhere(self.leases_s)
        self.store.advance(_ids(erasures), "epoch")
        failpoint("erase.after_epoch")

    def _delete_letters(self, erasures: Sequence[Erasure]) -> None:
        """Open and search dead letters without tokens, while the values can still be read."""
        names = Names(self.vault.open(tokens_of(erasures)).values(), self.phone)
        after = bytes(16)
        while names and (letters := self.store.dead_letters_without_tokens(after, LETTERS)):
            after = letters[-1].id
            found = [id_ for id_, plain in self._opened(letters) if names.are_in(plain)]
            if found:
                self.store.delete_dead_letters(found)
        self.store.advance(_ids(erasures), "letters")

    def _opened(self, letters: Sequence[SealedDeadLetter]) -> Iterable[tuple[bytes, bytes]]:
        try:
            plain = self.sealer.open_many([(letter.key, letter.data, letter.id) for letter in letters])
        except (KeyMissing, SealBroken):
            if len(letters) > 1:
                for letter in letters:
                    yield from self._opened([letter])
            return  # nobody can read it any more (its daily key has expired), so there is nothing to erase
        for letter, opened in zip(letters, plain, strict=True):
            if opened is not None:
                yield letter.id, opened

    def _destroy(self, erasures: Sequence[Erasure]) -> None:
        self.vault_rows.destroy(tokens_of(erasures))
        self.store.advance(_ids(erasures), "vault")
        failpoint("erase.after_vault")

    def _delete_projections(self, erasures: Sequence[Erasure]) -> None:
        for at in range(0, len(erasures), TOGETHER):
            some = erasures[at : at + TOGETHER]
            with self.store.writing() as writes:
                left = writes.not_past(_ids(some), "vault")  # another process may do the same
                delete_projections(writes, [each for each in some if each.id in left], self.rules, to_us(self.now()))
                writes.advance(list(left), "projections")
        failpoint("erase.after_projections")

    def _write_ledger(self, erasures: Sequence[Erasure]) -> None:
        self.store.number_feed()
        self.ledger.append(erasures)
        failpoint("erase.after_ledger")
        self.store.advance(_ids(erasures), "ledger")


def _ids(erasures: Iterable[Erasure]) -> list[str]:
    return [each.id for each in erasures]
