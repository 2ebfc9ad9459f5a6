"""Connection strings, with and without their secrets."""

from typing import Final

from psycopg2.extensions import make_dsn, parse_dsn

_SECRET: Final = frozenset({"password", "sslpassword"})


def without_secrets(dsn: str) -> str:
    """A connection string that is safe to show."""
    return str(make_dsn(**{word: value for word, value in parse_dsn(dsn).items() if word not in _SECRET}))


def with_secrets_of(dsn: str, given: str) -> str:
    """`dsn` with the secrets of `given`."""
    parts = parse_dsn(given)
    return str(make_dsn(dsn, **{word: parts[word] for word in _SECRET if word in parts}))


def with_password(dsn: str, password: str) -> str:
    return str(make_dsn(dsn, password=password))
