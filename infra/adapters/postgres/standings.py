"""Who owns which identifier, and every profile's stage and risk, in full: for scoring against a known truth."""

from collections.abc import Collection

from infra.adapters.postgres.database import Database


def owners(database: Database) -> dict[bytes, bytes]:
    """The profile of each identifier's token. Shared identifiers are left out."""
    with database.reading() as cursor:
        cursor.execute("select token, profile_id from tokens where profile_id is not null and not hub")
        return {bytes(token): bytes(profile) for token, profile in cursor.fetchall()}


def standings(database: Database, revision: int) -> dict[bytes, tuple[str, str]]:
    """By profile: lifecycle stage and risk."""
    with database.reading() as cursor:
        cursor.execute(f"select profile_id, lifecycle, risk from profiles_r{int(revision)}")
        return {bytes(profile): (stage, risk) for profile, stage, risk in cursor.fetchall()}


def places_of(database: Database, profiles: Collection[bytes]) -> dict[tuple[int, int], bytes]:
    """(partition, offset) of some profiles' applied events, each with its profile."""
    found: dict[tuple[int, int], bytes] = {}
    with database.reading() as cursor:
        cursor.execute(
            'select r.partition, r."offset", e.profile_id from register r join evidence e using (signature)'
            " where r.verdict = 0 and e.profile_id is not null"
        )
        for partition, offset, profile in cursor.fetchall():
            if bytes(profile) in profiles:
                found[partition, offset] = bytes(profile)
    return found
