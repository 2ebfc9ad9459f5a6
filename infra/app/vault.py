"""The vault of a session."""

from infra.adapters.postgres.erased_tokens import ErasedTokens
from infra.adapters.vault.master_key import master_key
from infra.adapters.vault.proof import vault_is_new
from infra.adapters.vault.vault import PostgresVault
from infra.app.session import Session
from infra.app.settings import Settings


def open_vault(settings: Settings, dsn: str, vault_dsn: str) -> PostgresVault:
    """The vault under this deployment's master key; a new key is only made for a new vault."""
    configured = settings.master_key.get_secret_value() if settings.master_key else None
    key = master_key(settings.data, configured, lambda: vault_is_new(vault_dsn))
    return PostgresVault(vault_dsn, key, erased=ErasedTokens(dsn))


def vault_of(session: Session) -> PostgresVault:
    """The session's one vault; any thread. Call `hold_lease` before making tokens."""
    return session.resources.once("vault", lambda: open_vault(session.settings, session.dsn, session.vault_dsn))
