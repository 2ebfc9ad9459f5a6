"""Adds direct personal values for topics granted them: opened as the profile holds them now, and stored nowhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from processors.live.compiled import Compiled
from processors.live.personal_traits import open_personal
from schemas.identity_rules import DEFAULT_RULES, IdentityRules
from schemas.ports import EventLog, OpenIdentifier, Sealer, Vault
from schemas.reads import ChangeRow, ProfileRead
from schemas.token_refs import tokens_in, with_values
from schemas.topics import TOPIC_OF


@dataclass(frozen=True)
class PersonalValues:
    """`granted`: short names of topics. Each batch takes one read of the log and two vault look-ups."""

    granted: frozenset[str]
    log: EventLog
    sealer: Sealer
    vault: Vault
    rules: IdentityRules = field(default=DEFAULT_RULES)

    def open(self, compiled: Compiled, rows: Sequence[ChangeRow], living: Mapping[bytes, ProfileRead]) -> list[Any]:
        """`new` of each row, with `value` (a trait) or `identifiers` (the kinds that joined) next to `personal`.

        Neither is added if the profile has ended, the trait is unset or its key was erased.
        """
        wanted = [row for row in rows if self._is_personal(row) and row.profile_id in living]
        if not wanted:
            return [row.new for row in rows]
        traits = self._traits(compiled, wanted, living)
        tokens = {t for row in wanted if "kinds" in row.new for t, _ in living[row.profile_id].tokens}
        opened = self.vault.open(tokens | {token for values in traits.values() for token in tokens_in(values)})
        found: list[Any] = []
        for row in rows:
            if not self._is_personal(row) or row.profile_id not in living:
                found.append(row.new)
            elif "kinds" in row.new:
                found.append({**row.new, "identifiers": self._identifiers(living[row.profile_id], row.new, opened)})
            else:
                value = with_values(traits[row.profile_id].get(row.name or ""), opened)
                found.append(row.new if value is None else {**row.new, "value": value})
        return found

    def _is_personal(self, row: ChangeRow) -> bool:
        return TOPIC_OF.get(row.type) in self.granted and isinstance(row.new, dict) and row.new.get("personal") is True

    def _traits(
        self, compiled: Compiled, rows: Sequence[ChangeRow], living: Mapping[bytes, ProfileRead]
    ) -> dict[bytes, dict[str, Any]]:
        """The direct traits named by changes, by profile; identifiers in them appear as tokens."""
        names = {row.name for row in rows if "kinds" not in row.new and row.name is not None}
        profiles = {row.profile_id: living[row.profile_id] for row in rows if row.name in names}
        states = {key: compiled.fold.unpack(profile.state) for key, profile in profiles.items()}
        return open_personal(self.log, self.sealer, states, names.__contains__)

    def _identifiers(
        self, profile: ProfileRead, new: Mapping[str, Any], opened: Mapping[bytes, OpenIdentifier]
    ) -> list[dict[str, str]]:
        """Kind and value of the profile's identifiers of these kinds, highest rank first, then by value."""
        kinds = set(new["kinds"])
        known = [opened[token] for token, kind in profile.tokens if kind in kinds and token in opened]
        known.sort(key=lambda each: (self.rules.rank(each.kind), each.value))
        return [{"kind": each.kind, "value": each.shown} for each in known]
