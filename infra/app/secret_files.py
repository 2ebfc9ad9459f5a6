"""Settings read from a file: `TOUCHFOLD_<KEY>_FILE`, the way orchestrators mount secrets."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from schemas.errors import Problem, SettingsInvalid

SECRETS: Final = ("database", "vault", "kafka_password", "master_key", "master_key_next", "backup_key")
FILE_FIELDS: Final = {f"{field}_file": field for field in SECRETS}
_MOST: Final = 65_536  # bytes; a connection string has a few hundred

Found = Mapping[str, tuple[Any, str]]  # field -> (value, the name it was given under)


def with_files_read(found: Found) -> dict[str, tuple[Any, str]]:
    """One source of settings (environment or file) with each `…_file` replaced by the file's content, trimmed.

    Raises SettingsInvalid if both are given or the file holds no value. Never shows what a file holds.
    """
    read = {field: given for field, given in found.items() if field not in FILE_FIELDS}
    for field, (path, origin) in found.items():
        if field not in FILE_FIELDS:
            continue
        secret = FILE_FIELDS[field]
        if secret in read:
            raise _bad(origin, f"and {read[secret][1]} are both given: remove one of them")
        read[secret] = (_content(path, origin), origin)
    return read


def _content(path: object, origin: str) -> str:
    if not isinstance(path, str):
        raise _bad(origin, "must be text in quotes: the path of a file")
    try:
        with Path(path).expanduser().open("rb") as file:
            text = file.read(_MOST + 1).decode().strip()
    except OSError as err:
        raise _bad(origin, f"= {path} cannot be read ({err.strerror}): create the file and let us read it") from err
    except UnicodeDecodeError:
        raise _bad(origin, f"= {path} is not UTF-8 text: write the value into it as text") from None
    if not text:
        raise _bad(origin, f"= {path} is empty: write the value into it")
    if len(text) > _MOST or len(text.splitlines()) > 1:
        raise _bad(origin, f"= {path} has more than one line: it must contain only the value")
    return text


def _bad(origin: str, reason: str) -> SettingsInvalid:
    return SettingsInvalid(f"{origin} {reason}", [Problem(origin, reason)])
