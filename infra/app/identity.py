"""The rules of identity in force in a database."""

from contextlib import closing

from infra.adapters.postgres.database import Database
from infra.adapters.postgres.identity_rules import read_rules
from schemas.identity_rules import IdentityRules


def rules_in(dsn: str) -> IdentityRules:
    """The rules in force, read once: a process that resolves identity keeps them until it ends."""
    with closing(Database(dsn, "touchfold rules")) as database:
        return read_rules(database)
