"""The account that the embedded server runs under when it is started by root."""

import contextlib
import os
import pwd
import shutil
from pathlib import Path

from schemas.errors import ServiceFailed


def server_account() -> pwd.struct_passwd | None:
    """The account the server runs as: no special one unless we are root, which PostgreSQL refuses."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise ServiceFailed("run as an ordinary user: PostgreSQL refuses root, and there is no account nobody to use")


def as_account(
    command: list[str],
    account: pwd.struct_passwd | None,
    paths: list[Path],
    *,
    dies_with_parent: bool = False,
) -> list[str]:
    """A command that runs under an account and can reach `paths`. Raises ServiceFailed without setpriv."""
    setpriv = shutil.which("setpriv")
    if account is None:
        return [setpriv, "--pdeathsig", "INT", *command] if dies_with_parent and setpriv else command
    if setpriv is None:
        raise ServiceFailed("setpriv (package util-linux) is missing: install it, or run as an ordinary user")
    options = [f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
    if not all(_reachable(path) for path in [*paths, Path(command[0])]):
        # Inside a folder closed to others (such as /root): grant the right to pass through, and nothing else.
        options += ["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"]
    if dies_with_parent:
        options += ["--pdeathsig", "INT"]
    return [setpriv, *options, *command]


def _reachable(path: Path) -> bool:
    return all(parent.stat().st_mode & 0o001 for parent in path.resolve().parents)
