"""At a start: identifiers of earlier builds get this build's forms, and what names nobody stops linking people."""

from collections.abc import Callable, Iterable
from contextlib import closing
from datetime import datetime
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from infra.adapters.postgres.ambiguous import AmbiguousTokens
from infra.adapters.postgres.sources import PostgresSources
from infra.adapters.postgres.unnamed import UnnamedTokens
from infra.adapters.vault.forms import Met, VaultForms
from infra.app.log import log_of
from schemas.clear_rules import Declared
from schemas.identifiers import KINDS, normalise
from schemas.record import Identifier, Pending, Record, encode, event_key, uuid_text

if TYPE_CHECKING:
    from infra.adapters.vault.vault import PostgresVault
    from infra.app.session import Session

SOURCE: Final = "touchfold"
_TYPE: Final = "identity.aliased"
Normalise = Callable[[str, object], str | None]


def bring_rows(vault: "PostgresVault", dsn: str, vault_dsn: str, region: str) -> None:
    """Give the vault's rows of earlier builds this build's forms; values that name nobody stop linking. Repeatable."""
    with (
        closing(VaultForms(vault, vault_dsn)) as forms,
        closing(UnnamedTokens(dsn)) as unnamed,
        closing(AmbiguousTokens(dsn)) as ambiguous,
    ):
        if not forms.are_current():
            from infra.adapters.phones import Phones  # noqa: PLC0415  # phone numbers' tables take 0.1 s to import

            forms.bring(partial(normalise, phone=Phones(region)), unnamed.add, ambiguous.add)


def tell_log(session: "Session", vault: "PostgresVault", form: Normalise, version: int) -> None:
    """Tell the log which tokens are one by the newer forms, and identity what the definitions block. Repeatable.

    `version`: of the records to write.
    """
    with closing(VaultForms(vault, session.vault_dsn)) as forms:
        if met := forms.met():
            now = session.door_clock.now()
            log_of(session).append([_alias(each, vault.hash_key, now, version) for each in met])
            forms.told(met)
    with closing(PostgresSources(session.dsn)) as sources:
        block_defined(session, vault, form, sources.declared())


def block_defined(session: "Session", vault: "PostgresVault", form: Normalise, declared: Declared) -> int:
    """Tokens made before their value was blocked by definition link nothing from now on; returns how many changed."""
    kinds = {
        token: kind
        for value, of in declared.blocked
        for kind in of or KINDS
        for spelling in _spellings(kind, value, form)
        if (token := vault.find(kind, spelling)) is not None
    }
    with closing(UnnamedTokens(session.dsn)) as unnamed:
        return unnamed.replace_defined(kinds)


def _spellings(kind: str, value: str, form: Normalise) -> Iterable[str]:
    text = value.strip()
    return {found for each in (text, text.lower(), text.upper()) if (found := form(kind, each)) is not None}


def _alias(met: Met, secret: bytes, at: datetime, version: int) -> Pending:
    """An event that joins two tokens, as the person's own alias would. Told twice, it counts once."""
    tokens = sorted((met.token, met.other))
    told = b"".join(tokens)
    record = Record(
        v=version,
        id=uuid_text(event_key(secret, SOURCE, f"forms-{told.hex()}")),
        type=_TYPE,
        source=SOURCE,
        ids=[Identifier(met.kind, token.hex()) for token in tokens],
        route_key=tokens[0].hex(),
        occurred_at=at,
        received_at=at,
        known_at=at,
        digest=blake2b(told, digest_size=16).hexdigest(),
    )
    return Pending(tokens[0], encode(record))
