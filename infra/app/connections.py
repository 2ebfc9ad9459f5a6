"""How many connections each process may have, and so how many the embedded server must allow.

docs/decisions/0014-connections.md shows these numbers; a test compares them.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from infra.adapters.postgres.connection_pool import Limits, pool_of


class Share(NamedTuple):
    """Per process. `dedicated`: its own sessions; `sql`: concurrent statements, each with its own process."""

    main: Limits
    vault: Limits
    dedicated: int
    sql: int = 0

    @property
    def most(self) -> int:
        return self.main.size + self.vault.size + self.dedicated + self.sql


# Concurrent threads: of the API 6 that read, 2 that are slow, accept, commit, audit, lease, 4 that fetch the log.
SHARES: Final[Mapping[str, Share]] = {
    "http": Share(Limits(8, 3), Limits(4, 2), dedicated=1, sql=2),  # dedicated: the feed's bell
    "ui": Share(Limits(8, 3), Limits(4, 2), dedicated=1, sql=6),
    "worker": Share(Limits(6, 3), Limits(4, 2), dedicated=3),  # the store, who builds, its gate
    "archive": Share(Limits(4, 2), Limits(3, 2), dedicated=1),  # its turns
    "publish": Share(Limits(4, 2), Limits(3, 2), dedicated=2),  # the claim, the bell
    "backup": Share(Limits(3, 2), Limits(3, 2), dedicated=1),  # dedicated: its replication slot
    "inbox": Share(Limits(4, 2), Limits(3, 2), dedicated=0),
    "up": Share(Limits(3, 2), Limits(3, 2), dedicated=0),  # the supervisor, for its start
    "command": Share(Limits(4, 2), Limits(4, 2), dedicated=3, sql=1),
}
COMMANDS: Final = 4  # at the same time, each with its most connections; 24 if each opens one or two as most do
SUPERUSER: Final = 3  # superuser_reserved_connections


def embedded_connections(doors: int) -> int:
    """max_connections of the server in the data folder when `doors` HTTP processes run."""
    running = ["up", "ui", "worker", "archive", "backup", *["http"] * doors]
    return most_of(running) + COMMANDS * SHARES["command"].most + SUPERUSER


def most_of(processes: Sequence[str]) -> int:
    """The most connections these processes can open."""
    return sum(SHARES[process].most for process in processes)


def take_share(role: str, dsn: str, vault_dsn: str) -> None:
    """Limit this process's pools by its role; any name not in SHARES counts as a command."""
    share = SHARES.get(role, SHARES["command"])
    pool_of(dsn).limit(share.main, "main", f"touchfold {role} pool")
    pool_of(vault_dsn).limit(share.vault, "vault", f"touchfold {role} vault pool")
