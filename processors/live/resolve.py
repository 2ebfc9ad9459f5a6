"""Resolves identity inside DECIDE: a short cut for evidence newer than all it touches, else its whole scope.

The rules are in `projections.identity`; this module only reads the rows they need and stores the changes.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from projections.identity.evidence import Evidence, KnownToken, Profile
from projections.identity.extend import Extension, extend
from projections.identity.resolve import Resolution, resolve
from projections.identity.shared import find_shared, partners_of
from schemas.identity_rules import IdentityRules
from schemas.store import DecideTx
from schemas.store_rows import NO_EVENT, NO_RECEIPT, EvidenceRow, NewWorkItem, TokenRow


class Moves(NamedTuple):
    """The changes of identity, by profile id."""

    ended: dict[bytes, bytes]  # merged away -> into
    split_off: dict[bytes, list[bytes]]  # profile -> parts that left it
    joined: dict[bytes, set[str]]  # profile -> kinds of its new tokens
    touched: set[bytes]  # profiles with changed identifier sets
    moved: AbstractSet[bytes] = frozenset()  # identifier sets with a changed or newly found owner
    only_found: AbstractSet[bytes] = frozenset()  # those of `touched` that only gained unowned sets
    gained: AbstractSet[bytes] = frozenset()  # profiles that gained order sets
    lost: AbstractSet[bytes] = frozenset()  # profiles that lost order sets

    @staticmethod
    def none() -> "Moves":
        return Moves({}, {}, {}, set())


@dataclass
class Identity:
    """Applies the rules to stored evidence, for the live revision. `shadows`: revisions being built.

    `shared`: other workers resolve at the same time, so each locks the rows of the tokens it may change. Otherwise, and
    to resolve a whole scope, one lock on all of identity is cheaper. `alive` is called repeatedly meanwhile, because a
    scope may be large.
    """

    rules: IdentityRules
    revision: int
    shadows: Callable[[], Sequence[int]] = tuple
    shared: bool = False
    alive: Callable[[], None] = lambda: None

    def resolve(
        self,
        tx: DecideTx,
        identifier_sets: Iterable[bytes],
        anew: AbstractSet[bytes],
        *,
        read_only: bool = False,
    ) -> tuple[dict[bytes, bytes], Moves]:
        """The owner of each identifier set, deciding those without one; `anew` are resolved with their scope."""
        identifier_sets = set(identifier_sets)
        owners = tx.owners(identifier_sets)
        if read_only or (not anew and len(owners) == len(identifier_sets)):
            return owners, Moves.none()
        alone = not self.shared or bool(anew)
        if alone:
            tx.lock_identity()
        else:
            tx.share_identity()
        locked: set[bytes] = set()
        while True:
            # Read under the locks: another worker may have decided some of them in the meantime.
            rows = {row.identifier_set: row for row in tx.evidence((identifier_sets - owners.keys()) | anew)}
            owners |= {s: row.profile_id for s, row in rows.items() if row.profile_id is not None}
            fresh = {s for s, row in rows.items() if row.profile_id is None and row.tokens}
            wanted = fresh | {s for s in anew if s in rows and rows[s].tokens}  # an erasure may have emptied some
            if not wanted:
                if locked:
                    tx.unlock_tokens()  # also removes rows created only to be locked
                return owners, Moves.none()
            work = _Work(
                tx,
                self.rules,
                self.revision,
                [_evidence(rows[identifier_set]) for identifier_set in wanted],
                self.alive,
            )
            # The first guess is cheap and nearly always complete; deciding under those locks may need more of them.
            needed = work.plan(whole=bool(anew)) if alone or locked else work.near()
            if alone or needed <= locked:
                moves = work.store()._replace(moved=work.moved)
                break
            if locked:
                tx.unlock_tokens()
            locked |= needed
            tx.lock_tokens(work.kinds, locked)
        self.tell_shadows(tx, work.moved)
        return owners | {s: owner for s, owner in work.owners.items() if s in identifier_sets}, moves

    def tell_shadows(self, tx: DecideTx, moved: AbstractSet[bytes]) -> None:
        """Have revisions being built decide the profiles again whose identifier or order sets these are now."""
        for revision in tx.building() if self.shared else self.shadows():
            tx.add_work([NewWorkItem(revision, 0, "decide", dict.fromkeys(moved, (0, NO_EVENT)))])


class _Work:
    """One resolution: loads rows, applies the rules, stores the result."""

    def __init__(
        self,
        tx: DecideTx,
        rules: IdentityRules,
        revision: int,
        fresh: list[Evidence],
        alive: Callable[[], None],
    ) -> None:
        self._tx = tx
        self._alive = alive
        self._rules = rules
        self._revision = revision
        self.moved: set[bytes] = set()  # identifier sets whose owner changed or was found
        self._fresh = fresh
        self._rows = self._token_rows({token for each in fresh for _, token in each.tokens})
        self.owners: dict[bytes, bytes] = {}
        self.kinds = {token: kind for each in fresh for kind, token in each.tokens}  # their rows may have to be created
        self.store: Callable[[], Moves] = Moves.none  # set by `plan`

    def _token_rows(self, tokens: Iterable[bytes]) -> dict[bytes, TokenRow]:
        """Token rows, ignoring those that exist only to be locked."""
        return {row.token: row for row in self._tx.tokens(tokens) if row.last_us != NO_RECEIPT[2]}

    def near(self) -> set[bytes]:
        """The tokens that the decision changes at least: the fresh ones and those of their profiles."""
        reached = {row.profile_id for row in self._rows.values() if not row.is_shared and row.profile_id is not None}
        return self.kinds.keys() | reached

    def plan(self, *, whole: bool) -> set[bytes]:
        """Decide; `store` then stores the result. Returns the tokens with rows that it changes or depends on."""
        planned = None if whole else self._plan_short()
        return self._plan_whole() if planned is None else planned

    def _plan_short(self) -> set[bytes] | None:
        """Decide the fresh evidence against the profiles it reaches; None if that would not be enough."""
        known = {t: KnownToken(row.kind, row.is_shared, row.profile_id or t) for t, row in self._rows.items()}
        reached = {row.profile_id for row in known.values() if not row.is_shared}
        members = self._tx.tokens_of_profiles(reached) if reached else []
        profiles = _profiles(members)
        if reached - profiles.keys():
            return None  # an erasure took the token that named a profile, and the rest is not resolved yet
        extension = extend(known, profiles, self._fresh, self._rules, self._partners(known))
        if extension is None:
            return None
        self._rows |= {row.token: row for row in members}
        self.store = partial(self._store_extension, extension, profiles)
        ended = dict(extension.merged)
        moved = {row.token for row in members if row.profile_id in ended}
        return self.near() | moved | reached

    def _partners(self, known: Mapping[bytes, KnownToken]) -> dict[bytes, dict[str, set[bytes]]]:
        """What earlier evidence saw the known tokens with; read only of those that gain what counts against them."""
        counts = self._rules.sharing_limit
        wanted = {
            token
            for each in self._fresh
            for kind, token in each.tokens
            if token in known
            and not known[token].is_shared
            and any(counts(kind, other) is not None for other, held in each.tokens if held != token)
        }
        if not wanted:
            return {}
        # FOLD has already stored the fresh evidence: with it included, no token would appear to gain partners.
        fresh = {each.identifier_set for each in self._fresh}
        earlier = [row for row in self._tx.evidence_of_tokens(wanted) if row.identifier_set not in fresh]
        found = partners_of(map(_evidence, earlier), self._rules)
        return {token: kinds for token, kinds in found.items() if token in wanted}

    def _store_extension(self, extension: Extension, before: Mapping[bytes, Profile]) -> Moves:
        rows = dict(self._rows)
        for token, known in extension.tokens.items():
            rows[token] = _moved(rows.get(token), token, known.kind, known.profile_id, is_shared=False)
        ended = dict(extension.merged)
        found = extension.profiles.keys() - ended.keys() - set(ended.values())
        moves = Moves(ended, {}, {}, set(extension.profiles), only_found=found)
        for token, known in extension.tokens.items():
            if token not in self._rows or known.profile_id in before:
                moves.joined.setdefault(known.profile_id, set()).add(known.kind)
        self._note_receipts(rows, self._fresh)
        changed = [row for token, row in rows.items() if self._rows.get(token) != row]
        self._finish(changed, extension.owner, extension.refused, {each.identifier_set for each in self._fresh})
        if extension.merged:  # the identifier sets of the profiles that ended move along
            into = dict(extension.merged)
            pairs = self._tx.evidence_of_profiles(into)
            self._own({identifier_set: into[old] for old, identifier_set in pairs})
        return moves

    def _plan_whole(self) -> set[bytes]:
        """Resolve everything connected with the fresh evidence."""
        scope, shared = self._scope()
        resolution = resolve(scope.values(), self._rules, shared=shared)
        self.kinds = tokens = {token: kind for each in scope.values() for kind, token in each.tokens}
        self._rows |= self._token_rows(tokens.keys() - self._rows.keys())
        self.store = partial(self._store_resolution, resolution, scope, tokens)
        return set(tokens)

    def _scope(self) -> tuple[dict[bytes, Evidence], frozenset[bytes]]:
        """All evidence connected with the fresh evidence by tokens that are not shared identifiers.

        Shared identifiers found on the way are final: all evidence with a visited token is read when it is visited.
        """
        scope = {each.identifier_set: each for each in self._fresh}
        stored_shared = {token for token, row in self._rows.items() if row.is_shared}
        seen: set[bytes] = set()
        shared: frozenset[bytes] = frozenset()
        while True:
            self._alive()
            frontier = {t for each in scope.values() for _, t in each.tokens} - seen
            fresh_rows = self._token_rows(frontier - self._rows.keys())
            self._rows |= fresh_rows
            stored_shared |= {token for token, row in fresh_rows.items() if row.is_shared}
            frontier -= stored_shared
            if not frontier:
                return scope, shared | stored_shared
            seen |= frontier | stored_shared
            found = [_evidence(row) for row in self._tx.evidence_of_tokens(frontier)]
            scope |= {each.identifier_set: each for each in found}
            shared |= find_shared(found, self._rules) & frontier  # of other tokens, some evidence may be missing here

    def _store_resolution(
        self, resolution: Resolution, scope: Mapping[bytes, Evidence], kinds: Mapping[bytes, str]
    ) -> Moves:
        before = {row.identifier_set: row.profile_id for row in self._tx.evidence(scope)}
        rows = dict(self._rows)
        joined: dict[bytes, set[str]] = {}
        for profile_id, members in resolution.members.items():
            for token in members:
                old = rows.get(token)
                if old is None or old.profile_id != profile_id:
                    joined.setdefault(profile_id, set()).add(kinds[token])
                rows[token] = _moved(old, token, kinds[token], profile_id, is_shared=token in resolution.shared)
        self._note_receipts(rows, scope.values())
        changed = [row for token, row in rows.items() if self._rows.get(token) != row]
        moves = _moves(before, resolution, joined)
        newly_shared = {t for t in resolution.shared if t not in self._rows or not self._rows[t].is_shared}
        moved = {s: owner for s, owner in resolution.owner.items() if before.get(s) != owner}
        self._finish(changed, moved, resolution.refused, set(scope))
        self.owners = dict(resolution.owner)
        if newly_shared:
            self._beyond_shared(newly_shared, scope)
        return moves

    def _beyond_shared(self, shared: set[bytes], scope: Mapping[bytes, Evidence]) -> None:
        """Queue evidence outside the scope that was connected only through a new shared identifier."""
        rest = {row.identifier_set for row in self._tx.evidence_of_tokens(shared)} - scope.keys()
        if rest:
            self._tx.add_work([NewWorkItem(self._revision, 0, "identity", dict.fromkeys(rest, (0, NO_EVENT)))])

    def _note_receipts(self, rows: dict[bytes, TokenRow], evidence: Iterable[Evidence]) -> None:
        """First and last receipts of tokens, from their evidence."""
        for each in evidence:
            receipt = each.receipt
            for _, token in each.tokens:
                row = rows[token]
                if receipt < (row.first_us, row.first_place):
                    row = row._replace(first_us=receipt[0], first_place=receipt[1])
                if receipt > (row.last_us, row.last_place):
                    row = row._replace(last_us=receipt[0], last_place=receipt[1])
                rows[token] = row

    def _finish(
        self,
        tokens: list[TokenRow],
        owners: Mapping[bytes, bytes],
        refused: Iterable[tuple[bytes, bytes, str, str]],
        identifier_sets: set[bytes],
    ) -> None:
        self._tx.save_tokens(tokens)
        self._own(owners)
        links = [(identifier_set, token, reason) for identifier_set, token, _kind, reason in refused if identifier_set]
        self._tx.replace_refused(identifier_sets, links)
        self.owners |= owners

    def _own(self, owners: Mapping[bytes, bytes]) -> None:
        self._tx.set_owners(owners)
        self.moved |= owners.keys()


def _evidence(row: EvidenceRow) -> Evidence:
    return Evidence(row.identifier_set, row.tokens, row.first_us, row.first_place)


def _moved(old: TokenRow | None, token: bytes, kind: str, profile_id: bytes, *, is_shared: bool) -> TokenRow:
    if old is None:
        return TokenRow(token, kind, *NO_RECEIPT, is_shared, profile_id)
    return old._replace(profile_id=profile_id, is_shared=is_shared)


def _profiles(members: Iterable[TokenRow]) -> dict[bytes, Profile]:
    """The profiles with their naming token among the members."""
    groups: dict[bytes, list[TokenRow]] = {}
    for row in members:
        if row.profile_id is not None and not row.is_shared:
            groups.setdefault(row.profile_id, []).append(row)
    found = {}
    for profile_id, rows in groups.items():
        named = next((row for row in rows if row.token == profile_id), None)
        if named is None:
            continue
        found[profile_id] = Profile(
            profile_id,
            {row.token: row.kind for row in rows},
            (named.first_us, named.first_place),
            max((row.last_us, row.last_place) for row in rows),
        )
    return found


def _moves(before: Mapping[bytes, bytes | None], resolution: Resolution, joined: dict[bytes, set[str]]) -> Moves:
    """Compare owners of identifier sets: which profiles ended, and which lost parts."""
    went: dict[bytes, set[bytes]] = {}
    touched: set[bytes] = set()
    for identifier_set, owner in resolution.owner.items():
        old = before.get(identifier_set)
        if old is not None:
            went.setdefault(old, set()).add(owner)
        if old != owner:
            touched |= {owner} | ({old} if old is not None else set())
    living = set(resolution.owner.values())
    ended = {old: min(owners) for old, owners in went.items() if old not in living}
    split_off = {old: sorted(owners - {old}) for old, owners in went.items() if old in living and owners - {old}}
    for old, owners in went.items():
        if old in ended and len(owners) > 1:
            split_off[ended[old]] = sorted(owners - {ended[old]})
    return Moves(ended, split_off, joined, touched | set(joined))
